"""ResNets with squeeze and excitation, as an example of networks of one's own."""

import pytest
import torch

from core.errors import UserError
from models import get_model


@pytest.mark.parametrize(("name", "expected"), [("se_resnet50", 28_088_024), ("se_resnext50", 27_559_896)])
def test_se_resnets_are_those_of_the_papers(name, expected):
    network = get_model(name, 1000, "none")
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 1000)
    with pytest.raises(UserError, match="no ImageNet weights"):
        get_model(name, 2, "imagenet")
