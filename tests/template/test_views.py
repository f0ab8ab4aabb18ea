"""Whether augmentation does what it should can be counted and seen."""

import imgaug.augmenters as iaa
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from data import get_data, get_transforms
from data.transformation import ImgAugTransform
from evaluation.views import count_views, show_views


def test_the_views_of_the_pipeline_that_ships_are_all_different(photos):
    picture, _ = get_data("imagefolder", photos).train[0]
    for augmentation in ("photographs", "small", "characters"):
        transform, _ = get_transforms(64, augmentation)
        assert count_views(picture, transform, n=32, epochs=2, num_workers=4) == (64, 64)


def test_a_pipeline_that_is_seeded_wrongly_is_noticed(photos):
    picture, _ = get_data("imagefolder", photos).train[0]

    def pipeline(augment):
        return v2.Compose([v2.Resize((48, 48)), augment, v2.PILToTensor()])

    augmenter = iaa.Sequential([iaa.Affine(rotate=(-30, 30)), iaa.AdditiveGaussianNoise(scale=20)])

    def direct(image):  # imgaug's own random state, of which every worker has a copy
        return Image.fromarray(augmenter(image=np.asarray(image)))

    def fixed(image):
        torch.manual_seed(0)
        return ImgAugTransform(augmenter)(image)

    for wrong in (direct, fixed):
        unique, total = count_views(picture, pipeline(v2.Lambda(wrong)), n=32, epochs=2, num_workers=4)
        assert unique < total == 64
    assert count_views(picture, pipeline(ImgAugTransform(augmenter)), n=32, epochs=2, num_workers=4) == (64, 64)


@pytest.mark.draws
def test_views_are_shown_beside_the_picture_as_it_is(photos, tmp_path):
    pictures = get_data("imagefolder", photos)
    show_views(pictures.train, *get_transforms(64), n=3, file=tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as sheet:
        assert sheet.width > sheet.height > 300
