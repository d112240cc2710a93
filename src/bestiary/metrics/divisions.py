"""How far two divisions of a picture into parts agree, whatever the parts are numbered: Rand and information scores.

Arganda-Carreras et al., Frontiers in Neuroanatomy 2015, section 2.3: with p_ij the share of pixels in part i of the
prediction S and part j of the truth T, s_i = sum_j p_ij and t_j = sum_i p_ij. Only pixels of true parts count.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from bestiary.records import require

Connectivity = Literal[4, 8]
"""Which neighbours belong together: the four that share a side, or all eight."""

Membrane = Literal["pixels", "part"]
"""What pixels of a true part are that the prediction leaves out: parts of one pixel each, as in the challenge, or one
more part together."""


@dataclass(frozen=True, eq=False)
class OverlapTable:
    """How true and predicted parts overlap, counted in the pixels of true parts only.

    Attributes:
        shared: pixels of each pair of true and predicted part.
        alone: pixels of each true part that the prediction leaves out.
    """

    shared: Int64[np.ndarray, "T P"]
    alone: Int64[np.ndarray, " T"]


def components(cells: Bool[np.ndarray, "H W"], connectivity: Connectivity = 4) -> Int32[np.ndarray, "H W"]:
    """Number of the connected part of each pixel, from 1; 0 outside."""
    import cv2

    return cv2.connectedComponents(np.ascontiguousarray(cells, np.uint8), connectivity=connectivity)[1]


def thinned(parts: Int32[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Numbered parts grown until they meet: every pixel belongs to the nearest (membranes of no width)."""
    from scipy import ndimage

    if not parts.any():
        return parts
    nearest = ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    return parts[tuple(np.asarray(nearest))]


def overlap_table(truth: Int32[np.ndarray, "H W"], predicted: Int32[np.ndarray, "h w"]) -> OverlapTable:
    """Count the pixels that numbered parts share, where the truth is not 0.

    Raises:
        RecordError: sizes differ, or a number is below 0.
    """
    require(truth.shape == predicted.shape, "predicted", f"size {predicted.shape}", f"the truth's, {truth.shape}")
    low = min(int(truth.min(initial=0)), int(predicted.min(initial=0)))
    require(low >= 0, "parts", f"number {low}", "0 or more")
    rows, columns = int(truth.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1
    inside = truth > 0
    pairs = truth[inside].astype(np.int64) * columns + predicted[inside]
    counts = np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)[1:].astype(np.int64)
    counts = counts[counts.sum(1) > 0]
    return OverlapTable(counts[:, 1:][:, counts[:, 1:].sum(0) > 0], counts[:, 0])


@dataclass(frozen=True)
class PartScores:
    """Agreement of two divisions into parts.

    Attributes:
        f: both halves weighed alike; 1 for the same division.
        split: falls as parts are cut.
        merge: falls as parts grow together.
    """

    f: float
    split: float
    merge: float


def rand_scores(table: OverlapTable, self_pairs: bool = True, membrane: Membrane = "pixels") -> PartScores:
    """The Rand F-score V_Rand: sum p_ij^2 / ((sum s_k^2 + sum t_k^2) / 2); split and merge divide by the truth's t and
    the prediction's s alone (Arganda-Carreras et al. 2015, eq. 1).

    Args:
        self_pairs: draw two pixels independently, as the paper's formula does; otherwise two different pixels.
        membrane: what the prediction leaves out.

    Returns:
        NaN where there is no true part, or no pair.
    """
    shared, alone, singles = _parts(table, membrane)
    n = float(shared.sum() + singles)
    once = 0.0 if self_pairs else n
    both = float((shared.astype(np.float64) ** 2).sum()) + singles - once
    true = float(((shared.sum(1) + alone).astype(np.float64) ** 2).sum()) - once
    said = float((shared.sum(0).astype(np.float64) ** 2).sum()) + singles - once
    if true + said <= 0:
        return PartScores(math.nan, math.nan, math.nan)
    return PartScores(2 * both / (true + said), both / true if true else math.nan, both / said if said else math.nan)


def info_scores(table: OverlapTable, membrane: Membrane = "pixels") -> PartScores:
    """The information-theoretic score V_Info: 2 I(S; T) / (H(S) + H(T)); split is I / H(S), merge I / H(T)
    (Arganda-Carreras et al. 2015, eq. 2). 1 where both have but one part; NaN where there is no true part.

    Args:
        membrane: as in `rand_scores`.
    """
    shared, alone, singles = _parts(table, membrane)
    n = float(shared.sum() + singles)
    if not n:
        return PartScores(math.nan, math.nan, math.nan)
    single = singles * math.log(n) / n
    true, said = _entropy((shared.sum(1) + alone) / n), _entropy(shared.sum(0) / n) + single
    common = true + said - (_entropy(shared.ravel() / n) + single)
    # What rounding leaves of nothing must not be divided by nothing.
    common = max(0.0, common)
    if true + said < 1e-12:
        return PartScores(1.0, 1.0, 1.0)
    return PartScores(
        2 * common / (true + said), common / said if said > 1e-12 else 1.0, common / true if true > 1e-12 else 1.0
    )


def _parts(table: OverlapTable, membrane: Membrane) -> tuple[Int64[np.ndarray, "T P"], Int64[np.ndarray, " T"], float]:
    """Pixels of pairs of parts, true pixels that are parts of their own, and how many those are."""
    if membrane == "part":
        return np.concatenate([table.shared, table.alone[:, None]], 1), np.zeros_like(table.alone), 0.0
    return table.shared, table.alone, float(table.alone.sum())


def _entropy(shares: Float64[np.ndarray, " N"]) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())
