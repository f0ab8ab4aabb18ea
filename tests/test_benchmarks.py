"""The benchmarks run; what they measure is for people to read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


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
