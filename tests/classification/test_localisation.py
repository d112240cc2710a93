"""Localisation of one object: the loss, the windows, merging, and that it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary import zoo
from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.classification.localisation import Localising, VGGLocaliser, chief_object, merge_greedily
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.predictions import Detections
from bestiary.recipes.classifiers.localisation import LocalisationPictures
from bestiary.records import Objects, Sample, Target
from bestiary.weights.load import load_state

CATEGORIES = ("ant", "bee", "crab")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small(per_class: bool = True, resize: int = 72, crop: int = 64, **how: object) -> VGGLocaliser:
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, width=1 / 8)
    settings = Localising(**how)  # type: ignore[arg-type]
    return VGGLocaliser(
        trunk, CATEGORIES, width=16, per_class=per_class, dropout=0.0, resize=resize, crop=crop, how=settings
    )


def one(box: tuple[float, ...], label: int = 0) -> Target:
    return Target(objects=Objects(torch.tensor([box], dtype=torch.float32), torch.tensor([label])))


def test_the_loss_is_half_the_squared_distance_in_window_sides() -> None:
    system = small(box_weight=3.0).eval()
    pixels = torch.rand(2, 3, 64, 64)
    targets = [one((0.0, 16.0, 32.0, 48.0), 2), one((8.0, 8.0, 24.0, 56.0), 1)]
    true = torch.tensor([[0.25, 0.5, 0.5, 0.5], [0.25, 0.5, 0.25, 0.75]])
    with torch.no_grad():
        logits, boxes = system(system.normalize(pixels))
        terms = system.loss(pixels, targets).terms
        told = torch.stack([boxes[0, 2], boxes[1, 1]])
        assert float(terms["euclidean"]) == pytest.approx(3 * float(0.5 * (told - true).square().sum(1).mean()))
        wanted = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 1]))
        assert float(terms["cross_entropy"]) == pytest.approx(float(wanted))


def test_the_box_loss_touches_the_true_classes_four_outputs_only() -> None:
    system = small().eval()
    system.loss(torch.rand(1, 3, 64, 64), [one((0.0, 0.0, 9.0, 9.0), 1)]).terms["euclidean"].backward()
    gradient = system.regressor[-1].get_parameter("bias").grad
    assert gradient is not None
    assert gradient.view(3, 4).abs().gt(0).all(1).tolist() == [False, True, False]
    assert gradient.view(3, 4)[[0, 2]].count_nonzero() == 0


def test_one_box_for_all_classes_has_four_outputs() -> None:
    system = small(per_class=False).eval()
    with torch.no_grad():
        assert system(torch.rand(2, 3, 64, 64))[1].shape == (2, 1, 4)
        assert [len(d) for d in detections(system, torch.rand(3, 80, 72))] == [3]


def detections(system: VGGLocaliser, *images: Tensor) -> list[Detections]:
    with torch.inference_mode():
        found = system.eval().predict_images(list(images))
    assert all(isinstance(d, Detections) for d in found)
    return [d for d in found if isinstance(d, Detections)]


def test_pictures_without_an_object_have_no_say_and_none_at_all_is_no_loss() -> None:
    system = small().eval()
    pixels, there = torch.rand(2, 3, 64, 64), one((0.0, 0.0, 30.0, 30.0))
    empty = Target(objects=Objects.empty())
    with torch.no_grad():
        alone, both = system.loss(pixels[:1], [there]), system.loss(pixels, [there, empty])
        torch.testing.assert_close(alone.total, both.total)
    nothing = system.loss(pixels, [empty, empty])
    nothing.total.backward()
    assert float(nothing.total.detach()) == 0
    with pytest.raises(RecordError, match="wanted Objects"):
        system.loss(pixels, [there, Target(label=1)])


def test_the_chief_object_is_the_largest_and_the_first_of_equal_ones() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 9.0, 8.0], [0.0, 0.0, 3.0, 4.0]])
    found = chief_object(boxes, torch.tensor([2, 1, 0]))
    assert found is not None
    assert (found[0].tolist(), int(found[1])) == ([5.0, 5.0, 9.0, 8.0], 1)
    assert chief_object(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)) is None


def test_the_dense_maps_are_forward_at_one_window_and_one_place_more_every_32_pixels() -> None:
    system = small().eval()
    with torch.no_grad():
        pixels = torch.rand(1, 3, 64, 64)
        logits, boxes = system(pixels)
        logit_map, box_map = system.dense(pixels)
        torch.testing.assert_close(logit_map[:, :, 0, 0], logits, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(box_map[..., 0, 0], boxes, rtol=1e-5, atol=1e-6)
        logit_map, box_map = system.dense(torch.rand(1, 3, 128, 96))
        assert (logit_map.shape, box_map.shape) == ((1, 3, 3, 2), (1, 3, 4, 3, 2))


def test_windows_are_placed_in_the_picture_and_merged() -> None:
    """A network that says one box, whatever it sees: the middle half of its window."""
    system = small(resize=64)
    torch.nn.init.zeros_(system.regressor[-1].get_parameter("weight"))
    (centre,) = detections(system, torch.rand(3, 64, 64))
    assert centre.boxes_xyxy[0].tolist() == pytest.approx([16, 16, 48, 48], abs=1e-3)
    # Scaled down by two, windows at 0 and 32: boxes 16..48 and 48..80, which are 32..96 and 96..160 in the picture.
    picture = torch.rand(3, 128, 192)
    for box in detections(system, picture)[0].boxes_xyxy.tolist():
        assert any(box == pytest.approx([x, 32, x + 64, 96], abs=1e-2) for x in (32, 96))
    system.how = dataclasses.replace(system.how, merge_overlap=-0.5)
    for box in detections(system, picture)[0].boxes_xyxy.tolist():
        assert box == pytest.approx([64, 32, 128, 96], abs=1e-2)


def test_scores_are_the_classifiers_probabilities() -> None:
    system = small(resize=64, views="centre", candidates=3)
    picture = torch.rand(3, 64, 64)
    (found,) = detections(system, picture)
    with torch.no_grad():
        probs = system(system.normalize(picture)[None])[0].softmax(1)[0]
    assert found.scores.tolist() == pytest.approx(probs[found.labels].tolist(), rel=1e-5)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_merging_takes_the_closest_first_and_keeps_strangers_apart() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],
            [50.0, 50.0, 60.0, 60.0],
            [1.0, 0.0, 11.0, 10.0],
            [50.0, 51.0, 60.0, 61.0],
            [2.0, 0.0, 12.0, 10.0],
        ]
    )
    merged, group = merge_greedily(boxes, 0.5)
    assert group.tolist() == [0, 1, 0, 1, 0]
    assert merged.tolist() == [[1.0, 0.0, 11.0, 10.0], [50.0, 50.5, 60.0, 60.5]]
    assert merge_greedily(boxes, 0.999)[1].tolist() == [0, 1, 2, 3, 4]
    everything, group = merge_greedily(boxes, -2.0)
    assert group.tolist() == [0] * 5
    torch.testing.assert_close(everything[0], boxes.mean(0))
    assert merge_greedily(boxes[:1], 0.5)[0].tolist() == boxes[:1].tolist()


def test_merging_does_not_depend_on_the_order() -> None:
    draw = np.random.default_rng(2)
    corner = draw.uniform(0, 100, (24, 2))
    boxes = torch.tensor(np.concatenate([corner, corner + draw.uniform(30, 60, (24, 2))], 1), dtype=torch.float32)
    order = torch.from_numpy(draw.permutation(24))
    one_way, other = merge_greedily(boxes, 0.3)[0], merge_greedily(boxes[order], 0.3)[0]
    assert 1 < len(one_way) < 24
    torch.testing.assert_close(one_way[one_way[:, 0].argsort()], other[other[:, 0].argsort()])


def test_the_network_scale_moves_boxes_with_the_picture() -> None:
    system = small(resize=72)
    image = torch.zeros(3, 144, 288)
    image[:, 40:80, 120:160] = 1
    target = Target(
        objects=Objects(torch.tensor([[120.0, 40.0, 160.0, 80.0], [0.0, 0.0, 60.0, 20.0]]), torch.tensor([1, 0]))
    )
    (picture,), (moved,) = system.to_network_scale([image], [target])
    assert picture.shape == (3, 64, 64)
    assert moved.objects is not None
    assert moved.objects.labels.tolist() == [1], "the other one is outside the middle"
    left, top, right, bottom = (round(v) for v in moved.objects.boxes_xyxy[0].tolist())
    assert picture[:, top + 1 : bottom - 1, left + 1 : right - 1].min() > 0.9
    assert picture.sum() == pytest.approx(3 * 20 * 20, rel=0.02)


def test_a_classifier_is_a_start_for_both_stacks() -> None:
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, width=1 / 8)
    classifier = VGGClassifier(trunk, CATEGORIES, hidden=(16, 16), grid=2, resize=64, crop=64)
    system = small()
    fresh = system.regressor[-1].get_parameter("weight").detach().clone()
    report = load_state(system, classifier.state_dict())
    assert report.summary() == "starts from the classifier; the boxes' last layer starts fresh"
    for layer in (0, 3):
        hidden = classifier.classifier[layer].get_parameter("weight")
        assert torch.equal(system.regressor[layer].get_parameter("weight"), hidden)
        assert torch.equal(system.classifier[layer].get_parameter("weight"), hidden)
    assert torch.equal(system.regressor[-1].get_parameter("weight"), fresh)
    assert "entries loaded" in load_state(small(), system.state_dict()).summary(), "its own state is a whole"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 60}, "wanted a multiple of 32"),
        ({"crop": 96}, "up to the least side"),
        ({"view_sides": (40,)}, "up to the least side"),
        ({"views": "ten_crop"}, "wanted one of centre, dense"),
        ({"candidates": 0}, "wanted at least one"),
    ],
)
def test_settings_that_cannot_be_are_errors(arguments: dict[str, object], message: str, unchecked: None) -> None:
    with pytest.raises(UsageError, match=message):
        small(**arguments)  # type: ignore[arg-type]


def squares(count: int, seed: int) -> list[Sample]:
    """A red or a blue square on a dark, noisy ground."""
    draw, samples = np.random.default_rng(seed), []
    for i in range(count):
        side, label = int(draw.integers(18, 36)), i % 2
        x, y = (int(v) for v in draw.integers(0, 64 - side, 2))
        image = torch.from_numpy(draw.uniform(0, 0.2, (3, 64, 64)).astype(np.float32))
        image[2 * label, y : y + side, x : x + side] = 1
        samples.append(Sample(image, one((x, y, x + side, y + side), label), f"{i}", (64, 64)))
    return samples


def test_it_learns_where_the_object_is() -> None:
    samples = squares(32, 0)
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, width=1 / 8)
    how = Localising("centre", candidates=1)
    system = VGGLocaliser(trunk, CATEGORIES, width=64, dropout=0.0, resize=64, crop=64, how=how).train()
    optimiser = torch.optim.Adam(system.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.02, 50)
    assert accuracy(system, samples)[0] < 0.45
    for _ in range(50):
        optimiser.zero_grad()
        system.loss([s.image for s in samples], [s.target for s in samples]).total.backward()
        optimiser.step()
        schedule.step()
    overlap, right = accuracy(system, samples)
    assert overlap > 0.65
    assert right == len(samples)


def accuracy(system: VGGLocaliser, samples: list[Sample]) -> tuple[float, int]:
    """Mean IoU with the object, and how many are called by their class."""
    ious, right = [], 0
    for detection, sample in zip(detections(system, *(s.image for s in samples)), samples, strict=True):
        assert sample.target.objects is not None
        ious.append(float(pairwise_iou(detection.boxes_xyxy[:1], sample.target.objects.boxes_xyxy)))
        right += int(detection.labels[0] == sample.target.objects.labels[0])
    system.train()
    return float(np.mean(ious)), right


def test_the_recipe_cuts_windows_and_reaches_the_constructor() -> None:
    pictures = LocalisationPictures(resize=80, crop=64)
    sample = pictures.train_transform()(squares(1, 3)[0], np.random.default_rng(0))
    assert sample.size_hw == (64, 64)
    name = "vgg11_bn_localisation"
    recipe = zoo.recipe_of(name).with_fields({"width": "32", "views": "centre", "crop": "64"})
    assert recipe.arguments == {"width": 32, "views": "centre"}
    assert recipe.pictures.arguments() == {"resize": 144, "crop": 64}
    system = zoo.build(name, CATEGORIES, {**recipe.pictures.arguments(), **recipe.arguments})
    assert isinstance(system, VGGLocaliser)
    assert (system.grid, system.how.views, system.task) == (2, "centre", zoo.find(name).task)


def test_the_plain_form_is_a_classifier_with_four_further_outputs() -> None:
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, width=1 / 8)
    how = Localising(views="centre", candidates=1)
    system = VGGLocaliser(
        trunk, CATEGORIES, width=16, per_class=False, shared_layers=True, resize=72, crop=64, how=how
    ).eval()
    assert [tuple(p.shape) for p in system.regressor.parameters()] == [(4, 16), (4,)]
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits, boxes = system(pixels)
        hidden = system.classifier[:-1](system.features(pixels).flatten(1))
        torch.testing.assert_close(boxes[:, 0], system.regressor[0](hidden))
        torch.testing.assert_close(logits, system.classifier[-1](hidden))
        logit_map, box_map = system.dense(pixels)
    torch.testing.assert_close(logit_map[..., 0, 0], logits)
    torch.testing.assert_close(box_map[..., 0, 0], boxes)
    (found,) = system.predict([torch.rand(3, 80, 100)])
    assert isinstance(found, Detections)
    assert len(found) == 1


def test_a_scale_is_that_of_the_sides_and_never_below_the_window() -> None:
    system = small(resize=72, crop=64).eval()
    image = torch.rand(3, 90, 120)
    with torch.no_grad():
        (larger,) = system.detect_scaled([image], 2.0)
        system.resize = 144
        (wanted,) = system.detect_images([image])
        assert torch.equal(larger.boxes_xyxy, wanted.boxes_xyxy)
        (least,) = system.detect_scaled([image], 0.1)
        system.resize = 64
        assert torch.equal(least.scores, system.detect_images([image])[0].scores)
