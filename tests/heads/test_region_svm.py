"""Mining of hard negatives against SVMs that see all negatives at once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.heads.region_svm import Mining, RegionExamples, RegionSVM

WIDTH = 12
ALL = Mining(hard=-1e9, evict=-1e9, refit_after=10**9, most=10**9)
"""Every negative is kept: no mining."""


def pictures(count: int = 12, regions: int = 150, apart: float = 2.5) -> list[RegionExamples]:
    """Two categories around two directions among many negatives; features are not negative, as after a ReLU."""
    torch.manual_seed(0)
    directions = torch.rand(2, WIDTH)
    found = []
    for _ in range(count):
        labels = torch.cat([torch.full((regions,), -1), torch.tensor([0, 1])])
        features = torch.rand(regions + 2, WIDTH)
        features[-2:] += apart * directions
        negative = torch.ones(regions + 2, 2, dtype=torch.bool)
        negative[-2, 0] = negative[-1, 1] = False
        found.append(RegionExamples(features, labels, negative))
    return found


def objective(svm: RegionSVM, examples: Sequence[RegionExamples], label: int) -> float:
    """What is minimised, over all positives and all negatives, in the scaled features that it is stated in."""
    features = torch.cat([e.features for e in examples])
    scale = 20 / features.norm(dim=1).mean()
    margins = svm(features)[:, label]
    positive = torch.cat([e.labels == label for e in examples])
    negative = torch.cat([e.negative[:, label] for e in examples])
    weight, bias = svm.weight[label] / scale, svm.bias[label] / svm.bias_scale
    hinges = 2 * (1 - margins[positive]).clamp(min=0).sum() + (1 + margins[negative]).clamp(min=0).sum()
    return float(0.5 * (weight.square().sum() + bias.square()) + svm.cost * hinges)


def fitted(examples: Sequence[RegionExamples], mining: Mining) -> RegionSVM:
    svm = RegionSVM(2, cost=0.01, mining=mining)
    svm.fit(examples)
    return svm


def test_mined_svms_are_those_of_all_negatives() -> None:
    examples = pictures()
    everything = fitted(examples, ALL)
    mined, once = fitted(examples, Mining(refit_after=100, passes=4)), fitted(examples, Mining(refit_after=100))
    largest = float(everything.weight.abs().max())
    torch.testing.assert_close(mined.weight, everything.weight, rtol=0, atol=0.02 * largest)
    for label in (0, 1):
        best = objective(everything, examples, label)
        assert objective(mined, examples, label) < 1.002 * best
        assert objective(once, examples, label) < 1.02 * best, "the authors' single pass"
        everything.weight[label] += 0.05 * largest
        assert objective(everything, examples, label) > 1.05 * best, "the bounds above say something"


def test_only_what_matters_is_kept() -> None:
    said: list[str] = []
    svm = RegionSVM(2, cost=0.01, mining=Mining(refit_after=100, passes=2))
    svm.fit(pictures(apart=4.0), say=said.append)
    objects, kept = said
    assert objects.startswith("SVMs: 24 objects in 12 pictures")
    counts = [int(part.split(" + ")[1].split(" ")[0]) for part in kept.removeprefix("SVMs: ").split(", ")]
    assert all(0 < n < 900 for n in counts), "of 1,800 negatives and the other category's objects"


def test_where_nothing_is_easy_the_hardest_are_kept() -> None:
    examples, said = pictures(), []
    svm = RegionSVM(2, cost=1e-6, mining=Mining(refit_after=100, most=150))
    svm.fit(examples, say=said.append)
    assert said[-1] == "SVMs: 12 + 150, 12 + 150 examples kept"
    best = objective(fitted(examples, ALL), examples, 0)
    few = fitted(examples, Mining(refit_after=100, most=60))
    assert objective(few, examples, 0) < 1.1 * best


def test_a_category_learns_neither_from_what_is_not_its_negative_nor_twice_from_one() -> None:
    examples = pictures(4)
    blind = [e._replace(negative=e.negative & (e.features[:, :1] > 0.5)) for e in examples]
    alone = [RegionExamples(e.features[k], e.labels[k], b.negative[k])
             for e, b in zip(examples, blind, strict=True)
             for k in [b.negative.any(1) | (e.labels >= 0)]]  # fmt: skip
    scale = torch.cat([e.features for e in examples]).norm(dim=1).mean()
    other = torch.cat([e.features for e in alone]).norm(dim=1).mean()
    mining = replace(ALL, passes=3)
    first = fitted(blind, mining)
    second = RegionSVM(2, cost=0.01, target_norm=float(20 * other / scale), mining=mining)
    second.fit(alone)
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-2, atol=1e-3)


def test_positives_weigh_twice_and_the_bias_is_carried_by_a_constant_of_ten() -> None:
    from sklearn.svm import LinearSVC

    examples = pictures(3, 40)
    features, labels = (torch.cat(parts) for parts in list(zip(*examples, strict=True))[:2])
    svm = fitted(examples, ALL)
    scale = 20 / features.norm(dim=1).mean()
    twin = LinearSVC(C=0.01, loss="hinge", class_weight={True: 2.0}, intercept_scaling=10, max_iter=20000, tol=1e-6)
    rows: Tensor = (features * scale).double()
    twin.fit(rows.numpy(), (labels == 0).numpy())
    margins = torch.from_numpy(twin.decision_function(rows.numpy())).float()
    torch.testing.assert_close(svm(features)[:, 0], margins, rtol=0.02, atol=0.02)


def test_a_category_without_objects_is_never_found() -> None:
    examples = [e._replace(labels=e.labels.clamp(max=0)) for e in pictures(2, 20)]
    svm = fitted(examples, Mining())
    assert (svm(examples[0].features)[:, 1] == -1).all()
    svm.forget()
    assert not svm.is_fitted


def test_pictures_without_regions_are_legal_but_no_region_at_all_is_not() -> None:
    examples = pictures(2, 30)
    empty = RegionExamples(
        torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.bool)
    )
    torch.testing.assert_close(fitted([empty, *examples], Mining()).weight, fitted(examples, Mining()).weight)
    for nothing in ([empty], []):
        with pytest.raises(UsageError, match="no region"):
            RegionSVM(2).fit(nothing)
    with pytest.raises(RecordError, match="negative"):
        RegionSVM(3).fit(examples)


def test_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="evict <= hard"):
        Mining(hard=-2.0)
    with pytest.raises(UsageError, match="refit_after 0"):
        Mining(refit_after=0)
    with pytest.raises(UsageError, match="cost"):
        RegionSVM(2, cost=0)
