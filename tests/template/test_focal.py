"""The focal loss: what its paper says, with weights of the classes too."""

import pytest
import torch

from config import Config
from core.errors import UserError
from data import DataLoaders
from losses import get_loss


def test_the_focal_loss_cares_less_for_what_is_easy():
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 4), torch.randint(0, 4, (20,))
    own = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    assert get_loss("focal")(logits, labels).item() == pytest.approx((-((1 - own.exp()) ** 2) * own).mean().item())
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert get_loss("focal", weights)(logits, labels) != get_loss("focal")(logits, labels)


def test_the_focal_loss_takes_no_mixed_labels():
    mixing = pytest.importorskip("training.mixup")
    with pytest.raises(UserError, match="takes probabilities"):
        mixing.mix_batches(
            Config(mixup="mixup"), DataLoaders([], [], [], list("abcd")), get_loss("focal"), torch.device("cpu")
        )
