"""Grids of images: any number, titled, in a file when called from a script, and nothing that waits for a person."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from data import get_data, get_transforms, make_loaders
from evaluation import plots
from utils import show_dataset, show_dl

pytestmark = pytest.mark.draws


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Figures as they are shown."""
    figures: list[Figure] = []
    real = plots.show_figure
    monkeypatch.setattr(
        plots, "show_figure", lambda figure, *a, **k: (figures.append(figure), real(figure, *a, **k))
    )
    monkeypatch.setattr("matplotlib.pyplot.show", lambda *a, **k: pytest.fail("this would wait for a person"))
    return figures


def titles(figure: Figure) -> list[str]:
    """Titles of the images."""
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize("n", [1, 5, 16, 500])
def test_show_dataset_takes_any_size_and_names_the_classes(photos, tmp_path, drawn, n, capsys):
    data = get_data("imagefolder", photos)
    show_dataset(data.val, n=n)
    assert "show_dataset.png" in capsys.readouterr().out
    assert (tmp_path / "show_dataset.png").stat().st_size > 1000
    assert len(titles(drawn[0])) == min(n, 8)
    assert set(titles(drawn[0])) <= {"helmet", "hero"}


def test_show_dl_shows_what_the_network_sees(photos, tmp_path, drawn):
    data = get_data("imagefolder", photos)
    train_dl, val_dl, _ = make_loaders(data, *get_transforms(64), batch_size=6, num_workers=0)
    show_dl(train_dl, file=tmp_path / "a.png")
    show_dl(val_dl, file=tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 400
    assert len(titles(drawn[0])) == 6
    assert set(titles(drawn[1])) == {"helmet", "hero"}  # not the first class only
    first = drawn[1].axes[0].images[0].get_array()
    assert (first == val_dl.dataset[0][0].movedim(0, -1).numpy()).all()


@pytest.mark.parametrize("size", [3, 17, 31, 33])
def test_show_dl_shows_pictures_from_all_over(tmp_path, drawn, size):
    from torch.utils.data import DataLoader

    images = torch.arange(size, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    show_dl(DataLoader([(image, i) for i, image in enumerate(images)], batch_size=4), file=tmp_path / "a.png")
    shown = [int(title) for title in titles(drawn[0])]
    assert len(shown) == min(size, 16)
    assert max(shown) >= size - 1 - size / 16


def test_names_of_classes_are_drawn_as_they_are(tmp_path):
    names = ["$_$", "a_b^{", "été"]
    plots.confusion(np.eye(3, dtype=int), names).savefig(tmp_path / "a.png")
    plots.image_grid(torch.rand(3, 3, 4, 4), names).savefig(tmp_path / "b.png")


def test_pictures_of_a_users_own_pipeline(photos, tmp_path, drawn):
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    normalised = v2.Compose(
        [v2.Resize((40, 40)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.2])]
    )
    show_dl(
        DataLoader(ImageFolder(photos / "train", normalised), batch_size=4, shuffle=True),
        file=tmp_path / "a.png",
    )
    assert len(titles(drawn[0])) == 4
    grey = torch.rand(3, 1, 8, 8)
    assert plots.image_grid(grey, ["a", "b", "c"]).axes[0].images[0].get_array().shape[:2] == (8, 8)


def test_no_window_is_opened():
    figure = plots.confusion(np.eye(40, dtype=int), [f"class {i}" for i in range(40)])
    assert isinstance(figure, Figure)
    assert figure.canvas.manager is None
