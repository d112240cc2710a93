"""Scores in context: products written out, what the company of a detection tells, and what is left alone."""

import torch

from bestiary.features.context_scores import ContextScores


def picture(is_sea: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A boat (category 0) that scores the same everywhere, and water (1) or a road (2) that tells."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[10.0, 10, 40, 40], [0, 30, 60, 60]]) + torch.rand(2, 4, generator=generator)
    margins = torch.tensor([0.2, 1.5]) + 0.1 * torch.randn(2, generator=generator)
    return boxes, torch.tensor([0, 1 if is_sea else 2]), margins


def test_a_detection_is_right_where_its_company_is() -> None:
    context, vectors, labels, right = ContextScores(3), [], [], []
    for seed in range(20):
        boxes, kinds, margins = picture(seed % 2 == 0, seed)
        vectors.append(context.vectors(boxes, kinds, margins, (60, 60)))
        labels.append(kinds)
        right.append(torch.tensor([seed % 2 == 0, True]))
    context.fit(torch.cat(vectors), torch.cat(labels), torch.cat(right))
    for seed in range(50, 54):
        boxes, kinds, margins = picture(seed % 2 == 0, seed)
        judged = context(boxes, kinds, margins, (60, 60))
        assert (float(judged[0]) > 0) == (seed % 2 == 0)
        # Never wrong: there is nothing to learn, and the score stays.
        assert judged[1] == margins[1]
    assert context.known.tolist() == [True, False, False]


def test_the_numbers_of_a_detection_and_all_their_products() -> None:
    context = ContextScores(2)
    boxes, labels = torch.tensor([[0.0, 5, 10, 20], [5, 0, 10, 10]]), torch.tensor([1, 1])
    found = context.vectors(boxes, labels, torch.tensor([0.0, -1.0]), (20, 10))
    low = float(torch.sigmoid(torch.tensor(-2.0, dtype=torch.float64)))
    wanted = torch.tensor([[0.5, 0, 0.25, 1, 1, 0, 0.5], [low, 0.5, 0, 1, 0.5, 0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(found[:, :7], wanted)
    # (1 + x y)^2 without its constant, but for how products weigh: every pair once.
    assert found.shape == (2, 7 + 28)
    assert float(found[0, 7:].sum()) == float(torch.outer(wanted[0], wanted[0]).triu().sum())
    assert context.vectors(boxes[:0], labels[:0], torch.zeros(0), (20, 10)).shape == (0, 35)


def test_it_forgets() -> None:
    context = ContextScores(1)
    context.fit(torch.zeros(0, 27, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), torch.zeros(0).bool())
    assert context.is_fitted
    context.forget()
    assert not context.is_fitted
