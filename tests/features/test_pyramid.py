"""The pyramid match kernel: lengths, weights, the explicit sum, and what it sees of places."""

import pytest
import torch

from bestiary.features.inverted_file import InvertedFile
from bestiary.features.pyramid import (
    intersection_features,
    level_weights,
    pyramid_columns,
    pyramid_width,
    weigh_pyramid,
)
from bestiary.features.sparse_rows import SparseRows

SIZE = (60, 80)


def random_words(count: int, words: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 60.0])
    return torch.randint(words, (count,), generator=generator), xy


def pyramid(words: torch.Tensor, xy: torch.Tensor, num_words: int, levels: int) -> SparseRows:
    columns = pyramid_columns(words, xy, SIZE, num_words, levels)
    return weigh_pyramid(SparseRows.counted([columns], pyramid_width(num_words, levels)), num_words, levels)


def test_lengths_and_weights_of_the_paper() -> None:
    assert pyramid_width(200, 2) == 4200
    assert pyramid_width(400, 2) == 8400
    assert level_weights(2) == (0.25, 0.25, 0.5)
    assert level_weights(0) == (1.0,)
    assert all(sum(level_weights(levels)) == 1 for levels in range(6))


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_plain_intersection_is_the_explicit_kernel(levels: int) -> None:
    """Equations 1 to 3 of the paper: a new match at level l counts 1 / 2^(L - l)."""
    num_words = 7
    pictures = [random_words(50 + 9 * i, num_words, i) for i in range(4)]
    rows = SparseRows.joined([pyramid(w, xy, num_words, levels) for w, xy in pictures])
    file = InvertedFile()
    file.fit(rows)
    found = file.compare(rows, "intersection")

    def shares(words: torch.Tensor, xy: torch.Tensor, level: int) -> torch.Tensor:
        grid = torch.zeros(num_words, 2**level, 2**level, dtype=torch.float64)
        for word, (x, y) in zip(words.tolist(), xy.tolist(), strict=True):
            grid[word, int(y / 60 * 2**level), int(x / 80 * 2**level)] += 1 / len(words)
        return grid

    for i, first in enumerate(pictures):
        for j, second in enumerate(pictures):
            matches = [float(torch.minimum(shares(*first, k), shares(*second, k)).sum()) for k in range(levels + 1)]
            new = [a - b for a, b in zip(matches, [*matches[1:], 0.0], strict=True)]
            explicit = sum(n / 2 ** (levels - k) for k, n in enumerate(new))
            assert float(found[i, j]) == pytest.approx(explicit, abs=1e-6)


def test_a_picture_with_itself_is_one_and_the_gram_matrix_has_no_negative_eigenvalue() -> None:
    rows = SparseRows.joined([pyramid(*random_words(80, 5, seed), 5, 2) for seed in range(25)])
    file = InvertedFile()
    file.fit(rows)
    gram = file.compare(rows, "intersection")
    torch.testing.assert_close(gram.diagonal(), torch.ones(25, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(gram, gram.T)
    assert float(torch.linalg.eigvalsh(gram)[0]) > -1e-6


def test_swapped_quarters_change_every_level_but_the_first() -> None:
    words, xy = random_words(300, 6, 0)
    swapped = torch.stack([(xy[:, 0] + 40) % 80, xy[:, 1]], dim=1)
    before, after = (pyramid(words, places, 6, 1).dense()[0] for places in (xy, swapped))
    assert torch.equal(before[:6], after[:6])
    assert not torch.equal(before[6:], after[6:])
    assert torch.equal(before[6:].view(2, 2, 6), after[6:].view(2, 2, 6).flip(1))


def test_points_on_the_border_count_in_the_right_and_lower_cell_and_never_outside() -> None:
    xy = torch.tensor([[40.0, 30.0], [80.0, 60.0], [0.0, 0.0]])
    columns = pyramid_columns(torch.zeros(3, dtype=torch.int64), xy, SIZE, 1, 1)
    assert columns.tolist() == [0, 0, 0, 1 + 3, 1 + 3, 1 + 0]


def test_a_picture_without_words_is_like_nothing() -> None:
    nothing = pyramid(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), 6, 2)
    assert nothing.dense().abs().sum() == 0


def test_features_multiply_to_nearly_the_intersection() -> None:
    rows = SparseRows.joined([pyramid(*random_words(120, 20, seed), 20, 2) for seed in range(12)])
    file = InvertedFile()
    file.fit(rows)
    wanted, errors = file.compare(rows, "intersection"), []
    for order in (1, 3, 9):
        features = intersection_features(rows, order).dense()
        assert features.shape[1] == (2 * order + 1) * rows.width
        errors.append(float((features @ features.T / wanted - 1).abs().max()))
    assert errors[0] < 0.25
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


@pytest.mark.parametrize("ratio", [0.05, 0.4, 1.0])
def test_many_terms_give_the_kernel_of_two_numbers(ratio: float) -> None:
    pair = SparseRows(torch.tensor([0, 1, 2]), torch.tensor([0, 0]), torch.tensor([0.3, 0.3 * ratio]), 1)
    features = intersection_features(pair, 400).dense().double()
    assert float(features[0] @ features[1]) == pytest.approx(0.3 * ratio, rel=0.01)
