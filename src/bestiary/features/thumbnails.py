"""Small copies of pictures that a model keeps, to show what it found."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary.layers.channels import match_channels
from bestiary.layers.learned import Learned
from bestiary.layers.scaling import as_float

SIDE = 160
"""Longer side of a thumbnail, in pixels."""

QUALITY = 80


def shrink(image: Shaped[Tensor, "C H W"], side: int = SIDE) -> UInt8[Tensor, "3 H2 W2"]:
    """A colour copy whose longer side has at most `side` pixels (by area)."""
    import cv2

    pixels = as_float(match_channels(image, 3)).clamp(0, 1).permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(np.rint(pixels * 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)


def compress(image: Shaped[Tensor, "C H W"]) -> UInt8[Tensor, " n"]:
    """A thumbnail as JPEG bytes."""
    import cv2

    small = shrink(image).permute(1, 2, 0).contiguous().numpy()
    done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return torch.from_numpy(data.reshape(-1).copy()) if done else torch.zeros(0, dtype=torch.uint8)


class Thumbnails(Learned):
    """Compressed thumbnails, one after another.

    Attributes:
        ends: where each ends in `data`.
        data: JPEG bytes.
    """

    ends: Tensor
    data: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("ends", "data")

    def fit(self, compressed: Sequence[UInt8[Tensor, " _n"]]) -> None:
        """Keep these."""
        self.learn("ends", torch.tensor([len(part) for part in compressed]).cumsum(0))
        self.learn("data", torch.cat(list(compressed)))

    def picture(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """One thumbnail."""
        import cv2

        start = int(self.ends[index - 1]) if index else 0
        pixels = cv2.imdecode(self.data[start : int(self.ends[index])].numpy(), cv2.IMREAD_COLOR)
        if pixels is None:
            return torch.full((3, 8, 8), 255, dtype=torch.uint8)
        return torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)
