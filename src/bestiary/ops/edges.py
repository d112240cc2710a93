"""Edges of label maps and of pictures."""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.geometry.boxes import at_least_float32
from bestiary.ops.distance import euclidean_distance
from bestiary.records import require

BoundaryMode = Literal["thick", "inner", "outer"]


def label_boundaries(
    label_map: Shaped[Tensor, "*N H W"],
    connectivity: int = 4,
    mode: BoundaryMode = "thick",
    background: int = 0,
) -> Bool[Tensor, "*N H W"]:
    """Pixels at which a label map changes; scikit-image's `find_boundaries`, for any background.

    Convention: a pixel lies on a boundary if one of its neighbours has another label; the picture's border is none. So
    "thick" boundaries are two pixels wide, one on each side. "inner" keeps those that are not background: outlines of
    things, inside them. "outer" keeps background, and pixels where two things touch: outlines around things.

    Args:
        label_map: whole numbers or bool.
        connectivity: neighbours of a pixel, 4 or 8.
        mode: which side.
        background: the label that is no thing.

    Raises:
        RecordError: fewer than two axes, or another connectivity or mode.
    """
    require(label_map.ndim >= 2, "label_boundaries(label_map)", f"shape {tuple(label_map.shape)}", "(..., H, W)")
    require(connectivity in (4, 8), "label_boundaries(connectivity)", connectivity, "4 or 8")
    require(mode in ("thick", "inner", "outer"), "label_boundaries(mode)", repr(mode), '"thick", "inner" or "outer"')
    found = _differs(label_map, connectivity)
    if mode == "thick":
        return found
    thing = label_map != background
    if mode == "inner":
        return found & thing
    return found & (~thing | _differs(label_map, 8, thing))


