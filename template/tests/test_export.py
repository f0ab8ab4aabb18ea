"""A run as a file for other programs gives the same answers."""

import csv
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import export
import predict
from Project import Run
from utils import RunError

HERE = Path(__file__).resolve().parents[1]


def test_the_file_is_used_without_torch(train, photos, tmp_path):
    run = train(epochs=2, patience=2, image_size=80)
    moved = Run(shutil.copytree(run.folder, tmp_path / "handed over"))
    export.main(export.Options(moved.folder))
    photo = photos / "val" / "hero" / "003.jpg"
    with Image.open(photo) as image:
        image.resize((171, 100)).save(moved / "photo.jpg", quality=95)
    (code,) = re.findall(r"<!-- test: onnx -->\n```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    blocked = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'poutyne')))\n"
    done = subprocess.run([sys.executable, "-c", blocked + code], cwd=moved.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, p = done.stdout.split()
    options = predict.Options(moved.folder, (moved / "photo.jpg",), csv=tmp_path / "out.csv", top=1, device="cpu")
    predict.main(options)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert name == row["class"]
    assert float(p) == pytest.approx(float(row["probability"]), abs=1e-4)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_an_export_that_computes_something_else_is_not_kept(train, monkeypatch, caplog, kind):
    from models import exported

    run = train(epochs=1)
    export.main(export.Options(run.folder, kind))
    difference = float(re.findall(r"over 16 pictures: (\S+)", caplog.text)[0])
    assert difference <= 1e-4
    path = run / f"model.{kind}"
    before = path.read_bytes()
    write, read_file = exported.FORMATS[kind]
    monkeypatch.setitem(exported.FORMATS, kind, (write, lambda file: lambda batch: read_file(file)(batch) + 0.01))
    with pytest.raises(RunError, match="differs by"):
        export.main(export.Options(run.folder, kind))
    monkeypatch.setitem(exported.FORMATS, kind, (write, lambda file: lambda batch: read_file(file)(batch) * math.nan))
    with pytest.raises(RunError, match="differs by nan"):
        export.main(export.Options(run.folder, kind))
    assert path.read_bytes() == before
    assert not list(run.folder.glob("unfinished*"))
