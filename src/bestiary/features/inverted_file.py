"""For each word, the pictures that hold it: what a query costs follows the lists of its own words, not the store."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from bestiary.features.sparse_rows import SparseRows
from bestiary.layers.learned import Learned
from bestiary.records import require

Likeness = Literal["product", "intersection"]


class InvertedFile(Learned):
    """Stored rows by column (Sivic, Zisserman, ICCV 2003, section 4.1).

    Attributes:
        offsets: [width + 1], where each word's list begins.
        rows: the pictures of each list, ascending, and
        values: what the word counts there.
        size: [2], the number of pictures and of words.
    """

    offsets: Tensor
    rows: Tensor
    values: Tensor
    size: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("offsets", "rows", "values", "size")

    def __len__(self) -> int:
        return int(self.size[0]) if self.size.numel() else 0

    def fit(self, stored: SparseRows) -> None:
        """Store these rows in place of all before."""
        order = torch.sort(stored.columns, stable=True).indices
        counts = torch.bincount(stored.columns, minlength=stored.width)
        self.learn("offsets", torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]))
        self.learn("rows", stored.row_of_entry[order].to(torch.int32))
        self.learn("values", stored.values[order])
        self.learn("size", torch.tensor([len(stored), stored.width]))

    def compare(self, queries: SparseRows, likeness: Likeness = "product") -> Float64[Tensor, "Q N"]:
        """Likeness of each query with every stored row: scalar product (cosine, where both have length 1), or histogram
        intersection, the sum of the smaller numbers.

        Raises:
            RecordError: another number of columns.
        """
        from bestiary.features._kernels import postings
        from bestiary.ops._kernels.threads import in_threads

        wanted = int(self.size[1]) if self.size.numel() else 0
        require(queries.width == wanted, "compare(queries)", f"{queries.width} columns", f"{wanted}, as stored")
        out = np.zeros((len(queries), len(self)))
        kernel = postings.add_products if likeness == "product" else postings.add_minima
        asked = (queries.offsets.numpy(), queries.columns.numpy(), queries.values.numpy())
        lists = (self.offsets.numpy(), self.rows.numpy(), self.values.numpy())
        in_threads(lambda a, b: kernel(*asked, *lists, a, b, out), len(queries), torch.get_num_threads())
        return torch.from_numpy(out)

    def postings_of(self, query: SparseRows) -> int:
        """How many entries of the store a comparison with these queries reads."""
        return int(self.offsets.diff()[query.columns].sum())

    def stored(self) -> SparseRows:
        """The rows again, as they were given."""
        columns = torch.repeat_interleave(torch.arange(int(self.size[1])), self.offsets.diff())
        rows = self.rows.long()
        order = torch.sort(rows, stable=True).indices
        counts = torch.bincount(rows, minlength=len(self))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return SparseRows(offsets, columns[order], self.values[order], int(self.size[1]))


def inverse_document_frequency(histograms: SparseRows) -> Float32[Tensor, " W"]:
    """`log(N / n_i)` for each word: N pictures, n_i of them hold it; 0 for a word of every picture or of none."""
    holders = torch.bincount(histograms.columns, minlength=histograms.width)
    return torch.where(holders > 0, (len(histograms) / holders.clamp(min=1)).log(), 0.0).float()


def tf_idf(histograms: SparseRows, idf: Float32[Tensor, " W"]) -> SparseRows:
    """`n_id / n_d log(N / n_i)`: the share of a picture's words that are word i, times the word's rarity (Sivic,
    Zisserman, equation 1), each row then of length 1, so that products are cosines.
    """
    shares = histograms.of_unit_sum()
    return shares.with_values(shares.values * idf[shares.columns]).of_unit_length()
