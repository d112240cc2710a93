"""SSD on a trunk small enough to learn within seconds, and the named systems' numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bestiary
from bestiary import zoo
from bestiary.backbones.extra_maps import ExtraMaps
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.detection import ssd
from bestiary.detection.ssd import RATIOS, SSD
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.geometry.default_boxes import DefaultBoxes, default_maps
from bestiary.heads.multibox import MultiBoxSettings
from bestiary.heads.square import Square
from bestiary.layers.scaling import as_float
from bestiary.predictions import Detections
from bestiary.records import Objects, Sample, Target
from bestiary.system import System
from bestiary.transforms import Resize
from bestiary.verbs.models import save

CATEGORIES = ["ant", "bee"]
CAFFE_512_CELLS = (64, 32, 16, 8, 4, 2, 1)


def build(side: int = 96, **settings: Any) -> SSD:
    torch.manual_seed(0)
    trunk = ExtraMaps(VGG(DEPTHS["vgg11"], batch_norm=True, maps=("C3", "C4"), width=0.125), ("C3", "C4"), (32,))
    maps = default_maps((16, 28, 44, 70), ((2,), (2, 3), (2,)), (8, 16, 32))
    return SSD(trunk, CATEGORIES, boxes=DefaultBoxes(maps), scale=Square(side, antialias=False), **settings).eval()


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def answers(system: System, image: Tensor) -> Detections:
    (found,) = system.predict(image)
    assert isinstance(found, Detections)
    return found


def pictures() -> tuple[list[Tensor], list[Target]]:
    """A red and a green square on dark noise, at other places in each picture."""
    rng = torch.Generator().manual_seed(1)
    images, targets = [], []
    for x, y in ((6, 8), (40, 10), (20, 48), (50, 52)):
        image = 0.2 * torch.rand(3, 96, 96, generator=rng)
        image[0, y : y + 38, x : x + 38] += 0.8
        u, v = (x + 46) % 70, (y + 44) % 70
        image[1, v : v + 26, u : u + 26] += 0.8
        images.append(image)
        targets.append(target((x, y, x + 38, y + 38, 0), (u, v, u + 26, v + 26, 1)))
    return images, targets


# -- the network and its boxes -----------------------------------------------------------------------------------------


def test_candidates_are_all_boxes_moved_and_probabilities_without_background() -> None:
    system = build()
    pixels = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        raw = system(pixels)
        boxes, probs = system.candidates(raw, (96, 96))
    count = 12 * 12 * 4 + 6 * 6 * 6 + 3 * 3 * 4
    assert (boxes.shape, probs.shape) == ((2, count, 4), (2, count, 2))
    assert bool((probs.sum(2) < 1).all())
    still = raw._replace(deltas=tuple(0 * m for m in raw.deltas))
    torch.testing.assert_close(system.candidates(still, (96, 96))[0][1], system.default_boxes(raw))


def test_caffes_box_counts_and_first_boxes() -> None:
    with torch.device("meta"):
        small, large = ssd.ssd300_vgg16_caffe(), ssd.ssd512_vgg16()
    boxes = small.boxes.over([(n, n) for n in (38, 19, 10, 5, 3, 1)])
    assert len(boxes) == 8732
    assert boxes[0].tolist() == [-11, -11, 19, 19]  # 30 pixels about 4, 4
    assert len(large.boxes.over([(n, n) for n in CAFFE_512_CELLS])) == 24_564
    assert large.boxes.over([(n, n) for n in CAFFE_512_CELLS])[0].tolist() == [
        -13.5,
        -13.5,
        21.5,
        21.5,
    ]  # 35, not 35.84
    with torch.device("meta"):
        assert ssd.ssd300_vgg16_caffe(sizes="coco").boxes.maps[0].min_size == 21


@pytest.mark.parametrize(
    ("name", "parameters", "categories"),
    [
        ("ssd300_vgg16", 35_641_826, 90),
        ("ssd300_vgg16_caffe", 26_285_486, 20),
        ("ssd512_vgg16", 27_188_676, 20),
        ("ssd300_mobilenet", 16_596_149, 80),
        ("ssdlite320_mobilenet_v2", 4_337_013, 80),
        ("ssd300_small", 4_637_038, 20),
        ("ssd300_mobilenet_small", 3_081_358, 20),
    ],
)
def test_named_systems(name: str, parameters: int, categories: int) -> None:
    with torch.device("meta"):
        system = zoo.build(name)
    assert isinstance(system, SSD)
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert len(system.categories) == categories
    rules = system.settings
    assert (rules.min_score, rules.candidates, rules.nms_iou, system.max_detections) == (0.01, 400, 0.45, 200)


@pytest.mark.parametrize(
    ("name", "side", "count"),
    [("ssd300_mobilenet", 300, 1917), ("ssdlite320_mobilenet_v2", 320, 2034), ("ssd300_small", 300, 8108)],
)
def test_boxes_of_the_light_forms(name: str, side: int, count: int) -> None:
    with torch.device("meta"):
        system = zoo.build(name)
        assert isinstance(system, SSD)
        raw = system.train()(torch.empty(1, 3, side, side))
    sizes = [(int(m.shape[2]), int(m.shape[3])) for m in raw.deltas]
    boxes = system.boxes.over(sizes)
    assert len(boxes) == count == sum(m.shape[1] * m.shape[2] * m.shape[3] for m in raw.deltas) // 4
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert bool(((centres > 0) & (centres < side)).all())


def test_boxes_grow_with_the_side() -> None:
    with torch.device("meta"):
        small, large = ssd.ssd300_small(), ssd.ssd300_small(side=450)
        lite = ssd.ssd300_mobilenet(side=600)
    assert [m.min_size * 1.5 for m in small.boxes.maps] == pytest.approx([m.min_size for m in large.boxes.maps])
    assert [m.step for m in small.boxes.maps] == [8, 16, 30, 60, 100, 150]
    assert [m.step for m in large.boxes.maps] == [8, 16, 30, 56.25, 112.5, 225]
    assert lite.boxes.maps[0].min_size == pytest.approx(120)
    assert large.scale.side == 450


def test_what_cannot_be_is_refused() -> None:
    with torch.device("meta"):
        with pytest.raises(UsageError, match="frozen_blocks: got 5, wanted 0 to 4"):
            ssd.ssd300_vgg16(frozen_blocks=5)
        with pytest.raises(UsageError, match="class_weights"):
            ssd.ssd300_small(CATEGORIES, class_weights=[1.0])
        trunk = ExtraMaps(VGG(DEPTHS["vgg11"], maps=("C4",), width=0.125), ("C4",), (8,))
        maps = default_maps((10, 20, 40, 80), RATIOS[300][:3], (16, 32, 64))
        with pytest.raises(UsageError, match="wanted boxes for each map"):
            SSD(trunk, CATEGORIES, boxes=DefaultBoxes(maps), scale=Square(64, antialias=False))


# -- training ----------------------------------------------------------------------------------------------------------


def test_two_finite_terms_and_a_gradient_for_every_parameter() -> None:
    system, (images, targets) = build().train(), pictures()
    losses = system.loss(images[:2], targets[:2])
    assert list(losses.terms) == ["classification", "box_regression"]
    assert all(term.isfinite() and term > 0 for term in losses.terms.values())
    losses.total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None] == []


def test_pictures_without_objects_are_legal_and_wrong_truth_is_named() -> None:
    system, (images, _) = build(), pictures()
    assert float(system.loss(images[:2], [target(), target()]).total.detach()) == 0
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images[:1], [target((0, 0, 9, 9, 2))])


def test_class_weights_reach_the_loss() -> None:
    plain, heavy = build(), build(class_weights=[5.0, 5.0])
    images, targets = pictures()
    with torch.no_grad():
        a, b = (system.loss(images[:1], targets[:1]).terms["classification"] for system in (plain, heavy))
    assert float(b) > 1.5 * float(a)


def test_half_precision_gives_float_losses_and_boxes() -> None:
    system, (images, targets) = build(), pictures()
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images[:2], targets[:2])
        found = answers(system, images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert found.size_hw == (96, 96)


def test_it_learns_and_finds_what_it_learned() -> None:
    system, (images, targets) = build(), pictures()
    system.train()
    optimiser = torch.optim.SGD(system.parameters(), lr=0.02, momentum=0.9)
    for step in range(60):
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1 - step / 60)
        loss = system.loss(images, targets).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    system.eval()
    for image, wanted in zip(images, targets, strict=True):
        found = system.detect_images([image])[0].above(0.5)
        assert wanted.objects is not None
        best = pairwise_iou(wanted.objects.boxes_xyxy, found.boxes_xyxy).max(1)
        assert (best.values > 0.6).all()
        assert found.labels[best.indices].tolist() == wanted.objects.labels.tolist()


# -- prediction --------------------------------------------------------------------------------------------------------


def test_answers_are_in_the_pictures_own_pixels_and_a_batch_equals_its_pictures() -> None:
    system = build()
    sizes = [(40, 70), (96, 96), (1, 200), (130, 50)]
    given = [torch.rand(3, *size) for size in sizes]
    together = system.detect_images(given)
    assert set(system.parts.seconds) == {"network", "decoding"}
    for image, size, found in zip(given, sizes, together, strict=True):
        alone = answers(system, image)
        assert found.size_hw == size
        assert bool((found.boxes_xyxy[:, 2] <= size[1]).all())
        assert (found.scores.diff() <= 0).all()
        assert len(alone) == len(found)
    pixels = torch.randn(3, 3, 96, 96)
    with torch.inference_mode():
        boxes, probs = system.candidates(system(pixels), (96, 96))
        for row in range(3):  # before suppression, where no tie can turn the order
            own = system.candidates(system(pixels[row : row + 1]), (96, 96))
            torch.testing.assert_close(own[0][0], boxes[row], rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(own[1][0], probs[row], rtol=1e-3, atol=1e-4)


def test_bytes_equal_floats_and_answers_are_limited() -> None:
    system = build(settings=MultiBoxSettings(max_detections=7))
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    a, b = answers(system, image), answers(system, as_float(image))
    assert len(a) == 7
    torch.testing.assert_close(a.boxes_xyxy, b.boxes_xyxy)


def test_a_smaller_view_lies_on_a_canvas_and_a_larger_one_has_larger_maps() -> None:
    """At twice the scale the network sees what it sees of a picture twice as large at twice the square."""
    system, image = build(), torch.rand(3, 64, 64)
    (half,) = system.detect_scaled([image], 0.5)
    assert half.size_hw == (64, 64)
    doubled = build(192)
    doubled.load_state_dict(system.state_dict())
    (large,), (same,) = system.detect_scaled([image], 2.0), doubled.detect_images([image])
    torch.testing.assert_close(large.boxes_xyxy, same.boxes_xyxy)
    (found,) = system.detect_scaled([image], 1.0)
    torch.testing.assert_close(found.boxes_xyxy, system.detect_images([image])[0].boxes_xyxy)


def test_network_scale_is_that_of_prediction() -> None:
    system, image = build(), torch.rand(3, 48, 192)
    (seen,), (moved,) = system.to_network_scale([image], [target((10, 12, 100, 40, 1))])
    assert seen.shape == (3, 96, 96)
    assert moved.objects is not None
    assert moved.objects.boxes_xyxy.tolist() == [[5, 24, 50, 80]]
    assert system.validation_loss([image], [target((10, 12, 100, 40, 1))]).total.isfinite()


def test_antialiased_pictures_are_those_that_training_resizes() -> None:
    image = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    trained = Resize((96, 96))(Sample(image, Target(), "a", (300, 400)), np.random.default_rng(0)).image
    off = {}
    for antialias in (True, False):
        seen = Square(96, antialias=antialias).resize(as_float(image))
        off[antialias] = float((seen - as_float(trained)).abs().mean())
    assert off[True] < 0.5 * off[False]


def test_a_checkpoint_gives_the_same_answers(tmp_path: Path) -> None:
    system = zoo.build("ssd300_mobilenet_small", CATEGORIES, {"side": 96}).eval()
    image = torch.rand(3, 70, 50)
    again = bestiary.load(save(system, tmp_path / "x.safetensors"))
    assert isinstance(again, SSD)
    assert again.scale.side == 96
    torch.testing.assert_close(answers(again, image).boxes_xyxy, answers(system, image).boxes_xyxy)
