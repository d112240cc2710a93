from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.heads.segmentation import MULTI_LABEL_TASK
from bestiary.heads.whole_picture import PixelOutputs, PixelTruth, WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.losses.pixel_objective import PixelObjective
from bestiary.records import Objects, Sample, Target


class Plain(WholePicture):
    """One convolution, an auxiliary output of half the size, and sides of 6 + 4 n."""

    geometry = InputGeometry(margin=0, grid=4, smallest=6)
    auxiliary_weights: ClassVar = {"aux": 0.25}

    def __init__(self, categories: tuple[str, ...] = ("a", "b"), **told: object) -> None:
        super().__init__(categories, Normalize([0.5], [1.0]))
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, len(categories), 3, padding=1)
        self.side = nn.Conv2d(1, len(categories), 2, stride=2)
        self.sizes: list[tuple[int, ...]] = []
        self.take(told)

    def outputs(self, pixels: Tensor) -> PixelOutputs:
        self.sizes.append(tuple(pixels.shape[-2:]))
        return PixelOutputs(self.conv(pixels), {"aux": self.side(pixels)})


class Valid(Plain):
    """The same without padding: a pixel is lost on every side, and filled with the mean."""

    geometry = InputGeometry(margin=1, grid=1, smallest=1)
    auxiliary_weights: ClassVar = {}
    padding = "mean"

    def outputs(self, pixels: Tensor) -> PixelOutputs:
        self.sizes.append(tuple(pixels.shape[-2:]))
        return PixelOutputs(F.conv2d(pixels, self.conv.weight, self.conv.bias))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def labels_of(image: Tensor) -> Tensor:
    return (image[0] > 0.5).to(torch.uint8)


def test_pictures_are_padded_to_legal_sizes_and_the_output_is_cropped() -> None:
    net = Plain()
    (found,) = net.predict_images([noise(1, 7, 11)])
    assert net.sizes == [(10, 14)]
    assert found.label_map.shape == (7, 11)
    net.loss([noise(1, 7, 11)], [Target(label_map=labels_of(noise(1, 7, 11)))])
    assert net.sizes[-1] == (10, 14), "training sees what prediction sees"


def test_the_mean_lies_outside_where_a_net_has_it_so() -> None:
    image = noise(1, 5, 6)
    net = Valid()
    padded = F.pad(image[None] - 0.5, [1, 1, 1, 1])
    assert torch.allclose(net.predict_logits(image[None]), net(padded))
    mirrored = Valid()
    mirrored.padding = "mirror"  # type: ignore[misc]
    outside = F.pad(image[None] - 0.5, [1, 1, 1, 1], mode="reflect")
    assert torch.allclose(mirrored.predict_logits(image[None]), net(outside))


@pytest.mark.parametrize(("top", "left"), [(-9, 2), (3, 9), (-1, -1), (40, 40)])
def test_windows_anywhere_have_the_size_asked_for(top: int, left: int) -> None:
    pixels = Valid().prepare(noise(1, 1, 5, 6), top, left, (4, 7))
    everywhere = F.pad(noise(1, 1, 5, 6) - 0.5, [50, 50, 50, 50])
    assert torch.equal(pixels, everywhere[..., top + 50 : top + 54, left + 50 : left + 57])


def test_loss_is_the_objective_and_the_auxiliary_outputs_times_their_weights() -> None:
    net = Plain()
    image = noise(1, 10, 10)
    truth = labels_of(image)
    losses = net.loss([image], [Target(label_map=truth)])
    outputs = net.outputs(image[None] - 0.5)
    main = F.cross_entropy(outputs.logits, truth[None].long())
    resized = F.interpolate(outputs.auxiliary["aux"], size=(10, 10), mode="bilinear", align_corners=False)
    assert list(losses.terms) == ["cross_entropy", "aux_cross_entropy"]
    assert torch.allclose(losses.terms["cross_entropy"], main)
    assert torch.allclose(losses.terms["aux_cross_entropy"], 0.25 * F.cross_entropy(resized, truth[None].long()))
    losses.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_what_was_added_to_a_smaller_picture_has_no_loss() -> None:
    net = Valid()
    images = [noise(1, 4, 9), noise(1, 8, 5, seed=1)]
    targets = [Target(label_map=labels_of(image)) for image in images]
    together = net.loss(images, targets).total
    singles = [net.loss([i], [t]).total * i.numel() for i, t in zip(images, targets, strict=True)]
    assert torch.allclose(together, sum(singles) / sum(i.numel() for i in images))


