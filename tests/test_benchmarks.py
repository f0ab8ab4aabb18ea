"""The benchmarks run; what they measure is for people to read."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
WEIGHTS = ROOT.parent / "shared" / "weights" / "torch_home"
sys.path.insert(0, str(BENCHMARKS))

from growth import draw  # noqa: E402


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_each_says_what_it_does(script):
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"python benchmarks/{script.name}" in done.stdout


def test_growth_measures_a_training(tmp_path):
    file = tmp_path / "growth.json"
    words = [sys.executable, BENCHMARKS / "growth.py", "--sizes", "60", "--json", file]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())["60"]
    assert 0 < found["epoch"] < found["features"] < found["whole"]
    assert found["memory_mb"] > 100


def test_what_a_batch_costs_is_measured():
    words = [sys.executable, BENCHMARKS / "overhead.py", "--batches", "5", "--rounds", "1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "bare",
        "poutyne",
        "ours",
        "ours_f1",
        "ours",
    ]


def test_the_one_for_a_gpu_can_be_tried_on_a_cpu(tmp_path):
    file = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--models", "my_cnn", "--batch-size", "4", "--batches", "1", "--json", file]
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())["networks"]["my_cnn trained"]
    assert min(found[way] for way in ("ceiling", "bare", "ours", "fed")) > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_kept_memory_brings_is_measured():
    words = [
        sys.executable,
        BENCHMARKS / "memory.py",
        "--models",
        "my_cnn",
        "--batch-size",
        "4",
        "--rounds",
        "1",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("my_cnn ")


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs ImageNet weights, and there is no network here")
def test_peers_train_on_the_same_images(tmp_path):
    draw(tmp_path, 40)
    words = [
        "--data-dir",
        tmp_path,
        "--seeds",
        "1",
        "--only",
        "raw_tuned",
        "ours",
        "--json",
        tmp_path / "peers.json",
    ]
    environ = {**os.environ, "TORCH_HOME": str(WEIGHTS)}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "peers.py", *words], capture_output=True, text=True, env=environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "peers.json").read_text())
    for name in ("raw_tuned", "ours"):
        assert 0 <= found["val_acc"][name] <= 1
        assert min(found[key][name] for key in ("time_ratio", "startup", "peak_memory_mb")) > 0
    assert found["versions"]["torch"]
