"""Augmented views are all different, across workers and epochs."""

import hashlib

import imgaug.augmenters as iaa
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from data import get_data, get_transforms
from data.loaders import EpochSampler, make_loader
from data.transformation import ImgAugTransform


def count_views(image: Image.Image, transform, n: int = 32) -> int:
    """Different views among 2 × n of one image, drawn by four workers in two epochs of the same loader."""
    sampler = EpochSampler(n, seed=0)
    loader = make_loader([(image, 0)] * n, transform, [""], batch_size=1, num_workers=4, sampler=sampler)
    return len({hashlib.sha256(view.numpy().tobytes()).digest() for _ in range(2) for view, _ in loader})


def test_the_views_of_the_pipeline_that_ships_are_all_different(photos):
    image, _ = get_data("imagefolder", photos).train[0]
    for augmentation in ("photographs", "small", "characters"):
        transform, _ = get_transforms(64, augmentation)
        assert count_views(image, transform) == 64


def test_a_pipeline_that_is_seeded_wrongly_is_noticed(photos):
    image, _ = get_data("imagefolder", photos).train[0]

    def pipeline(augment):
        return v2.Compose([v2.Resize((48, 48)), augment, v2.PILToTensor()])

    augmenter = iaa.Sequential([iaa.Affine(rotate=(-30, 30)), iaa.AdditiveGaussianNoise(scale=20)])

    def direct(image):  # imgaug's own random state, of which every worker has a copy
        return Image.fromarray(augmenter(image=np.asarray(image)))

    def fixed(image):
        torch.manual_seed(0)
        return ImgAugTransform(augmenter)(image)

    for wrong in (direct, fixed):
        assert count_views(image, pipeline(v2.Lambda(wrong))) < 64
    assert count_views(image, pipeline(ImgAugTransform(augmenter))) == 64
