"""The page, how sure a network is, and what others get: figures that agree, and nothing from elsewhere."""

import csv
import html
import importlib
import json
import re
import shutil
import time
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

import evaluate
import main as main_script
import predict
from config import parse_config
from core.errors import UserError
from core.task import Task
from data.demo import draw_demo
from evaluation.calibration import (
    Answers,
    calibrate,
    count_answers,
    find_threshold,
    fit_temperature,
    load_calibration,
)
from evaluation.plots import run_figures
from evaluation.report import calibration_error, class_rows, proportion
from evaluation.scoring import Scores, best_epoch, load_scores, read_log, score
from Project import Run
from utils import load_run

TASK = Task(["a", "b"])


def read(file: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


# How sure


def claims(n: int, too_sure: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a network that is too sure by this factor, and labels drawn from what they should have said."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    return logits * too_sure, labels


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_the_temperature_takes_back_what_was_too_sure(too_sure):
    logits, labels = claims(5000, too_sure)
    assert fit_temperature(logits, labels) == pytest.approx(too_sure, rel=0.08)


def test_a_validation_set_without_a_mistake_makes_nothing_infinitely_sure():
    labels = torch.arange(20) % 2
    logits = torch.nn.functional.one_hot(labels, 2) * 3.0
    temperature = fit_temperature(logits, labels)
    assert 0.2 < temperature < 2
    assert (logits / temperature).softmax(dim=1).max() < 0.999


@pytest.mark.parametrize(("n", "max_error"), [(30, 0.05), (60, 0.1), (200, 0.1), (200, 0.02)])
def test_the_promised_risk_is_kept_on_new_pictures(n, max_error):
    broken, answered = [], []
    for seed in range(200):
        logits, labels = claims(n + 1000, 2.0, seed)
        known = calibrate(logits[:n], labels[:n], max_error)
        p, guess = (logits[n:] / known.temperature).softmax(dim=1).max(dim=1)
        if known.confidence_threshold is not None:
            kept = p >= known.confidence_threshold
            broken.append(((guess != labels[n:]) & kept).float().mean().item())
            answered.append(kept.float().mean().item())
    assert np.mean(broken) <= max_error + 2 * np.std(broken) / len(broken) ** 0.5
    assert np.mean(broken) > max_error / 3
    assert np.mean(answered) > 0.1


def test_few_pictures_promise_nothing():
    sure, right = np.linspace(0.99, 0.6, 18), np.ones(18, bool)
    assert find_threshold(sure, right, 0.05) is None
    assert find_threshold(np.linspace(0.99, 0.6, 19), np.ones(19, bool), 0.05) == 0
    assert find_threshold(np.full(50, 0.7), np.arange(50) > 0, 0.05) == 0
    kept = find_threshold(np.array([0.9876547] * 30 + [0.5] * 30), np.arange(60) < 30, 0.05)
    assert kept <= 0.9876547  # rounded up it would keep none of those it was chosen for
    assert kept > 0.98
    assert find_threshold(np.full(50, 0.7), np.arange(50) > 9, 0.05) is None  # equals stand or fall together


def test_what_the_answers_given_are_worth_is_counted_on_the_validation_set():
    logits, labels = claims(300, 2.0)
    known = calibrate(logits, labels, 0.05)
    p, guess = (logits / known.temperature).softmax(dim=1).max(dim=1)
    answered = p >= known.confidence_threshold
    wrong = answered & (guess != labels)
    assert 0 < answered.sum() < 300
    assert (known.n_images, known.n_answered, known.n_wrong) == (300, answered.sum(), wrong.sum())
    assert "at most 5 % get a wrong answer" in known.guarantee
    assert "images like the training images" in known.guarantee
    assert f"{100 * wrong.sum() / answered.sum():.1f} % of the answers given" in known.guarantee
    assert f"{100 * wrong.sum() / 300:.1f} % of all images" in known.guarantee


def test_why_nothing_is_promised_is_said():
    right, wrong = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 9.0]])
    few = calibrate(right.repeat(18, 1), torch.zeros(18, dtype=torch.int64), 0.05)
    assert few.confidence_threshold is None
    assert "--max-error 0.05 cannot be guaranteed" in few.guarantee
    assert "18 validation images can guarantee no less than 1/19 (5.3 %)" in few.guarantee
    misled = calibrate(torch.cat([wrong, right.repeat(30, 1)]), torch.zeros(31, dtype=torch.int64), 0.05)
    assert misled.confidence_threshold is None
    assert "most confident answers on the validation set are wrong" in misled.guarantee
    assert (misled.n_answered, misled.n_wrong) == (31, 1)  # every image is answered


