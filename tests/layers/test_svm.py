"""Linear and kernel SVMs, and their probabilities."""

import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.layers.calibration import platt_scaling, softmax_slope
from bestiary.layers.kernel_svm import KernelSVM
from bestiary.layers.linear_svm import LinearSVM, folds


def clouds(each: int = 30, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.eye(classes, 6)
    labels = torch.arange(classes).repeat_interleave(each)
    return centres[labels] + 0.6 * torch.randn(len(labels), 6, generator=generator), labels


def test_two_points_have_the_widest_margin() -> None:
    """1/2 w^2 is least with w x + b = +-1 at x = +-2: w = 1/2, b = 0."""
    svm = LinearSVM(cost=100.0, squared=False)
    svm.fit(torch.tensor([[2.0], [-2.0]]), torch.tensor([0, 1]), 2)
    assert svm.weight[:, 0].tolist() == pytest.approx([0.5, -0.5], abs=1e-3)
    assert svm.bias.tolist() == pytest.approx([0, 0], abs=1e-3)


def test_it_satisfies_the_conditions_of_its_optimum() -> None:
    """At the optimum of the squared hinge the gradient is 0: w = 2 C sum max(0, 1 - y m) y x, and b likewise."""
    features, labels = clouds()
    svm = LinearSVM(cost=0.5, bias_scale=2.0)
    svm.fit(features, labels, 3)
    sign = torch.where(labels[:, None] == torch.arange(3), 1.0, -1.0)
    push = 2 * 0.5 * (1 - sign * svm(features)).clamp(min=0) * sign
    torch.testing.assert_close(svm.weight, push.T @ features, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(svm.bias, 4 * push.sum(0), atol=2e-3, rtol=2e-3)


def test_sparse_rows_give_the_same_classifiers() -> None:
    from scipy.sparse import csr_matrix

    features, labels = clouds()
    features = features * (features.abs() > 0.5)
    dense, sparse = LinearSVM(), LinearSVM()
    dense.fit(features, labels, 3)
    sparse.fit(csr_matrix(features.numpy()), labels, 3)
    torch.testing.assert_close(dense.weight, sparse.weight, atol=1e-3, rtol=1e-3)


def test_balance_helps_a_rare_class() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.cat([torch.randn(300, 1, generator=generator), 1.0 + torch.randn(15, 1, generator=generator)])
    labels = (torch.arange(315) >= 300).long()
    found = []
    for balanced in (False, True):
        svm = LinearSVM(balanced=balanced)
        svm.fit(features, labels, 2)
        found.append(float((svm(features[300:]).argmax(1) == 1).float().mean()))
    assert found[0] < 0.2 < 0.6 < found[1]


@pytest.mark.parametrize("kind", [LinearSVM, KernelSVM])
def test_classes_without_pictures_are_never_chosen(kind: type) -> None:
    features, labels = clouds(classes=2)
    svm = kind()
    given = features.double() @ features.double().T if kind is KernelSVM else features
    svm.fit(given, labels * 2, 4)
    asked = (given[:, svm.support] if kind is KernelSVM else features).float()
    margins = svm(asked)
    torch.testing.assert_close(margins[:, [1, 3]], -torch.ones(60, 2))
    assert torch.equal(margins.argmax(1), labels * 2)


def test_one_class_alone_is_always_chosen() -> None:
    svm = LinearSVM()
    svm.fit(torch.rand(5, 2), torch.ones(5, dtype=torch.int64), 3)
    assert svm(torch.rand(2, 2)).tolist() == [[-1, 1, -1]] * 2


def test_a_kernel_of_products_gives_the_linear_machine() -> None:
    features, labels = clouds()
    rows = features.double()
    machine = KernelSVM(cost=1.0)
    machine.fit(rows @ rows.T, labels, 3)
    linear = LinearSVM(cost=1.0, squared=False, bias_scale=8.0)
    linear.fit(features, labels, 3)
    kernel = rows @ rows[machine.support].T
    assert len(machine.support) < len(rows)
    torch.testing.assert_close(machine(kernel).float(), linear(features), atol=0.05, rtol=0.05)


def test_probabilities_are_those_that_fit_pictures_held_out() -> None:
    features, labels = clouds(60)
    noisy = features + 1.5 * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    svm = LinearSVM()
    svm.fit(noisy, labels, 3)
    fresh, truth = clouds(200, seed=5)
    fresh = fresh + 1.5 * torch.randn(fresh.shape, generator=torch.Generator().manual_seed(2))
    margins = svm(fresh)
    probs = svm.probs(margins)
    torch.testing.assert_close(probs.sum(1), torch.ones(len(probs)))
    assert torch.equal(probs.argmax(1), margins.argmax(1))
    sure = float(probs.max(1).values.mean())
    assert sure == pytest.approx(float((probs.argmax(1) == truth).float().mean()), abs=0.06)


def test_the_slope_is_recovered_from_labels_drawn_by_it() -> None:
    generator = torch.Generator().manual_seed(0)
    margins = torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial((2.5 * margins).softmax(1), 1, generator=generator)[:, 0]
    assert softmax_slope(margins, labels) == pytest.approx(2.5, abs=0.1)


def test_platts_slope_and_offset_are_recovered_and_stay_finite() -> None:
    generator = torch.Generator().manual_seed(0)
    margins = 2 * torch.randn(20_000, generator=generator)
    positive = torch.rand(20_000, generator=generator) < (1.5 * margins - 0.7).sigmoid()
    assert platt_scaling(margins, positive) == pytest.approx((1.5, -0.7), abs=0.08)
    slope, offset = platt_scaling(torch.tensor([-1.0, -1.0, 1.0]), torch.tensor([False, False, True]))
    # with two places the fit is exact: the targets are 1/4 and 2/3
    assert (slope * -1 + offset, slope + offset) == pytest.approx((-1.0986, 0.6931), abs=1e-3)


def test_folds_spread_every_class() -> None:
    labels = torch.tensor([0] * 9 + [1] * 6 + [2] * 3)
    fold = folds(labels[torch.randperm(18)], 0)
    assert torch.bincount(fold).tolist() == [6, 6, 6]
    for label in range(3):
        assert torch.bincount(folds(labels, 1)[labels == label]).unique().tolist() == [[3, 2, 1][label]]


@pytest.mark.usefixtures("unchecked")
def test_errors_of_use() -> None:
    for bad in ({"cost": 0}, {"bias_scale": -1.0}):
        with pytest.raises(UsageError):
            LinearSVM(**bad)
    with pytest.raises(UsageError):
        KernelSVM(0.0)
    with pytest.raises(RecordError, match="labels"):
        LinearSVM().fit(torch.rand(3, 2), torch.tensor([0, 1]), 2)
    with pytest.raises(RecordError, match="gram"):
        KernelSVM().fit(torch.rand(3, 2).double(), torch.tensor([0, 1, 0]), 2)
