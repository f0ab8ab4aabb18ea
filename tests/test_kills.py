"""What a run survives, with real processes: kills at any moment, torchrun, ranks that die, several machines."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from test_template import QUICK, copy_of_template, wait_for_epoch


@pytest.mark.exhaustive
def test_fifty_kills_lose_nothing():
    """Half of them at a random time, half at chosen places; see kill.py."""
    kill = Path(__file__).with_name("kill.py")
    done = subprocess.run([sys.executable, kill, "50"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 50
    assert found["loaded"] + found.get("too early to resume", 0) == 50
    for place in ("half a checkpoint", "before the move", "after the move", "in training", "in validation"):
        assert found[place] > 0


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the template, under a name with a space in it."""
    return copy_of_template(tmp_path / "my project")


def torchrun(
    project: Path, *words: str, agent: tuple[str, ...] = ("--standalone",), n: int = 2
) -> subprocess.Popen:
    """Starts main.py in n processes, as the README does it."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *agent,
        f"--nproc-per-node={n}",
        "main.py",
        *words,
    ]
    return subprocess.Popen(
        command,
        cwd=project,
        env={**os.environ, "HOME": str(project), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(file: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_torchrun_leaves_one_run_and_prints_once(project):
    process = torchrun(project, *QUICK, "--epochs", "2", "--run-name", "a")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert [path.name for path in (project / "checkpoint").iterdir()] == ["a"]
    assert out.count("epoch 1/2") == 1
    assert out.count("best epoch") == 1
    assert "Warning" not in err
    run_dir = project / "checkpoint" / "a"
    assert len(list((run_dir / "comet").glob("*.zip"))) == 1
    assert len(rows(run_dir / "log.csv")) == 2
    assert len({row["file"] for row in rows(run_dir / "predictions.csv")}) == 80

    process = torchrun(project, *QUICK, "--batch-size", "31")
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert err.count("error: --batch-size 31 cannot be divided among 2 processes; try 32") == 1
    assert [path.name for path in (project / "checkpoint").iterdir()] == ["a"]
    assert 'Traceback (most recent call last):\n  File "main.py' not in err


def children_of(pid: int) -> list[int]:
    """Processes that this one has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def test_a_process_that_dies_ends_the_job_and_the_run_goes_on_with_another_number(project):
    run_dir = project / "checkpoint" / "a"
    words = ("--epochs", "200", "--patience", "200", "--run-name", "a", *QUICK)
    log: list[dict[str, str]] = []
    for n, victim in (2, 0), (4, 3), (1, 0):
        process = torchrun(project, *words, "--trackers", "none", n=n)
        try:
            done = len(wait_for_epoch(process, run_dir, len(log) + 2))
            assert done >= len(log) + 2, process.communicate()
            os.kill(children_of(process.pid)[victim], signal.SIGKILL)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode != 0
        assert err.count("Traceback (most recent call last)") <= 1, err  # torchrun's own
        kept, log = log[:-1], rows(run_dir / "log.csv")
        assert log[: len(kept)] == kept
        assert [int(row["epoch"]) for row in log] == list(range(1, len(log) + 1))
        words = ("--resume", "checkpoint/a")


def test_several_machines_are_several_agents(project):
    """Two agents of torchrun that find each other over the network, as on two machines that share a folder."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = (*QUICK, "--trackers", "none", "--epochs", "2", "--batch-size", "30", "--run-name", "a")
    agents = [
        torchrun(
            project,
            *words,
            agent=(
                "--nnodes=2",
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint=127.0.0.1:{port}",
                "--rdzv-id=test",
            ),
            n=n,
        )
        for n in (2, 1)
    ]
    results = [(agent.communicate(timeout=300), agent.returncode) for agent in agents]
    assert [code for _, code in results] == [0, 0], results
    assert sum(out.count("epoch 2/2") for (out, _), _ in results) == 1
    run_dir = project / "checkpoint" / "a"
    metrics = json.loads((run_dir / "metrics.json").read_text())
    scored = rows(run_dir / "predictions.csv")
    assert len({row["file"] for row in scored}) == len(scored) == 80
    assert metrics["test_acc"] == sum(row["true"] == row["predicted"] for row in scored) / 80
