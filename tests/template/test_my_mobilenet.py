"""MobileNet V2, as an example of a network of one's own."""

import pytest
import torch

from core.errors import UserError
from models import get_model


def test_my_mobilenet_is_that_of_the_paper():
    network = get_model("my_mobilenet", 1000, "none")
    assert sum(p.numel() for p in network.parameters()) == 3_504_872
    assert network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 1000)
    with pytest.raises(UserError, match="no ImageNet weights"):
        get_model("my_mobilenet", 2, "imagenet")