def _differs(labels: Tensor, connectivity: int, counted: Tensor | None = None) -> Tensor:
    """Where a neighbour has another label; if `counted` is given, both pixels must be counted."""
    out = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    height, width = labels.shape[-2:]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))[: connectivity // 2]:
        # Each pair of pixels once: `here` and the neighbour `down`, `right` of it.
        left = max(0, -right)
        here = (..., slice(0, max(0, height - down)), slice(left, max(left, width - max(0, right))))
        there = (..., slice(down, None), slice(left + right, max(left + right, width - left)))
        other = labels[here] != labels[there]
        if counted is not None:
            other = other & counted[here] & counted[there]
        out[here] |= other
        out[there] |= other
    return out


def within_distance(masks: Bool[Tensor, "*N H W"], tolerance: int | float) -> Bool[Tensor, "*N H W"]:
    """Pixels at most `tolerance` from a pixel of the mask, between centres: dilation by a disk, at any radius' cost.

    Convention: exactly at the tolerance is inside; an empty mask stays empty. Boundary scores match boundaries so.

    Raises:
        RecordError: not bool, fewer than two axes, or a tolerance below 0.
    """
    require(tolerance >= 0, "within_distance(tolerance)", tolerance, "0 or more")
    return euclidean_distance(~masks) <= tolerance


def sobel_gradients(images: Float[Tensor, "*N H W"]) -> tuple[Float[Tensor, "*N H W"], Float[Tensor, "*N H W"]]:
    """Derivatives along x and y by Sobel's 3 x 3 kernels, divided by 8: of a ramp its slope.

    Convention: brighter to the right, and to the bottom, is positive. At the border the outermost pixels repeat.
    Differentiable; half precision is computed in float32.

    Raises:
        RecordError: fewer than two axes, or no pixel.
    """
    fits = images.ndim >= 2 and images.shape[-1] > 0 and images.shape[-2] > 0
    require(fits, "sobel_gradients(images)", f"shape {tuple(images.shape)}", "(..., H, W), not empty")
    planes = at_least_float32(images).reshape(-1, 1, *images.shape[-2:])
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    along_x = (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 8
    along_y = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 8
    return along_x.reshape(images.shape).to(images.dtype), along_y.reshape(images.shape).to(images.dtype)


def suppress_nonmaxima(
    strength: Float[Tensor, "*N H W"], direction: Float[Tensor, "*N H W"], slack: int | float = 1.0
) -> Float[Tensor, "*N H W"]:
    """Edges thinned to their ridges (Canny, TPAMI 1986, section VII): what is weaker than a neighbour across is 0.

    Convention: the two neighbours lie one pixel away along `direction` on either side, bilinear in between; beyond the
    border the outermost pixels repeat. A pixel stays if `strength x slack` is not below either: plateaus stay.

    Args:
        strength: of edges, 0 or more.
        direction: radians of the normal to the edge, from x towards y: `atan2(gradient_y, gradient_x)`.
        slack: above 1 keeps near ridges too.

    Raises:
        RecordError: shapes do not fit.
    """
    fits = strength.ndim >= 2 and strength.shape == direction.shape
    require(
        fits,
        "suppress_nonmaxima(direction)",
        f"shape {tuple(direction.shape)}",
        f"{tuple(strength.shape)}, (..., H, W)",
    )
    values = at_least_float32(strength)
    normal = torch.stack([torch.cos(direction), torch.sin(direction)]).to(values.dtype)
    weakest = values * slack
    keep = (weakest >= _beside(values, normal)) & (weakest >= _beside(values, -normal))
    return strength * keep


def _beside(values: Float[Tensor, "*N H W"], step: Float[Tensor, "2 *N H W"]) -> Float[Tensor, "*N H W"]:
    """Bilinear value at each pixel's centre moved by `step` (x, y)."""
    height, width = values.shape[-2:]
    columns, rows = torch.arange(width, device=values.device), torch.arange(height, device=values.device)[:, None]
    # The sine of pi is not 0: what is that near a whole pixel is one.
    x = (columns + torch.where(step[0].abs() < 1e-6, 0, step[0])).clamp(0, width - 1)
    y = (rows + torch.where(step[1].abs() < 1e-6, 0, step[1])).clamp(0, height - 1)
    x0, y0 = x.floor(), y.floor()
    u, v = x - x0, y - y0
    flat = values.reshape(*values.shape[:-2], height * width)

    def at(column: Tensor, row: Tensor) -> Tensor:
        place = row.clamp(max=height - 1).long() * width + column.clamp(max=width - 1).long()
        return flat.gather(-1, place.reshape(flat.shape)).reshape(values.shape)

    upper = at(x0, y0) * (1 - u) + at(x0 + 1, y0) * u
    lower = at(x0, y0 + 1) * (1 - u) + at(x0 + 1, y0 + 1) * u
    return upper * (1 - v) + lower * v


def canny(
    image: UInt8[Tensor, "C H W"] | Float32[Tensor, "C H W"],
    low: int | float,
    high: int | float,
    sigma: int | float = 1.4,
) -> Bool[Tensor, "H W"]:
    """Canny's edges by OpenCV: blur, Sobel, thinning, hysteresis.

    Convention: thresholds are on the Euclidean norm of the undivided 3 x 3 Sobel response to 0..255 brightness; both
    are strict: a pixel above `high` starts an edge, connected ones above `low` continue it. Of several channels the one
    with the strongest gradient counts.

    Args:
        image: uint8 0..255, or float32 0..1, of one or three channels.
        low: continues an edge.
        high: starts one.
        sigma: of the Gaussian blur before, pixels; 0 for none.

    Raises:
        RecordError: other channels, thresholds in the wrong order, or sigma below 0.
    """
    import cv2

    require(
        image.ndim == 3 and image.shape[0] in (1, 3), "canny(image)", f"shape {tuple(image.shape)}", "(1 or 3, H, W)"
    )
    require(0 <= low <= high, "canny(low, high)", f"{low} and {high}", "0 <= low <= high")
    require(sigma >= 0, "canny(sigma)", sigma, "0 or more")
    if not image.numel():
        return torch.zeros(image.shape[1:], dtype=torch.bool, device=image.device)
    bright = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = np.ascontiguousarray(bright.detach().cpu().permute(1, 2, 0).numpy())
    if sigma:
        side = 2 * math.ceil(3 * sigma) + 1
        pixels = cv2.GaussianBlur(pixels, (side, side), float(sigma))
    edges = cv2.Canny(pixels, float(low), float(high), apertureSize=3, L2gradient=True)
    return torch.from_numpy(edges > 0).to(image.device)
