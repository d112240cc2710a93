import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.losses.segmentation import (
    count_classes,
    count_labelled,
    dice_loss,
    dice_ratio,
    dice_sums,
    inverse_frequency_weights,
    median_frequency_weights,
    pixel_cross_entropy,
    pixel_cross_entropy_loss,
    soft_dice,
)


def case(seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 5, 6), generator=generator).to(torch.uint8)
    labels[0, 0, :2] = 255
    return logits, labels


def test_cross_entropy_of_hand_worked_pixels() -> None:
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    weights = torch.tensor([[[2.0, 10.0, 5.0]]])
    found = pixel_cross_entropy(logits, labels, torch.tensor([1.0, 0.5]), weights)
    assert torch.allclose(found, torch.tensor([[[2 * math.log(4.0), 10 * 0.5 * math.log(4 / 3), 0.0]]]))


def test_mean_is_torchs_with_either_normaliser() -> None:
    logits, labels = case()
    class_weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    mean = pixel_cross_entropy_loss(logits, labels, count_labelled(labels))
    assert torch.allclose(mean, F.cross_entropy(logits, labels.long(), ignore_index=255))
    known = labels[labels != 255].long()
    weighted = pixel_cross_entropy_loss(logits, labels, class_weights[known].sum(), class_weights)
    assert torch.allclose(weighted, F.cross_entropy(logits, labels.long(), class_weights, ignore_index=255))


def test_constant_weight_map_scales_the_loss() -> None:
    logits, labels = case()
    plain = pixel_cross_entropy(logits, labels)
    assert torch.allclose(pixel_cross_entropy(logits, labels, None, torch.full(labels.shape, 3.0)), 3 * plain)


def test_ignored_pixels_have_no_loss_and_no_gradient() -> None:
    logits, labels = case()
    logits.requires_grad_()
    total = pixel_cross_entropy_loss(logits, labels, count_labelled(labels)) + dice_loss(logits, labels)
    total.backward()
    assert logits.grad is not None
    unknown = (labels == 255)[:, None].expand_as(logits)
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).all()


def test_nothing_labelled_gives_zero_not_nan() -> None:
    logits, labels = case()
    labels = torch.full_like(labels, 255)
    assert pixel_cross_entropy_loss(logits, labels, count_labelled(labels)) == 0
    assert dice_loss(logits, labels) == 0
    assert torch.equal(soft_dice(logits.softmax(1), labels, smooth=0.0), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("loss", [pixel_cross_entropy, dice_loss])
def test_a_label_that_is_no_class_is_named(loss) -> None:
    logits, labels = case()
    labels[1, 2, 3] = 3
    with pytest.raises(RecordError, match=r"label 3 \(1 such pixels\), wanted 0..2 or 255"):
        loss(logits, labels)


@pytest.mark.parametrize("squared", [False, True])
def test_dice_sums_equal_loops(squared: bool) -> None:
    logits, labels = case(1)
    probs = logits.softmax(1)
    overlap, extent = dice_sums(probs, labels, squared)
    for b in range(2):
        for k in range(3):
            both = size = 0.0
            for y in range(5):
                for x in range(6):
                    if labels[b, y, x] == 255:
                        continue
                    p, t = float(probs[b, k, y, x]), float(labels[b, y, x] == k)
                    both += p * t
                    size += p**2 + t**2 if squared else p + t
            assert math.isclose(float(overlap[b, k]), both, rel_tol=1e-12)
            assert math.isclose(float(extent[b, k]), size, rel_tol=1e-12)


def test_both_denominators_agree_on_binary_predictions_only() -> None:
    logits, labels = case(2)
    hard = F.one_hot(logits.argmax(1), 3).permute(0, 3, 1, 2).double()
    assert torch.allclose(soft_dice(hard, labels), soft_dice(hard, labels, squared=True))
    soft = logits.softmax(1)
    assert not torch.allclose(soft_dice(soft, labels), soft_dice(soft, labels, squared=True))


def test_dice_limits() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    right = F.one_hot(labels.long(), 3).permute(0, 3, 1, 2).double()
    # class 2 is empty in both: 1 by convention
    assert torch.equal(soft_dice(right, labels, smooth=0.0), torch.ones(3, dtype=torch.float64))
    wrong = right[:, [1, 0, 2]]
    assert torch.equal(soft_dice(wrong, labels, smooth=0.0), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    half = dice_ratio(torch.tensor(1.0), torch.tensor(4.0), smooth=0.0)
    assert half == 0.5


def test_hard_dice_is_sklearns_f1() -> None:
    from sklearn.metrics import f1_score

    logits, labels = case(3)
    predicted = logits.argmax(1)
    hard = F.one_hot(predicted, 3).permute(0, 3, 1, 2).double()
    known = labels != 255
    theirs = f1_score(labels[known].numpy(), predicted[known].numpy(), average=None, labels=[0, 1, 2])
    assert np.allclose(soft_dice(hard, labels, smooth=0.0).numpy(), theirs, atol=1e-12)


def test_pooling_over_classes_and_over_all() -> None:
    logits, labels = case(4)
    probs = logits.softmax(1)
    assert torch.allclose(dice_loss(logits, labels, "classes"), 1 - soft_dice(probs, labels).mean())
    overlap, extent = dice_sums(probs, labels)
    assert torch.allclose(dice_loss(logits, labels), 1 - dice_ratio(overlap.sum(), extent.sum()))
    # over all classes |A| = |B| = labelled pixels: Dice is the mean probability given to the truth
    truth = probs.gather(1, labels.long().clamp(max=2)[:, None])[:, 0][labels != 255].mean()
    assert torch.allclose(1 - dice_loss(logits, labels, smooth=0.0), truth)


@pytest.mark.parametrize("pooled", ["classes", "all"])
@pytest.mark.parametrize("squared", [False, True])
def test_dice_gradient(pooled: str, squared: bool) -> None:
    logits, labels = case(5)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, labels, pooled, squared), (logits,))  # type: ignore[arg-type]


