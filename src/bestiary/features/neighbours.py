"""The k nearest rows of a store, exactly, and their votes."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from bestiary.records import require

Metric = Literal["l1", "l2"]


def nearest_rows(
    queries: UInt8[Tensor, "M D"], store: UInt8[Tensor, "N D"], k: int, metric: Metric
) -> tuple[Float64[Tensor, "M k"], Int64[Tensor, "M k"]]:
    """Distances to the k nearest rows and their indices, nearest first.

    Sums over bytes are whole numbers and exact: nothing wraps, and equal distances are equal. Of those the row that
    comes first in the store comes first. Nothing but the k best of each query is kept.

    Args:
        queries: rows of bytes.
        store: rows of bytes.
        k: 1 to N.
        metric: "l1", sum of |a - b|; or "l2", the root of the sum of (a - b)^2.

    Raises:
        RecordError: shapes do not fit, or k is out of its range.
    """
    from bestiary.features._kernels.neighbours import nearest_bytes
    from bestiary.ops._kernels.threads import in_threads

    distances, indices = _room(queries, store, k, "nearest_rows")
    rows, columns = (t.detach().cpu().contiguous().numpy() for t in (queries, store))
    squares = metric == "l2"

    def work(start: int, stop: int) -> None:
        nearest_bytes(rows, columns, squares, start, stop, distances, indices)

    in_threads(work, len(rows), torch.get_num_threads(), grain=4)
    found = np.sqrt(distances) if squares else distances
    return torch.from_numpy(found), torch.from_numpy(indices)


def nearest_histograms(
    queries: Float32[Tensor, "M D"], store: Float32[Tensor, "D N"], k: int
) -> tuple[Float64[Tensor, "M k"], Int64[Tensor, "M k"]]:
    """Intersections (sum of min(a, b)) with the k histograms that have most in common, and their indices; best first.

    Of equal intersections the histogram that comes first in the store comes first.

    Args:
        queries: histograms, none below 0.
        store: histograms, one a column: a bin of all of them lies together.
        k: 1 to N.

    Raises:
        RecordError: shapes do not fit, or k is out of its range.
    """
    from bestiary.features._kernels.neighbours import nearest_histograms as nearest
    from bestiary.ops._kernels.threads import in_threads

    distances, indices = _room(queries, store.T, k, "nearest_histograms")
    rows, bins = (t.detach().cpu().contiguous().numpy() for t in (queries, store))
    in_threads(lambda a, b: nearest(rows, bins, a, b, distances, indices), len(rows), torch.get_num_threads(), grain=4)
    return torch.from_numpy(-distances), torch.from_numpy(indices)


def _room(queries: Tensor, store: Tensor, k: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    fits = queries.ndim == store.ndim == 2 and queries.shape[1] == store.shape[1]
    require(fits, f"{where}(queries, store)", f"shapes {tuple(queries.shape)}, {tuple(store.shape)}", "(M, D), (N, D)")
    require(1 <= k <= len(store), f"{where}(k)", k, f"1 to {len(store)}, the rows of the store")
    return np.full((len(queries), k), np.inf), np.zeros((len(queries), k), np.int64)


def vote(labels: Int64[Tensor, "M k"], num_categories: int) -> Float[Tensor, "M K"]:
    """The share of the k votes that each category has."""
    votes = torch.zeros(len(labels), num_categories)
    return votes.scatter_add_(1, labels, torch.ones_like(labels, dtype=torch.float32)) / labels.shape[1]
