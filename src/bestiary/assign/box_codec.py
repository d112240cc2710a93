"""Boxes as offsets from reference boxes, and back (Girshick et al., CVPR 2014, appendix C)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.records import require


@dataclass(frozen=True)
class BoxCodec:
    """The four numbers a box regressor learns: shift of the centre in reference sizes, and log of the ratio of sizes.

        dx = wx (gx - px) / pw      dw = ww log(gw / pw)
        dy = wy (gy - py) / ph      dh = wh log(gh / ph)

    with centre and size of the box g and of its reference p.

    Attributes:
        weights: wx, wy, ww, wh. (1, 1, 1, 1) in proposal networks and RetinaNet; (10, 10, 5, 5) in region heads and
            SSD, which brings the targets' spread near one (SSD's variances 0.1, 0.1, 0.2, 0.2 are their reciprocals).
        max_log_scale: dw and dh are cut here when decoded, lest exp overflow: log(1000 / 16) grows a box of 16 pixels
            to 1000.
    """

    weights: tuple[int | float, int | float, int | float, int | float] = (1.0, 1.0, 1.0, 1.0)
    max_log_scale: int | float = math.log(1000.0 / 16)

    def __post_init__(self) -> None:
        fits = len(self.weights) == 4 and min(self.weights) > 0
        require(fits, "BoxCodec.weights", self.weights, "four positive numbers")

    def encode(self, boxes: Float[Tensor, "N 4"], references: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Offsets that turn each reference into its box.

        Args:
            boxes: `xyxy`; both sides must be positive, or the logarithm is not finite.
            references: `xyxy`, likewise.
        """
        centre, size = _centre_and_size(boxes)
        reference_centre, reference_size = _centre_and_size(references)
        weights = boxes.new_tensor(self.weights)
        shift = weights[:2] * (centre - reference_centre) / reference_size
        growth = weights[2:] * torch.log(size / reference_size)
        return torch.cat([shift, growth], dim=1)

    def decode(self, deltas: Float[Tensor, "N K4"], references: Float[Tensor, "N 4"]) -> Float[Tensor, "N K4"]:
        """Boxes, `xyxy`, from offsets; with 4 K columns, K boxes a reference, such as one a class.

        Computed in the offsets' type, at least float32.
        """
        fits = deltas.shape[1] % 4 == 0
        require(fits, "BoxCodec.decode(deltas)", f"{deltas.shape[1]} columns", "a multiple of 4")
        if deltas.dtype not in (torch.float32, torch.float64):
            deltas = deltas.float()
        centre, size = _centre_and_size(references.to(deltas.dtype))
        offsets = deltas.unflatten(1, (-1, 4)) / deltas.new_tensor(self.weights)
        middle = offsets[..., :2] * size[:, None] + centre[:, None]
        half = 0.5 * torch.exp(offsets[..., 2:].clamp(max=self.max_log_scale)) * size[:, None]
        return torch.cat([middle - half, middle + half], dim=-1).flatten(1)


def _centre_and_size(boxes: Float[Tensor, "N 4"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * size, size
