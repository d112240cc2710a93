import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.losses.pixel_objective import TERMS, PixelObjective, weights_of
from bestiary.losses.segmentation import dice_ratio, dice_sums, hardest_pixels_loss, pixel_cross_entropy


def case(seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 5, 6), generator=generator).to(torch.uint8)
    labels[0, 0, :2] = 255
    return logits, labels


def term(name: str, logits: Tensor, labels: Tensor, weights: Tensor | None = None, **numbers: float) -> Tensor:
    (value,) = PixelObjective((name,), **numbers)(logits, labels, weights).values()
    return value


def true_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the true class of each labelled pixel."""
    known = labels != 255
    return logits.softmax(1).movedim(1, -1)[known].gather(1, labels[known].long()[:, None])[:, 0]


def test_each_term_is_its_formula_written_out() -> None:
    logits, labels = case()
    probs, known = true_probs(logits, labels), labels != 255
    assert torch.allclose(term("cross_entropy", logits, labels), -probs.log().mean())
    assert torch.allclose(term("cross_entropy_sum", logits, labels), -probs.log().sum())
    assert torch.allclose(term("focal", logits, labels), -((1 - probs) ** 2 * probs.log()).mean())
    assert torch.allclose(term("focal", logits, labels, focal_gamma=0.5), -((1 - probs) ** 0.5 * probs.log()).mean())
    assert torch.allclose(term("dice", logits, labels), 1 - probs.mean())
    soft = logits.softmax(1) * known[:, None]
    truth = F.one_hot(labels.long().clamp(max=2), 3).movedim(-1, 1) * known[:, None]
    per_class = 2 * (soft * truth).sum((0, 2, 3)) / (soft + truth).sum((0, 2, 3))
    assert torch.allclose(term("dice_classes", logits, labels), 1 - per_class.mean(), atol=1e-6)
    squared = 2 * (soft * truth).sum() / (soft.square() + truth).sum()
    assert torch.allclose(term("dice_squared", logits, labels), 1 - squared, atol=1e-6)


def test_a_focal_loss_of_gamma_zero_is_the_cross_entropy() -> None:
    logits, labels = case()
    assert torch.allclose(term("focal", logits, labels, focal_gamma=0), term("cross_entropy", logits, labels))


def test_the_hardest_pixels_are_those_below_the_probability_or_the_least_share() -> None:
    logits, labels = case(1)
    losses = -true_probs(logits, labels).log()
    below = losses[losses > -math.log(0.3)]
    assert 0.05 * len(losses) < len(below) < len(losses)
    assert torch.allclose(term("ohem", logits, labels, ohem_prob=0.3, ohem_share=0.01), below.mean())
    half = losses.sort(descending=True).values[: math.ceil(0.5 * len(losses))]
    assert torch.allclose(term("ohem", logits, labels, ohem_prob=1e-9, ohem_share=0.5), half.mean())
    assert torch.allclose(term("ohem", logits, labels, ohem_prob=1), losses.mean())


def test_weights_scale_a_hard_pixels_loss_but_do_not_choose_it() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)  # the second pixel is the harder
    labels = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    found = term("ohem", logits, labels, torch.tensor([100.0, 1.0]), ohem_prob=1e-9, ohem_share=0.5)
    assert torch.allclose(found, torch.tensor(math.log(2.0)))


def test_class_weights_and_weight_maps_scale_all_terms_but_dice() -> None:
    logits, labels = case()
    weight_maps = torch.full(labels.shape, 3.0, dtype=torch.float64)
    for name in TERMS:
        objective = PixelObjective((name,))
        plain = objective(logits, labels)[name]
        class_weights = torch.tensor([2.0] * 3, dtype=torch.float64)
        heavy = objective(logits, labels, class_weights, weight_maps)[name]
        assert torch.allclose(heavy, plain if name.startswith("dice") else 6 * plain), name


def test_words_are_names_with_weights_and_stay_in_order() -> None:
    logits, labels = case()
    objective = PixelObjective(("dice=0.5", "cross_entropy"))
    assert objective.weighted_terms == (("dice", 0.5), ("cross_entropy", 1.0))
    found = objective(logits, labels)
    assert list(found) == ["dice", "cross_entropy"]
    assert torch.allclose(found["dice"], 0.5 * term("dice", logits, labels))


@pytest.mark.parametrize("name", list(TERMS))
def test_nothing_labelled_is_a_term_of_zero_with_a_gradient_of_zero(name: str) -> None:
    logits, labels = case()
    logits.requires_grad_()
    value = term(name, logits, torch.full_like(labels, 255))
    assert value == 0
    value.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", list(TERMS))
def test_gradients(name: str) -> None:
    logits, labels = case(5)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(name, x, labels, focal_gamma=0.5, ohem_prob=0.4), (logits,))  # type: ignore[arg-type]


def test_a_pixel_that_is_quite_sure_has_a_finite_focal_gradient() -> None:
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    term("focal", logits, torch.zeros(1, 1, 1, dtype=torch.uint8), focal_gamma=0.5).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"terms": ("cross_entropi",)}, "no loss is called 'cross_entropi'"),
        ({"terms": ()}, "each loss at most once"),
        ({"terms": ("dice", "dice=2")}, "each loss at most once"),
        ({"terms": ("dice=much",)}, "positive weight"),
        ({"terms": ("dice=-1",)}, "positive weight"),
        ({"terms": ("dice=inf",)}, "positive weight"),
        ({"focal_gamma": -1}, "focal_gamma"),
        ({"ohem_prob": 0}, "ohem_prob"),
        ({"ohem_share": 1.5}, "ohem_share"),
    ],
)
def test_what_cannot_be_is_named(made: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PixelObjective(**made)


def test_a_single_class_without_masks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a single category, wanted at least two.*multi_label"):
        PixelObjective()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))
    with pytest.raises(RecordError, match="label 2"):
        PixelObjective()(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 2, dtype=torch.uint8))


def test_class_weights_are_as_many_as_categories_and_not_negative() -> None:
    assert weights_of([1, 0.5], ("a", "b")).tolist() == [1, 0.5]
    for weights, words in (([1.0], "1 weights for 2"), ([1.0, -1.0], "no negative"), ([1.0, math.nan], "no negative")):
        with pytest.raises(UsageError, match=words):
            weights_of(weights, ("a", "b"))


def test_hard_pixels_alone_have_a_gradient() -> None:
    logits, labels = case(2)
    logits.requires_grad_()
    losses = pixel_cross_entropy(logits, labels)
    hardest_pixels_loss(losses, losses, labels, prob=1e-9, share=1 / 58).backward()
    assert logits.grad is not None
    assert int((logits.grad != 0).any(1).sum()) == 1


def masks_case() -> tuple[Tensor, Tensor, Tensor]:
    """Two classes that overlap, and where that is known."""
    logits, labels = case(3, classes=2)
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(2, 2, 5, 6, generator=generator) > 0.5
    assert (masks.all(1)).any()
    assert (~masks.any(1)).any()
    return logits, torch.where(labels == 255, 255, 0).to(torch.uint8), masks


def test_of_overlapping_classes_each_term_is_that_of_a_sigmoid() -> None:
    logits, labels, masks = masks_case()
    known = (labels != 255)[:, None].expand_as(masks)
    right = torch.where(masks, logits.sigmoid(), 1 - logits.sigmoid())
    weights = torch.tensor([1.0, 4.0], dtype=torch.float64)
    found = {name: PixelObjective((name,), ohem_prob=0.5)(logits, labels, None, None, masks)[name] for name in TERMS}
    assert torch.allclose(found["cross_entropy"], -right[known].log().mean())
    assert torch.allclose(found["cross_entropy_sum"], -right[known].log().sum() / 2)
    assert torch.allclose(found["focal"], -((1 - right) ** 2 * right.log())[known].mean())
    pixels = -right.log().mean(1)[known[:, 0]]
    assert torch.allclose(found["ohem"], pixels[pixels > math.log(2)].mean())
    soft, truth = logits.sigmoid() * known, masks & known
    dice = 2 * (soft * truth).sum((0, 2, 3)) / (soft + truth.double()).sum((0, 2, 3))
    assert torch.allclose(found["dice_classes"], 1 - dice.mean(), atol=1e-6)
    heavy = PixelObjective()(logits, labels, weights, None, masks)["cross_entropy"]
    assert torch.allclose(heavy, -(right.log() * weights[:, None, None])[known].mean())


def test_of_one_class_the_sigmoid_is_the_softmax_of_two() -> None:
    logits, labels = case(4, classes=2)
    one, mask = (logits[:, 1:] - logits[:, :1]), (labels == 1)[:, None]
    for name in ("cross_entropy", "focal", "ohem"):
        binary = PixelObjective((name,))(one, labels, None, None, mask)[name]
        assert torch.allclose(binary, term(name, logits, labels)), name


def test_dice_sums_and_ratio_are_what_the_terms_are_made_of() -> None:
    logits, labels = case(6)
    overlap, extent = dice_sums(logits.softmax(1), labels)
    assert torch.allclose(term("dice", logits, labels), 1 - dice_ratio(overlap.sum(), extent.sum()))