def test_another_objective_is_told_by_name() -> None:
    net = Plain(losses=["dice=0.5", "focal"], focal_gamma=1.0, class_weights=[1, 3])
    assert net.objective == PixelObjective(("dice=0.5", "focal"), 1.0)
    image = noise(1, 6, 6)
    found = net.loss([image], [Target(label_map=labels_of(image))]).terms
    assert list(found) == ["dice", "focal", "aux_dice", "aux_focal"]
    assert net.class_weights is not None
    assert "class_weights" not in net.state_dict()
    assert net.double().class_weights.dtype == torch.float64
    net.take({"losses": []})
    assert net.objective.terms == ("dice=0.5", "focal"), "nothing said changes nothing"


@pytest.mark.parametrize("balance", ["median_frequency", "inverse_frequency"])
def test_class_weights_come_from_the_training_pictures(balance: str) -> None:
    net = Plain(class_balance=balance)
    first = Target(label_map=torch.tensor([[0, 0, 0, 1]], dtype=torch.uint8))
    second = Target(label_map=torch.tensor([[0, 0, 255, 255]], dtype=torch.uint8))
    said: list[str] = []
    net.observe([Sample(torch.zeros(1, 1, 4), target, "x", (1, 4)) for target in (first, second)], said.append)
    # f = 5/6 and 1/4, their median 13/24; n / (2 n_c) = 6/10 and 6/2
    wanted = [0.65, 2.1667] if balance == "median_frequency" else [0.6, 3.0]
    assert net.class_weights is not None
    assert net.class_weights.tolist() == pytest.approx(wanted)
    assert net.arguments["class_weights"] == pytest.approx(wanted)
    assert said == [f"class weights by {balance.replace('_', ' ')}: a {wanted[0]:g}, b {wanted[1]:g}"]
    net.observe([], said.append)
    assert len(said) == 1, "weights that are there stay"


def test_validation_sees_pictures_at_the_size_of_prediction() -> None:
    net = Plain(predict_size=10)
    images, targets = [noise(3, 20, 30)], [Target(label_map=torch.zeros(20, 30, dtype=torch.uint8))]
    scaled, moved = net.to_network_scale(images, targets)
    assert scaled[0].shape == (3, 10, 15)
    assert moved[0].label_map is not None
    assert moved[0].label_map.shape == (10, 15)
    net.validation_loss(images, targets)
    net.predict_images(images)
    assert net.sizes == [(10, 18), (10, 18)]
    plain = Plain()
    assert plain.to_network_scale(images, targets) == (images, targets)


def objects(masks: Tensor, labels: list[int]) -> Objects:
    return Objects(torch.zeros(len(labels), 4), torch.tensor(labels, dtype=torch.int64), masks=masks)


def test_classes_that_overlap_have_a_sigmoid_each() -> None:
    net = Plain(multi_label=True, keep_probs=True)
    assert net.task == MULTI_LABEL_TASK
    image = noise(1, 7, 9)
    (found,) = net.predict_images([image])
    logits = net.predict_logits(image[None])[0]
    assert torch.allclose(found.probs, logits.sigmoid())
    assert torch.equal(found.class_masks, logits.sigmoid() > 0.5)
    wanted = torch.where(found.class_masks.any(0), logits.argmax(0), 255).to(torch.uint8)
    assert torch.equal(found.label_map, wanted)
    net.take({"mask_threshold": 0.9})
    (strict,) = net.predict_images([image])
    assert int(strict.class_masks.sum()) < int(found.class_masks.sum())
    net.take({"test_flip": True})
    (views,) = net.predict_images([image])
    flipped = net.predict_logits(image[None].flip(-1)).flip(-1)[0]
    assert torch.allclose(views.probs, (logits.sigmoid() + flipped.sigmoid()) / 2, atol=1e-6)


