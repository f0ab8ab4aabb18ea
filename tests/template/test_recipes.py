"""Networks, freezing, optimizers, schedules, losses and metrics by name: each switch changes what it says."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchmetrics.functional.classification as reference
import torchvision
from poutyne import EarlyStopping, ReduceLROnPlateau
from torch import nn

from callbacks import get_callbacks
from callbacks.GradualUnfreezing import GradualUnfreezing
from callbacks.LRSchedule import LRSchedule
from config import Config, parse_config
from core.errors import UserError
from core.task import Task
from data import DatasetSplits
from losses import LOSSES, check_loss, get_loss
from metrics import METRICS
from models import MODELS, MyCNN, get_model, native_image_size
from models.classifier import load_weights
from models.pretrained import imagenet_weights, remove_head
from Project import Run
from training.optimizers import OPTIMIZERS, SCHEDULES, default_lr, make_optimizer
from training.resolve import resolve


def parameters(network: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in network.parameters())


# Networks


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "squeezenet1_1", "densenet121", "shufflenet_v2_x0_5", "vit_b_32"]
)
def test_networks_of_torchvision_by_name(name):
    size, fixed = native_image_size(name)
    assert (size, fixed) == (224, name.startswith("vit"))
    network = get_model(name, 7, "none")
    images = torch.randint(0, 256, (2, 3, size if fixed else 64, size if fixed else 64), dtype=torch.uint8)
    assert network.train()(images).shape == (2, 7)
    network.freeze().train()
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert not any(module.training for module in network.backbone.modules())
    assert network(images).shape == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_further_heads_are_the_same_with_weights_and_without(name, tmp_path, monkeypatch):
    published = torchvision.models.get_model(name, init_weights=False, transform_input=True)
    folder = tmp_path / "torch_home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(published.state_dict(), folder / Path(imagenet_weights(name).url).name)
    network = get_model(name, 3, "imagenet")
    assert network.frozen
    again = get_model(name, 3, "none")
    again.load_state_dict(network.state_dict())
    images = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))
        features = published.eval()(network.normalize(images))
        classes = network.backbone(network.normalize(images)) @ published.fc.weight.T + published.fc.bias
    assert torch.allclose(classes, features, atol=1e-4)


def test_sizes_and_normalisation_come_with_the_weights():
    assert native_image_size("efficientnet_b3") == (300, False)
    assert native_image_size("my_cnn") == (None, False)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))
    assert remove_head(backbone) == 4
    assert backbone(torch.zeros(2, 3, 8, 8)).shape == (2, 4)


def test_timm_where_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        get_model("timm/resnet10t", 3, "none")
    monkeypatch.delitem(sys.modules, "timm")
    pytest.importorskip("timm")
    network = get_model("timm/resnet10t", 3, "none")
    assert network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(UserError, match="no network 'resnet81t'"):
        get_model("timm/resnet81t", 3, "none")
    for name in ("timm/resnet18.nonsense",):
        with pytest.raises(UserError):
            native_image_size(name)


# Weights


def test_weights_are_loaded_where_names_and_shapes_match(tmp_path, caplog):
    caplog.set_level("INFO")
    source = MyCNN(5, width=8)
    state = source.state_dict()
    changed = {**state, "backbone.3.0.weight": torch.zeros(1), "extra": torch.zeros(2)}
    del changed["backbone.0.0.weight"]
    torch.save(changed, tmp_path / "part.pt")
    network = MyCNN(2, width=8)
    assert load_weights(network, tmp_path / "part.pt") == ["backbone.0.0.weight", "backbone.3.0.weight"]
    assert torch.equal(network.backbone[1][0].weight, source.backbone[1][0].weight)
    file = tmp_path / "part.pt"
    counts, names = caplog.messages
    assert counts == f"{file}: {len(state) - 4} keys loaded, 4 skipped, 4 missing"
    skipped, missing = names.split("; ")
    assert skipped == "skipped: backbone.3.0.weight, extra, head.bias, head.weight"
    assert missing == "missing: backbone.0.0.weight, backbone.3.0.weight, head.weight, head.bias"
    torch.save(state, tmp_path / "all.pt")
    assert not load_weights(MyCNN(2, width=8), tmp_path / "all.pt")
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pt")  # as torch wrote it before version 0.4.1
    assert not load_weights(MyCNN(2, width=8), tmp_path / "old.pt")


def test_what_was_not_loaded_cannot_be_frozen(train, tmp_path, project):
    state = MyCNN(2, width=8).state_dict()
    del state["backbone.3.0.weight"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(UserError, match=r"--freeze all: backbone\.3\.0\.weight is not in .*part\.pt"):
        train(weights=str(tmp_path / "part.pt"), freeze="all")
    run = train(weights=str(tmp_path / "part.pt"), freeze=3, epochs=1)
    assert json.loads(run.config.read_text())["options"]["freeze"] == 3
    assert (
        json.loads(train(weights=str(tmp_path / "part.pt"), epochs=1).config.read_text())["options"]["freeze"]
        == "none"
    )


# How much trains


def test_stages_are_what_one_would_call_them():
    assert len(get_model("resnet18", 2, "none").stages()) == 5  # the stem and four layers
    assert len(get_model("my_cnn", 2, "none").stages()) == 4
    network = get_model("vit_b_32", 2, "none")
    assert len(network.stages()) > 10
    network.freeze(2)
    assert not network.backbone.class_token.requires_grad


@pytest.mark.parametrize("n", [0, 2, 5])
def test_so_many_stages_are_frozen_in_full(n):
    network = get_model("resnet18", 2, "none").freeze(n).train()
    children = dict(network.backbone.named_children())
    order = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    nn.functional.cross_entropy(network(images), torch.arange(4) % 2).backward()
    optimizer.step()
    after = network.state_dict()
    for i, names in enumerate(order):
        moved = [k for k in before if k.split(".")[1] in names and not torch.equal(before[k], after[k])]
        assert bool(moved) == (i >= n), names
        assert all(children[name].training == (i >= n) for name in names)
    with pytest.raises(UserError, match="5 stages"):
        network.freeze(6)


def test_gradual_unfreezing_with_rates_that_fall_towards_the_picture():
    network = MyCNN(2, width=8).freeze()
    optimizer = make_optimizer(Config(lr=0.26, unfreeze_epoch=3), network)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.26, *(0.26 / 100 / 2.6**i for i in range(4))])
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == parameters(network)
    plateau, stop = ReduceLROnPlateau(), EarlyStopping()
    callback = GradualUnfreezing(network, 3, plateau, stop)
    callback.model = plateau.model = SimpleNamespace(
        network=network, device=torch.device("cpu"), optimizer=optimizer
    )
    frozen = []
    for epoch in range(1, 8):
        callback.on_epoch_begin(epoch, {})
        frozen.append(network.n_frozen)
    assert frozen == [4, 4, 3, 2, 1, 0, 0]
    assert all(p.requires_grad for p in network.parameters())


def test_a_run_that_unfreezes_is_resumed_to_the_same_end(train, tmp_path, project):
    import main as main_script
    from models import MODELS

    torch.save(MODELS["my_cnn"](2).state_dict(), tmp_path / "weights.pt")
    options = {
        "weights": str(tmp_path / "weights.pt"),
        "unfreeze_epoch": 2,
        "epochs": 9,
        "patience": 4,
        "lr": 0.1,
    }
    whole = train(run_name="whole", **options)
    for epochs in (3, 7):
        part = train(run_name=f"part {epochs}", **{**options, "epochs": epochs})
        main_script.main(
            parse_config(["--resume", str(part.folder), "--epochs", "9", "--trackers", "none"]), project
        )
        ours, theirs = (torch.load(run.last, weights_only=True) for run in (part, whole))
        assert all(torch.equal(ours["network"][name], theirs["network"][name]) for name in theirs["network"])
        assert (ours["schedule"], ours["stop"]) == (theirs["schedule"], theirs["stop"])
    assert "lr_group_4" in whole.log.read_text().splitlines()[0]


def test_patience_and_plateau_start_anew_with_each_stage(train, tmp_path):
    """A stage that begins to train may raise the loss, which must not end the training or cut the learning rate."""
    torch.save(MODELS["my_cnn"](2).state_dict(), tmp_path / "weights.pt")
    run = train(weights=str(tmp_path / "weights.pt"), unfreeze_epoch=4, epochs=12, patience=3, lr=1e-12)
    rows = list(csv.DictReader(run.log.open()))
    rates = [float(row["lr_group_0"]) for row in rows]
    assert rates[:3] == pytest.approx([1e-12, 1e-12, 1e-13])  # nothing improves, and so it is cut
    assert rates[3:7] == pytest.approx([1e-12 / 30] * 4)  # a stage more in each of these epochs
    assert len(rows) == 10  # after the last stage the patience is what it was


@pytest.mark.parametrize(
    ("options", "n_images", "lr"),
    [
        ({"weights": "imagenet"}, 200, 3e-3),
        ({"weights": "imagenet"}, 6_400, 3e-3),
        ({"weights": "imagenet"}, 45_000, 4.3e-4),
        ({"weights": "imagenet", "optimizer": "sgd"}, 200, 3e-2),
        ({"weights": "imagenet", "freeze": "none"}, 200, 1e-4),
        ({"weights": "none", "freeze": "none"}, 200, 1e-3),
        ({"weights": "none", "freeze": "none"}, 90_000, 1e-3),
    ],
)
def test_the_learning_rate_where_none_is_given(options, n_images, lr):
    network = MyCNN(2, width=8)
    if options.get("freeze") != "none":
        network.freeze()
    assert default_lr(Config(**options), network, n_images) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("model", "weights", "own_size", "size"),
    [
        ("resnet18", "imagenet", 64, 224),  # features are worth most at the size that they were learned at
        ("resnet18", "none", 64, 64),
        ("resnet18", "none", 224, 224),
        ("efficientnet_b3", "imagenet", 64, 300),
        ("efficientnet_b3", "none", 224, 300),
        ("vit_b_16", "none", 64, 224),  # which takes no other
        ("my_cnn", "none", 28, 28),
    ],
)
def test_the_image_size_where_none_is_given(model, weights, own_size, size):
    dataset = [(None, 0)] * 9
    data = DatasetSplits(dataset, dataset, dataset, ["a", "b"], image_size=own_size)
    assert resolve(Config(model=model, weights=weights), data, MyCNN(2, width=8)).image_size == size


def test_freezing_that_makes_no_sense_is_refused(train):
    for options, word in (
        ({"freeze": "all"}, "without weights"),
        ({"unfreeze_epoch": 2}, "nothing is frozen"),
    ):
        with pytest.raises(UserError, match=word):
            train(**options)


# Optimizers and schedules


def test_optimizers_by_name(train):
    network = MyCNN(2, width=8)
    for name in OPTIMIZERS:
        optimizer = make_optimizer(Config(lr=0.1, optimizer=name, weight_decay=0.03), network)
        assert type(optimizer).__name__.lower() == name
        assert optimizer.param_groups[0]["weight_decay"] == 0.03
    with pytest.raises(UserError, match="did you mean 'adamw'"):
        make_optimizer(Config(lr=0.1, optimizer="adamww"), network)
    run = train(epochs=1, optimizer="sgd")
    assert json.loads(run.config.read_text())["options"]["lr"] == 0.01


def rates(name: str, steps: int = 60) -> list[float]:
    """The rate before each batch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    callback = LRSchedule(SCHEDULES[name])
    callback.model, callback.params = SimpleNamespace(optimizer=optimizer), {"epochs": 3, "steps": steps // 3}
    callback.on_train_begin({})
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        callback.on_train_batch_end(1, {})
    return found


def test_schedules_by_name():
    cosine = rates("cosine")
    assert cosine[0] == pytest.approx(0.01)
    assert cosine[3] == pytest.approx(1)
    assert cosine[3:] == sorted(cosine[3:], reverse=True)
    assert cosine[-1] < 0.01
    cycle = rates("one_cycle")
    assert max(cycle) == pytest.approx(1)
    assert 0.2 < cycle.index(max(cycle)) / 60 < 0.4
    assert cycle[0] == pytest.approx(0.04)
    steps = rates("step")
    assert [steps[0], steps[20], steps[40]] == pytest.approx([1, 0.1, 0.01])
    assert set(rates("constant")) == {1.0}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_goes_with_every_schedule(optimizer):
    for build in filter(None, SCHEDULES.values()):
        network = nn.Linear(1, 1)
        made = OPTIMIZERS[optimizer](network.parameters(), lr=0.1)
        schedule = build(made, 10)
        for _ in range(9):
            made.step()
            schedule.step()


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step"])
def test_a_schedule_goes_on_after_a_resume(train, project, monkeypatch, schedule):
    import main as main_script
    from callbacks import ProgressBar

    whole = train(run_name="whole", epochs=4, lr_schedule=schedule, patience=4)
    monkeypatch.setattr(ProgressBar, "on_epoch_begin", lambda self, *_: None)
    monkeypatch.setattr(ProgressBar, "on_train_batch_end", lambda self, *_: None)
    monkeypatch.setattr(ProgressBar, "on_valid_batch_end", lambda self, *_: None)

    def stop(self, epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "on_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train(run_name="stopped", epochs=4, lr_schedule=schedule, patience=4)
    monkeypatch.setattr(ProgressBar, "on_epoch_end", lambda self, *_: None)
    stopped = Run(project.checkpoint_dir / "stopped")
    main_script.main(parse_config(["--resume", str(stopped.folder), "--trackers", "none"]), project)
    ours, theirs = (torch.load(run.last, weights_only=True)["network"] for run in (stopped, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(UserError, match=f"{schedule} schedule was planned for 4 epochs"):
        parse_config(["--resume", str(stopped.folder), "--epochs", "9"])


def test_gradients_are_clipped_and_added_up(train, monkeypatch):
    norms, steps = [], []
    real = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        steps.append(1)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    train(epochs=1, batch_size=6)
    assert len(steps) == 4
    assert max(norms) > 0.011
    norms.clear()
    steps.clear()
    train(epochs=1, batch_size=6, grad_clip_norm=0.01, grad_accum_steps=2, run_name="clipped")
    assert norms == pytest.approx([0.01] * 2, rel=0.01)  # of the mean over both batches, not of a part of it


# Losses and metrics


def test_losses_by_name():
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 4), torch.randint(0, 4, (20,))
    log_p = logits.log_softmax(dim=1)
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    smooth = -(0.9 * own + 0.1 * log_p.mean(dim=1)).mean()
    assert get_loss("label_smoothing")(logits, labels).item() == pytest.approx(smooth.item(), abs=1e-6)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighted = -(own * weights[labels]).sum() / weights[labels].sum()
    assert get_loss("cross_entropy", weights)(logits, labels).item() == pytest.approx(
        weighted.item(), abs=1e-6
    )
    assert set(LOSSES) >= {"cross_entropy", "label_smoothing", "bce"}


def test_losses_that_do_not_suit_the_labels_are_refused(train, project):
    one, several = Task([*"abc"]), Task([*"abc"], multilabel=True)
    for name in LOSSES:
        suited, other = (several, one) if name == "bce" else (one, several)
        check_loss(name, suited)
        with pytest.raises(UserError, match=f"--loss {name} fails for multi.* classification .*try --loss"):
            check_loss(name, other)
    with pytest.raises(UserError, match="try --loss cross_entropy"):
        train(loss="bce")
    assert not project.checkpoint_dir.exists()


def test_metrics_by_name(train):
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 7), torch.randint(0, 7, (50,))
    expected = {
        "f1": reference.multiclass_f1_score(logits, labels, 7, average="macro"),
        "precision_weighted": reference.multiclass_precision(logits, labels, 7, average="weighted"),
        "recall": reference.multiclass_recall(logits, labels, 7, average="macro"),
        "auc": reference.multiclass_auroc(logits, labels, 7),
        "top5": (logits.topk(5).indices == labels[:, None]).any(dim=1).float().mean(),
    }
    for name, value in expected.items():
        metric = METRICS[name](Task([*"abcdefg"]))
        for part in (slice(0, 30), slice(30, 50)):
            metric.update(logits[part], labels[part])
        assert metric.compute().item() == pytest.approx(value.item(), abs=1e-6), name
    hot = torch.randint(0, 2, (50, 7))
    for name in set(METRICS) - {"top5"}:
        METRICS[name](Task([*"abcdefg"], multilabel=True)).update(logits, hot)
    run = train(epochs=1, metrics=("f1", "auc", "recall"))
    assert "val_auc" in run.log.read_text().splitlines()[0]
    with pytest.raises(UserError, match="more than 5 classes"):
        train(epochs=1, metrics=("top5",))


# Speed


def test_half_the_precision_where_the_device_is_fast_at_it(monkeypatch):
    from core.environment import use_bf16
    from training.preflight import check_options

    seen = []
    network = MyCNN(2, width=8).eval()
    network.backbone.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    plain = network(images)
    network.use_bf16(True)
    half = network.head(network.features(images, bf16=True).float())
    assert (half.dtype, torch.allclose(half, plain, atol=0.05)) == (torch.float32, True)
    assert torch.equal(network(images), plain)  # scores are computed in full precision
    network.train()(images)
    assert seen == [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]
    for fast in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
        cpu = torch.device("cpu")
        assert use_bf16("auto", True, cpu) == fast
        assert not use_bf16("auto", False, cpu)
        assert not use_bf16("off", True, cpu)
        if fast:
            assert use_bf16("on", False, cpu)
        else:
            with pytest.raises(UserError, match="--bf16"):
                use_bf16("on", False, cpu)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"--compile needs a C\+\+ compiler"):
        check_options(Config(compile=True, bf16="off"), torch.device("cpu"), ["comet"])


def test_callbacks_follow_the_options(tmp_path):
    network = MyCNN(2, width=8).freeze()

    def kinds(**options) -> list[str]:
        found = get_callbacks(Config(patience=10, **options), network, Run(tmp_path), [], None)
        return [type(callback).__name__ for callback in found]

    assert "ReduceLROnPlateau" in kinds()
    assert "LRSchedule" in kinds(lr_schedule="cosine")
    assert "ReduceLROnPlateau" not in kinds(lr_schedule="cosine")
    assert "GradualUnfreezing" in kinds(unfreeze_epoch=2)
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        kinds(lr_schedule="cosin")
