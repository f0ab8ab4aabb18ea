"""Pictures a second on a GPU: this template's training beside a bare tuned loop, the loader alone and the ceiling.

python benchmarks/gpu.py [--data-dir PHOTOS] [--models resnet18 resnet50] [--batch-size 256] [--json FILE]

For each network, frozen and fully trained, in bfloat16, channels_last:

    ceiling   forward, loss, backward and step on one batch that lies in the GPU's memory; nothing else
    bare      a tuned loop in PyTorch over such batches, which reads its loss once an epoch
    ours      Poutyne's Model with get_callbacks() over such batches
    loader    train_transform on photographs, pinned, with as many workers as there are cores; no network
    fed       ours over the loader; `limit` says how much of the ceiling is lost because pictures do not come faster

Without `--data-dir` photographs of 500 × 375 are drawn. `--device cpu` runs the same on a CPU, to try the script.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "template"), str(HERE)]

ROUNDS = 3


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import torch
    from poutyne import Model

    from callbacks import BestCheckpoint, ResumeCheckpoint, get_callbacks
    from config import Config
    from core.task import Task
    from data import get_data, get_transforms, make_loaders
    from growth import draw
    from metrics import accuracy
    from models import get_model
    from Project import Run

    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("error: there is no GPU here; --device cpu tries the script")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    torch.backends.cudnn.benchmark = True
    n, size, task = options.batches, options.batch_size, Task(["a", "b"])
    images = torch.randint(0, 256, (size, 3, 224, 224), dtype=torch.uint8, device=device)
    labels = torch.randint(2, (size,), device=device)

    def network_of(model: str, frozen: bool) -> torch.nn.Module:
        network = get_model(model, len(task.classes), "none")
        if frozen:
            network.freeze()
        network.bf16 = True
        return network.to(device).train()

    def optimizer_of(network: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in network.parameters() if p.requires_grad])

    def a_second(work: Callable[[], int]) -> float:
        """Pictures a second, the best of a few rounds: what disturbs makes it slower, never faster."""
        speeds = []
        for _ in range(ROUNDS + 1):  # the first warms up
            begin = time.perf_counter()
            done = work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            speeds.append(done / (time.perf_counter() - begin))
        return max(speeds[1:])

    def loop(network: torch.nn.Module, batches: Iterable) -> int:
        optimizer, total, done = optimizer_of(network), torch.zeros((), device=device), 0
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(
                network(x.to(device, non_blocking=True)), y.to(device, non_blocking=True)
            )
            loss.backward()
            optimizer.step()
            total += loss.detach()
            done += len(y)
        total.item()
        return done

    def ceiling(network: torch.nn.Module) -> int:
        optimizer = optimizer_of(network)
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        return n * size

    def poutyne(network: torch.nn.Module, batches: Iterable, val: Iterable) -> int:
        with tempfile.TemporaryDirectory() as folder:
            callbacks = get_callbacks(Config(epochs=1, patience=1), network, Run(Path(folder)), [], None)
            # Nothing is written.
            callbacks = [one for one in callbacks if not isinstance(one, (BestCheckpoint, ResumeCheckpoint))]
            model = Model(
                network,
                optimizer_of(network),
                "cross_entropy",
                epoch_metrics=[("acc", accuracy(task))],
                device=device,
            )
            model.fit_generator(batches, val, epochs=1, callbacks=callbacks, verbose=False)
        return sum(len(y) for _, y in batches) if isinstance(batches, list) else len(batches.sampler)

    with tempfile.TemporaryDirectory() as folder:
        if options.data_dir is None:
            draw(Path(folder), max(20, n * size * 5 // 4), (500, 375))  # four fifths are to train with
        data = get_data("imagefolder", options.data_dir or Path(folder))
        train_dl, _, _ = make_loaders(data, *get_transforms(224), batch_size=size)
        in_memory = [(images, labels)] * n
        few = [(images[:2], labels[:2])]
        loader = a_second(lambda: sum(len(y) for _, y in train_dl))
        print(
            f"{name}, batch {size}, bfloat16, 224 px; loader alone {loader:.0f} pictures/s on {train_dl.num_workers}"
        )
        print(f"{'':19}  ceiling     bare     ours      fed    limit")
        found: dict = {"device": name, "torch": torch.__version__, "loader": loader, "networks": {}}
        for model in options.models:
            for frozen in (True, False):
                network = network_of(model, frozen)
                row = {
                    "ceiling": a_second(lambda network=network: ceiling(network)),
                    "bare": a_second(lambda network=network: loop(network, in_memory)),
                    "ours": a_second(lambda network=network: poutyne(network, in_memory, few)),
                    "fed": a_second(lambda network=network: poutyne(network, train_dl, few)),
                }
                row["limit"] = 1 - row["fed"] / row["ceiling"]
                found["networks"][f"{model} {'frozen' if frozen else 'trained'}"] = row
                speeds = "  ".join(f"{row[key]:7.0f}" for key in ("ceiling", "bare", "ours", "fed"))
                print(
                    f"{model:10} {'frozen' if frozen else 'trained':8}  {speeds}  {100 * row['limit']:5.0f} %"
                )
    ratios = [row["bare"] / row["ours"] for row in found["networks"].values()]
    print(f"a bare loop is {statistics.median(ratios):.2f} times as fast as ours, both on batches in memory")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
