"""What a run withstands: a loss that is no number, a full disk, a torn log, hostile files."""

import csv
import json
import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import losses
import main as main_script
import predict
from callbacks import TRACKERS, ResumeCheckpoint, load_state
from config import Config, parse_config
from core.errors import RunError, UserError
from data import get_data
from data.check import check
from models import load_network
from Project import Run


def epochs_in(run: Run) -> list[str]:
    """First column of log.csv."""
    with open(run.log, newline="", encoding="utf-8") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(("bad", "where"), [(float("nan"), "batch 2"), (float("inf"), "validation batch 1")])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_best_weights(
    train, project, monkeypatch, bad, where
):
    calls = {True: 0, False: 0}
    # in epoch 2; 3 and 1 batches in 1
    at = {"batch 2": (True, 3 + 2), "validation batch 1": (False, 1 + 1)}[where]

    def spoiled(logits, labels, weight=None):
        calls[logits.requires_grad] += logits.requires_grad or len(labels) == 8
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return loss * bad if (logits.requires_grad, calls[logits.requires_grad]) == at else loss

    monkeypatch.setitem(losses.LOSSES, "spoiled", spoiled)
    with pytest.raises(
        RunError, match=rf"loss is (nan|inf) in epoch 2, {where}: .*--lr.*--grad-clip-norm 1; .*best\.pt"
    ):
        train(loss="spoiled", run_name="r", epochs=4)
    run = Run(project.checkpoint_dir / "r")
    assert epochs_in(run) == ["1"]
    assert load_state(Config(resume=run.folder, epochs=4))["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in load_network(run).state_dict().values())


def test_a_full_disk_is_one_line_and_the_last_good_state_stays(train, project, monkeypatch, exit_of):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    begin = ResumeCheckpoint.on_epoch_begin

    def fill(self, epoch_number, logs):
        begin(self, epoch_number, logs)
        if epoch_number == 3:  # log.csv and small files can still grow, the weights find no room
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    monkeypatch.setattr(ResumeCheckpoint, "on_epoch_begin", fill)
    try:
        code, error = exit_of(lambda _: train(run_name="r", epochs=5, patience=5), lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, len(error.splitlines())) == (1, 1)
    assert "make room" in error
    run = Run(project.checkpoint_dir / "r")
    assert sum(path.stat().st_size for path in run.folder.glob("*.tmp")) == 0
    assert load_state(Config(resume=run.folder, epochs=5))["epoch"] == 2
    load_network(run)
    monkeypatch.setattr(ResumeCheckpoint, "on_epoch_begin", begin)
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


def interrupt_in(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training is stopped in this epoch."""

    class Interrupt:
        def on_epoch_begin(self, epoch_number, logs):
            if epoch_number == epoch:
                raise KeyboardInterrupt

        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    monkeypatch.setitem(TRACKERS, "interrupt", lambda *_: Interrupt())


def test_a_stopped_run_says_how_to_continue(train, project, exit_of, monkeypatch):
    interrupt_in(2, monkeypatch)
    code, error = exit_of(
        lambda _: train(run_name="my run", patience=9, trackers=("interrupt",)), lambda: None
    )
    said, _, command = error.partition(": python ")
    assert (code, said) == (130, "stopped; to continue")
    script, *words = shlex.split(command)
    assert Path(script).samefile(main_script.__file__)
    assert words == ["--resume", "project/checkpoint/my run"]
    run = main_script.main(parse_config([*words, "--trackers", "none"]), project)
    assert epochs_in(run) == ["1", "2"]
    interrupt_in(3, monkeypatch)
    words += ["--epochs", "4", "--trackers", "interrupt"]
    assert exit_of(lambda c: main_script.main(c, project), lambda: parse_config(words)) == (130, error)


def test_a_run_stopped_in_its_first_epoch_starts_again_with_the_same_command(
    train, project, exit_of, monkeypatch, photos, capsys
):
    interrupt_in(1, monkeypatch)
    assert exit_of(lambda _: train(run_name="r", trackers=("interrupt",)), lambda: None) == (130, "stopped")
    assert list(project.checkpoint_dir.iterdir()) == []
    train(run_name="r", epochs=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.check.check", interrupt)
    monkeypatch.setattr(
        sys, "argv", ["main.py", "--data-dir", str(photos), "--model", "my_cnn", "--device", "cpu"]
    )
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(main_script.__file__, run_name="__main__")
    assert stopped.value.code == 130
    assert (
        "type the same command again: checked images and computed features are cached"
        in capsys.readouterr().err
    )


def test_a_check_that_is_stopped_keeps_what_it_has_checked(photos, tmp_path, monkeypatch):
    import data.duplicates

    compute_image_stats, checked = data.duplicates.compute_image_stats, []

    def interrupted(*args):
        checked.append(args)
        if len(checked) == 36:  # of 40, in the second batch
            raise KeyboardInterrupt
        return compute_image_stats(*args)

    monkeypatch.setattr(data.duplicates, "compute_image_stats", interrupted)
    found = get_data("imagefolder", photos)
    with pytest.raises(KeyboardInterrupt):
        check(Config(num_workers=0), found, tmp_path / "cache")
    check(Config(num_workers=0), found, tmp_path / "cache")
    assert len(checked) == 36 + 8


def test_resume_of_a_run_that_was_killed_in_its_first_epoch_says_what_to_do(train, exit_of):
    run = train(epochs=1)
    run.last.unlink()
    code, error = exit_of(main_script.main, lambda: parse_config(["--resume", str(run.folder)]))
    assert (code, len(error.splitlines())) == (2, 1)
    assert "delete it and start again with the same command" in error
    assert "features are cached" in error


def test_resume_latest_is_the_newest_run(train, project, exit_of, caplog):
    code, error = exit_of(lambda _: None, lambda: parse_config(["--resume", "latest"], project))
    assert (code, len(error.splitlines())) == (2, 1)
    assert f"no run in {project.checkpoint_dir}" in error
    runs = {name: train(run_name=name, epochs=1) for name in ("a", "b", "c")}
    (project.checkpoint_dir / "no run").mkdir()
    for age, run in enumerate((runs["b"], runs["a"], runs["c"])):
        os.utime(run.last, (10**9 - age, 10**9 - age))
    caplog.clear()
    config = parse_config(["--resume", "latest", "--epochs", "2", "--trackers", "none"], project)
    assert caplog.messages == [f"The latest run is {runs['b'].folder}."]
    assert epochs_in(main_script.main(config, project)) == ["1", "2"]
    assert epochs_in(runs["b"]) == ["1", "2"]
    runs["a"].last.unlink()  # killed in its first epoch, since: its folder tells when
    assert parse_config(["--resume", "latest"], project).resume == runs["a"].folder


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
    for option in "model", "loss", "optimizer", "lr_schedule", "weights", "dataset", "augmentation", "device":
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
