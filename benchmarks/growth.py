"""Time and memory as the data grows: they should be linear, and flat.

python benchmarks/growth.py [--sizes 500 2000 8000 32000] [--json FILE]

Draws images (JPEG, 128 px, two classes), trains the last layer of a frozen resnet18 without weights' meaning at 64 px
for two epochs by the template's own main(), and says for each size what an image costs: looking at it before the
training, computing its features, an epoch of the head on it. Memory is the most that the main process had.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "template"))


def draw(folder: Path, n: int, size: tuple[int, int] = (128, 128)) -> None:
    """Draw n different images: four fifths to train with, the rest to validate and test."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / ("val" if i % 5 == 0 else "train") / "ab"[i // 5 % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=85)


def run_one(data_dir: Path) -> None:
    """One training; prints a line of JSON."""
    import torch

    import data.check
    import main as train
    import models
    from config import Config
    from Project import Project
    from training import feature_cache as features

    spent = {"look": 0.0, "features": 0.0}

    def timed(module, name: str, key: str) -> None:
        function = getattr(module, name)

        def call(*args, **options):
            begin = time.perf_counter()
            result = function(*args, **options)
            spent[key] += time.perf_counter() - begin
            return result

        setattr(module, name, call)

    timed(data.check, "check", "look")
    timed(features, "FeatureLoader", "features")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        weights = Path(folder) / "weights.pt"  # of no meaning; what counts is the time
        torch.save(models.get_model("resnet18", 2, "none").state_dict(), weights)
        options = {"weights": str(weights), "image_size": 64, "epochs": 2, "trackers": ("none",)}
        begin = time.perf_counter()
        run = train.main(Config(data_dir=data_dir, **options), Project(Path(folder)))
        whole = time.perf_counter() - begin
        rows = [line.split(",") for line in run.log.read_text(encoding="utf-8").splitlines()]
    at = rows[0].index("time")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print("\n" + json.dumps({**spent, "epoch": float(rows[-1][at]), "whole": whole, "memory_mb": memory}))


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 2000, 8000, 32000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(options.one)
    table = {}
    print("images    check    features  epoch of the head  whole run  memory     (ms an image; MB)")
    for n in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), n)
            done = subprocess.run(
                [sys.executable, __file__, "--one", folder], capture_output=True, text=True, check=False
            )
        if done.returncode:
            sys.exit(done.stdout[-1000:] + done.stderr[-3000:])
        found = json.loads(done.stdout.strip().splitlines()[-1])
        table[n] = found
        look, keep, epoch, whole = (1000 * found[name] / n for name in ("look", "features", "epoch", "whole"))
        print(
            f"{n:8}  {look:7.2f}  {keep:8.2f}  {epoch:17.3f}  {whole:9.2f}  {found['memory_mb']:6.0f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
