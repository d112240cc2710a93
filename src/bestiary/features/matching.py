"""Which descriptor of one picture belongs to which of another: nearest neighbours and the tests they must pass."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from bestiary.ops._kernels.threads import in_threads
from bestiary.records import Rows, require, require_tensor, row_field

_QUERIES_AT_ONCE = 1024
_ROWS_AT_ONCE = 4096
"""Sides of a block of products: 16 MB."""

Descriptors = Float[Tensor, "_n D"] | UInt8[Tensor, "_n D"]
"""Rows that Euclidean distance compares. Bytes keep what was learned small; they are taken as whole numbers."""


@dataclass(frozen=True, eq=False)
class Matches(Rows):
    """N pairs of descriptors.

    Attributes:
        first: row in the first picture; each occurs once.
        second: row in the second.
        distance: Euclidean.
    """

    first: Int64[Tensor, " N"] = row_field()
    second: Int64[Tensor, " N"] = row_field()
    distance: Float32[Tensor, " N"] = row_field()

    def __post_init__(self) -> None:
        for name, dtype in (("first", torch.int64), ("second", torch.int64), ("distance", torch.float32)):
            require_tensor("Matches", name, getattr(self, name), (None,), dtype)
        self.require_rows()


def match(first: Descriptors, second: Descriptors, ratio: float | int | None = 0.8, mutual: bool = False) -> Matches:
    """Pairs of each descriptor of `first` with its nearest in `second`, as far as they pass the tests.

    Args:
        first: a row a point.
        second: likewise; the same width.
        ratio: the nearest must be nearer than this share of the distance of the second nearest (Lowe, IJCV 2004,
            section 7.1); a lone descriptor has no rival. None for no such test.
        mutual: also ask that the descriptor in `first` is nearest to that in `second` (the cross-check).

    Raises:
        RecordError: widths differ, or a ratio out of range.
    """
    require(ratio is None or 0 < ratio <= 1, "match(ratio)", ratio, "above 0, at most 1, or None")
    if not len(first) or not len(second):
        nothing = torch.zeros(0, dtype=torch.int64)
        return Matches(nothing, nothing, torch.zeros(0))
    distances, rows = nearest(first, second, 2)
    kept = torch.ones(len(first), dtype=torch.bool)
    if ratio is not None and rows.shape[1] == 2:
        kept &= distances[:, 0] < float(ratio) * distances[:, 1]
    if mutual:
        back = nearest(second, first, 1)[1][:, 0]
        kept &= back[rows[:, 0]] == torch.arange(len(first))
    index = kept.nonzero()[:, 0]
    return Matches(index, rows[index, 0], distances[index, 0])


def nearest(queries: Descriptors, store: Descriptors, k: int) -> tuple[Float32[Tensor, "M _k"], Int64[Tensor, "M _k"]]:
    """Distances to the k nearest rows of a store and their numbers, nearest first; all rows where there are fewer.

    Rows are chosen by products of matrices in float32, block by block, and their distances then taken from differences,
    so that small ones keep their digits. On the CPU, without gradients; threads do not change the answer.

    Args:
        queries: rows.
        store: rows; only a block of it is ever held as floats.
        k: at least 1.

    Raises:
        RecordError: widths differ, or k is below 1.
    """
    fits = queries.ndim == store.ndim == 2 and queries.shape[1] == store.shape[1]
    got = f"shapes {tuple(queries.shape)} and {tuple(store.shape)}"
    require(fits, "nearest(queries, store)", got, "rows of one width")
    require(k >= 1, "nearest(k)", k, "at least 1")
    kept = min(k, len(store))
    sought = queries.detach().cpu().float()
    costs = np.full((len(sought), kept), np.inf, np.float32)
    rows = np.zeros((len(sought), kept), np.int64)
    if not len(sought) or not kept:
        return torch.from_numpy(costs), torch.from_numpy(rows)
    for first in range(0, len(store), _ROWS_AT_ONCE):
        _merge(sought, store[first : first + _ROWS_AT_ONCE].detach().cpu().float(), first, costs, rows)
    # In the order of the store, so that a stable sort leaves equal ones in it.
    numbers = torch.from_numpy(rows).sort(1).values
    distances = torch.cat(
        [_distances(q, n, store) for q, n in zip(sought.split(1024), numbers.split(1024), strict=True)]
    )
    distances, order = distances.sort(dim=1, stable=True)
    return distances, numbers.gather(1, order)


def _merge(
    sought: Float32[Tensor, "M D"], block: Float32[Tensor, "R D"], first: int, costs: np.ndarray, rows: np.ndarray
) -> None:
    from bestiary.features._kernels.nearest_products import keep_nearest

    halves = (block.square().sum(1) / 2).numpy()
    for low in range(0, len(sought), _QUERIES_AT_ONCE):
        products = (sought[low : low + _QUERIES_AT_ONCE] @ block.T).numpy()
        best, numbers = costs[low : low + _QUERIES_AT_ONCE], rows[low : low + _QUERIES_AT_ONCE]

        def work(start: int, stop: int, arguments: tuple[np.ndarray, ...] = (products, halves, best, numbers)) -> None:
            products, halves, best, numbers = arguments
            keep_nearest(products, halves, first, start, stop, best, numbers)

        in_threads(work, len(products), torch.get_num_threads(), grain=16)


def _distances(queries: Float32[Tensor, "M D"], numbers: Int64[Tensor, "M k"], store: Tensor) -> Float32[Tensor, "M k"]:
    rows = store[numbers.to(store.device)].detach().cpu().float()
    return (rows - queries[:, None]).norm(dim=2)
