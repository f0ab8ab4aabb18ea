"""The mistakes that templates of this kind make, each as a change to the code that would make it again.

`python tests/mistakes.py` puts them back one by one, in copies of `template/`, and shows which test fails for each.
A row is one of the 22 lines of the list "what goes wrong in templates" that the template was made from; some of them
hold several mistakes, or one that can be made in several places.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from preloaded import Preloaded

TEMPLATE = Path(__file__).resolve().parents[1] / "template"


@dataclass(frozen=True)
class Mistake:
    """A mistake, and how to make it again.

    Attributes:
        row: number of the line that it belongs to.
        what: goes wrong.
        file: in `template/`.
        right, wrong: text in that file, which stands there once, and what takes its place.
        test: the tests that should notice, as pytest's `-k` takes them.
    """

    row: int
    what: str
    file: str
    right: str
    wrong: str
    test: str


MISTAKES = [
    Mistake(
        1,
        "plateau watches the loss with mode max",
        "callbacks/__init__.py",
        "plateau = ReduceLROnPlateau(monitor=MONITOR, mode=MODE",
        'plateau = ReduceLROnPlateau(monitor=MONITOR, mode="max"',
        "loss_that_falls",
    ),
    Mistake(
        2,
        "checkpoint watches accuracy, the others loss",
        "callbacks/__init__.py",
        "BestCheckpoint(run, network, monitor=MONITOR, mode=MODE)",
        'BestCheckpoint(run, network, monitor="val_acc", mode="max")',
        "best_is_what_all_three",
    ),
    Mistake(
        3,
        "early-stop patience equals the number of epochs",
        "training/resolve.py",
        "max(1, config.epochs // 2)",
        "config.epochs",
        "plateau_cuts_the_rate",
    ),
    Mistake(
        4,
        "test score from the last weights",
        "main.py",
        "        load_best(network, run)\n",
        "",
        "scores_are_those_of_the_best",
    ),
    Mistake(
        5,
        "frozen network in train mode",
        "models/classifier.py",
        "        if self.frozen:\n            self.backbone.eval()\n"
        "        for stage in self.stages()[: self.n_frozen]:\n            stage.eval()\n",
        "",
        "frozen_network_stays",
    ),
    Mistake(
        5,
        "frozen network with gradients",
        "models/classifier.py",
        "        self.backbone.requires_grad_(n == 0)",
        "",
        "frozen_network_stays",
    ),
    Mistake(
        6,
        "no ImageNet normalisation before a pretrained network",
        "models/classifier.py",
        "return (images / 255 - self.mean) / self.std",
        "return images / 255",
        "normalise_bytes",
    ),
    Mistake(
        7,
        "imgaug's random state copied into every worker",
        "data/transformation/ImgAugTransform.py",
        "        for part in self.parts:\n            part.random_state = rng\n",
        "",
        "any_augmenter_of_imgaug or every_view_differs or views_follow",
    ),
    Mistake(
        7,
        "imgaug's random state left to itself",
        "data/transformation/ImgAugTransform.py",
        "rng = FastRNG(torch.randint(2**63 - 1, ()).item())\n",
        "rng = imgaug.random.get_global_rng()\n",
        "every_view_differs or views_follow",
    ),
    Mistake(
        7,
        "epoch 2 identical to epoch 1",
        "data/loaders.py",
        "        self.epoch += 1\n",
        "",
        "every_view_differs",
    ),
    Mistake(
        7,
        "views that depend on the worker",
        "data/loaders.py",
        "with isolated_rng(view_seed):\n                views",
        "if True:\n                views",
        "views_follow_the_seed",
    ),
    Mistake(
        8,
        "unseeded random split",
        "data/splits.py",
        "torch.randperm(len(targets), generator=generator)",
        "torch.randperm(len(targets))",
        "val_is_split_in_two",
    ),
    Mistake(
        8,
        "a split that is not stratified",
        "data/splits.py",
        '    order = order[strata.ravel()[order].argsort(kind="stable")]',
        "    order = order[:]",
        "split_holds_each_item or val_is_split",
    ),
    Mistake(
        9,
        "class indices of val taken from val's own folders",
        "data/imagefolder.py",
        "folder.parent if val_dir else folder, classes)",
        "folder.parent if val_dir else folder, class_folders(folder))",
        "folders_that_will_not_do",
    ),
    Mistake(
        10,
        "weights downloaded at import",
        "models/resnet.py",
        "from models.classifier import Classifier\n",
        "import torchvision\n\nfrom models.classifier import Classifier\n\n"
        "try:\n"
        '    backbone = torchvision.models.resnet18(weights="IMAGENET1K_V1")\n'
        "except Exception:\n"
        "    backbone = None\n",
        "importing_does_nothing",
    ),
    Mistake(
        10,
        "one module shared by all calls",
        "models/resnet.py",
        "def resnet18(n_classes",
        "import functools\n\nimport torchvision\nfrom torch import nn\n\n\n"
        "@functools.cache\ndef shared():\n    return torchvision.models.resnet18()\n\n\n"
        "def resnet18(n_classes: int, pretrained: bool = True) -> Classifier:\n"
        "    network = shared()\n    network.fc = nn.Identity()\n"
        "    network = Classifier(network, 512, n_classes)\n"
        "    return network.freeze() if pretrained else network\n\n\ndef resnet18_before(n_classes",
        "network_of_its_own",
    ),
    Mistake(
        11,
        "number of classes in the code",
        "models/classifier.py",
        "self.head = nn.Linear(n_features, n_classes)",
        "self.head = nn.Linear(n_features, 2)",
        "any_number_of_classes or as_many_outputs",
    ),
    Mistake(
        11,
        "feature width in the code",
        "models/classifier.py",
        "self.head = nn.Linear(n_features, n_classes)",
        "self.head = nn.Linear(512, n_classes)",
        "as_many_outputs",
    ),
    Mistake(
        11,
        "workspace in the code",
        "callbacks/CometCallback.py",
        "settings = {\n",
        'settings = {"workspace": "somebody",\n',
        "nothing_personal",
    ),
    Mistake(
        12,
        "Project(base_dir=…) ignored by the other paths",
        "Project.py",
        'self.checkpoint_dir = self.base_dir / "checkpoint"',
        'self.checkpoint_dir = BASE_DIR / "checkpoint"',
        "paths_follow_base_dir",
    ),
    Mistake(
        13,
        "an empty dataset/ is created",
        "Project.py",
        '        self.data_dir = self.base_dir / "dataset"',
        '        self.data_dir = self.base_dir / "dataset"\n        self.data_dir.mkdir(parents=True, exist_ok=True)',
        "paths_follow_base_dir",
    ),
    Mistake(
        13,
        "a bare FileNotFoundError",
        "data/imagefolder.py",
        "        if not folder.is_dir():\n            raise UserError(",
        "        if not folder.is_dir():\n            raise FileNotFoundError(",
        "wrong_options or folders_that_will_not_do",
    ),
    Mistake(
        14,
        "a tracker that needs an account to start",
        "callbacks/CometCallback.py",
        "        if comet_ml.config.get_api_key(",
        "        if not comet_ml.config.get_api_key(None, comet_ml.get_config()):\n"
        '            raise ValueError("sign up first")\n'
        "        if comet_ml.config.get_api_key(",
        "without_a_key",
    ),
    Mistake(
        14,
        "a tracker that has no offline mode",
        "callbacks/CometCallback.py",
        "comet_ml.start(online=False,",
        "comet_ml.start(online=True,",
        "without_a_key",
    ),
    Mistake(
        15,
        "metrics logged without an epoch",
        "callbacks/CometCallback.py",
        "self.experiment.log_metrics(metrics, epoch=epoch_number, step=epoch_number)",
        "self.experiment.log_metrics(metrics)",
        "without_a_key",
    ),
    Mistake(
        15,
        "the tracker run never ended",
        "callbacks/__init__.py",
        "        for tracker in trackers:\n            tracker.end()\n",
        "        pass\n",
        "ended_however",
    ),
    Mistake(
        15,
        "resume starts a second tracker run",
        "callbacks/CometCallback.py",
        '"experiment_key": key,\n',
        "",
        "goes_on_with_the_same_experiment",
    ),
    Mistake(
        16,
        "pictures block the script",
        "evaluation/plots.py",
        '        figure.savefig(file, bbox_inches="tight")\n',
        '        figure.savefig(file, bbox_inches="tight")\n'
        "        import matplotlib.pyplot\n\n        matplotlib.pyplot.show()\n",
        "show_dl or show_dataset",
    ),
    Mistake(
        17,
        "show_dataset fails below 6 images",
        "utils.py",
        "min(n, len(dataset))",
        "max(n, 6)",
        "show_dataset",
    ),
    Mistake(
        17,
        "no class names in pictures",
        "evaluation/plots.py",
        "str(classes[i] if classes else i)",
        "str(i)",
        "show_dataset",
    ),
    Mistake(
        18,
        "runs without classes",
        "core/task.py",
        'return {"classes.json": self.classes}\n',
        "return {}\n",
        "predict_needs_the_run_folder_alone or leaves_a_folder",
    ),
    Mistake(
        18,
        "runs without config",
        "config.py",
        '{"config.json": to_json(replace(config, run_name=name)), **files}',
        "files",
        "predict_needs_the_run_folder_alone or leaves_a_folder",
    ),
    Mistake(
        18,
        "checkpoints without preprocessing",
        "models/classifier.py",
        'self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))',
        'self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)',
        "normalise_bytes",
    ),
    Mistake(
        19,
        "plateau lost on resume",
        "callbacks/ResumeCheckpoint.py",
        '        self.schedule.scheduler.load_state_dict(self.state["schedule"])\n',
        "",
        "resumed_run_equals",
    ),
    Mistake(
        19,
        "best-so-far lost on resume",
        "callbacks/ResumeCheckpoint.py",
        '        self.best.current_best = self.state["best"]\n',
        "",
        "resumed_run_equals",
    ),
    Mistake(
        19,
        "early-stop counter lost on resume",
        "callbacks/ResumeCheckpoint.py",
        '        self.stop.best = self.state["stop"]["best"]\n        self.stop.wait = self.state["stop"]["wait"]\n',
        "",
        "resumed_run_equals",
    ),
    Mistake(
        19,
        "optimizer lost on resume",
        "callbacks/ResumeCheckpoint.py",
        'self.model.optimizer.load_state_dict(self.state["optimizer"])',
        "pass",
        "resumed_run_equals",
    ),
    Mistake(
        19,
        "random states lost on resume",
        "callbacks/ResumeCheckpoint.py",
        "SeedSequence([self.seed, epoch_number, rank()])",
        "SeedSequence()",
        "resumed_run_equals",
    ),
    Mistake(
        20,
        "validation shares training's transform",
        "data/loaders.py",
        "make_loader(data.val, val_transform, data.classes",
        "make_loader(data.val, train_transform, data.classes",
        "validation_is_not_augmented",
    ),
    Mistake(
        21,
        "aspect ratio squashed",
        "data/transformation/__init__.py",
        "v2.Resize(short_side(image_size))",
        "v2.Resize((short_side(image_size), short_side(image_size)))",
        "aspect_ratio",
    ),
    Mistake(
        21,
        "40 % of images upside-down",
        "data/transformation/__init__.py",
        "        iaa.Multiply((0.8, 1.2)),  # brightness\n",
        "        iaa.Flipud(0.4),\n",
        "upside_down",
    ),
    Mistake(
        22,
        "one augmenter version pinned to a dead library",
        "requirements.txt",
        "imaug>=0.4.3",
        "imgaug==0.4.0",
        "requirements_can_be_installed",
    ),
]


def caught(mistake: Mistake | None, tests: str, python: str | Path = sys.executable) -> tuple[bool, str]:
    """Copies the template, makes the mistake, runs the tests.

    Args:
        mistake: None for the template as it is.
        tests: as pytest's `-k` takes them.
        python: that runs them.

    Returns:
        Whether a test failed (not: could not be run), and the end of pytest's output.
    """
    with tempfile.TemporaryDirectory() as folder:
        ignore = shutil.ignore_patterns("checkpoint", "dataset", ".*", "__pycache__")
        copy = Path(shutil.copytree(TEMPLATE, Path(folder) / "copy", ignore=ignore))
        if mistake:
            file = copy / mistake.file
            text = file.read_text(encoding="utf-8")
            if text.count(mistake.right) != 1:
                raise ValueError(f"{mistake.file} holds {text.count(mistake.right)} times: {mistake.right!r}")
            file.write_text(text.replace(mistake.right, mistake.wrong), encoding="utf-8")
        words = [
            python,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-c",
            "pyproject.toml",
            "-k",
            tests,
        ]
        words += ["tests", Path(__file__).with_name("template")]
        environment = {**os.environ, "TEMPLATE": str(copy)}
        done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
        end = "\n".join(done.stdout.strip().splitlines()[-3:])
        return done.returncode == 1 and " failed" in end, end


def main() -> int:
    """Makes each mistake again; returns how many no test noticed."""
    with Preloaded() as python, ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(lambda mistake: caught(mistake, mistake.test, python.bin / "python"), MISTAKES)
        )
    for mistake, (noticed, end) in zip(MISTAKES, outcomes, strict=True):
        print(f"{'noticed' if noticed else 'MISSED '}  {mistake.what}\n         {end.splitlines()[0]}")
    missed = sum(not noticed for noticed, _ in outcomes)
    print(f"{len(MISTAKES) - missed} of {len(MISTAKES)} mistakes noticed")
    return missed


if __name__ == "__main__":
    sys.exit(main() > 0)
