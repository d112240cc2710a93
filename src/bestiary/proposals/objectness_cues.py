"""What of a window speaks for an object in it: the cues of Alexe, Deselaers, Ferrari, Measuring the Objectness of Image
Windows, PAMI 34(11), 2012, section 2.

Windows are int32 x1, y1, x2, y2 in pixels of a small copy of the picture, ends not included.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Shaped
from torch import Tensor

from bestiary.features.superpixels import felzenszwalb_segments
from bestiary.heads.fitted_classification import to_bytes
from bestiary.ops._kernels.threads import in_threads

SALIENCE_SIDES = (16, 24, 32, 48, 64)
"""Sides of the squares that the picture is shrunk to, for salience at several scales."""

COLOUR_CELLS = (4, 8, 8)
"""Cells of L*, a* and b*."""

SEGMENT_SIGMA, SEGMENT_LEAST = 0.5, 200
"""The superpixels' blur, and smallest size, in a picture of 300 x 200; both grow with the square root of the area."""

GRAIN = 500
"""Windows that are worth a thread."""


def salience_map(channel: Float64[np.ndarray, "S S"]) -> Float64[np.ndarray, "S S"]:
    """Spectral residual (Hou and Zhang, CVPR 2007): what of the spectrum's logarithm its own neighbourhood does not
    explain, carried back, squared, smoothed over a disc of radius 3, and brought to 0..1.
    """
    from scipy.ndimage import convolve, uniform_filter

    spectrum = np.fft.fft2(channel)
    height = np.log(np.maximum(np.abs(spectrum), 1e-12))
    residual = height - uniform_filter(height, 3, mode="nearest")
    found = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    reach = np.arange(-3, 4)
    disc = (reach[:, None] ** 2 + reach**2 <= 9).astype(np.float64)
    smooth = convolve(found, disc / disc.sum(), mode="constant")
    span = smooth.max() - smooth.min()
    return (smooth - smooth.min()) / span if span > 0 else np.zeros_like(smooth)


@dataclass(eq=False)
class SmallPicture:
    """A picture as the cues see it; what several windows need is made once.

    Attributes:
        pixels: uint8 RGB, longest side as asked for.
        full_hw: size of the picture itself.
    """

    pixels: Shaped[np.ndarray, "H W 3"]
    full_hw: tuple[int, int]
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, image: Shaped[Tensor, "C H W"], side: int) -> "SmallPicture":
        """Shrink a picture so that its longest side is at most `side`."""
        import cv2

        pixels = to_bytes(image.detach().cpu()).permute(1, 2, 0).contiguous().numpy()
        height, width = pixels.shape[:2]
        factor = min(1.0, side / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if factor < 1 else pixels
        return cls(small, (height, width))

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the small copy."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    def windows(self, boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Int32[np.ndarray, "N 4"]:
        """Boxes of the full picture as windows: at least one pixel, within."""
        height, width = self.size_hw
        limits = np.array([width, height, width, height])
        factor = limits / np.array([*self.full_hw[::-1], *self.full_hw[::-1]], np.float64)
        found = np.rint(boxes_xyxy * factor).astype(np.int32)
        low = np.clip(found[:, :2], 0, limits[:2] - 1)
        return np.concatenate([low, np.clip(np.maximum(found[:, 2:], low + 1), 1, limits[:2])], 1).astype(np.int32)

    def salience(self, side: int) -> list[Float64[np.ndarray, "S S"]]:
        """A map for each colour channel, at one scale."""
        return self._once(("salience", side), lambda: self._salience(side))

    def contrast(self, windows: Int32[np.ndarray, "N 4"], factor: float) -> Float32[np.ndarray, " N"]:
        """How the colours within differ from those around, 0..2; `factor` is the surroundings' area to the window's."""
        from bestiary.proposals._kernels.objectness import contrasts

        counts = self._once("colours", self._colour_counts)
        return _each(windows, lambda some, out: contrasts(counts, some, factor, out))

    def edge_density(self, windows: Int32[np.ndarray, "N 4"], factor: float) -> Float32[np.ndarray, " N"]:
        """Edge pixels near the border within, to the border's length; `factor` says how thick the ring is."""
        from bestiary.proposals._kernels.objectness import edge_densities

        edges = self._once("edges", self._edge_counts)
        return _each(windows, lambda some, out: edge_densities(edges, some, factor, out))

    def straddling(self, windows: Int32[np.ndarray, "N 4"], k: float) -> Float32[np.ndarray, " N"]:
        """How little superpixels reach over the border, at most 1; `k` is the segmentation's."""
        from bestiary.proposals._kernels.objectness import straddlings

        counts = self._once(("segments", k), lambda: self._segment_counts(k))
        return _each(windows, lambda some, out: straddlings(counts, some, out))

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _salience(self, side: int) -> list[Float64[np.ndarray, "S S"]]:
        import cv2

        small = cv2.resize(self.pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64) / 255
        return [salience_map(small[:, :, c]) for c in range(3)]

    def _colour_counts(self) -> Int32[np.ndarray, "H1 W1 K"]:
        import cv2

        from bestiary.proposals._kernels.objectness import integral_counts

        lab = cv2.cvtColor(self.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
        cells = np.array(COLOUR_CELLS)
        place = (lab + np.array([0, 120, 120], np.float32)) / (np.array([100, 240, 240]) / cells)
        index = np.clip(place, 0, cells - 1).astype(np.int64) @ np.array([cells[1] * cells[2], cells[2], 1])
        # Most pictures have a few of the colours only: the others are left out.
        there, labels = np.unique(index, return_inverse=True)
        return integral_counts(labels.reshape(index.shape).astype(np.int32), len(there))

    def _edge_counts(self) -> Float64[np.ndarray, "H1 W1"]:
        import cv2

        from bestiary.proposals._kernels.objectness import integral

        grey = cv2.GaussianBlur(cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
        across, down = (cv2.Sobel(grey, cv2.CV_16S, x, 1 - x) for x in (1, 0))
        # Seven pixels in ten are no edge, whatever the picture's contrast.
        high = max(1.0, float(np.quantile(np.hypot(across.astype(np.float32), down.astype(np.float32)), 0.7)))
        return integral((cv2.Canny(across, down, 0.4 * high, high, L2gradient=True) > 0).astype(np.float64))

    def _segment_counts(self, k: float) -> Int32[np.ndarray, "H1 W1 K"]:
        from bestiary.proposals._kernels.objectness import integral_counts

        height, width = self.size_hw
        factor = math.sqrt(height * width / (300 * 200))
        pixels = torch.from_numpy(self.pixels.astype(np.float32)).permute(2, 0, 1)
        least = max(1, round(SEGMENT_LEAST * factor))
        labels = felzenszwalb_segments(pixels, k, SEGMENT_SIGMA * factor, least).numpy()
        return integral_counts(labels, int(labels.max()) + 1)


def _each(
    windows: Int32[np.ndarray, "N 4"], work: Callable[[np.ndarray, np.ndarray], None]
) -> Float32[np.ndarray, " N"]:
    """A cue of every window, over threads."""
    windows, out = np.ascontiguousarray(windows), np.zeros(len(windows), np.float32)
    in_threads(lambda a, b: work(windows[a:b], out[a:b]), len(windows), torch.get_num_threads(), GRAIN)
    return out