def test_calibration_error_and_intervals_are_the_known_ones():
    logits, labels = claims(500, 2.0)
    scores = score(Task([*"abcd"]), logits, labels, torch.nn.functional.cross_entropy)
    expected = multiclass_calibration_error(logits.softmax(dim=1), labels, 4, 15).item()
    assert calibration_error(scores) == pytest.approx(expected, abs=1e-5)
    assert proportion(7, 10) == pytest.approx((0.7, 0.3968, 0.8922), abs=1e-4)
    assert proportion(0, 0) is None
    labels = np.repeat([0, 1, 0, 1], [70, 10, 20, 30])  # of class a: 70 found, 10 false alarms, 20 missed
    predicted = np.repeat([0, 0, 1, 1], [70, 10, 20, 30])
    row = class_rows(Scores(TASK, labels, predicted, np.eye(2)[predicted]))[0]
    precision, recall, (f1, low, high) = row["scores"]
    assert (row["images"], precision[0], recall[0]) == (90, 70 / 80, 70 / 90)
    assert f1 == pytest.approx(2 * 70 / (2 * 70 + 10 + 20))
    assert low < f1 < high


# The page


def numbers_of(page: str) -> dict[str, list[str]]:
    """Cells of the table of classes, by class."""
    table = page.split("<h2>Scores by class</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<tr><td>(.*?)</tr>", table, re.DOTALL)
    return {row.split("</td>")[0]: re.findall(r">([^<>]+)</td>", "<td>" + row) for row in rows}


def times_of(page: str) -> dict[str, tuple[float, float]]:
    """Seconds and per cent of each part of the command."""
    section = page.split("<h2>Time</h2>")[1].split("</section>")[0]
    rows = re.findall(r"<td>([^<]+)</td><td>([\d.]+)</td><td>([\d.]+) %</td>", section)
    return {name: (float(seconds), float(share)) for name, seconds, share in rows}


OF_EPOCHS = {"waiting for images": "data_time", "training": "train_time", "validation": "val_time"}
PARTS = {"start-up", "checking images", *OF_EPOCHS, "callbacks", "scoring and report"}


def test_the_times_of_a_run_are_those_of_the_whole_command(train, monkeypatch):
    moments = {}

    def spy(where: str, name: str, seconds: float) -> None:
        original = getattr(importlib.import_module(where), name)

        def slower(*args, **options):
            moments[name] = time.perf_counter()
            time.sleep(seconds)
            return original(*args, **options)

        monkeypatch.setattr(f"{where}.{name}", slower)

    spy("data", "get_data", 0.4)
    spy("data.check", "check", 0.2)
    spy("data", "make_loaders", 0.4)
    spy("evaluation.results", "render_report", 0)
    begin = time.perf_counter()
    run = train(run_name="a", epochs=3, patience=3)
    seconds = json.loads(run.times.read_text())["seconds"]
    assert set(seconds) >= PARTS
    assert min(seconds.values()) >= 0
    assert sum(seconds.values()) == pytest.approx(moments["render_report"] - begin, abs=0.1)
    assert seconds["checking images"] == pytest.approx(moments["make_loaders"] - moments["check"], abs=0.1)
    assert seconds["start-up"] > 0.8
    log = read(run.log)
    for name, column in OF_EPOCHS.items():
        assert seconds[name] == pytest.approx(sum(float(row[column]) for row in log))
    page = run.report.read_text(encoding="utf-8")
    shown = times_of(page)
    assert f"main.py took {sum(seconds.values()):.1f} s" in page
    assert "resumed" not in page
    for name, (spent, share) in shown.items():
        assert spent == pytest.approx(seconds[name], abs=0.06)
        assert share == pytest.approx(100 * seconds[name] / sum(seconds.values()), abs=0.11)
    assert list(shown) == list(seconds)
    assert sum(share for _, share in shown.values()) == pytest.approx(100, abs=0.5)


