"""Sparse rows, inverted files and tf-idf against their dense forms."""

import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.inverted_file import InvertedFile, inverse_document_frequency, tf_idf
from bestiary.features.sparse_rows import SparseRows


def random_rows(count: int = 30, width: int = 40, most: int = 25, seed: int = 0) -> SparseRows:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, most, (count,), generator=generator).tolist()
    return SparseRows.counted([torch.randint(width, (n,), generator=generator) for n in lengths], width)


def test_counting_is_a_histogram() -> None:
    columns = [torch.tensor([3, 1, 3]), torch.zeros(0, dtype=torch.int64), torch.tensor([0])]
    rows = SparseRows.counted(columns, 5)
    assert rows.dense().tolist() == [[0, 1, 0, 2, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert rows.row_sums().tolist() == [3, 0, 1]
    assert len(SparseRows.counted([], 5)) == 0


def test_the_order_of_words_does_not_matter() -> None:
    words = torch.randint(50, (200,))
    shuffled = words[torch.randperm(200)]
    assert torch.equal(SparseRows.counted([words], 50).dense(), SparseRows.counted([shuffled], 50).dense())


def test_rows_are_taken_scaled_and_joined() -> None:
    rows = random_rows()
    dense = rows.dense()
    order = torch.tensor([7, 0, 7, 29])
    assert torch.equal(rows.take(order).dense(), dense[order])
    factors = torch.rand(30)
    torch.testing.assert_close(rows.scaled(factors).dense(), dense * factors[:, None])
    assert torch.equal(SparseRows.joined([rows, rows.take(order)]).dense(), torch.cat([dense, dense[order]]))
    assert (rows.to_scipy().toarray() == dense.numpy()).all()


def test_rows_of_nothing_stay_nothing() -> None:
    rows = SparseRows.counted([torch.zeros(0, dtype=torch.int64), torch.tensor([1, 1])], 3)
    assert rows.of_unit_sum().dense().tolist() == [[0, 0, 0], [0, 1, 0]]
    assert rows.of_unit_length().dense().tolist() == [[0, 0, 0], [0, 1, 0]]


def test_offsets_must_end_with_the_entries() -> None:
    with pytest.raises(RecordError, match="offsets"):
        SparseRows(torch.tensor([0, 3]), torch.tensor([1]), torch.ones(1), 4)


@pytest.mark.parametrize("threads", [1, 3])
def test_likenesses_equal_the_dense_ones(threads: int) -> None:
    stored, queries = random_rows(seed=1).of_unit_length(), random_rows(17, seed=2).of_unit_length()
    file, before = InvertedFile(), torch.get_num_threads()
    file.fit(stored)
    torch.set_num_threads(threads)
    try:
        products, minima = file.compare(queries), file.compare(queries, "intersection")
    finally:
        torch.set_num_threads(before)
    a, b = queries.dense().double(), stored.dense().double()
    torch.testing.assert_close(products, a @ b.T, atol=1e-6, rtol=0)
    torch.testing.assert_close(minima, torch.minimum(a[:, None], b).sum(2), atol=1e-6, rtol=0)


def test_scores_of_tf_idf_are_dense_cosines() -> None:
    counts = random_rows(40, 60, 50, seed=3)
    idf = inverse_document_frequency(counts)
    file = InvertedFile()
    file.fit(tf_idf(counts, idf))
    dense = counts.dense().double()
    holders = (dense > 0).sum(0)
    weights = torch.where(holders > 0, (40 / holders.clamp(min=1)).log(), 0.0).double()
    vectors = dense / dense.sum(1, keepdim=True).clamp(min=1) * weights
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    torch.testing.assert_close(file.compare(tf_idf(counts, idf)), cosine, atol=1e-6, rtol=0)


def test_rarity_by_hand() -> None:
    counts = SparseRows.counted([torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([0, 0, 2])], 4)
    assert inverse_document_frequency(counts).tolist() == pytest.approx([0, math.log(3), math.log(3), 0])
    # shares 1/2 and 1/2, of which the word of every picture weighs nothing
    assert tf_idf(counts, inverse_document_frequency(counts)).dense()[0].tolist() == pytest.approx([0, 1, 0, 0])


def test_what_is_read_follows_the_lists_not_the_store() -> None:
    rare = [torch.tensor([99])] * 3
    costs = []
    for count in (10, 1000):
        common = [torch.arange(50)] * count
        file = InvertedFile()
        file.fit(SparseRows.counted(rare + common, 100))
        costs.append(file.postings_of(SparseRows.counted([torch.tensor([99, 98])], 100)))
    assert costs == [3, 3]


def test_what_was_stored_comes_back() -> None:
    rows, file = random_rows(), InvertedFile()
    file.fit(rows)
    assert torch.equal(file.stored().dense(), rows.dense())
    assert len(file) == 30


def test_another_width_is_refused() -> None:
    file = InvertedFile()
    file.fit(random_rows(width=40))
    with pytest.raises(RecordError, match="41 columns"):
        file.compare(random_rows(width=41))
