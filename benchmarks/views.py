"""How many views of each picture have to be kept?

python benchmarks/views.py PHOTOS … [--seeds 10]

For each folder of photographs: features of 40 augmented views by a frozen resnet18, then heads that are trained on some
of them at random, or in each epoch on a new one ("fresh"). Half of the images that are not trained on, another half for
each seed, choose the epoch by the lowest loss. Printed is the accuracy on the other half, its mean and standard error
over the seeds.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "template"))

from data import get_data, get_transforms, make_loaders
from models import get_model
from training.feature_cache import FeatureLoader

VIEWS = 40


def test_accuracy(train: tuple, held_out: tuple, views: int, epochs: int, seed: int) -> float:
    """Train a head on features (VIEWS, N, D); return its accuracy, in per cent.

    Half of the held-out images, drawn by the seed, choose the epoch by the lowest loss; the other half is scored.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    (x, y), (x_out, y_out) = train, held_out
    val, test = torch.from_numpy(rng.permutation(len(y_out))).chunk(2)
    head = torch.nn.Linear(x.shape[-1], int(y.max()) + 1)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    chosen, lowest, accuracy = rng.permutation(VIEWS), float("inf"), 0.0
    for epoch in range(epochs):
        order = rng.permutation(len(y))
        which = chosen[rng.integers(views, size=len(y)) if views else np.full(len(y), epoch % VIEWS)]
        for i in torch.from_numpy(order).split(32):
            loss = torch.nn.functional.cross_entropy(head(x[torch.from_numpy(which)[i], i]), y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = head(x_out)
            loss = torch.nn.functional.cross_entropy(logits[val], y_out[val]).item()
        if loss < lowest:
            lowest, accuracy = loss, (logits[test].argmax(1) == y_out[test]).float().mean().item()
    return 100 * accuracy


def main() -> None:
    """Print a line for each folder, number of epochs and number of views."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for folder in options.folders:
        data = get_data("imagefolder", folder)
        loaders = list(make_loaders(data, *get_transforms()))
        network = get_model("resnet18", len(data.classes), "imagenet")
        with tempfile.TemporaryDirectory() as cache:
            kept = [
                FeatureLoader(network, loader, Path(cache), VIEWS if loader is loaders[0] else 0)
                for loader in loaders
            ]

            def all_of(loader, view: int) -> torch.Tensor:
                n = len(loader.targets)
                return loader.features(np.arange(n), np.full(n, view)).float()

            train = torch.stack([all_of(kept[0], view) for view in range(VIEWS)]), kept[0].targets
            held_out = (
                torch.cat([all_of(one, 0) for one in kept[1:]]),
                torch.cat([one.targets for one in kept[1:]]),
            )
        for epochs in 10, 20, 40:
            for views in 1, 2, 3, 4, 8, 0:
                found = [test_accuracy(train, held_out, views, epochs, seed) for seed in range(options.seeds)]
                spread = np.std(found) / len(found) ** 0.5
                print(
                    f"{folder.name:14} {epochs} epochs  {views or 'fresh':5}  {np.mean(found):.1f} ± {spread:.1f} %"
                )


if __name__ == "__main__":
    main()