def test_the_times_of_a_resumed_run_are_those_of_the_last_command(train, project):
    def resume(epochs: int) -> Run:
        config = parse_config(["--resume", str(first.folder), "--epochs", str(epochs), "--trackers", "none"])
        return main_script.main(config, project)

    first = train(run_name="a", epochs=2, patience=9)
    run = resume(epochs=3)
    found, log = json.loads(run.times.read_text()), read(run.log)
    assert found["resumed_after"] == 2
    assert found["seconds"]["training"] == pytest.approx(float(log[2]["train_time"]))
    assert "the last command, which resumed the run after epoch 2." in run.report.read_text(encoding="utf-8")
    run = resume(epochs=3)  # nothing is left to train
    found = json.loads(run.times.read_text())
    assert found["resumed_after"] == 3
    assert [found["seconds"][name] for name in OF_EPOCHS] == [0, 0, 0]
    assert sum(
        share for _, share in times_of(run.report.read_text(encoding="utf-8")).values()
    ) == pytest.approx(100, abs=0.5)
    run.times.unlink()  # as where the command was killed before its end
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    assert "<h2>Time</h2>" not in run.report.read_text(encoding="utf-8")


@pytest.mark.draws
def test_every_figure_of_the_page_follows_from_the_tables(train):
    run = train(epochs=3, patience=3, lr=0.01)
    page, rows, log = run.report.read_text(encoding="utf-8"), read(run.predictions), read(run.log)
    right = sum(row["true"] == row["predicted"] for row in rows)
    assert f"{100 * right / len(rows):.1f} %" in page
    assert f"{right} of {len(rows)};" in page
    best = min(range(len(log)), key=lambda i: float(log[i]["val_loss"])) + 1
    assert f"Best epoch {best} of 3" in page
    table = numbers_of(page)
    scores = []
    for name in ("helmet", "hero"):
        tp = sum(row["true"] == row["predicted"] == name for row in rows)
        said, there = sum(row["predicted"] == name for row in rows), sum(row["true"] == name for row in rows)
        f1 = 2 * tp / max(1, said + there)
        scores.append(f1)
        shares = [x for of in (said, there) if of for x in proportion(tp, of)]
        expected = [there, *shares, *([f1] if said + there else [])]
        found = [float(x) for cell in table[name][1:] if cell != "–" for x in cell.split("–")]
        assert found[: len(expected)] == pytest.approx(expected, abs=0.006)
    assert f"{sum(scores) / 2:.3f}" in page
    assert f"calibration error {calibration_error(load_scores(run)):.3f}" in page
    wrong = sorted(
        (row for row in rows if row["true"] != row["predicted"]),
        key=lambda r: -float(r[f"p_{r['predicted']}"]),
    )
    shown = re.findall(r'alt="([^"]+)" loading="lazy"', page)
    assert shown == [row["file"] for row in wrong][:24]
    for row in log:
        parts = [float(row[name]) for name in ("data_time", "train_time", "val_time")]
        assert all(part > 0 for part in parts)
        assert sum(parts) == pytest.approx(float(row["time"]), abs=0.3)
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', page)
    assert "<script" not in page
    assert page.count("data:image/svg+xml") == 4

    run.report.unlink()
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    again = run.report.read_text(encoding="utf-8")
    assert numbers_of(again) == table
    assert times_of(again) == times_of(page)
    evaluate.main(evaluate.Options(run.folder, split="val", num_workers=0, device="cpu"))
    assert "val images" in (run / "evaluate-val.html").read_text(encoding="utf-8")


