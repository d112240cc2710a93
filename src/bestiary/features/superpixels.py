"""Segments grown on the graph of pixels: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation,
IJCV 59(2), 2004."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int32
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.records import require


@dataclass(frozen=True, eq=False)
class PixelGraph:
    """Pairs of pixels that touch, corners included, by rising difference: whatever k, segments grow along this order.

    Attributes:
        weights: Euclidean distance of the two pixels' values.
        codes: four times the first pixel's index, plus 0 if the second lies to its right, 1 below, 2 below right, 3
            above right.
        size_hw: of the picture.
    """

    weights: Float32[np.ndarray, " E"]
    codes: Int32[np.ndarray, " E"]
    size_hw: tuple[int, int]


def felzenszwalb_segments(
    pixels: Float32[Tensor, "C H W"], k: int | float = 300.0, sigma: int | float = 0.8, min_size: int = 50
) -> Int32[Tensor, "H W"]:
    """Number of the segment that each pixel belongs to.

    Two segments become one if the cheapest edge between them weighs at most Int(S) + k / |S| for both, Int(S) being the
    largest edge that was needed to hold S together (equations 3 to 5).

    Convention: edges go to eight neighbours; of equal weights, those to the right come first, then down, down right, up
    right, each in reading order. Segments are numbered in reading order. scikit-image's `felzenszwalb` gives the same
    partition (its pixels are divided by 255, and so is its `scale`).

    Args:
        pixels: any channels; the paper's are 0..255.
        k: in the pixels' unit; larger makes larger segments.
        sigma: of the Gaussian blur before, pixels; 0 for none.
        min_size: segments with fewer pixels are joined with a neighbour, along the cheapest edges first.

    Raises:
        RecordError: not [C, H, W], or empty.
        UsageError: a negative number.
    """
    fits = pixels.ndim == 3 and pixels.numel() > 0
    require(fits, "felzenszwalb_segments(pixels)", f"shape {tuple(pixels.shape)}", "(C, H, W), not empty")
    if min(k, sigma, min_size) < 0:
        got = f"got k {k}, sigma {sigma} and min_size {min_size}, wanted none below 0"
        raise UsageError(got, where="felzenszwalb_segments")
    values = pixels.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    return torch.from_numpy(grow(pixel_graph(values, sigma), k, min_size)[0])


def pixel_graph(pixels: Float32[np.ndarray, "H W C"], sigma: int | float = 0.8) -> PixelGraph:
    """The graph of a picture after a blur of `sigma` pixels, out to four of them; beyond the border it is mirrored."""
    import cv2

    from bestiary.features._kernels.superpixels import grid_edges, sort_by_key

    height, width = pixels.shape[:2]
    side = 2 * int(4 * sigma + 0.5) + 1
    if side > 1:
        blurred = cv2.GaussianBlur(pixels, (side, side), float(sigma), borderType=cv2.BORDER_REFLECT)
        pixels = blurred.reshape(pixels.shape)
    edges = height * (width - 1) + width * (height - 1) + 2 * (height - 1) * (width - 1)
    weights, codes = np.empty(edges, np.float32), np.empty(edges, np.int32)
    grid_edges(np.ascontiguousarray(pixels), weights, codes)
    # The bits of numbers that are not negative rank as the numbers do.
    sorted_weights, sorted_codes = np.empty(edges, np.uint32), np.empty(edges, np.int32)
    sort_by_key(weights.view(np.uint32), codes, sorted_weights, sorted_codes)
    return PixelGraph(sorted_weights.view(np.float32), sorted_codes, (height, width))


def grow(graph: PixelGraph, k: int | float, min_size: int) -> tuple[Int32[np.ndarray, "H W"], int]:
    """Segments of a graph: the number of each pixel's, and how many there are."""
    from bestiary.features._kernels.superpixels import grow_segments

    labels = np.empty(graph.size_hw, np.int32)
    return labels, grow_segments(graph.weights, graph.codes, float(k), min_size, labels)
