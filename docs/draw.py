"""Draws the pictures of README.md again: those that the demo leaves, trained in a copy of the template.

python docs/draw.py                           two minutes or so; docs/peers.png stays as it is
python docs/draw.py --to FOLDER --epochs 1    elsewhere; all other options are main.py's

docs/peers.png needs photographs and half an hour: python benchmarks/peers.py --data-dir PHOTOS --picture docs/peers.png
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PICTURES = ("train_batch.png", "curves.png", "confusion_matrix.png")


def main() -> None:
    """Copies, trains, takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE)
    options, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "template"
        ignore = shutil.ignore_patterns("dataset", "checkpoint", ".*", "__pycache__")
        shutil.copytree(HERE.parent / "template", copy, ignore=ignore)
        words = ["--trackers", "none", "--run-name", "demo", *others]
        subprocess.run([sys.executable, copy / "main.py", *words], check=True)
        options.to.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:
            shutil.copy(copy / "checkpoint" / "demo" / name, options.to)


if __name__ == "__main__":
    main()
