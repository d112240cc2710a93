"""Scores of membrane maps as the ISBI 2012 challenge takes them (Arganda-Carreras et al., Frontiers in Neuroanatomy
2015): what splits and merges cells costs, what shifts a membrane does not.

MembraneScores    accumulator: Rand, information, warping and pixel scores, each at its best threshold
warped            the truth moved towards a prediction without changing its topology (Jain et al., CVPR 2010)
warping_error     pixels that still differ after that

Convention: True is inside a cell, False membrane; beyond the picture is membrane. Cells are 4-connected and membranes
8-connected unless said otherwise, so that a membrane one pixel thin in diagonal steps divides. Higher is better but in
`warping_error` and `pixel_error`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.divisions import Connectivity, components, info_scores, overlap_table, rand_scores, thinned
from bestiary.metrics.scores import Scores
from bestiary.metrics.segmentation import require_mergeable
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL, Target, require

THRESHOLDS = tuple(t / 10 for t in range(1, 10))


@lru_cache(maxsize=2)
def simple_points(connectivity: Connectivity = 4) -> Bool[np.ndarray, " 256"]:
    """Whether a pixel may change colour without changing the topology, by the bits of its neighbours inside cells, from
    the north clockwise: exactly one part of cells and one of membrane touches it (Bertrand, 1994).
    """
    around = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]

    def touching(chosen: list[int], four: bool) -> int:
        """Connected parts of the chosen neighbours that touch the middle."""
        left, parts = set(chosen), 0
        while left:
            part = [left.pop()]
            for here in part:
                near = [n for n in left if _apart(around[here], around[n], four)]
                left.difference_update(near)
                part += near
            parts += any(not four or n % 2 == 0 for n in part)
        return parts

    table = np.zeros(256, bool)
    for bits in range(256):
        inside = [n for n in range(8) if bits >> n & 1]
        outside = [n for n in range(8) if not bits >> n & 1]
        table[bits] = touching(inside, connectivity == 4) == 1 and touching(outside, connectivity == 8) == 1
    return table


def _apart(a: tuple[int, int], b: tuple[int, int], four: bool) -> bool:
    """Whether two pixels are neighbours."""
    dy, dx = abs(a[0] - b[0]), abs(a[1] - b[1])
    return dy + dx == 1 if four else max(dy, dx) == 1


def warped(
    truth: Bool[np.ndarray, "H W"],
    predicted: Bool[np.ndarray, "h w"] | Float[np.ndarray, "h w"],
    threshold: int | float = 0.5,
    connectivity: Connectivity = 4,
) -> Bool[np.ndarray, "H W"]:
    """The truth after flipping simple pixels that differ from the prediction, until none is left.

    As Jain et al.'s algorithm it is greedy: pixels of which the prediction is surest go first, equal ones in the order
    in which they became ripe, starting in reading order; so the result is one of those that cannot be bettered by a
    flip, not always the best of all. It has as many cells and holes as the truth, nested alike. Only pixels that differ
    move: a membrane one pixel thin may shift by one pixel for nothing, a thick one by its thickness.

    Args:
        truth: True inside cells.
        predicted: likewise, or the probability of being inside.
        threshold: a probability above it is inside.
        connectivity: of cells; membranes have the other.

    Raises:
        RecordError: sizes differ.
    """
    from bestiary.metrics._kernels import homotopy

    require(truth.shape == predicted.shape, "predicted", f"size {predicted.shape}", f"the truth's, {truth.shape}")
    goal = np.zeros((truth.shape[0] + 2, truth.shape[1] + 2), np.uint8)
    labels, priority = goal.copy(), goal.copy()
    goal[1:-1, 1:-1] = predicted if predicted.dtype == np.bool_ else predicted > threshold
    labels[1:-1, 1:-1] = truth
    if predicted.dtype != np.bool_:
        sure = np.abs(np.clip(np.asarray(predicted, np.float64), 0, 1) - truth)
        priority[1:-1, 1:-1] = np.rint(255 * (1 - sure))
    homotopy.warp(labels, goal, priority, simple_points(connectivity))
    return labels[1:-1, 1:-1].astype(bool)


def warping_error(
    truth: Bool[np.ndarray, "H W"],
    predicted: Bool[np.ndarray, "h w"] | Float[np.ndarray, "h w"],
    threshold: int | float = 0.5,
    connectivity: Connectivity = 4,
) -> float:
    """Share of the pixels in which prediction and warped truth differ; 0 for an empty picture."""
    said = predicted if predicted.dtype == np.bool_ else predicted > threshold
    return float((warped(truth, predicted, threshold, connectivity) != said).mean()) if truth.size else 0.0


def pixel_error(truth: Bool[np.ndarray, "H W"], predicted: Bool[np.ndarray, "h w"]) -> float:
    """Share of the pixels that are wrong; 0 for an empty picture."""
    return float((truth != predicted).mean()) if truth.size else 0.0


MEASURES = (
    "rand_f",
    "rand_split",
    "rand_merge",
    "info_f",
    "info_split",
    "info_merge",
    "warping_error",
    "pixel_error",
    "pixel_f",
)
"""What is measured of each picture at each threshold."""

_LED_BY = {"rand": "rand_f", "info": "info_f"}
_LOWER = ("warping_error", "pixel_error")


class MembraneScores:
    """The challenge's scores, gathered picture by picture; memory is a table of thresholds x measures.

    Each measure is averaged over the pictures at every threshold, and then the best threshold is taken, for each
    measure its own (split and merge at their F's). A prediction without probabilities is the same at every threshold.

    Args:
        categories: two names; predictions and truth count in them.
        cell: label of the pixels inside cells.
        thresholds: probabilities of a cell above which a pixel is inside, ascending.
        connectivity: of cells.
        thin: grow predicted cells until they meet, so that thick membranes are not held against a prediction in the
            Rand and information scores.

    Raises:
        UsageError: not two categories, or thresholds that are not ascending within 0 to 1.
    """

    def __init__(
        self,
        categories: Sequence[str],
        cell: int = 1,
        thresholds: Sequence[int | float] = THRESHOLDS,
        connectivity: Connectivity = 4,
        thin: bool = False,
    ) -> None:
        if len(categories) != 2 or cell not in (0, 1):
            got = f"{len(categories)} categories, cells being number {cell}"
            raise UsageError(f"got {got}, wanted two, cells and membranes", where="categories")
        ascending = list(thresholds) == sorted(set(thresholds))
        if not thresholds or not ascending or thresholds[0] < 0 or thresholds[-1] >= 1:
            raise UsageError(f"got {list(thresholds)}, wanted ascending numbers, 0 <= t < 1", where="thresholds")
        self.categories, self.cell = tuple(categories), cell
        self.thresholds, self.thin = tuple(thresholds), thin
        self.connectivity: Connectivity = connectivity
        self._sums: Float64[np.ndarray, "T M"] = np.zeros((len(thresholds), len(MEASURES)))
        self._seen: Int64[np.ndarray, "T M"] = np.zeros((len(thresholds), len(MEASURES)), np.int64)
        self.pictures = 0

    def update(self, predictions: Sequence[Segmentation], targets: Sequence[Target]) -> None:
        """Add pictures. Pixels whose truth is unknown are membrane to the Rand and information scores, and right to the
        others.

        Raises:
            RecordError: numbers or sizes differ, or a target has no label map.
        """
        require(len(predictions) == len(targets), "update", f"{len(predictions)} predictions", f"{len(targets)}")
        for prediction, target in zip(predictions, targets, strict=True):
            where = prediction.name or f"picture {self.pictures}"
            if target.label_map is None:
                raise RecordError("got a target without label_map", where=where)
            labels = target.label_map.cpu().numpy()
            truth, known = labels == self.cell, labels != IGNORE_LABEL
            if prediction.probs is None:
                found = prediction.label_map.cpu().numpy() == self.cell
            else:
                found = prediction.probs[self.cell].cpu().numpy()
            require(found.shape == truth.shape, where, f"a map of {found.shape}", f"the truth's size, {truth.shape}")
            numbers = self._measure(truth, found, known)
            self._sums += np.nan_to_num(numbers)
            self._seen += ~np.isnan(numbers)
            self.pictures += 1

    def _measure(
        self,
        truth: Bool[np.ndarray, "H W"],
        found: Bool[np.ndarray, "H W"] | Float[np.ndarray, "H W"],
        known: Bool[np.ndarray, "H W"],
    ) -> Float64[np.ndarray, "T M"]:
        """Every measure at every threshold."""
        true_parts = components(truth, self.connectivity)
        rows = []
        for threshold in self.thresholds if found.dtype != np.bool_ else self.thresholds[:1]:
            inside = found if found.dtype == np.bool_ else found > threshold
            parts = components(inside, self.connectivity)
            table = overlap_table(true_parts, thinned(parts) if self.thin else parts)
            rand, info = rand_scores(table), info_scores(table)
            judged = np.where(known, inside, truth)
            wrong = pixel_error(truth, judged)
            both, either = int((truth & judged).sum()), int(truth.sum()) + int(judged.sum())
            graded = judged if found.dtype == np.bool_ else np.where(known, found, truth.astype(found.dtype))
            warp = warping_error(truth, graded, threshold, self.connectivity)
            scores = (rand.f, rand.split, rand.merge, info.f, info.split, info.merge)
            rows.append((*scores, warp, wrong, 2 * both / either if either else math.nan))
        return np.array(rows * (len(self.thresholds) // len(rows)), np.float64)

    def merge(self, other: "MembraneScores") -> None:
        """Add what another accumulator of the same rules has seen."""
        require_mergeable(self, other, ("categories", "cell", "thresholds", "connectivity", "thin"))
        self._sums += other._sums
        self._seen += other._seen
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """`rand_f` leads; the details hold every threshold's numbers."""
        means = np.divide(self._sums, self._seen, out=np.full_like(self._sums, np.nan), where=self._seen > 0)
        values, best = {}, {}
        for column, name in enumerate(MEASURES):
            led = _LED_BY.get(name.split("_")[0], name)
            judge = means[:, MEASURES.index(led)]
            sign = 1 if led in _LOWER else -1
            row = 0 if np.isnan(judge).all() else int(np.nanargmin(sign * judge))
            values[name] = float(means[row, column])
            best[name] = self.thresholds[row]
        thin = "cells grown until they meet; " if self.thin else ""
        protocol = (
            f"ISBI 2012, mean over {self.pictures} pictures, each measure at the best of {len(self.thresholds)} "
            f"thresholds; cells {self.connectivity}-connected; Rand and information where the truth is a cell; {thin}"
            "higher is better but for errors"
        )
        rows = zip(self.thresholds, means.tolist(), strict=True)
        details = {
            "pictures": self.pictures,
            "best thresholds": best,
            "by threshold": {f"{t:g}": dict(zip(MEASURES, row, strict=True)) for t, row in rows},
        }
        return Scores("rand_f", values, protocol, details=details)
