"""An example of a loss of one's own."""

import torch
from torch.nn import functional


def focal(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None, gamma: float = 2.0
) -> torch.Tensor:
    """Cross-entropy that cares less for what is easy (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017).

    Args:
        logits: (N, C) of float.
        labels: (N,) of int64.
        weight: (C,) of float, how much each class counts.
        gamma: 0 is cross-entropy; the larger, the less easy images count.
    """
    log_p = functional.log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)
    losses = -((1 - log_p.exp()) ** gamma) * log_p
    if weight is None:
        return losses.mean()
    return (losses * weight[labels]).sum() / weight[labels].sum()