def test_the_page_counts_wrong_answers_among_those_given_and_among_all_images(train):
    confidence, correct = np.array([0.9, 0.8, 0.7, 0.6, 0.6]), np.array([True, False, True, False, True])
    answers = count_answers(confidence, correct, 0.65)
    assert answers == (5, 3, 1)
    assert str(answers) == (
        "3 of 5 images are answered, 1 of them wrongly: 33.3 % of the answers given, 20.0 % of all images"
    )
    run = train(epochs=1, max_error=0.9)
    known, page = load_calibration(run), html.unescape(run.report.read_text(encoding="utf-8"))
    answers = known.n_images, known.n_answered, known.n_wrong
    assert "at most 90 % get a wrong answer" in page
    assert f"On the validation set, {Answers(*answers)}." in page
    scores = load_scores(run)
    answers = count_answers(scores.confidence, scores.correct, known.confidence_threshold)
    assert f"Of the test images, {Answers(*answers)}." in page
    assert f"{answers[2]} of {answers[1]} answers wrong" in page


def test_names_on_the_page_are_text(train, tmp_path):
    data = tmp_path / "data"
    draw_demo(data, {"train": 8, "val": 6}, seed=2)
    for folder in data.glob("*/hero"):
        folder.rename(folder.with_name("<script>alert(1)<"))
    page = train(data_dir=data, epochs=1).report.read_text(encoding="utf-8")
    assert "<script" not in page
    assert html.escape("<script>alert(1)<") in page


def test_two_hundred_classes_fit(tmp_path):
    from evaluation import plots

    rng = np.random.default_rng(0)
    counts = np.diag(rng.integers(1, 20, 200)) + rng.integers(0, 2, (200, 200))
    figure = plots.confusion(counts, [f"class {i}" for i in range(200)])
    figure.savefig(tmp_path / "a.png")
    assert figure.get_size_inches().max() < 20


@pytest.mark.draws
def test_the_page_where_an_image_can_have_several_classes(train, tmp_path):
    folder = tmp_path / "colours"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for i in range(60):
        there = rng.random(2) < 0.5
        Image.new("RGB", (32, 32), tuple(int(200 * on + rng.integers(50)) for on in (*there, False))).save(
            folder / f"{i}.png"
        )
        lines.append(
            f"{i}.png,{'|'.join(name for name, on in zip(('red', 'green'), there, strict=True) if on)}"
        )
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    run = train(dataset="csv", data_dir=folder, epochs=2)
    page = run.report.read_text(encoding="utf-8")
    rows = read(run.predictions)
    exact = sum(set(row["true"].split("|")) == set(row["predicted"].split("|")) for row in rows) / len(rows)
    assert f"{100 * exact:.1f} %" in page
    assert "Risk-coverage" not in page
    assert set(numbers_of(page)) == {"red", "green"}
    assert not run.calibration.exists()


@pytest.mark.draws
def test_a_run_in_a_notebook(train, tmp_path):
    run = train(epochs=2, patience=2)
    loaded = load_run(str(shutil.copytree(run.folder, tmp_path / "moved")))
    assert loaded.classes == ["helmet", "hero"]
    assert list(loaded.log["epoch"]) == [1, 2]
    assert loaded.config.model == "my_cnn"
    picture = loaded.transform(Image.new("RGB", (50, 40)))
    assert loaded.network(picture[None]).shape == (1, 2)
    metrics = json.loads(run.metrics.read_text())
    assert loaded.scores.metrics["acc"] == metrics["test_acc"]
    assert loaded.scores.metrics["f1"] == pytest.approx(metrics["test_f1"])
    assert set(loaded.figures()) == set(run_figures(run, load_scores(run)))


# predict.py


