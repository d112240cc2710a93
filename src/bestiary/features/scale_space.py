"""Gaussian scale space (Lindeberg 1994) in octaves, as SIFT walks it (Lowe, IJCV 2004, section 3)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from bestiary.ops._kernels.threads import in_threads
from bestiary.records import require

CAMERA_BLUR = 0.5
"""Standard deviation that pictures are taken to have already, in their own pixels (Lowe, section 3.3)."""

SMALLEST_SIDE = 11
"""Octaves end before a side falls below this: no point could be found there."""

LARGEST_LEVEL = 1 << 27
"""Samples of a level at most: six levels of that size take 3.2 GB."""

_BAND_ROWS = 64
"""Least rows a thread blurs at a time: a band also reads up to a dozen rows above and below itself."""


@dataclass(frozen=True, eq=False)
class Octave:
    """Levels of one sampling.

    Sample (r, c) of every level lies at x = step c + offset, y = step r + offset of the picture, in the house's
    continuous pixels. Level i has a standard deviation of `sigma * 2^(i / intervals) * step`, in pixels of the picture.

    Attributes:
        levels: from fine to coarse, `intervals + 3` of them, so that each of `intervals` differences of Gaussians has
            one before and one after it.
        number: 0 for the picture's own sampling, -1 for the doubled one.
        offset: place of sample 0.
    """

    levels: Float32[np.ndarray, "S H W"]
    number: int
    offset: float

    @property
    def step(self) -> float:
        """Pixels of the picture between samples."""
        return 2.0**self.number


def scale_space(
    grey: Float32[np.ndarray, "H W"], intervals: int = 3, sigma: float | int = 1.6, doubled: bool = True
) -> list[Octave]:
    """The octaves of a picture.

    Each level is blurred from the one before by the Gaussian that it lacks; level `intervals`, of twice the first
    level's sigma, loses every second row and column to begin the next octave. A doubled picture is resampled bilinearly
    about pixel areas, so that samples lie at a quarter and three quarters of a pixel.

    Args:
        grey: not empty.
        intervals: levels an octave that extrema are looked for at.
        sigma: of the first level, in samples.
        doubled: begin at twice the picture's resolution, which finds about four times as many points.

    Raises:
        RecordError: a level would exceed `LARGEST_LEVEL` samples.
    """
    import cv2

    height, width = grey.shape
    samples = height * width * (4 if doubled else 1)
    mend = f"at most {LARGEST_LEVEL:,}; make it smaller" + (" or leave it undoubled" if doubled else "")
    require(samples <= LARGEST_LEVEL, "scale_space(grey)", f"{samples:,} samples a level", mend)
    first, known = grey, CAMERA_BLUR
    if doubled:
        first, known = cv2.resize(grey, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR), 2 * CAMERA_BLUR
    start = blur(first, max(sigma**2 - known**2, 0.01) ** 0.5)
    ratio = 2 ** (1 / intervals)
    steps = [sigma * ratio**i * (ratio**2 - 1) ** 0.5 for i in range(intervals + 2)]
    number, octaves = (-1 if doubled else 0), []
    while not octaves or min(start.shape) >= SMALLEST_SIDE:
        levels = np.empty((intervals + 3, *start.shape), np.float32)
        levels[0] = start
        for i, lacking in enumerate(steps):
            blur(levels[i], lacking, out=levels[i + 1])
        octaves.append(Octave(levels, number, 0.25 if doubled else 0.5))
        down, across = start.shape[0] // 2 * 2, start.shape[1] // 2 * 2
        start, number = np.ascontiguousarray(levels[intervals, :down:2, :across:2]), number + 1
    return octaves


def blur(
    grey: Float32[np.ndarray, "H W"], sigma: float | int, out: Float32[np.ndarray, "H W"] | None = None
) -> Float32[np.ndarray, "H W"]:
    """The picture under a Gaussian, mirrored about its outermost pixels' centres; cut off beyond 4 sigma.

    Args:
        grey: contiguous.
        sigma: in pixels, above 0.
        out: where to write; not `grey` itself.
    """
    import cv2

    blurred = np.empty_like(grey) if out is None else out
    size = round(8 * sigma + 1) | 1
    reach, height = size // 2, grey.shape[0]

    def work(start: int, stop: int) -> None:
        low, high = max(0, start - reach), min(height, stop + reach)
        band = cv2.GaussianBlur(grey[low:high], (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        blurred[start:stop] = band[start - low : stop - low]

    # Whole pictures where a mirror at one edge would reach the other.
    in_threads(work, height, torch.get_num_threads() if height >= 2 * size else 1, grain=_BAND_ROWS)
    return blurred
