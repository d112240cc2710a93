"""Two pictures side by side, and lines between points of theirs that belong together."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import close_canvas, line_width, open_canvas
from bestiary.draw.colours import TABLE, UNKNOWN
from bestiary.draw.sheets import side_by_side
from bestiary.records import require

_GAP = 4
"""Pixels between the pictures."""


def matches(
    left: Shaped[Tensor, "_c H W"],
    right: Shaped[Tensor, "_c2 _h2 _w2"],
    left_xy: Float[Tensor, "N 2"],
    right_xy: Float[Tensor, "N 2"],
    right_ones: Bool[Tensor, " N"] | None = None,
) -> UInt8[Tensor, "3 _h3 _w3"]:
    """Matched points joined by lines, in colours that go through the table so that neighbours can be told apart.

    Args:
        left: a picture.
        right: another, of any size.
        left_xy: points of the left picture, pixels.
        right_xy: their partners.
        right_ones: which pairs were found to be right; the others are drawn first, thin and grey.

    Raises:
        RecordError: not as many partners as points.
    """
    require(len(left_xy) == len(right_xy), "matches(right_xy)", f"{len(right_xy)} points", f"{len(left_xy)}")
    kept = torch.ones(len(left_xy), dtype=torch.bool) if right_ones is None else right_ones.cpu()
    require(len(kept) == len(left_xy), "matches(right_ones)", f"{len(kept)} entries", f"{len(left_xy)}")
    canvas = open_canvas(side_by_side(left, right))
    thick = max(1, line_width(open_canvas(left)) // 2)
    ends = torch.cat([left_xy.cpu(), right_xy.cpu() + torch.tensor([float(left.shape[-1] + _GAP), 0.0])], dim=1)
    shown = torch.isfinite(ends).all(1)
    for row in (shown & ~kept).nonzero()[:, 0].tolist():
        _join(canvas, ends[row].tolist(), UNKNOWN, 1)
    for i, row in enumerate((shown & kept).nonzero()[:, 0].tolist()):
        _join(canvas, ends[row].tolist(), TABLE[i % len(TABLE)], thick)
    return close_canvas(canvas)


def keypoints(
    image: Shaped[Tensor, "C H W"],
    xy: Float[Tensor, "N 2"],
    scale: Float[Tensor, " N"],
    angle: Float[Tensor, " N"],
) -> UInt8[Tensor, "3 H W"]:
    """Each point as a circle of three times its scale, with a radius along its angle.

    Args:
        image: a picture.
        xy: centres, pixels.
        scale: pixels.
        angle: radians from the x axis towards the downward y axis.

    Raises:
        RecordError: not as many scales and angles as points.
    """
    import cv2

    fits = len(xy) == len(scale) == len(angle)
    require(fits, "keypoints(scale, angle)", f"{len(scale)} and {len(angle)}", f"{len(xy)}, one a point")
    canvas = open_canvas(image)
    for i, (x, y, s, a) in enumerate(zip(*(v.tolist() for v in (*xy.T, scale, angle)), strict=True)):
        colour, radius = TABLE[i % len(TABLE)], 3 * s
        end = (x + radius * math.cos(a), y + radius * math.sin(a))
        if all(math.isfinite(v) and abs(v) < 1e6 for v in (*end, radius)):
            cv2.circle(canvas, _fixed((x, y)), round(radius * _PARTS), colour, 1, cv2.LINE_AA, _SHIFT)
            cv2.line(canvas, _fixed((x, y)), _fixed(end), colour, 1, cv2.LINE_AA, _SHIFT)
    return close_canvas(canvas)


_SHIFT = 4
_PARTS = 1 << _SHIFT


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    """Sixteenths of a pixel from the centre of the first one, as OpenCV counts."""
    return round((point[0] - 0.5) * _PARTS), round((point[1] - 0.5) * _PARTS)


def _join(canvas: UInt8[np.ndarray, "H W 3"], ends: list[float], colour: tuple[int, int, int], thick: int) -> None:
    import cv2

    if all(abs(v) < 1e6 for v in ends):
        one, other = _fixed((ends[0], ends[1])), _fixed((ends[2], ends[3]))
        cv2.line(canvas, one, other, colour, thick, cv2.LINE_AA, _SHIFT)
        for end in (one, other):
            cv2.circle(canvas, end, (2 + thick) * _PARTS, colour, thick, cv2.LINE_AA, _SHIFT)
