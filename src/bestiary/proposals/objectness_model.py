"""What objectness learns: how much each cue's value speaks for an object, and where objects lie."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64

CELLS = 32
"""Cells of a cue's histogram."""

NEIGHBOUR = 10
"""A kernel of the places reaches to the training box that is the so many-th nearest."""

LEAST_REACH = 0.01
"""Of a kernel, in sides of the picture: many boxes may lie at one place."""

MOST_PLACES = 1000
"""Training boxes that have a kernel."""


class Table(NamedTuple):
    """How much a cue's value speaks for an object.

    Attributes:
        edges: between the cells, rising; infinity where there are fewer cells.
        ratios: of each cell, log p(value | object) - log p(value | background).
    """

    edges: Float32[np.ndarray, " cells_less_one"]
    ratios: Float32[np.ndarray, " cells"]

    @classmethod
    def fitted(cls, values: Float32[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> "Table":
        """From values of windows with and without object.

        The cells hold equal parts of either kind of windows, as well as can be, and one more window of each kind than
        there was: no value can rule an object out.
        """
        share = np.linspace(0, 1, CELLS // 2 + 1)[1:-1]
        kinds = [values[positive], values[~positive]]
        found = np.unique(np.concatenate([np.quantile(kind, share) for kind in kinds if kind.size]).astype(np.float32))
        edges = np.full(CELLS - 1, np.inf, np.float32)
        edges[: len(found)] = found
        counts = [np.bincount(np.searchsorted(edges, kind, side="right"), minlength=CELLS) + 1.0 for kind in kinds]
        ratios = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        return cls(edges, ratios.astype(np.float32))

    @classmethod
    def silent(cls) -> "Table":
        """Of a cue that says nothing."""
        return cls(np.full(CELLS - 1, np.inf, np.float32), np.zeros(CELLS, np.float32))

    def of(self, values: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """The logarithms of the ratios at these values."""
        return self.ratios[np.searchsorted(self.edges, values, side="right")]

    def certainty(self, values: Float32[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
        """Sum over the windows with object of log p(object | value): what a cue's parameter is chosen by (equation 10
        of the paper).
        """
        share = positive.mean()
        odds = np.log(share / (1 - share)) + self.of(values[positive])
        return float(-np.logaddexp(0, -odds).sum())


class Places(NamedTuple):
    """A density over centre and size of boxes, in sides of the picture: a Gaussian for each training box.

    Attributes:
        centres: x, y, width, height.
        reaches: standard deviation of each.
    """

    centres: Float32[np.ndarray, "G 4"]
    reaches: Float32[np.ndarray, " G"]

    @classmethod
    def fitted(cls, boxes: Float64[np.ndarray, "N 4"], rng: np.random.Generator) -> "Places":
        """From the training boxes (`relative`), at most `MOST_PLACES` of them drawn at random."""
        from scipy.spatial import KDTree

        chosen = boxes[np.sort(rng.permutation(len(boxes))[:MOST_PLACES])]
        nearest, _ = KDTree(chosen).query(chosen, k=min(NEIGHBOUR + 1, len(chosen)))
        reach = np.maximum(np.asarray(nearest).reshape(len(chosen), -1)[:, -1], LEAST_REACH)
        return cls(chosen.astype(np.float32), reach.astype(np.float32))

    def densities(self, boxes: Float64[np.ndarray, "N 4"]) -> Float32[np.ndarray, " N"]:
        """At these boxes (`relative`)."""
        import torch

        from bestiary.ops._kernels.threads import in_threads
        from bestiary.proposals._kernels.objectness import densities

        points, out = np.ascontiguousarray(boxes, np.float32), np.zeros(len(boxes), np.float32)
        precisions, heights = self.reaches**-2, self.reaches**-4 / np.float32(max(1, len(self.reaches)))

        def work(start: int, stop: int) -> None:
            densities(points[start:stop], self.centres, precisions, heights, out[start:stop])

        in_threads(work, len(points), torch.get_num_threads(), 500)
        return out


def relative(boxes_xyxy: Float64[np.ndarray, "N 4"], size_hw: tuple[int, int]) -> Float64[np.ndarray, "N 4"]:
    """Centre x and y, width and height, in sides of the picture."""
    height, width = size_hw
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], 1) / [width, height, width, height]
