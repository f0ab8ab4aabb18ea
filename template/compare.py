"""Compares settings over several seeds, or folds of the training data, on the same test pictures: does B beat A?

python compare.py lr=0.001 lr=0.003                           A and B, 5 seeds each
python compare.py model=my_cnn "model=resnet18 weights=none" --folds 5
python compare.py "" mixup=mixup --common "data-dir=~/flowers epochs=10" --name mixing

Run it again to go on where it was interrupted.
"""

import csv
import hashlib
import json
import logging
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from tyro.conf import Positional

from config import Config, parse_config
from core.cli import STOPPED, check_at_least, parse, run_script
from core.errors import UserError
from Project import Run, project

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

LEVEL = 0.05  # a wrong "yes" in no more than one comparison of twenty


@dataclass(frozen=True)
class Options:
    """Trains each setting several times, and says whether the others beat A."""

    settings: Positional[tuple[str, ...]]
    """Options of main.py as name=value, in quotes; each is one setting, called A, B and so on."""
    seeds: int = 5
    """Each setting is trained with the seeds 0, 1, and so on."""
    folds: int | None = None
    """Instead: each is trained so many times, each time with another part of the training data for validation."""
    common: str = ""
    """Options of main.py that all settings share, in quotes."""
    name: str = "compare"
    """Begins the names of the runs. Those that are complete are not trained again."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_at_least(2, self, "seeds", "folds")
        if not 2 <= len(self.settings) <= len(ascii_uppercase):
            raise UserError(
                f"{len(self.settings)} setting(s) given; at least two, each in quotes, such as lr=0.001, are needed"
            )


def main(options: Options) -> None:
    """Settings → runs → how often each was right → verdicts.

    Raises:
        UserError: an option is wrong, a run fails, or the settings do not share their test pictures.
    """
    import numpy as np

    n = options.folds or options.seeds
    letters = ascii_uppercase[: len(options.settings)]
    plan: dict[str, list[tuple[str, list[str]]]] = {letter: [] for letter in letters}
    for letter, setting in zip(letters, options.settings, strict=True):
        words = [*typed(options.common), *typed(setting)]
        for taken in ("--fold" if options.folds else "--seed", "--run-name", "--resume"):
            if taken in words:
                raise UserError(f"{taken} in a setting: this script chooses it itself; leave it out")
        for k in range(n):
            which = ("--fold", str(k + 1), str(n)) if options.folds else ("--seed", str(k))
            parse_config([*words, *which])  # what is wrong is said before hours of training
            plan[letter].append((run_name(options.name, setting, words, which), [*words, *which]))
    runs = [run for letter in letters for run in plan[letter]]
    for i, (name, words) in enumerate(runs, start=1):
        logger.info("%d of %d: %s  %s", i, len(runs), name, shlex.join(words))
        train(name, words)

    rights = {
        letter: [right_ones(Run(project.checkpoint_dir / name)) for name, _ in plan[letter]] for letter in letters
    }
    files = sorted(rights["A"][0])
    if any(sorted(one) != files for runs in rights.values() for one in runs):
        raise UserError("these settings do not share their test pictures, so they cannot be compared")
    table = {
        letter: np.array([[one[file] for file in files] for one in runs], float) for letter, runs in rights.items()
    }
    print("The best of these settings is chosen on the test set, so its score there is a little too good.")
    for letter, setting in zip(letters, options.settings, strict=True):
        shares = 100 * table[letter].mean(axis=1)
        spread = f"from run to run ± {shares.std(ddof=1):.2f}"
        print(f"{letter}  {shares.mean():6.2f} % right, {spread}   {setting or '(as it is)'}")
    print(f"{n} {'folds' if options.folds else 'seeds'}, {len(files)} test pictures")
    for letter in letters[1:]:
        answer, difference, p = compare_runs(table["A"], table[letter], comparisons=len(letters) - 1)
        least = smallest_difference(table["A"], table[letter], comparisons=len(letters) - 1)
        print(
            f"{letter} beats A: {answer}  ({100 * difference:+.2f} points, p = {p:.3f}; "
            f"with {len(files)} test images, a difference under about {100 * least:.1f} points stays unclear)"
        )


def typed(setting: str) -> list[str]:
    """A setting as main.py takes it: "lr=0.1 metrics=f1,auc strict" is --lr 0.1 --metrics f1 auc --strict."""
    several = {field.name for field in fields(Config) if "tuple" in str(field.type)}
    words = []
    for option in shlex.split(setting):
        name, given, value = option.partition("=")
        name, value = name.lstrip("-"), os.path.expanduser(value)
        values = value.split(",") if name.replace("-", "_") in several else [value]
        words += [f"--{name}".replace("_", "-"), *(values if given else [])]
    return words


def run_name(name: str, setting: str, words: Sequence[str], which: Sequence[str]) -> str:
    """A name that says which run this is, so that other options never meet its folder, and the same ones do.

    Args:
        name: of the comparison.
        setting: as typed.
        words: all options but the last.
        which: the seed, or the fold.
    """
    readable = re.sub(r"[^\w.=-]+", "_", setting)[:40]
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]
    return "-".join(filter(None, (name, readable, digest, "".join(which).strip("-"))))


def train(name: str, words: Sequence[str]) -> None:
    """Trains one run, or goes on with it, or leaves it alone when it is complete.

    Raises:
        UserError: it fails.
    """
    run = Run(project.checkpoint_dir / name)
    if run.metrics.is_file():
        return
    if run.last.is_file():
        words = ["--resume", str(run.folder)]
    else:
        shutil.rmtree(run.folder, ignore_errors=True)  # not one epoch of it is complete
        words = [*words, "--run-name", name, *([] if "--trackers" in words else ["--trackers", "none"])]
    script = Path(__file__).resolve().parent / "main.py"
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    if done.returncode in (-2, 130):
        raise KeyboardInterrupt
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{name} has failed: {reason.removeprefix('error: ')}")


def right_ones(run: Run) -> dict[str, bool]:
    """For each test picture of a run whether the network was right; for several classes on one, whether in all."""
    with open(run.predictions, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["file"]: row["true"] == row["predicted"] for row in csv.DictReader(file)}


def compare_runs(
    a: "np.ndarray", b: "np.ndarray", comparisons: int = 1, resamples: int = 9999
) -> tuple[str, float, float]:
    """Whether B beats A, over runs and over pictures.

    Two things are left to chance: how a run turns out, and which pictures were there to test. So two paired tests have
    to agree: a t-test over the runs (Student, Biometrika 1908), and over the pictures one that flips the signs of their
    differences at random (Fisher, "The Design of Experiments", 1935). The larger p counts (Berger, "Multiparameter
    Hypothesis Testing and Acceptance Sampling", Technometrics 1982), for either direction, times the number of
    comparisons (Bonferroni).

    Args:
        a, b: (runs, pictures) of 0 and 1: whether it was right. Runs and pictures are paired.
        comparisons: how many verdicts are asked for.
        resamples: of the second test.

    Returns:
        "yes", "no" (A beats B) or "unclear"; the difference of their shares; and p, two-sided.
    """
    import numpy as np
    from scipy import stats

    by_run, by_picture = (b - a).mean(axis=1), (b - a).mean(axis=0)
    difference = float(by_run.mean())
    sign = 1 if difference >= 0 else -1
    if np.ptp(by_run) == 0:  # no spread to judge by; the pictures decide
        p_runs = float(difference == 0)
    else:
        p_runs = stats.ttest_1samp(sign * by_run, 0, alternative="greater").pvalue
    p_pictures = stats.permutation_test(
        (sign * by_picture,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=resamples,
        rng=0,
    ).pvalue
    p = min(1.0, 2 * comparisons * max(p_runs, p_pictures))
    return ("unclear" if p >= LEVEL else "yes" if sign > 0 else "no"), difference, float(p)


def smallest_difference(a: "np.ndarray", b: "np.ndarray", comparisons: int = 1) -> float:
    """Return about how much A and B must differ on this many test images for a verdict other than "unclear".

    Flipping signs at random gives n differences d a mean of 0 with a standard error of sqrt(mean(d²) / n). With s the
    standard deviation of d, a mean m is z standard errors away from 0 where m = z · s / sqrt(n - z²); z is the quantile
    of the normal distribution at which `verdict` turns. That s is the one observed; the runs may need more.

    Where k images speak for the same setting and all others for none, p is 1 / 2^k. So where fewer images differ than
    that takes, their spread says nothing, and the difference is that of as many images, right in every run.

    Args:
        a, b: (runs, images) of 0 and 1, see `verdict`.
        comparisons: how many verdicts are asked for.

    Returns:
        A share of the images, at most 1.
    """
    import numpy as np
    from scipy import stats

    by_image = (b - a).mean(axis=0)
    n = len(by_image)
    one_sided = LEVEL / (2 * comparisons)
    fewest = math.floor(-math.log2(one_sided)) + 1
    if np.count_nonzero(by_image) < fewest:
        return min(1.0, fewest / n)
    z = stats.norm.isf(one_sided)
    return min(1.0, float(z * by_image.std() / math.sqrt(n - z**2)))


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), STOPPED)
