"""A run as a file for other programs gives the same answers."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

import export
import predict
from core.errors import RunError
from Project import Run
from Project import project as project_of_template

HERE = project_of_template.base_dir


def example_of_the_manual() -> str:
    """The code that runs an exported network without torch."""
    pages = [HERE / "README.md", *(HERE / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    (code,) = re.findall(r"<!-- test: onnx -->\n```python\n(.*?)```", text, re.DOTALL)
    return code


def test_the_file_is_used_without_torch(train, photos, tmp_path):
    run = train(epochs=2, patience=2, image_size=80)
    moved = Run(shutil.copytree(run.folder, tmp_path / "handed over"))
    export.main(export.Options(moved.folder))
    photo = photos / "val" / "hero" / "003.jpg"
    with Image.open(photo) as image:
        image.resize((171, 100)).save(moved / "photo.jpg", quality=95)
    code = example_of_the_manual()
    blocked = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'poutyne')))\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=moved.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    name, p = done.stdout.split()
    options = predict.Options(
        moved.folder, (moved / "photo.jpg",), csv=tmp_path / "out.csv", top=1, device="cpu"
    )
    predict.main(options)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert name == row["class"]
    assert float(p) == pytest.approx(float(row["probability"]), abs=1e-4)


def example(folder: Path, files: list[Path]) -> list[list[tuple[str, float]]]:
    """Runs the manual's example in a run's folder, on these files instead of its own, where nothing has torch.

    Returns:
        What it prints of each: names and probabilities.
    """
    code = example_of_the_manual()
    functions, once = re.split(r"^(?=image = )", code, flags=re.MULTILINE)
    once = textwrap.indent(once.replace('"photo.jpg"', "file"), "    ")
    blocked = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'poutyne')))\n"
    code = f"{blocked}{functions}for file in sys.argv[1:]:\n{once}    print('next')\n"
    done = subprocess.run([sys.executable, "-c", code, *files], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [lines.splitlines() for lines in done.stdout.split("next\n")[:-1]]
    return [[(name, float(p)) for name, p in map(str.split, lines)] for lines in answers]


def answers_of_predict(folder: Path, files: list[Path], table: Path) -> list[list[tuple[str, float]]]:
    """Return the classes and probabilities that predict.py gives for some files."""
    predict.main(predict.Options(folder, tuple(files), csv=table, device="cpu"))
    with open(table, newline="", encoding="utf-8") as file:
        rows = [(row["class"].split("|"), row["probability"].split("|")) for row in csv.DictReader(file)]
    return [[(name, float(p)) for name, p in zip(*row, strict=True) if name] for row in rows]


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_the_example_of_the_manual_gives_the_answers_of_predict(train, photos, tmp_path, resize):
    run = train(epochs=2, patience=2, image_size=80, resize=resize)
    files = []
    sizes = (
        (171, 100),
        (99, 333),
        (80, 80),
        (67, 45),
        (50, 499),
        (1201, 900),
        (1000, 1777),
    )  # the last two are decoded smaller
    for i, photo in enumerate(sorted(photos.rglob("*.jpg"))):
        files.append(tmp_path / f"{i}.jpg")
        with Image.open(photo) as image:
            image.resize(sizes[i % len(sizes)]).save(files[-1], quality=95)
    confidences = [answer[0][1] for answer in answers_of_predict(run.folder, files, tmp_path / "out.csv")]
    threshold = sorted(confidences)[len(confidences) // 2]
    run.calibration.write_text(
        json.dumps({**json.loads(run.calibration.read_text()), "confidence_threshold": threshold})
    )
    moved = Run(shutil.copytree(run.folder, tmp_path / "handed over"))
    export.main(export.Options(moved.folder))

    answers = answers_of_predict(moved.folder, files, tmp_path / "out.csv")
    assert len({name for ((name, _),) in answers}) > 1
    assert any(name == "unsure" for ((name, _),) in answers)
    for ((name, p),), ((expected, share),) in zip(example(moved.folder, files), answers, strict=True):
        assert p == pytest.approx(share, abs=0.01)
        assert (
            name == expected or abs(share - threshold) < 1e-4
        )  # what is computed otherwise differs in the last digits


def test_the_example_names_several_classes_as_predict_does(train, photos, tmp_path):
    files = sorted((photos / "train").rglob("*.jpg"))
    lines = [f"{file},{'hero' if 'hero' in file.parts else 'helmet|figure'}" for file in files]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]))
    run = train(dataset="csv", data_dir=tmp_path, epochs=2, lr=3e-3)
    export.main(export.Options(run.folder))
    labels = json.loads((run / "labels.json").read_text())
    assert labels["thresholds"] == json.loads(run.thresholds.read_text())
    assert "confidence_threshold" not in labels
    answers = answers_of_predict(run.folder, files, tmp_path / "out.csv")
    assert {len(answer) for answer in answers} > {1}
    for found, expected in zip(example(run.folder, files), answers, strict=True):
        assert dict(found) == pytest.approx(dict(expected), abs=0.01)


@pytest.mark.parametrize(("threshold", "expected"), [(None, None), (0.0, None), (0.75, 0.75)])
def test_labels_hold_what_a_program_needs(train, threshold, expected):
    run = train(epochs=1)
    run.calibration.write_text(
        json.dumps({"temperature": 1.3, "max_error": 0.05, "confidence_threshold": threshold})
    )
    export.main(export.Options(run.folder, "pt2"))
    assert json.loads((run / "labels.json").read_text()) == {
        "classes": ["helmet", "hero"],
        "image_size": 32,
        "resize": "crop",
        "short_side": 32,
        "confidence_threshold": expected,
    }


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_an_export_that_differs_is_not_written(train, monkeypatch, caplog, kind):
    from deployment.exported import FORMATS

    run = train(epochs=1)
    export.main(export.Options(run.folder, kind))
    difference = float(re.findall(r"over 10 images: (\S+)", caplog.text)[0])
    assert difference <= 1e-4
    path = run / f"model.{kind}"
    before = path.read_bytes()
    real = FORMATS[kind]

    def differing(by: float):
        def to_file(network, images):
            content, compute = real(network, images)
            return content, lambda batch: compute(batch) + by

        return to_file

    for by, message in (0.01, "differs by"), (math.nan, "differs by nan"):
        monkeypatch.setitem(FORMATS, kind, differing(by))
        with pytest.raises(RunError, match=message):
            export.main(export.Options(run.folder, kind))
    assert path.read_bytes() == before
    assert not list(run.folder.glob("*.tmp"))
