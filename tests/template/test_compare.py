"""Does B beat A: a wrong "yes" is rare, a right one is not, and an interrupted comparison continues."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import compare
import main as main_script
from compare import compare_runs, smallest_difference
from config import parse_config
from core.errors import UserError
from Project import Run


def simulated(
    rng: np.random.Generator, gain: float = 0.0, runs: int = 5, images: int = 60, noise: float = 0.4
) -> np.ndarray:
    """Gains of B over A; runs vary by `noise`, images in difficulty, and B is better by `gain` logits."""
    difficulty = rng.normal(1.5, 1.5, images)

    def correct(shift: float) -> np.ndarray:
        logits = difficulty + shift + rng.normal(0, noise, (runs, 1)) + rng.normal(0, 0.7, (runs, images))
        return (rng.random((runs, images)) < 1 / (1 + np.exp(-logits))).astype(float)

    a = correct(0.0)
    return correct(gain) - a


def test_a_wrong_yes_is_given_in_fewer_than_5_per_cent():
    rng = np.random.default_rng(0)
    answers = [compare_runs(simulated(rng), resamples=499)[0] for _ in range(400)]
    assert answers.count("yes") / 400 < 0.05
    assert answers.count("no") / 400 < 0.05


def test_a_real_difference_is_found_in_either_direction():
    rng = np.random.default_rng(1)
    comparisons = [simulated(rng, gain=1.5) for _ in range(60)]
    assert sum(compare_runs(gains, resamples=499)[0] == "yes" for gains in comparisons) > 45
    assert sum(compare_runs(-gains, resamples=499)[0] == "no" for gains in comparisons) > 45
    assert compare_runs(np.zeros((3, 20)))[0] == "unclear"
    gains = np.concatenate([np.zeros((3, 20)), np.ones((3, 20))], axis=1)
    assert compare_runs(gains)[0] == "yes"
    assert compare_runs(gains, comparisons=10**6)[0] == "unclear"


@pytest.mark.parametrize("images", [76, 200])
def test_verdicts_begin_at_the_smallest_difference_that_is_printed(images):
    rng = np.random.default_rng(0)
    below, above = [], []
    for gain in rng.uniform(0, 0.5, 300):
        # the runs agree, so that the images decide
        gains = simulated(rng, gain, runs=30, images=images, noise=0)
        answer, difference, _ = compare_runs(gains, resamples=999)
        ratio = abs(difference) / smallest_difference(gains)
        if ratio < 0.95:
            below.append(answer != "unclear")
        elif 1.1 < ratio < 1.5:
            above.append(answer != "unclear")
    assert min(len(below), len(above)) > 20
    assert sum(below) == 0
    assert np.mean(above) > 0.8


@pytest.mark.parametrize(("comparisons", "fewest"), [(1, 6), (3, 7), (25, 10)])
def test_where_hardly_an_image_differs_the_smallest_difference_follows_from_their_number(comparisons, fewest):
    gains = np.zeros((3, 40))
    assert smallest_difference(gains, comparisons) == fewest / 40
    for k, decided in (fewest - 1, False), (fewest, True):
        gains[:, :k] = 1
        assert (compare_runs(gains, comparisons, resamples=99_999)[0] == "yes") == decided
    assert smallest_difference(np.zeros((3, 4)), comparisons) == 1


@pytest.fixture
def run_compare(project, photos, monkeypatch, exit_of, capsys):
    """Runs the script; its trainings run in this process, which is quicker."""

    def run(words: list[str], **_) -> SimpleNamespace:
        code, error = exit_of(
            lambda config: main_script.main(config, project), lambda: parse_config(words[2:])
        )
        return SimpleNamespace(returncode=code, stderr=error)

    monkeypatch.setattr(compare, "project", project)
    monkeypatch.setattr(compare, "subprocess", SimpleNamespace(run=run))
    common = f"model=my_cnn image-size=16 epochs=1 num-workers=0 data-dir='{photos}'"

    def call(*settings: str, **options) -> tuple[str, list[str]]:
        try:
            compare.main(compare.Options(settings, common=common, **options))
        except UserError as error:
            return str(error), []
        return "", capsys.readouterr().out.strip().splitlines()

    return call


def test_settings_are_trained_compared_and_not_trained_again(run_compare, project):
    error, printed = run_compare("", "lr=0.01", folds=2, name="rates")
    assert not error
    assert "B beats A: " in printed[-1]
    assert re.search(r"with 8 test images, differences below about \d+\.\d points stay unclear", printed[-1])
    assert sum("chosen on the test set" in line for line in printed) == 1
    runs = project.checkpoint_dir
    names = sorted(path.name for path in runs.iterdir())
    assert [name.rpartition("-")[2] for name in names] == ["fold12", "fold22"] * 2
    assert all(name.startswith("rates-lr=0.01-") for name in names[2:]) != all(
        "lr=" in name for name in names[:2]
    )
    splits = [json.loads((runs / name / "split.json").read_text()) for name in names]
    assert splits[0] == splits[2] != splits[1]
    assert len({tuple(split["test"]) for split in splits}) == 1
    first, second = splits[:2]
    assert sorted(first["val"] + second["val"]) == sorted(first["train"] + first["val"])
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("*/metrics.json")}
    shutil.rmtree(runs / names[3])
    _, again = run_compare("", "lr=0.01", folds=2, name="rates")
    assert again == printed
    assert all(
        path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if names[3] not in str(path)
    )
    # the first setting is known, the other is not mixed up
    _, other = run_compare("", "lr=0.5", folds=2, name="rates")
    assert other[-4].split() == printed[-4].split()
    assert len(list(runs.iterdir())) == 6
    error, _ = run_compare("", "model=nothing", seeds=2, name="failing")
    assert "has failed: unknown model 'nothing'" in error
    error, _ = run_compare("", "split-seed=5", seeds=2, name="splits")
    assert "do not share their test images" in error


def test_an_interrupted_comparison_continues(run_compare, project, monkeypatch):
    run_compare("", "lr=0.01", seeds=2, name="a")
    (folder,) = project.checkpoint_dir.glob("a-lr=0.01-*-seed1")
    run = Run(folder)
    expected = run.predictions.read_bytes()
    run.metrics.unlink()
    run.predictions.unlink()
    _, printed = run_compare("", "lr=0.01", seeds=2, name="a")
    assert run.predictions.read_bytes() == expected
    assert "Test accuracy in percent over 2 seeds, 8 test images:" in printed


def test_a_wrong_setting_is_refused_before_the_first_run(run_compare, project):
    for setting, message in (
        ("seed=7", "--seed in a setting"),
        ("run_name=x", "--run-name in a setting"),
        ("epochs=0", "--epochs 0"),
    ):
        error, _ = run_compare("", setting, seeds=2)
        assert message in error
    with pytest.raises(SystemExit):
        run_compare("", "optimzer=sgd", seeds=2)
    assert not project.checkpoint_dir.exists()


def test_a_setting_becomes_arguments_of_main():
    assert compare.to_arguments("data_dir=/a,b split=0.8,0.1,0.1") == [
        "--data-dir",
        "/a,b",
        "--split",
        "0.8",
        "0.1",
        "0.1",
    ]
    assert compare.to_arguments("lr=0.1 metrics=f1,auc strict") == [
        "--lr",
        "0.1",
        "--metrics",
        "f1",
        "auc",
        "--strict",
    ]
    with pytest.raises(UserError, match="at least two"):
        compare.Options(("lr=0.1",))
