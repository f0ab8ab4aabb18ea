"""The template beside its peers: the same photographs, network, weights, batch and learning rate, 10 epochs each.

python benchmarks/peers.py --data-dir PHOTOS [--seeds 3] [--slow-seeds 1] [--json FILE] [--picture FILE] [--only ours …]

`--data-dir` holds train/ and val/. Every peer trains a new last layer on a resnet18 with ImageNet weights and validates
after each epoch, on the same pictures. Each run is a process of its own; the peers take turns, seed after seed, so that
a slow minute of the machine hits all of them; the two slow ones, which take as long as all others together, run with
`--slow-seeds` of the seeds only. Times are from the first picture to the end of the last validation;
imports, downloads and building the network are start-up, given apart. Memory is that of the process and its workers
together, every shared page counted once (PSS).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "template"))

EPOCHS, BATCH, LR, SIZE, WORKERS = 10, 32, 3e-3, 224, 2
SLOW = ("original", "raw_pytorch")
Curve = list[tuple[float, float]]  # seconds since the first picture, validation accuracy from 0 to 1


def same_images(data_dir: Path, train_transform: Callable, val_transform: Callable) -> tuple:
    """Return torchvision's ImageFolder of the images that the template trains with and validates on.

    `main` has looked up which, so that no peer has to import the template.
    """
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

    chosen = set(Path(os.environ["PEERS_VAL"]).read_text(encoding="utf-8").splitlines())
    val = ImageFolder(data_dir / "val", val_transform)
    names = [Path(path).relative_to(data_dir).as_posix() for path, _ in val.samples]
    return ImageFolder(data_dir / "train", train_transform), Subset(
        val, [i for i, name in enumerate(names) if name in chosen]
    )


def tutorial_transforms() -> tuple[Callable, Callable]:
    """Return the transforms of torchvision's tutorials."""
    from torchvision import transforms as t

    last = [t.ToTensor(), t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    train = t.Compose([t.RandomResizedCrop(SIZE), t.RandomHorizontalFlip(), *last])
    return train, t.Compose([t.Resize(256), t.CenterCrop(SIZE), *last])


def original_augmenter():
    """Return augmenters as the original has them: two affine steps, some blur, colours."""
    import imgaug.augmenters as iaa

    return iaa.Sequential(
        [
            iaa.Fliplr(0.5),
            iaa.Affine(rotate=(-20, 20), mode="reflect"),
            iaa.Affine(scale=(0.85, 1.15), shear=(-6, 6), mode="reflect"),
            iaa.Sometimes(0.25, iaa.GaussianBlur((0, 1.0))),
            iaa.Multiply((0.8, 1.2)),
            iaa.LinearContrast((0.8, 1.25)),
        ]
    )


def original_transforms() -> tuple[Callable, Callable]:
    """Return the original's transforms: squash, then imgaug; with the normalization that it forgot."""
    import numpy as np
    from torchvision import transforms as t

    augmenter = original_augmenter()
    last = [t.ToTensor(), t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    squash = t.Resize((SIZE, SIZE))
    augment = t.Lambda(lambda picture: augmenter(image=np.asarray(picture)).copy())
    return t.Compose([squash, augment, *last]), t.Compose([squash, *last])


def frozen_resnet18(n_classes: int, keep_head: bool = False):
    """Return torchvision's network with a new last layer; nothing else has a gradient."""
    import torch
    from torchvision.models import ResNet18_Weights, resnet18

    network = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1).requires_grad_(False)
    if not keep_head:
        network.fc = torch.nn.Linear(512, n_classes)
    return network


def loop(
    data_dir: Path, transforms: tuple, workers: int, tuned: bool, begin: Callable[[], None]
) -> Iterator[float]:
    """Train in a bare PyTorch loop; tuned: eval mode, no gradient below the head, bfloat16, channels_last."""
    import torch
    from torch.utils.data import DataLoader

    train, val = same_images(data_dir, *transforms)
    options = {"batch_size": BATCH, "num_workers": workers, "persistent_workers": tuned}
    train_dl, val_dl = DataLoader(train, shuffle=True, **options), DataLoader(val, **options)
    network = frozen_resnet18(len(train.classes))
    if tuned:
        network = network.to(memory_format=torch.channels_last)
    head, optimizer = network.fc, torch.optim.Adam(network.fc.parameters(), lr=LR)
    if tuned:
        network.fc = torch.nn.Identity()
        network.eval()

    def forward(images: torch.Tensor) -> torch.Tensor:
        if not tuned:
            return network(images)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = network(images.contiguous(memory_format=torch.channels_last))
        return head(features.float())

    begin()
    for _ in range(EPOCHS):
        if not tuned:
            network.train()
        for images, labels in train_dl:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(forward(images), labels).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = sum((forward(images).argmax(1) == labels).sum().item() for images, labels in val_dl)
        yield right / len(val)


def original(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[float]:
    """Train as the original: 4 workers, float32, the frozen network in train mode."""
    yield from loop(data_dir, original_transforms(), 4, tuned=False, begin=begin)


def raw_pytorch(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[float]:
    """Train in the loop of a good tutorial."""
    yield from loop(data_dir, tutorial_transforms(), WORKERS, tuned=False, begin=begin)


def raw_tuned(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[float]:
    """Train in the same loop with all that PyTorch offers for speed."""
    yield from loop(data_dir, tutorial_transforms(), WORKERS, tuned=True, begin=begin)


def lightning(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[float]:
    """Lightning as its guide to transfer learning has it, in bfloat16."""
    import logging

    import torch
    from lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train, val = same_images(data_dir, *tutorial_transforms())
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = frozen_resnet18(2).to(memory_format=torch.channels_last)
            self.backbone.fc = torch.nn.Identity()
            self.head, self.accuracies = torch.nn.Linear(512, len(train.classes)), []

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.backbone.eval()
            with torch.no_grad():
                features = self.backbone(images.contiguous(memory_format=torch.channels_last))
            return self.head(features)

        def training_step(self, batch: tuple, _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: tuple, _: int) -> None:
            right = (self(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("val_acc", right, batch_size=len(batch[1]))

        def on_validation_epoch_end(self) -> None:
            self.accuracies.append((time.perf_counter(), self.trainer.callback_metrics["val_acc"].item()))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.head.parameters(), lr=LR)

    module = Module()
    trainer = Trainer(
        max_epochs=EPOCHS,
        precision="bf16-mixed",
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    begin()
    trainer.fit(module, DataLoader(train, shuffle=True, **options), DataLoader(val, **options))
    yield from module.accuracies


def ignite(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[float]:
    """Ignite: an engine to train, one to evaluate after each epoch, its accuracy; in bfloat16."""
    import torch
    from ignite.engine import Engine, Events
    from ignite.metrics import Accuracy
    from torch.utils.data import DataLoader

    train, val = same_images(data_dir, *tutorial_transforms())
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    val_dl = DataLoader(val, **options)
    backbone = frozen_resnet18(2).to(memory_format=torch.channels_last).eval()
    backbone.fc = torch.nn.Identity()
    head = torch.nn.Linear(512, len(train.classes))
    optimizer = torch.optim.Adam(head.parameters(), lr=LR)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = backbone(images.contiguous(memory_format=torch.channels_last))
        return head(features.float())

    def step(_: Engine, batch: tuple) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    def look(_: Engine, batch: tuple) -> tuple:
        with torch.no_grad():
            return forward(batch[0]), batch[1]

    trainer, evaluator, found = Engine(step), Engine(look), []
    Accuracy().attach(evaluator, "acc")

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        found.append((time.perf_counter(), evaluator.run(val_dl).metrics["acc"]))

    begin()
    trainer.run(DataLoader(train, shuffle=True, **options), max_epochs=EPOCHS)
    yield from found


def timm(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[float]:
    """Train as timm's script: its network, transforms, loader, optimizer and meters."""
    import timm
    import torch
    from timm.data import create_loader, create_transform
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter, accuracy

    train, val = same_images(data_dir, create_transform(SIZE, is_training=True), create_transform(SIZE))
    network = timm.create_model("resnet18", num_classes=1000)
    # timm names them as torchvision does
    network.load_state_dict(frozen_resnet18(1000, keep_head=True).state_dict())
    network.reset_classifier(len(train.classes))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    network = network.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network.fc, opt="adam", lr=LR)
    shape = {
        "input_size": (3, SIZE, SIZE),
        "batch_size": BATCH,
        "num_workers": WORKERS,
        "use_prefetcher": False,
    }
    train_dl, val_dl = (
        create_loader(train, is_training=True, color_jitter=0.4, **shape),
        create_loader(val, **shape),
    )
    begin()
    for _ in range(EPOCHS):
        network.train()
        for images, labels in train_dl:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(
                    network(images.contiguous(memory_format=torch.channels_last)), labels
                )
            loss.backward()
            optimizer.step()
        network.eval()
        meter = AverageMeter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for images, labels in val_dl:
                (top1,) = accuracy(network(images.contiguous(memory_format=torch.channels_last)), labels)
                meter.update(top1.item(), len(labels))
        yield meter.avg / 100


def template(
    data_dir: Path, seed: int, begin: Callable[[], None], **options
) -> Iterator[tuple[float, float]]:
    """Train by the template's main() with its defaults, in an empty project."""
    import csv

    from poutyne import Model

    import main as train
    from config import Config
    from evaluation import results as report
    from Project import Project
    from training import feature_cache as features

    ends = []
    keep, fit = features.cache_features, Model.fit_generator

    def kept(*args):
        begin()
        return keep(*args)

    def fitted(*args, **keywords):
        begin()
        result = fit(*args, **keywords)
        ends.append(time.perf_counter())
        return result

    features.cache_features, Model.fit_generator, report.write_results = kept, fitted, lambda *_: None
    with tempfile.TemporaryDirectory() as folder:
        # The patience of all peers: none. Comet's offline archive and the report are no part of the comparison.
        config = Config(
            data_dir=data_dir, epochs=EPOCHS, patience=EPOCHS, seed=seed, trackers=("none",), **options
        )
        run = train.main(config, Project(Path(folder)))
        with open(run.log, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    times = [float(row["time"]) for row in rows]
    for i, row in enumerate(rows):
        yield ends[0] - sum(times[i + 1 :]), float(row["val_acc"])


def ours(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[tuple[float, float]]:
    """Default options."""
    yield from template(data_dir, seed, begin)


def ours_plain(data_dir: Path, seed: int, begin: Callable[[], None]) -> Iterator[tuple[float, float]]:
    """Train with a new view of each image in each epoch, as all others do; bfloat16 as in the tuned peers."""
    yield from template(data_dir, seed, begin, cached_views=0)


PEERS = {
    peer.__name__: peer
    for peer in (original, raw_pytorch, raw_tuned, lightning, ignite, timm, ours, ours_plain)
}


def run_one(name: str, data_dir: Path, seed: int) -> None:
    """One training in this process; prints a line of JSON."""
    began = time.perf_counter()
    import random

    import numpy as np
    import torch

    for start in random.seed, np.random.seed, torch.manual_seed:
        start(seed)
    first: list[float] = []
    curve: Curve = []
    for found in PEERS[name](data_dir, seed, lambda: first.append(time.perf_counter())):
        at, acc = found if isinstance(found, tuple) else (time.perf_counter(), found)
        curve.append((at - first[0], acc))
    print("\n" + json.dumps({"startup": first[0] - began, "curve": curve}))


def watched(command: list[str]) -> tuple[str, float]:
    """Run a command; return its output, and the peak memory of it and its children in MB."""
    import psutil

    peak = 0.0
    with tempfile.TemporaryFile("w+") as out:
        process = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                family = [process, *process.children(recursive=True)]
                peak = max(peak, sum(one.memory_full_info().pss for one in family) / 2**20)
            except psutil.Error:
                pass  # one has just ended
            time.sleep(1)
        out.seek(0)
        text = out.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return text, peak


def summary(runs: list[dict]) -> dict:
    """Of all runs of one peer: medians of times, the mean of the best accuracies."""
    reached = [next((t for t, acc in run["curve"] if acc >= 0.9), None) for run in runs]
    return {
        "seconds": statistics.median(run["curve"][-1][0] for run in runs),
        "startup": statistics.median(run["startup"] for run in runs),
        "val_acc": statistics.mean(max(acc for _, acc in run["curve"]) for run in runs),
        "time_to_90": None if None in reached else statistics.median(reached),
        "peak_memory_mb": max(run["memory"] for run in runs),
        "seeds": len(runs),
    }


def draw(table: dict[str, dict], file: Path) -> None:
    """Seconds and accuracy of each peer, as bars."""
    from matplotlib.figure import Figure

    names = sorted(table, key=lambda name: table[name]["seconds"], reverse=True)
    figure = Figure(figsize=(7, 0.42 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        names,
        [table[name]["seconds"] for name in names],
        color=["tab:blue" if name.startswith("ours") else "0.7" for name in names],
    )
    axes.bar_label(
        bars, [f"{table[n]['seconds']:.0f} s, {100 * table[n]['val_acc']:.1f} %" for n in names], padding=4
    )
    axes.set(xlabel="seconds for 10 epochs; best validation accuracy", xlim=(0, 1.25 * bars[0].get_width()))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Run all peers in turns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slow-seeds", type=int, default=1, help="of " + " and ".join(SLOW))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    # a run of the first of --only
    parser.add_argument("--one", metavar="SEED", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    data_dir = options.data_dir.resolve()
    if not all((data_dir / part).is_dir() for part in ("train", "val")):
        sys.exit(f"error: {data_dir} holds no train/ and val/")
    if options.one is not None:
        return run_one(options.only[0], data_dir, options.one)

    from core.environment import versions
    from data import get_data
    from data.splits import get_file_names

    val_names = tempfile.NamedTemporaryFile("w", encoding="utf-8")  # noqa: SIM115
    val_names.write("\n".join(get_file_names(get_data("imagefolder", data_dir).val)))
    val_names.flush()
    os.environ["PEERS_VAL"] = val_names.name
    runs: dict[str, list[dict]] = {name: [] for name in options.only}
    begin = time.perf_counter()
    turns = [(seed, name) for seed in range(options.seeds) for name in options.only]
    for seed, name in turns:
        if name in SLOW and seed >= options.slow_seeds:
            continue
        text, memory = watched(
            [sys.executable, __file__, "--data-dir", str(data_dir), "--only", name, "--one", str(seed)]
        )
        run = {**json.loads(text.strip().splitlines()[-1]), "memory": memory}
        runs[name].append(run)
        t, best = run["curve"][-1][0], max(acc for _, acc in run["curve"])
        print(f"seed {seed}  {name:12} {t:6.1f} s  best {100 * best:5.1f} %", flush=True)
    table = {name: summary(found) for name, found in runs.items()}
    own = table.get("ours", {}).get("seconds")
    print(f"\n{'':12} seconds  of ours  start-up  best val_acc  to 90 %  memory")
    for name, row in table.items():
        # Of the runs of one seed, which were neighbours in time: the median of their ratios.
        pairs = zip(runs[name], runs.get("ours", runs[name]), strict=False)
        row["time_ratio"] = (
            statistics.median(a["curve"][-1][0] / b["curve"][-1][0] for a, b in pairs) if own else None
        )
        to_90 = f"{row['time_to_90']:.1f} s" if row["time_to_90"] is not None else "never"
        print(
            f"{name:12} {row['seconds']:7.1f}  {row['time_ratio'] or 0:6.1f}×  {row['startup']:6.1f} s  "
            f"{100 * row['val_acc']:10.1f} %  {to_90:>7}  {row['peak_memory_mb']:5.0f} MB"
        )
    print(f"all of it took {(time.perf_counter() - begin) / 60:.1f} min")
    if options.json:
        names = ("torch", "torchvision", "lightning", "pytorch-ignite", "timm", "poutyne", "imaug")
        found = {key: {name: row[key] for name, row in table.items()} for key in next(iter(table.values()))}
        found["versions"] = {"python": sys.version.split()[0], **versions(*names)}
        found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.picture:
        draw(table, options.picture)


if __name__ == "__main__":
    main()
