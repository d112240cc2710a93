"""Rows of numbers of which most are 0: histograms of visual words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.records import Record, require, require_tensor


@dataclass(frozen=True, eq=False)
class SparseRows(Record):
    """N rows of `width` numbers in compressed form: row i is `columns` and `values` from `offsets[i]` to
    `offsets[i + 1]`.

    Attributes:
        offsets: 0 first, the number of entries last.
        columns: ascending in a row, each at most once.
        values: of the entries.
        width: number of columns.
    """

    offsets: Int64[Tensor, " N1"]
    columns: Int64[Tensor, " M"]
    values: Float32[Tensor, " M"]
    width: int

    def __post_init__(self) -> None:
        require_tensor("SparseRows", "offsets", self.offsets, (None,), torch.int64)
        require_tensor("SparseRows", "columns", self.columns, (None,), torch.int64)
        require_tensor("SparseRows", "values", self.values, (len(self.columns),), torch.float32)
        whole = len(self.offsets) > 0 and int(self.offsets[-1]) == len(self.columns)
        require(whole, "SparseRows.offsets", self.offsets[-1:].tolist(), f"{len(self.columns)} at the end")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[Tensor, " N"]:
        """Entries of each row."""
        return self.offsets.diff()

    @property
    def row_of_entry(self) -> Int64[Tensor, " M"]:
        """The row that each entry stands in."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths)

    @classmethod
    def counted(cls, columns: Sequence[Int64[Tensor, " _n"]], width: int) -> "SparseRows":
        """One row a tensor: how often each column occurs in it."""
        found = [torch.unique(row, return_counts=True) for row in columns]
        lengths = torch.tensor([0, *(len(row) for row, _ in found)])
        where = torch.cat([row for row, _ in found]) if found else torch.zeros(0, dtype=torch.int64)
        counts = torch.cat([n for _, n in found]).float() if found else torch.zeros(0)
        return cls(lengths.cumsum(0), where, counts, width)

    @classmethod
    def joined(cls, parts: Sequence["SparseRows"]) -> "SparseRows":
        """The rows of all parts, one after another; at least one part."""
        lengths = torch.cat([torch.zeros(1, dtype=torch.int64), *(part.lengths for part in parts)])
        columns, values = torch.cat([p.columns for p in parts]), torch.cat([p.values for p in parts])
        return cls(lengths.cumsum(0), columns, values, parts[0].width)

    def with_values(self, values: Float32[Tensor, " M"]) -> "SparseRows":
        """The same entries with other numbers."""
        return SparseRows(self.offsets, self.columns, values, self.width)

    def scaled(self, factors: Float32[Tensor, " N"]) -> "SparseRows":
        """Each row times its factor."""
        return self.with_values(self.values * factors[self.row_of_entry])

    def row_sums(self, power: int = 1) -> Float32[Tensor, " N"]:
        """Sum of the (powers of the) numbers of each row."""
        return torch.zeros(len(self)).index_add_(0, self.row_of_entry, self.values**power)

    def of_unit_sum(self) -> "SparseRows":
        """Each row over its sum; rows of zeros stay."""
        sums = self.row_sums()
        return self.scaled(1 / torch.where(sums > 0, sums, 1))

    def of_unit_length(self) -> "SparseRows":
        """Each row over its Euclidean length; rows of zeros stay."""
        lengths = self.row_sums(2).sqrt()
        return self.scaled(1 / torch.where(lengths > 0, lengths, 1))

    def take(self, rows: Int64[Tensor, " R"]) -> "SparseRows":
        """The rows of these numbers, in that order."""
        lengths = self.lengths[rows]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        shift = torch.repeat_interleave(self.offsets[:-1][rows] - offsets[:-1], lengths)
        entries = torch.arange(int(offsets[-1])) + shift
        return SparseRows(offsets, self.columns[entries], self.values[entries], self.width)

    def dense(self) -> Float32[Tensor, "N W"]:
        """All numbers, zeros too."""
        out = torch.zeros(len(self), self.width)
        out[self.row_of_entry, self.columns] = self.values
        return out

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_matrix` that shares memory."""
        from scipy.sparse import csr_matrix

        parts = (self.values.numpy(), self.columns.numpy(), self.offsets.numpy())
        return csr_matrix(parts, shape=(len(self), self.width))
