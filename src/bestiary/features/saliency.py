"""Salient regions: Kadir, Brady, Saliency, Scale and Image Description, IJCV 45(2), 2001."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.records import Rows, require, require_tensor, row_field

LEVELS = 16
"""Cells of the grey-level histograms."""


@dataclass(frozen=True, eq=False)
class Regions(Rows):
    """N circular regions of a picture, most salient first.

    Attributes:
        centres_xy: pixels; the centre of the top-left pixel is (0.5, 0.5).
        radii: pixels: the scale.
        saliency: entropy times its change over scale.
    """

    centres_xy: Float32[Tensor, "N 2"] = row_field()
    radii: Float32[Tensor, " N"] = row_field()
    saliency: Float32[Tensor, " N"] = row_field()

    def __post_init__(self) -> None:
        require_tensor("Regions", "centres_xy", self.centres_xy, (None, 2), torch.float32)
        require_tensor("Regions", "radii", self.radii, (None,), torch.float32)
        require_tensor("Regions", "saliency", self.saliency, (None,), torch.float32)
        self.require_rows()


def salient_regions(
    grey: Float32[Tensor, "H W"],
    *,
    count: int = 20,
    radii: tuple[int, int] = (3, 16),
    step: int = 2,
    least_contrast: int | float = 0.02,
) -> Regions:
    """The most salient circles.

    For a disc of radius s at x, p is the histogram of its grey levels, H = -sum p log2 p, and
    W = s^2 / (2 s - 1) sum |p(s) - p(s - 1)|. Where H has a peak over s, the saliency is H W (sections 4 and 5).

    The paper clusters the salient points; here they are taken greedily, best first, and one is left out if its centre
    lies in a region that was taken, or it holds the centre of one, and their radii differ by less than a factor of two.
    Discs that reach over the border are no candidates, and neither are those whose grey levels deviate (standard
    deviation) by less than `least_contrast`: what noise there is would be judged by entropy alone.

    Args:
        grey: 0..1.
        count: at most so many.
        radii: smallest and largest radius compared, pixels; regions have radii strictly between them (a peak has
            neighbours).
        step: centres lie on every so many pixels.
        least_contrast: on the scale of 0..1.

    Raises:
        RecordError: not [H, W].
        UsageError: a number out of range.
    """
    from bestiary.features._kernels.saliency import saliency_peaks

    require(grey.ndim == 2, "salient_regions(grey)", f"shape {tuple(grey.shape)}", "(H, W)")
    smallest, largest = radii
    if not 2 <= smallest <= largest - 2:
        raise UsageError(f"got {radii}, wanted a smallest radius of at least 2 and a largest two above", where="radii")
    if count < 0 or step < 1:
        raise UsageError(f"got count {count} and step {step}, wanted 0 and 1 or more", where="salient_regions")
    pixels = grey.detach().cpu().contiguous().numpy()
    levels = np.clip((pixels * LEVELS).astype(np.int64), 0, LEVELS - 1).astype(np.uint8)
    rings, starts = _rings(smallest, largest)
    found = saliency_peaks(levels, pixels, rings, starts, smallest, step, float(least_contrast))
    order = np.argsort(-found[:, 3], kind="stable")
    kept = torch.from_numpy(found[order][_spread(found[order], count)])
    return Regions(kept[:, :2].contiguous(), kept[:, 2].contiguous(), kept[:, 3].contiguous())


def _rings(smallest: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (y, x) of the disc of radius smallest - 1, then of the rings s - 1 < distance <= s around it, and where
    each of them begins."""
    reach = np.arange(-largest, largest + 1)
    y, x = (a.ravel() for a in np.meshgrid(reach, reach, indexing="ij"))
    # The least whole radius whose disc holds the offset, in whole numbers.
    ring = np.array([math.isqrt(int(d) - 1) + 1 if d else 0 for d in y * y + x * x])
    ring = np.maximum(ring, smallest - 1)
    order = np.lexsort((x, y, ring))
    order = order[ring[order] <= largest]
    starts = np.searchsorted(ring[order], np.arange(smallest - 1, largest + 2))
    return np.stack([y[order], x[order]], 1).astype(np.int32), starts.astype(np.int64)


def _spread(found: np.ndarray, count: int) -> list[int]:
    """Rows (x, y, radius, saliency), best first, that are taken."""
    taken: list[int] = []
    for i in range(len(found)):
        if len(taken) == count:
            break
        x, y, radius, _ = found[i]
        others = found[taken]
        near = np.hypot(others[:, 0] - x, others[:, 1] - y) < np.maximum(others[:, 2], radius)
        alike = np.maximum(others[:, 2], radius) < 2 * np.minimum(others[:, 2], radius)
        if not (near & alike).any():
            taken.append(i)
    return taken