def test_class_weights_of_a_toy_set_counted_by_hand() -> None:
    # class 0: 6 of the 8 + 2 labelled pixels around it; class 1: 4 of 8; class 2 never; class 3 ignored
    first = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.uint8)
    second = torch.tensor([[0, 0, 255, 255]], dtype=torch.uint8)
    counts = count_classes([first, second], 3)
    assert counts.pixels.tolist() == [6, 4, 0]
    assert counts.pixels_around.tolist() == [10, 8, 0]
    # frequencies .6 and .5, median .55
    assert torch.allclose(median_frequency_weights(counts), torch.tensor([0.55 / 0.6, 1.1, 0.0], dtype=torch.float64))
    inverse = inverse_frequency_weights(counts)
    assert torch.allclose(inverse, torch.tensor([10 / 12, 10 / 8, 0.0], dtype=torch.float64))
    assert math.isclose(float((inverse * counts.pixels).sum() / counts.pixels.sum()), 1.0)


def test_class_weights_of_nothing_are_zero() -> None:
    counts = count_classes([], 3)
    assert median_frequency_weights(counts).tolist() == [0, 0, 0]
    assert inverse_frequency_weights(counts).tolist() == [0, 0, 0]


def test_camvid_weights_are_near_those_that_segnet_published(real_data: Path) -> None:
    # The median class weighs exactly 1, and no published number does: they were taken from other label maps than the
    # published ones. The rarest signs differ most (3.85, published 9.64); all else agrees within 21 %.
    published = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]
    files = sorted((real_data / "camvid" / "labels" / "train").glob("*.png"))
    assert len(files) == 367
    maps = (torch.from_numpy(np.array(Image.open(file))) for file in files)
    counts = count_classes((torch.where(m >= 11, 255, m).to(torch.uint8) for m in maps), 11)
    weights = median_frequency_weights(counts).numpy()
    assert sorted(weights)[5] == 1
    ratios = np.delete(weights / published, 6)
    assert ratios.min() > 1.0
    assert ratios.max() < 1.21


def test_camvid_counts_are_numpys(real_data: Path) -> None:
    files = sorted((real_data / "camvid" / "labels" / "val").glob("*.png"))[:5]
    maps = [np.array(Image.open(file)) for file in files]
    counts = count_classes([torch.from_numpy(m) for m in maps], 12)
    assert counts.pixels.tolist() == np.bincount(np.concatenate([m.ravel() for m in maps]), minlength=12).tolist()
    assert counts.pixels_around.tolist() == [sum(m.size for m in maps if (m == k).any()) for k in range(12)]
