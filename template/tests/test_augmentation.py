"""Augmentation: different for each image, worker and epoch, reproducible, and for training only."""

import hashlib
import pickle

import imgaug.augmenters as iaa
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from core.rng import isolated_rng
from data import make_loaders
from data.splits import DatasetSplits
from data.transformation import ImgAugTransform, get_transforms, train_transform, val_transform


class OneImage(Dataset):
    """The same image, 32 times."""

    classes = ("a", "b")

    def __init__(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
        self.image = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BILINEAR)

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int):
        return self.image, index % 2


def views(loader) -> list[str]:
    """Return a digest of each image of an epoch."""
    return [
        hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] for images, _ in loader for image in images
    ]


def loaders(workers: int, seed: int = 0, transforms=None):
    """Return loaders of the one image."""
    train, val = transforms or get_transforms(64)
    data = DatasetSplits(OneImage(), OneImage(), OneImage(), ["a", "b"])
    return make_loaders(data, train, val, batch_size=8, seed=seed, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 4])
def test_every_view_differs_across_images_workers_and_epochs(workers):
    train_dl, _, _ = loaders(workers)
    first, second = views(train_dl), views(train_dl)
    assert len(set(first)) == 32
    assert len(set(first + second)) == 64


def test_views_follow_the_seed_whatever_the_number_of_workers():
    reference = [views(dl) for dl in [loaders(0).train] for _ in range(2)]
    again = [views(dl) for dl in [loaders(3).train] for _ in range(2)]
    assert again == reference
    assert views(loaders(0, seed=1).train) != reference[0]


def test_a_resumed_epoch_has_the_views_it_would_have_had():
    train_dl, _, _ = loaders(0)
    _, second = views(train_dl), views(train_dl)
    resumed, _, _ = loaders(0)
    resumed.sampler.set_epoch(2)
    assert views(resumed) == second


def test_validation_is_not_augmented():
    _, val_dl, test_dl = loaders(2)
    assert len(set(views(val_dl) + views(val_dl) + views(test_dl))) == 1


def test_augmentation_does_not_change_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    views(loaders(0).train)
    assert torch.equal(torch.rand(2), expected)


AUGMENTERS = {
    "custom seed": iaa.Sequential([iaa.Affine(rotate=(-30, 30), seed=1)], seed=2),
    "nested": iaa.Sequential(
        [iaa.SomeOf(1, [iaa.AdditiveGaussianNoise(scale=(5, 20)), iaa.CoarseDropout(0.2)])]
    ),
    "copied random states": iaa.Sequential([iaa.PerspectiveTransform(0.1), iaa.PerspectiveTransform(0.1)]),
    "hidden parts": iaa.MultiplyAndAddToBrightness(),
    "random order": iaa.Sequential([iaa.Affine(rotate=(-9, 9)), iaa.GaussianBlur((0, 2))], random_order=True),
}


@pytest.mark.parametrize("name", AUGMENTERS)
def test_any_augmenter_of_imgaug_differs_and_repeats(name):
    from torchvision.transforms import v2

    pipeline = v2.Compose(
        [v2.Resize(48), v2.CenterCrop(48), ImgAugTransform(AUGMENTERS[name]), v2.PILToTensor()]
    )
    first = views(loaders(4, transforms=(pipeline, pipeline)).train)
    assert len(set(first)) > 24  # a few may coincide where little is drawn
    pipeline = pickle.loads(pickle.dumps(pipeline))  # as a worker gets it where processes are not forked
    assert views(loaders(0, transforms=(pipeline, pipeline)).train) == first


def test_transforms_return_uint8_at_224():
    image = OneImage().image
    for transform in (train_transform, val_transform):
        out = transform(image)
        assert out.shape == (3, 224, 224)
        assert out.dtype == torch.uint8


@pytest.mark.parametrize("size", [(300, 150), (150, 300)])
def test_aspect_ratio_is_kept(size):
    image = Image.new("RGB", size, "black")
    # a square
    image.paste("white", (size[0] // 2 - 30, size[1] // 2 - 30, size[0] // 2 + 30, size[1] // 2 + 30))
    _, val = get_transforms(112)
    white = val(image)[0] > 127
    height, width = white.any(dim=1).sum().item(), white.any(dim=0).sum().item()
    assert abs(height - width) <= 2


def test_no_image_is_turned_upside_down():
    image = Image.linear_gradient("L").convert("RGB")  # dark above, light below
    for seed in range(60):
        with isolated_rng(seed):
            view = get_transforms(64)[0](image).float()
        assert view[:, :16].mean() < view[:, -16:].mean()


def test_augmentation_is_visible():
    image = OneImage().image
    train, val = get_transforms(64)
    plain = val(image).float()
    change = [(train(image).float() - plain).abs().mean().item() for _ in range(20)]
    assert np.median(change) > 5
