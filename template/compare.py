"""Compare settings over several seeds or folds on the same test images: does B beat A?

python compare.py lr=0.001 lr=0.003                           A and B, 5 seeds each
python compare.py model=my_cnn "model=resnet18 weights=none" --folds 5
python compare.py "" mixup=mixup --common "data-dir=~/flowers epochs=10" --name mixing

The same command continues an interrupted comparison.
"""

import csv
import logging
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from config import Config, parse_config
from core.cli import STOPPED, option_name, parse, run_script
from core.errors import UserError
from core.files import digest
from core.ranges import Range, check_ranges
from Project import BASE_DIR, Run, project

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

AtLeastTwo = Annotated[int, Range("at least 2", 2)]
SIGNIFICANCE_LEVEL = 0.05  # of all verdicts of a comparison together
Verdict = tuple[str, float, float]  # yes, no (A beats B) or unclear; the accuracy of B minus that of A; p


@dataclass(frozen=True)
class Options:
    """Train each setting several times and test whether the others beat A."""

    settings: Positional[tuple[str, ...]]
    """Options of main.py as name=value, in quotes; each is one setting, called A, B and so on."""
    seeds: AtLeastTwo = 5
    """Train each setting with the seeds 0, 1, and so on."""
    folds: AtLeastTwo | None = None
    """Train each setting on each of K folds of the training and validation set instead, all with the same seed."""
    common: str = ""
    """Options of main.py that all settings share, in quotes."""
    name: str = "compare"
    """Prefix of the names of the runs. Complete runs of the same name and options are not trained again."""

    def __post_init__(self) -> None:
        check_ranges(self)
        n = len(self.settings)
        if not 2 <= n <= 26:
            raise UserError(
                f"{n} settings given; give at least two and at most 26, such as lr=0.001 lr=0.003"
            )


def main(options: Options) -> None:
    """Train all runs, then print the accuracy of each setting and whether it beats A."""
    import pandas as pd

    plans = [plan_runs(setting, options) for setting in options.settings]
    results = {}
    for letter, plan in zip(ascii_uppercase, plans, strict=False):
        for i, (run, arguments) in enumerate(plan, start=1):
            name = run.folder.name
            logger.info("%s, %d of %d: %s  %s", letter, i, len(plan), name, shlex.join(arguments))
            train(run, arguments)
        results[letter] = pd.DataFrame([read_correct(run) for run, _ in plan])

    correct = pd.concat(results)  # (settings × runs, images)
    if correct.isna().any(axis=None):
        raise UserError("the settings do not share their test images, so they cannot be compared")
    n_images = correct.shape[1]
    repeats = f"{options.folds} folds" if options.folds else f"{options.seeds} seeds"
    accuracy = 100 * correct.mean(axis=1).groupby(level=0).agg(["mean", "std"])
    accuracy["setting"] = [setting or "defaults" for setting in options.settings]
    print(f"Test accuracy in percent over {repeats}, {n_images} test images:")
    print(accuracy.to_string(float_format="%.2f"))
    print("If the best setting is chosen on the test set, its accuracy there is slightly optimistic.")
    others = {letter: correct.loc[letter].to_numpy(float) for letter in results}
    a = others.pop("A")
    for letter, b in others.items():
        answer, difference, p = compare_runs(b - a, len(others))
        least = smallest_difference(b - a, len(others))
        print(
            f"{letter} beats A: {answer}  ({100 * difference:+.2f} points, p = {p:.3f}; "
            f"with {n_images} test images, differences below about {100 * least:.1f} points stay unclear)"
        )


def plan_runs(setting: str, options: Options) -> list[tuple[Run, list[str]]]:
    """Return the run folders of a setting and the arguments of main.py for each; refuse a wrong option now."""
    arguments = to_arguments(f"{options.common} {setting}")
    if options.folds:
        repeats = [["--fold", str(i), str(options.folds)] for i in range(1, options.folds + 1)]
    else:
        repeats = [["--seed", str(seed)] for seed in range(options.seeds)]
    for reserved in (repeats[0][0], "--run-name", "--resume"):
        if reserved in arguments:
            raise UserError(f"{reserved} in a setting: compare.py sets it itself; leave it out")
    readable = re.sub(r"[^\w.=-]+", "_", setting or "defaults")[:40]
    key = digest(*arguments).hex()[:8]  # other options get other folders
    runs = []
    for repeat in repeats:
        parse_config(arguments + repeat)
        suffix = "".join(repeat).lstrip("-")  # seed0, or fold15 for the first of five
        folder = project.checkpoint_dir / f"{options.name}-{readable}-{key}-{suffix}"
        runs.append((Run(folder), arguments + repeat))
    return runs


