"""How strong an edge runs through each pixel, and which way: colour, at several scales, with texture held down.

What a trained detector (structured forests) learns from drawn contours is put here by hand: an edge counts if it is
seen at several scales, in brightness or colour, if the edges around it run its way, and if it stands out from them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from bestiary.ops.edges import suppress_nonmaxima
from bestiary.records import Record, require, require_tensor

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the derivatives, pixels."""

COMPANY = 4.0
"""Spread of the neighbourhood whose edges must run along, pixels."""

SURROUND, SURROUND_SHARE = 32.0, 0.7
"""Spread of the neighbourhood whose mean strength an edge has to exceed, pixels, and by how much of it."""

FULL, POWER = 0.98, 0.8
"""Quantile of the strengths that counts as 1, and the power that the others are raised to, which lifts faint ones."""

LEAST_FULL = 0.2
"""Least strength that counts as 1, in units of L*a*b* a pixel: the rounding of bytes makes no edges."""

_TINY = np.float32(1e-6)


@dataclass(frozen=True, eq=False)
class SoftEdges(Record):
    """Edges, thinned to lines of one pixel.

    Attributes:
        strength: 0..1; 0 off the lines.
        tangent: direction of the line, radians from the x axis towards the downward y axis, 0 to pi.
    """

    strength: Float32[Tensor, "H W"]
    tangent: Float32[Tensor, "H W"]

    def __post_init__(self) -> None:
        require_tensor("SoftEdges", "strength", self.strength, (None, None), torch.float32)
        require_tensor("SoftEdges", "tangent", self.tangent, tuple(self.strength.shape), torch.float32)


def soft_edges(image: UInt8[Tensor, "3 H W"]) -> SoftEdges:
    """Edges of a picture.

    At each scale the strength is the root of the larger eigenvalue of the colour gradient's tensor (Di Zenzo, 1986) in
    L*a*b*, times the root of the scale, so that neither sharp nor blurred edges rule. The mean over the scales is
    multiplied with the agreement in direction with the edges around, -1..1 and cut at 0, and less `SURROUND_SHARE` of
    its own mean around. It is relative to the picture: a faint picture has edges too.

    Raises:
        RecordError: not RGB, or empty.
    """
    fits = image.ndim == 3 and image.shape[0] == 3 and image.numel() > 0
    require(fits, "soft_edges(image)", f"shape {tuple(image.shape)}", "(3, H, W), not empty")
    strength, xx, xy, yy = _gradients(image.permute(1, 2, 0).contiguous().numpy())
    normal = 0.5 * np.arctan2(2 * xy, xx - yy)
    company = strength / (xx + yy + _TINY)
    along, across, total = (
        _blur((xx - yy) * company, COMPANY),
        _blur(2 * xy * company, COMPANY),
        _blur(strength, COMPANY),
    )
    agreement = (along * np.cos(2 * normal) + across * np.sin(2 * normal)) / (total + _TINY)
    strength *= np.maximum(agreement, 0)
    strength = np.maximum(strength - SURROUND_SHARE * _blur(strength, SURROUND), 0)
    full = max(float(np.quantile(strength, FULL)), LEAST_FULL)
    strength = np.minimum(strength / full, 1) ** np.float32(POWER)
    direction = torch.from_numpy(normal)
    thin = suppress_nonmaxima(torch.from_numpy(strength), direction)
    return SoftEdges(thin, torch.remainder(direction + np.pi / 2, np.pi))


def _gradients(pixels: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "4 H W"]:
    """Mean strength over the scales, and the sum of the gradient's tensors: xx, xy, yy."""
    import cv2

    lab = cv2.cvtColor(pixels.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_RGB2Lab)
    out = np.zeros((4, *lab.shape[:2]), np.float32)
    slope = np.array([[-0.5, 0, 0.5]], np.float32)
    for sigma in SCALES:
        blurred = _blur(lab, sigma)
        x = cv2.filter2D(blurred, cv2.CV_32F, slope, borderType=cv2.BORDER_REPLICATE)
        y = cv2.filter2D(blurred, cv2.CV_32F, slope.T, borderType=cv2.BORDER_REPLICATE)
        xx, xy, yy = (sigma * np.einsum("hwc,hwc->hw", a, b) for a, b in ((x, x), (x, y), (y, y)))
        larger = 0.5 * (xx + yy) + np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
        out += np.stack([np.sqrt(larger) / len(SCALES), xx, xy, yy])
    return out


def _blur(values: Float32[np.ndarray, "H W *C"], sigma: float) -> Float32[np.ndarray, "H W *C"]:
    import cv2

    return cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