@pytest.fixture
def trained(train) -> Run:
    """A run whose network is sure of some pictures only."""
    run = train(epochs=3, patience=3)
    p = [float(row[f"p_{row['predicted']}"]) for row in read(run.predictions)]
    known = json.loads(run.calibration.read_text())
    run.calibration.write_text(json.dumps({**known, "confidence_threshold": sorted(p)[len(p) // 2]}))
    return run


def test_predict_says_unsure_where_it_is(trained, photos, tmp_path, capsys):
    test = [photos / row["file"] for row in read(trained.predictions)]
    predict.main(predict.Options(trained.folder, tuple(test), csv=tmp_path / "out.csv", device="cpu"))
    known = {str(photos / row["file"]): row for row in read(trained.predictions)}
    threshold = json.loads(trained.calibration.read_text())["confidence_threshold"]
    table = read(tmp_path / "out.csv")
    assert {row["class"] == "unsure" for row in table} == {True, False}
    for row in table:
        expected = known[row["file"]]
        p = float(expected[f"p_{expected['predicted']}"])
        assert float(row["probability"]) == pytest.approx(p, abs=1e-4)
        if abs(float(row["probability"]) - threshold) > 2e-6:  # both were rounded
            sure = float(row["probability"]) > threshold
            assert row["class"] == (expected["predicted"] if sure else "unsure")
    assert "unsure" in capsys.readouterr().out


def test_training_and_predict_warn_where_nothing_can_be_promised(train, photos, capsys, caplog):
    run = train(epochs=1)  # 8 validation images
    assert "--max-error 0.05 cannot be guaranteed" in caplog.text
    assert "--max-error 0.05 cannot be guaranteed" in html.unescape(run.report.read_text(encoding="utf-8"))
    capsys.readouterr()
    image = next(photos.rglob("*.jpg"))
    predict.main(predict.Options(run.folder, (image,), device="cpu"))
    told = capsys.readouterr()
    assert told.err.startswith("warning: --max-error 0.05 cannot be guaranteed")
    assert "8 validation images can guarantee no less than 1/9" in told.err
    assert "warning" not in told.out
    caplog.clear()
    train(epochs=1, max_error=0.9)
    assert "at most 90 % get a wrong answer" in caplog.text
    assert "cannot be guaranteed" not in caplog.text


def test_predict_gives_the_k_most_probable_and_takes_patterns(trained, photos, tmp_path, exit_of):
    pattern = photos / "val" / "*" / "00*.jpg"
    options = predict.Options(trained.folder, (pattern,), csv=tmp_path / "out.csv", top=2, device="cpu")
    predict.main(options)
    table = read(tmp_path / "out.csv")
    assert len(table) == 2 * 16
    assert sum(float(row["probability"]) for row in table[:2]) == pytest.approx(1, abs=1e-5)
    assert float(table[0]["probability"]) >= float(table[1]["probability"])
    code, error = exit_of(
        predict.main, lambda: predict.Options(trained.folder, (photos,), top=3, device="cpu")
    )
    assert (code, "--top 3" in error) == (2, True)
    pattern = photos / "*.gif"
    code, error = exit_of(predict.main, lambda: predict.Options(trained.folder, (pattern,), device="cpu"))
    assert (code, "*.gif" in error) == (2, True)


def test_predict_by_several_processes_is_the_same(trained, photos, tmp_path):
    for name, workers in ("a.csv", 0), ("b.csv", 2):
        predict.main(
            predict.Options(
                trained.folder,
                (photos,),
                csv=tmp_path / name,
                num_workers=workers,
                batch_size=7,
                device="cpu",
            )
        )
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert len(read(tmp_path / "a.csv")) == 40


# What reviews have found


def test_equal_probabilities_stand_on_one_side_of_a_threshold():
    from evaluation.calibration import best_thresholds

    p, truth = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.5, 0.1]), torch.tensor([1, 0, 0, 0, 1, 0])
    found = best_thresholds(p.logit()[:, None], truth[:, None], ["a"])["a"]
    assert 0.1 < found < 0.5  # F1 4/7; between the equals it would seem to be more, and be 1/3


def test_f1_is_the_mean_over_the_classes_that_occur():
    logits = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 3) * 5.0
    loss = torch.nn.functional.cross_entropy
    assert score(Task([*"abc"]), logits, torch.tensor([0, 0, 1, 1]), loss).metrics["f1"] == 1
    several = torch.tensor([[1, 0, 0], [1, 1, 0]])
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    task = Task([*"abc"], multilabel=True)
    scores = score(task, several * 10.0 - 5, several, lambda a, b: loss(a, b.float()))
    assert scores.metrics["f1"] == 1


def test_load_run_gives_the_answers_that_were_given_not_those_of_rounded_figures(train):
    run = train(epochs=1)
    a, b = json.loads(run.classes.read_text())
    run.predictions.write_text(
        f"file,true,predicted,p_{a},p_{b}\nx,{b},{b},0.500000,0.500000\ny,{a},{a},0.500000,0.500000\n"
    )
    assert load_scores(run).metrics["acc"] == 1


def test_what_was_found_out_about_older_weights_goes_with_them(train, project):
    from config import parse_config

    run = train(epochs=1, run_name="r", lr=1e-6)
    files = (run.metrics, run.predictions, run.calibration, run.report)
    assert all(file.exists() for file in files)
    from callbacks.BestCheckpoint import BestCheckpoint

    seen, save = [], BestCheckpoint.save_file

    def spy(self, *args):
        save(self, *args)
        seen.append([file.exists() for file in files])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BestCheckpoint, "save_file", spy)
        patch.setattr(BestCheckpoint, "on_train_begin", lambda self, logs: None)
        import main as main_script

        config = parse_config(["--resume", str(run.folder), "--epochs", "20"])
        main_script.main(config, project)
    assert all(there == [False] * 4 for there in seen)
    assert all(file.exists() for file in files)


