"""Whole images in a square."""

from typing import Any

import torch
from torchvision.transforms import v2


class ResizeLongSide(v2.Resize):
    """Scale the long side of an image, up or down, to `side` pixels.

    `v2.Resize(None, max_size=side)` does that too, but rounds the short side down, to nothing for narrow images.
    """

    def __init__(self, side: int) -> None:
        super().__init__(None, max_size=side)

    def transform(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Scale a tensor (3, H, W) of uint8."""
        sides = image.shape[-2:]
        scale = self.max_size / max(sides)
        return v2.functional.resize(image, [max(1, round(side * scale)) for side in sides])
