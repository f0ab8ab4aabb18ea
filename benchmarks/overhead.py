"""What the training costs a batch beside the network: this template's callbacks and metrics beside Poutyne's own.

python benchmarks/overhead.py [--batches 2000] [--rounds 7]

A head on 8 features, batches of 4 that are in memory already: what remains is the loop around them. Each way trains an
epoch in turns, with a progress bar as on a terminal of 80 columns:

    bare        a loop in PyTorch, and nothing else
    poutyne     its Model with accuracy, progress bar, CSVLogger, ModelCheckpoint, ReduceLROnPlateau, EarlyStopping
    ours        get_callbacks(), without tracker, and accuracy
    ours_f1     the same with the macro F1 score, as by default
"""

import argparse
import contextlib
import os
import pty
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "template"))


def ways(folder: Path, n: int) -> dict[str, Callable[[], None]]:
    """Return, by name, functions that train an epoch of n batches."""
    import torch
    from poutyne import CSVLogger, EarlyStopping, Model, ModelCheckpoint, ReduceLROnPlateau

    from callbacks import get_callbacks
    from config import Config
    from core.task import Task
    from metrics import METRICS, accuracy
    from models.classifier import Classifier
    from Project import Run

    batches = [(torch.randn(4, 8), torch.randint(2, (4,))) for _ in range(n)]
    val = batches[:1]

    def network() -> Classifier:
        return Classifier(torch.nn.Conv2d(3, 8, 1), 8, 2).freeze()

    task = Task(["a", "b"])

    def model(net: Classifier, *names: str) -> Model:
        metrics = {"acc": accuracy} | {name: METRICS[name] for name in names}
        return Model(
            net,
            torch.optim.Adam(net.head.parameters()),
            "cross_entropy",
            epoch_metrics=[(name, metric(task)) for name, metric in metrics.items()],
        )

    def bare() -> None:
        net = network()
        optimizer = torch.optim.Adam(net.head.parameters())
        for features, labels in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(features), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    def poutyne() -> None:
        callbacks = [
            CSVLogger(str(folder / "poutyne.csv")),
            ModelCheckpoint(str(folder / "poutyne.pt"), monitor="val_acc", mode="max", save_best_only=True),
            ReduceLROnPlateau(monitor="val_acc", mode="max"),
            EarlyStopping(monitor="val_acc", mode="max"),
        ]
        model(network()).fit_generator(batches, val, epochs=1, callbacks=callbacks)

    def template(*names: str) -> None:
        run = Run(folder)
        net = network()
        callbacks = get_callbacks(Config(epochs=1, patience=1), net, run, [], None)
        model(net, *names).fit_generator(batches, val, epochs=1, callbacks=callbacks, verbose=False)

    return {"bare": bare, "poutyne": poutyne, "ours": template, "ours_f1": lambda: template("f1")}


def quiet_terminal() -> None:
    """From here on stdout and stderr are a terminal of which nobody sees anything."""
    os.environ["COLUMNS"] = "80"
    child, leader = pty.fork()  # the child works on the terminal, this process reads what it shows
    if child == 0:
        return
    shown = b""
    with contextlib.suppress(OSError):  # the child has ended
        while part := os.read(leader, 65536):
            shown = (shown + part)[-3000:]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(f"it failed:\n{shown.decode(errors='replace')}" if code else 0)


def main() -> None:
    """Train in turns and print microseconds per batch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    out = os.fdopen(os.dup(1), "w")
    quiet_terminal()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        functions = ways(Path(folder), options.batches)
        times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(options.rounds + 1):  # the first warms up
            for name, function in functions.items():
                begin = time.perf_counter()
                function()
                times[name].append(1e6 * (time.perf_counter() - begin) / options.batches)
    bare = times["bare"][1:]
    for name, found in times.items():
        over = statistics.median(a - b for a, b in zip(found[1:], bare, strict=True))
        print(
            f"{name:8} {statistics.median(found[1:]):6.0f} µs a batch, {over:6.0f} over a bare loop", file=out
        )
    ratios = [
        (a - c) / (b - c) for a, b, c in zip(times["ours"][1:], times["poutyne"][1:], bare, strict=True)
    ]
    print(
        f"ours / poutyne {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", file=out
    )


if __name__ == "__main__":
    main()
