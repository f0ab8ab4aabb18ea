"""What a run withstands: a loss that is no number, a full disk, a torn log, hostile files."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import losses
import main as main_script
import predict
from callbacks import SaveState, load_state
from models import load_network
from Project import Run
from runs import parse_config
from utils import RunError, UserError


def epochs_in(run: Run) -> list[str]:
    """First column of log.csv."""
    with open(run.log, newline="", encoding="utf-8") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(("bad", "where"), [(float("nan"), "batch 2"), (float("inf"), "validation batch 1")])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_best_weights(train, project, monkeypatch, bad, where):
    calls = {True: 0, False: 0}
    at = {"batch 2": (True, 3 + 2), "validation batch 1": (False, 1 + 1)}[where]  # in epoch 2; 3 and 1 batches in 1

    def spoiled(logits, labels, weight=None):
        calls[logits.requires_grad] += logits.requires_grad or len(labels) == 8
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return loss * bad if (logits.requires_grad, calls[logits.requires_grad]) == at else loss

    monkeypatch.setitem(losses.LOSSES, "spoiled", spoiled)
    with pytest.raises(RunError, match=rf"loss is (nan|inf) in epoch 2, {where}: .*--lr.*--clip 1; .*best\.pt"):
        train(loss="spoiled", run_name="r", epochs=4)
    run = Run(project.checkpoint_dir / "r")
    assert epochs_in(run) == ["1"]
    assert load_state(run, 4)["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in load_network(run).state_dict().values())


def test_a_full_disk_is_one_line_and_the_last_good_state_stays(train, project, monkeypatch, exit_of):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    begin = SaveState.on_epoch_begin

    def fill(self, epoch_number, logs):
        begin(self, epoch_number, logs)
        if epoch_number == 3:  # log.csv and small files can still grow, the weights find no room
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    monkeypatch.setattr(SaveState, "on_epoch_begin", fill)
    try:
        code, error = exit_of(lambda _: train(run_name="r", epochs=5, patience=5), lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, len(error.splitlines())) == (1, 1)
    assert "make room" in error
    run = Run(project.checkpoint_dir / "r")
    assert sum(path.stat().st_size for path in run.folder.glob("*.tmp")) == 0
    assert load_state(run, 5)["epoch"] == 2
    load_network(run)
    monkeypatch.setattr(SaveState, "on_epoch_begin", begin)
    main_script.main(parse_config(["--resume", str(run.folder)]), project)
    whole = train(run_name="whole", epochs=5, patience=5)
    assert json.loads(run.metrics.read_text()) == json.loads(whole.metrics.read_text())


def test_a_torn_log_is_mended(train, project):
    run = train(run_name="r", epochs=2, patience=2)
    with open(run.log, "a") as file:
        file.write("1,0.4")  # of epoch 12, say
    (run / "last.pt.tmp").write_bytes(b"half")
    main_script.main(parse_config(["--resume", str(run.folder), "--epochs", "3"]), project)
    assert epochs_in(run) == ["1", "2", "3"]
    assert not list(run.folder.glob("*.tmp"))


class Hostile:
    """Does something when it is unpickled."""

    def __reduce__(self):
        """A call of `open`."""
        return (open, ("pwned", "w"))


def test_hostile_checkpoints_are_refused(train, exit_of, photos, project):
    run = train(epochs=1)
    for file in run.last, run.best:
        content = file.read_bytes()
        torch.save({"epoch": 1, "network": Hostile()}, file)
        script, parse = main_script.main, lambda: parse_config(["--resume", str(run.folder)])
        if file == run.best:
            script, parse = predict.main, lambda: predict.Options(run.folder, (photos,), device="cpu")
        code, error = exit_of(script, parse)
        assert (code, len(error.splitlines())) == (2, 1)
        file.write_bytes(content)
    torch.save({"something": "else"}, run.last)
    code, error = exit_of(main_script.main, lambda: parse_config(["--resume", str(run.folder)]))
    assert (code, "cannot be resumed" in error) == (2, True)
    assert not Path("pwned").exists()


def test_no_option_reaches_a_shell(train, photos):
    evil = "$(touch pwned) `touch pwned`; touch pwned"
    run = train(run_name=evil, epochs=1)
    assert run.folder.name == evil
    for option in "model", "loss", "optimizer", "schedule", "weights", "dataset", "augmentation", "device":
        with pytest.raises(UserError):
            train(**{option: evil})
    assert not list(Path().rglob("pwned"))


def test_predict_names_hostile_files_and_goes_on(train, photos, tmp_path, exit_of, monkeypatch):
    run = train(epochs=1)
    folder = Path(shutil.copytree(photos / "val" / "hero", tmp_path / "mixed"))
    whole = (folder / "000.jpg").read_bytes()
    Image.new("L", (3000, 3000)).save(folder / "bomb.png")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("<svg onload=alert(1)>")
    (folder / "right.png").write_bytes(whole)  # a JPEG under another name is read all the same
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    out = tmp_path / "out.csv"
    given = (folder, folder / "folder.jpg")
    code, error = exit_of(predict.main, lambda: predict.Options(run.folder, given, csv=out, device="cpu"))
    assert code == 1
    for name in "bomb.png", "cut.jpg", "empty.jpg", "text.png", "dangling.jpg":
        assert sum(name in line for line in error.splitlines()) == 1, name
    with open(out, newline="") as file:
        found = {Path(row["file"]).name for row in csv.DictReader(file)}
    assert found == {f"{i:03}.jpg" for i in range(8)} | {"right.png"}