def test_the_truth_of_overlapping_classes_is_the_objects_masks() -> None:
    net = Plain(multi_label=True)
    masks = torch.zeros(3, 7, 9, dtype=torch.bool)
    masks[0, :4], masks[1, 2:6], masks[2, 5:] = True, True, True  # labels 0, 1, 1
    image = noise(1, 7, 9)
    losses = net.loss([image], [Target(objects=objects(masks, [0, 1, 1]))])
    truth = torch.stack([masks[0], masks[1] | masks[2]]).float()
    logits = net.outputs(net.prepare(image[None], 0, 0, (10, 10))).logits[0, :, :7, :9]
    assert torch.allclose(losses.terms["cross_entropy"], F.binary_cross_entropy_with_logits(logits, truth))
    nothing = net.loss([image], [Target(objects=objects(torch.zeros(0, 7, 9, dtype=torch.bool), []))])
    wanted = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(truth))
    assert torch.allclose(nothing.terms["cross_entropy"], wanted)


def test_a_label_map_serves_as_masks_and_its_unknown_pixels_are_left_out() -> None:
    net = Plain(multi_label=True)
    image = noise(1, 6, 6)
    labels = labels_of(image)
    labels[:2] = 255
    found = net.loss([image], [Target(label_map=labels)]).terms["cross_entropy"]
    logits = net.outputs(image[None] - 0.5).logits[0, :, 2:]
    truth = F.one_hot(labels[2:].long(), 2).movedim(-1, 0).float()
    assert torch.allclose(found, F.binary_cross_entropy_with_logits(logits, truth))
    everything = net.loss([image], [Target(label_map=torch.full((6, 6), 255, dtype=torch.uint8))])
    assert everything.total == 0


def test_one_category_is_enough_where_categories_may_overlap() -> None:
    net = Plain(("cell",), multi_label=True)
    image = noise(1, 6, 6)
    masks = image > 0.5
    losses = net.loss([image], [Target(objects=objects(masks, [0]))])
    assert torch.isfinite(losses.total)
    (found,) = net.predict_images([image])
    assert found.class_masks is not None
    assert set(found.label_map.unique().tolist()) <= {0, 255}
    with pytest.raises(UsageError, match=r"1 categories, wanted 2 to 255.*multi_label"):
        Plain(("cell",))


def test_frequencies_of_overlapping_classes_are_counted_by_their_masks() -> None:
    net = Plain(multi_label=True, class_balance="inverse_frequency")
    masks = torch.zeros(2, 2, 4, dtype=torch.bool)
    masks[0, 0], masks[1] = True, True
    sample = Sample(torch.zeros(1, 2, 4), Target(objects=objects(masks, [0, 1])), "x", (2, 4))
    net.observe([sample])
    assert net.class_weights is not None
    assert net.class_weights.tolist() == [1.5, 0.75]  # 12 / (2 * 4) and 12 / (2 * 8)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(), "neither masks nor a label map"),
        (Target(objects=objects(torch.zeros(1, 5, 6, dtype=torch.bool), [0])), r"size \(5, 6\), wanted the picture's"),
        (Target(objects=objects(torch.zeros(1, 6, 6, dtype=torch.bool), [2])), r"label 2, wanted 0\.\.1"),
        (Target(label_map=torch.full((6, 6), 9, dtype=torch.uint8)), r"label 9, wanted 0\.\.1"),
    ],
)
def test_truth_that_does_not_fit_is_named(target: Target, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        Plain(multi_label=True).loss([noise(1, 6, 6)], [target])


def test_truth_of_a_batch_is_padded_as_unknown() -> None:
    net = Plain(multi_label=True)
    masks = torch.ones(1, 3, 3, dtype=torch.bool)
    truth = net.truth_of([noise(1, 3, 3)], [Target(objects=objects(masks, [1]))])
    assert isinstance(truth, PixelTruth)
    assert truth.class_masks is not None
    assert truth.class_masks.shape == (1, 2, 6, 6)
    assert int(truth.class_masks.sum()) == 9
    assert int((truth.label_maps == 0).sum()) == 9
    assert int((truth.label_maps == 255).sum()) == 27