def test_options_that_were_given_are_marked():
    from config import Config
    from evaluation.report import changed_options

    given = Config(grad_clip_norm=1.0, fold=(1, 5), model="my_cnn", lr=0.1)
    assert changed_options(given) == {"grad_clip_norm", "fold", "model"}


@pytest.mark.draws
def test_names_that_cannot_be_drawn_are_drawn_all_the_same(tmp_path):
    from evaluation import plots

    names = ["caf\udce9", "a\x01b", "$_$"]
    plots.confusion(np.eye(3, dtype=int), names).savefig(tmp_path / "a.svg", format="svg")
    plots.image_grid([Image.new("RGB", (8, 8))] * 3, names).savefig(tmp_path / "b.svg", format="svg")
    for name in "a.svg", "b.svg":
        xml.etree.ElementTree.parse(tmp_path / name)


@pytest.mark.parametrize("n", [2, 10, 30, 41, 200])
def test_the_letters_of_the_confusion_matrix_can_be_read(n):
    from evaluation import plots

    figure = plots.confusion(np.eye(n, dtype=int), [f"class {i}" for i in range(n)])
    axes = figure.axes[0]
    names = axes.get_yticklabels()
    assert names[0].get_fontsize() * 96 / 72 >= 9  # in pixels, as the report shows it
    figure.draw_without_rendering()
    assert (
        axes.transData.transform((0, 0))[1] - axes.transData.transform((0, n / len(names)))[1]
        >= 1.1 * 8 * 110 / 72
    )


def test_an_incomplete_last_row_of_the_log_is_skipped(tmp_path):
    run = Run(tmp_path)
    run.log.write_text("epoch,val_loss,val_time\n1,nan,0.5\n2,0.3,0.5\n3,1e-")
    log = read_log(run)
    assert list(log["epoch"]) == [1, 2]
    assert best_epoch(log) == 2
    run.log.write_text("")
    with pytest.raises(UserError, match="cannot be read"):
        read_log(run)


def test_a_log_without_a_complete_epoch_is_one_line(tmp_path):
    run = Run(tmp_path)
    run.log.write_text("epoch,loss,val_loss\n1,0.5,")
    with pytest.raises(UserError, match="holds no epoch"):
        read_log(run)
