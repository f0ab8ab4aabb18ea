"""What it brings on a CPU that freed memory stays with the process: training with that and without it, in turns.

python benchmarks/memory.py [--models resnet18 resnet50 …] [--batch-size 32] [--image-size 224] [--rounds 3]

All of each network is trained on a batch that is in memory already, in a process of its own; the first step does not
count. Linux with glibc only: other systems keep memory in their own way.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "template"))


def steps(model: str, keep: bool, n: int, size: int) -> tuple[float, float]:
    """Milliseconds a picture, the median of 5 steps, and the most memory in MB that this process had."""
    import resource

    import torch

    from core.environment import keep_freed_memory
    from models import get_model

    if keep:
        keep_freed_memory(torch.device("cpu"))
    network = get_model(model, 2, "none").train()
    optimizer = torch.optim.Adam(network.parameters())
    images, labels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8), torch.randint(0, 2, (n,))
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - begin) / n)
    return statistics.median(times[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run all in turns and print a line for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50", "efficientnet_b0"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=("kept", "given"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = ["--batch-size", str(options.batch_size), "--image-size", str(options.image_size)]
    if options.one:
        print(*steps(options.models[0], options.one == "kept", options.batch_size, options.image_size))
        return

    print(f"{'':18} given back         kept               time         memory")
    for model in options.models:
        found: dict[str, list[tuple[float, ...]]] = {"given": [], "kept": []}
        for _ in range(options.rounds):
            for way, results in found.items():
                command = [sys.executable, __file__, "--models", model, "--one", way, *size]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                results.append(tuple(map(float, output.split())))
        given, kept = (
            [statistics.median(column) for column in zip(*found[way], strict=True)] for way in found
        )
        times = [b[0] / a[0] for a, b in zip(found["given"], found["kept"], strict=True)]
        print(
            f"{model:18} {given[0]:5.1f} ms {given[1]:5.0f} MB  {kept[0]:5.1f} ms {kept[1]:5.0f} MB  "
            f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})  {kept[1] / given[1]:.2f}"
        )


if __name__ == "__main__":
    main()