def to_arguments(setting: str) -> list[str]:
    """Return the arguments of main.py: "lr=0.1 metrics=f1,auc strict" is --lr 0.1 --metrics f1 auc --strict."""
    lists = [option_name(field.name) for field in fields(Config) if "tuple" in str(field.type)]
    arguments = []
    for option in shlex.split(setting):
        name, equals, value = option.partition("=")
        name = option_name(name.lstrip("-"))
        value = os.path.expanduser(value)
        arguments.append(f"--{name}")
        if equals:
            arguments += value.split(",") if name in lists else [value]
    return arguments


def train(run: Run, arguments: list[str]) -> None:
    """Train a run, or resume it; a complete one is skipped."""
    folder = run.folder
    if run.metrics.is_file():
        return
    if run.last.is_file():
        arguments = ["--resume", str(folder)]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # it has no complete epoch
        arguments = ["--trackers", "none", *arguments, "--run-name", folder.name]
    command = [sys.executable, str(BASE_DIR / "main.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{folder.name} has failed: {reason.removeprefix('error: ')}")


def read_correct(run: Run) -> dict[str, bool]:
    """Return for each test image whether all of the prediction is correct."""
    with open(run.predictions, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["file"]: row["true"] == row["predicted"] for row in csv.DictReader(file)}


def compare_runs(gains: "np.ndarray", comparisons: int = 1, resamples: int = 9999) -> Verdict:
    """Test whether B beats A: a paired t-test over the runs and a sign-flip test over the images have to agree.

    The larger p counts (Berger, "Multiparameter Hypothesis Testing and Acceptance Sampling", Technometrics 1982), with
    Bonferroni's correction. The sign-flip test is from Fisher, "The Design of Experiments", 1935.

    Args:
        gains: (runs, images), 1 where only B's prediction is correct, -1 where only A's is, else 0.
        comparisons: number of verdicts, for the correction.
        resamples: number of random sign flips.
    """
    import numpy as np
    from scipy import stats

    difference = float(gains.mean())
    by_run = gains.mean(axis=1)
    by_image = gains.mean(axis=0)
    p_runs = float(difference == 0)  # without any variance over the runs, the images decide
    if np.ptp(by_run) > 0:
        p_runs = stats.ttest_1samp(by_run, 0).pvalue
    flips = stats.permutation_test(
        (by_image,), np.mean, permutation_type="samples", n_resamples=resamples, rng=0
    )
    p = min(1.0, comparisons * float(max(p_runs, flips.pvalue)))
    if p >= SIGNIFICANCE_LEVEL:
        return "unclear", difference, p
    return "yes" if difference > 0 else "no", difference, p


def smallest_difference(gains: "np.ndarray", comparisons: int = 1) -> float:
    """Estimate the smallest difference in accuracy that can be significant on this many test images.

    Under random sign flips, the mean of n differences d has a standard error of sqrt(mean(d²) / n). So with the
    standard deviation s of d, a mean m is z standard errors from 0 where m = z · s / sqrt(n - z²). Where k images
    favour one setting and none the other, the one-sided p is 1 / 2^k; so some images have to differ in any case.
    """
    from scipy import stats

    by_image = gains.mean(axis=0)
    n = len(by_image)
    one_sided = SIGNIFICANCE_LEVEL / (2 * comparisons)
    least = math.floor(-math.log2(one_sided)) + 1  # images that have to differ
    difference = least / n
    if (by_image != 0).sum() >= least:
        z = stats.norm.isf(one_sided)
        difference = float(z * by_image.std() / math.sqrt(n - z**2))
    return min(1.0, difference)


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), STOPPED)
