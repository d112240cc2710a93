"""YOLO: its nets' sizes, cells to boxes and back, and the whole on small pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bestiary
from bestiary.assign.cells import assign_cells
from bestiary.backbones.extraction import yolo_v1_classifier
from bestiary.detection import yolo_v1 as systems
from bestiary.detection.yolo_v1 import YOLOv1, yolo_v1_small
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.predictions import Detections
from bestiary.records import Objects, Target
from bestiary.verbs.models import load, load_weights, save
from bestiary.weights.darknet import Header, layers_of, read_darknet, write_darknet

CATEGORIES = ["ant", "bee"]
TERMS = ["centre", "size", "confidence", "no_object", "category"]


def build(size: int = 128, **settings: Any) -> YOLOv1:
    torch.manual_seed(0)
    return yolo_v1_small(CATEGORIES, size=size, **settings).eval()


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def pictures(side: int = 128) -> tuple[list[Tensor], list[Target]]:
    """A red and a green square on dark noise, at other places in each picture."""
    rng = torch.Generator().manual_seed(1)
    images, targets = [], []
    for x, y in ((8, 10), (50, 12), (26, 62), (66, 70)):
        image = 0.2 * torch.rand(3, side, side, generator=rng)
        image[0, y : y + 50, x : x + 50] += 0.8
        u, v = (x + 60) % 90, (y + 56) % 90
        image[1, v : v + 36, u : u + 36] += 0.8
        images.append(image)
        targets.append(target((x, y, x + 50, y + 50, 0), (u, v, u + 36, v + 36, 1)))
    return images, targets


# -- the nets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "numbers"),
    [
        ("yolo_v1", 271_703_550, 30),
        ("fast_yolo_v1", 45_089_374, 30),
        ("yolo_v1_darknet", 197_301_875, 35),
        ("tiny_yolo_v1_darknet", 27_095_374, 30),
    ],
)
def test_the_published_nets(name: str, parameters: int, numbers: int) -> None:
    with torch.device("meta"):
        system = getattr(systems, name)().eval()
        raw = system(torch.zeros(1, 3, 448, 448))
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert raw.shape == (1, 7, 7, numbers)
    assert len(system.categories) == 20


def test_the_papers_net_layer_by_layer() -> None:
    with torch.device("meta"):
        paper, darknet = systems.yolo_v1(), systems.yolo_v1_darknet()
    convolutions = [m for m in paper.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 24
    assert [m.out_channels for m in convolutions[:6]] == [64, 192, 128, 256, 256, 512]
    assert [m.stride for m in convolutions].count((2, 2)) == 2
    assert [(m.in_features, m.out_features) for m in paper.modules() if isinstance(m, nn.Linear)] == [
        (50176, 4096),
        (4096, 1470),
    ]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in paper.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in darknet.modules()) == 24
    assert [m.out_features for m in darknet.modules() if isinstance(m, nn.Linear)] == [1715]


def test_98_boxes_of_20_categories() -> None:
    with torch.device("meta"):
        system = systems.yolo_v1()
        boxes, scores = system.candidates(torch.zeros(2, 7, 7, 30), (448, 448))
    assert (boxes.shape, scores.shape) == ((2, 98, 4), (2, 98, 20))


# -- cells to boxes ----------------------------------------------------------------------------------------------------


def raw_of(system: YOLOv1, goal: Target, size_hw: tuple[int, int]) -> Tensor:
    """What a perfect network would say, in the first box of each cell."""
    assert goal.objects is not None
    truth = assign_cells(goal.objects.boxes_xyxy, goal.objects.labels, size_hw, system.head.side)
    raw = torch.zeros(1, system.head.side, system.head.side, system.head.numbers)
    cells = system.cells(raw)
    cells.probs.scatter_(3, truth.labels.clamp(min=0)[..., None], truth.occupied[..., None].float())
    cells.confidences[..., 0] = truth.occupied.float()
    cells.boxes[..., 0, :] = torch.cat([truth.boxes[..., :2], truth.boxes[..., 2:].sqrt()], -1)
    return raw


def test_what_is_encoded_is_decoded_and_costs_nothing() -> None:
    system, size_hw = build(), (128, 128)
    goal = target((3, 5, 60, 47, 1), (70, 80, 128, 127, 0), (0, 64, 9, 128, 0))
    raw = raw_of(system, goal, size_hw)
    boxes, scores = system.candidates(raw, size_hw)
    found = system.decode(boxes[0], scores[0], size_hw)
    assert goal.objects is not None
    assert found.scores.tolist() == [1.0] * 3
    order = pairwise_iou(goal.objects.boxes_xyxy, found.boxes_xyxy).argmax(1)
    torch.testing.assert_close(found.boxes_xyxy[order], goal.objects.boxes_xyxy, atol=1e-3, rtol=0)
    assert found.labels[order].tolist() == [1, 0, 0]
    truths = systems.truths_of([goal], 1, 2)
    assert float(torch.stack(list(system.cell_losses(raw, system.assign(truths)))).sum()) == pytest.approx(0, abs=1e-9)


def test_cells_are_in_rows_and_scores_are_products_within_0_and_1() -> None:
    system = build(size=32)
    raw = torch.zeros(1, 2, 2, 12)
    raw[0, 0, 1] = torch.tensor([0.5, -1.0, 0.8, -0.5, *(0.5, 0.25, 0.5, -0.5), *(0.0, 1.0, 0.1, 0.2)])
    raw[0, 1, 0, :3] = torch.tensor([3.0, 0.1, 2.0])
    boxes, scores = system.candidates(raw, (100, 200))
    # Row 0, column 1: its first box is the third of all. The centre is at 3/4 and 1/8; a quarter wide and high.
    torch.testing.assert_close(boxes[0, 2], torch.tensor([125.0, 0.0, 175.0, 25.0]))
    torch.testing.assert_close(boxes[0, 3], torch.tensor([99.0, 48.0, 101.0, 52.0]))
    torch.testing.assert_close(scores[0, 2:4], torch.tensor([[0.4, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(scores[0, 4], torch.tensor([1.0, 0.2]))


@pytest.mark.parametrize("head", ["connected", "local"])
def test_connected_outputs_lie_as_darknets(head: str) -> None:
    system = build(size=32, head=head)
    flat = torch.arange(4.0 * 12)[None]
    cells = system.cells(system.head.to_cells(flat))
    assert cells.probs[0, 0, 1].tolist() == [2, 3]
    assert cells.probs[0, 1, 0].tolist() == [4, 5]
    assert cells.confidences[0, 0, 1].tolist() == [8 + 2, 8 + 3]
    assert cells.boxes[0, 1, 1, 1].tolist() == [16 + 28, 16 + 29, 16 + 30, 16 + 31]


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["convolution", "connected", "local"])
def test_five_finite_terms_and_a_gradient_for_every_parameter(head: str) -> None:
    system, (images, targets) = build(head=head).train(), pictures()
    losses = system.loss(images, targets)
    assert list(losses.terms) == TERMS
    assert all(term.isfinite() and term > 0 for term in losses.terms.values())
    losses.total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_loss_is_the_mean_over_pictures_and_asks_for_the_networks_size() -> None:
    system, (images, targets) = build(), pictures()
    both = system.loss(images[:2], targets[:2])
    ones = [system.loss(images[i : i + 1], targets[i : i + 1]) for i in range(2)]
    for name, value in both.terms.items():
        torch.testing.assert_close(value, (ones[0].terms[name] + ones[1].terms[name]) / 2)
    with pytest.raises(RecordError, match=r"got pictures of \(64, 128\), wanted 128 x 128"):
        system.loss(torch.zeros(1, 3, 64, 128), [target()])


def test_pictures_without_objects_are_legal_and_wrong_truth_is_named() -> None:
    system, (images, _) = build(), pictures()
    losses = system.loss(images[:2], [target(), target()])
    losses.total.backward()
    assert [name for name, term in losses.terms.items() if float(term.detach())] == ["no_object"]
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images[:1], [target((0, 0, 9, 9, 2))])


def test_the_validation_loss_stretches_pictures_and_boxes() -> None:
    system, (images, targets) = build(), pictures()
    tall = [nn.functional.interpolate(image[None], (256, 128), mode="nearest")[0] for image in images]
    high = [replace(t, objects=replace(t.objects, boxes_xyxy=t.objects.boxes_xyxy * torch.tensor([1.0, 2, 1, 2])))
            for t in targets if t.objects is not None]  # fmt: skip
    scaled, moved = system.to_network_scale(tall, high)
    assert {tuple(image.shape) for image in scaled} == {(3, 128, 128)}
    for there, wanted in zip(moved, targets, strict=True):
        assert there.objects is not None
        assert wanted.objects is not None
        torch.testing.assert_close(there.objects.boxes_xyxy, wanted.objects.boxes_xyxy)
    assert system.validation_loss(tall, high).total.isfinite()


def test_class_weights_reach_the_fifth_term_alone() -> None:
    plain, heavy = build(), build(class_weights=[2.0, 2.0])
    images, targets = pictures()
    a, b = (system.loss(images[:1], targets[:1]).terms for system in (plain, heavy))
    torch.testing.assert_close(2 * a["category"], b["category"])
    assert all(torch.equal(a[name], b[name]) for name in TERMS[:4])


def test_it_learns_and_finds_what_it_learned() -> None:
    system, (images, targets) = build(), pictures()
    system.train()
    optimiser = torch.optim.SGD(system.parameters(), lr=0.005, momentum=0.9)
    for step in range(50):
        optimiser.param_groups[0]["lr"] = 0.005 * min(1, (step + 1) / 10) * (1 - step / 50)
        optimiser.zero_grad()
        system.loss(images, targets).total.backward()
        torch.nn.utils.clip_grad_norm_(system.parameters(), 20.0)
        optimiser.step()
    system.eval()
    for image, wanted in zip(images, targets, strict=True):
        found = system.detect_images([image])[0].above(0.3)
        assert wanted.objects is not None
        best = pairwise_iou(wanted.objects.boxes_xyxy, found.boxes_xyxy).max(1)
        assert (best.values > 0.6).all()
        assert found.labels[best.indices].tolist() == wanted.objects.labels.tolist()


# -- prediction --------------------------------------------------------------------------------------------------------


def test_a_batch_answers_as_its_pictures_and_parts_are_timed() -> None:
    system = build()
    images = [torch.rand(3, 48, 75), torch.rand(3, 130, 60)]
    both = system.detect_images(images)
    for image, found in zip(images, both, strict=True):
        (alone,) = system.detect_images([image])
        assert found.size_hw == tuple(image.shape[-2:])
        torch.testing.assert_close(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=1e-4)
        assert (found.scores.diff() <= 0).all()
        assert found.boxes_xyxy[:, 2].max() <= image.shape[2]
    assert set(system.parts.seconds) == {"network", "decoding"}


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (300, 7)])
def test_very_thin_pictures_work(size: tuple[int, int]) -> None:
    (found,) = build(size=32).predict(torch.rand(3, *size))
    assert isinstance(found, Detections)
    assert found.size_hw == size


def test_half_precision_gives_finite_losses_and_boxes() -> None:
    system, (images, targets) = build(), pictures()
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images[:2], targets[:2])
        (found,) = system.predict(images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert isinstance(found, Detections)


def test_there_is_one_size() -> None:
    with pytest.raises(UsageError, match="sees pictures at one size"):
        build().detect_scaled([torch.rand(3, 9, 9)], 2.0)
    with pytest.raises(UsageError, match="got 100, wanted a multiple of 16"):
        build(size=100)
    small = build()
    with pytest.raises(UsageError, match="got size 448 and a grid of 8, wanted 8 times 16"):
        YOLOv1(small.backbone, CATEGORIES, small.head, size=448)


# -- where its numbers come from ---------------------------------------------------------------------------------------


def test_a_checkpoint_survives(tmp_path: Path) -> None:
    system = bestiary.create("yolo_v1_small", CATEGORIES, arguments={"size": 64, "head": "local"})
    save(system, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    image = torch.rand(3, 50, 70)
    a, b = (model.predict(image)[0] for model in (system, again))
    assert isinstance(a, Detections)
    assert isinstance(b, Detections)
    assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)
    assert torch.equal(a.scores, b.scores)


def test_it_starts_from_its_classifier() -> None:
    with torch.device("meta"):
        classifier, system = yolo_v1_classifier(["x", "y"]), systems.yolo_v1(CATEGORIES)
    taken, note = system.start_state(classifier.state_dict())
    assert note == "starts from a classifier: its convolutions"
    assert len(taken) == 40
    own = system.state_dict()
    assert all(own[name].shape == value.shape for name, value in taken.items())
    assert {name.split(".")[0] for name in own if name not in taken} == {"backbone", "head"}


@pytest.mark.parametrize("head", ["connected", "local"])
def test_its_darknet_file_survives_byte_for_byte(head: str, tmp_path: Path) -> None:
    there, again = tmp_path / "there.weights", tmp_path / "again.weights"
    first, second = build(size=32, head=head), build(size=32, head=head)
    rng = np.random.default_rng(0)
    count = sum(layer.size for layer in layers_of(first))
    there.write_bytes(Header(0, 1, 0, 64).write() + rng.uniform(0.1, 0.9, count).astype("<f4").tobytes())
    write_darknet(again, layers_of(first), read_darknet(there, layers_of(first)))
    assert again.read_bytes() == there.read_bytes()
    load_weights(second, again)
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(first(pixels), second(pixels))


def test_a_darknet_file_of_the_first_convolutions_starts_it(tmp_path: Path) -> None:
    trained, fresh = build(size=32), build(size=32)
    for parameter in trained.parameters():
        nn.init.uniform_(parameter, 0.1, 0.2)
    write_darknet(tmp_path / "cut.weights", layers_of(trained)[:3])
    report = load_weights(fresh, tmp_path / "cut.weights")
    assert report.note == "starts from the first 3 of 11 layers"
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(fresh.backbone.features[:5](pixels), trained.backbone.features[:5](pixels))
