"""YOLOv2 as a system: its published sizes, priors, sizes of batches, and small pictures learned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bestiary.assign.box_priors import mean_best_iou
from bestiary.backbones.darknet import Darknet19, DarknetClassifier
from bestiary.backbones.tiny_darknet import TinyDarknet
from bestiary.detection import yolo_v2
from bestiary.detection.yolo_v2 import SIZES, YOLOv2, assemble
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.region_layer import RegionRule
from bestiary.heads.region_network import RegionNetwork
from bestiary.predictions import Detections
from bestiary.records import Objects, Sample, Target
from bestiary.weights.darknet import Header, layers_of, load_darknet, write_darknet

CATEGORIES = ["ant", "bee"]
TERMS = {"object", "no_object", "box", "class", "pull"}
PRIORS = (1.2, 1.2, 1.6, 1.6)


def tiny(**settings: Any) -> YOLOv2:
    torch.manual_seed(0)
    trunk = TinyDarknet((4, 8, 16, 16, 32, 32, 64))
    network = assemble(trunk, CATEGORIES, PRIORS, width=64, passthrough=8)
    rule = RegionRule(pull_pictures=0, cross_entropy=True)
    return YOLOv2(network, CATEGORIES, **{"priors": PRIORS, "size": 128, "rule": rule, **settings}).eval()


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def pictures() -> tuple[list[Tensor], list[Target]]:
    """A red and a green square on dark noise, at other places in each picture."""
    rng = torch.Generator().manual_seed(1)
    images, targets = [], []
    for x, y in ((8, 10), (50, 12), (26, 62), (66, 70)):
        image = 0.2 * torch.rand(3, 128, 128, generator=rng)
        image[0, y : y + 50, x : x + 50] += 0.8
        u, v = (x + 60) % 90, (y + 56) % 90
        image[1, v : v + 36, u : u + 36] += 0.8
        images.append(image)
        targets.append(target((x, y, x + 50, y + 50, 0), (u, v, u + 36, v + 36, 1)))
    return images, targets


# -- the published networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "categories", "parameters", "numbers", "places"),
    [
        (yolo_v2.yolo_v2, 20, 50_655_389, 50_676_061, 845),
        (yolo_v2.tiny_yolo_v2, 20, 15_861_773, 15_867_885, 845),
    ],
)
def test_published_counts(build: Any, categories: int, parameters: int, numbers: int, places: int) -> None:
    system: YOLOv2 = build()
    assert len(system.categories) == categories
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert sum(layer.size for layer in layers_of(system.network)) == numbers
    assert system.network.predictor.out_channels == 5 * (5 + categories)
    assert len(system.layout((system.size, system.size)).sizes()) == places


def test_layers_stand_in_darknets_order() -> None:
    network = assemble(Darknet19(width=1 / 16), ["x"], PRIORS, width=64, passthrough=4)
    channels = [layer.conv.out_channels for layer in layers_of(network)][-5:]
    assert channels == [64, 64, 4, 64, 12]
    assert network.joined is not None
    assert network.joined.conv.in_channels == 4 * 4 + 64


def test_the_stacked_map_comes_before_the_deep_one() -> None:
    system = tiny()
    network = system.network
    assert network.joined is not None
    weight = network.joined.conv.weight.detach()
    pixels, seen = torch.randn(1, 3, 128, 128), []
    network.joined.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    levels = network.trunk(pixels)
    system(pixels)
    torch.testing.assert_close(seen[0][:, 32:], network.deep(levels[-1]))
    assert weight.shape[1] == seen[0].shape[1] == 32 + 64


def test_tiny_yolos_last_pool_keeps_the_size_and_sees_no_margin() -> None:
    trunk = TinyDarknet((4, 4, 4, 4, 4, 4, 4))
    maps = -torch.rand(1, 4, 5, 5)
    pad, pool = trunk.features[11], trunk.features[12]
    got = pool(pad(maps))
    assert got.shape == maps.shape
    assert got[0, 0, 4, 4] == maps[0, 0, 4, 4]
    assert got[0, 0, 3, 4] == maps[0, 0, 3:5, 4].max()
    assert [tuple(level.shape) for level in trunk(torch.zeros(1, 3, 64, 96))] == [(1, 4, 4, 6), (1, 4, 2, 3)]


def test_darknets_files_survive_byte_for_byte(tmp_path: Path) -> None:
    one, other = tiny(), tiny()
    with torch.no_grad():
        for parameter in one.network.parameters():
            parameter.normal_()
    write_darknet(tmp_path / "one.weights", layers_of(one.network), Header(seen=1234))
    report = load_darknet(other, tmp_path / "one.weights")
    assert report.new_head == ()
    assert (int(one.seen), int(other.seen), report.note) == (0, 1234, "1,234 pictures seen before")
    write_darknet(tmp_path / "other.weights", layers_of(other.network), Header(seen=int(other.seen)))
    assert (tmp_path / "one.weights").read_bytes() == (tmp_path / "other.weights").read_bytes()
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(one(pixels), other(pixels))


def test_it_starts_from_a_darknet_classifier() -> None:
    classifier = DarknetClassifier(Darknet19(width=1 / 16), ["x", "y", "z"])
    network = assemble(Darknet19(width=1 / 16), CATEGORIES, PRIORS, width=64, passthrough=4)
    system = YOLOv2(network, CATEGORIES, priors=PRIORS)
    taken, note = system.start_state(classifier.state_dict())
    assert note == "starts from a classifier: its convolutions"
    missing, unexpected = system.load_state_dict(taken, strict=False)
    assert unexpected == []
    assert not any(name.startswith("network.trunk") for name in missing)
    own = system.state_dict()
    assert system.start_state(own) == (own, "")


# -- priors and sizes --------------------------------------------------------------------------------------------------


def sample(image: Tensor, truth: Target) -> Sample:
    return Sample(image, truth, "a.png", (int(image.shape[-2]), int(image.shape[-1])))


def samples() -> list[Sample]:
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(6):
        sides = torch.tensor([[40.0, 40.0], [100.0, 60.0]]) * (1 + 0.05 * torch.randn(2, 2, generator=rng))
        boxes = torch.cat([torch.full((2, 2), 10.0), 10 + sides], 1)
        found.append(sample(torch.zeros(3, 200, 400), Target(objects=Objects(boxes, torch.tensor([0, 1])))))
    return found


def test_priors_come_from_the_data_at_the_size_that_predict_sees() -> None:
    said: list[str] = []
    system = tiny(size=128)
    system.fit_stage("priors", samples(), say=said.append)
    wanted = torch.tensor([[40 * 128 / 400, 40 * 128 / 200], [100 * 128 / 400, 60 * 128 / 200]]) / 32
    torch.testing.assert_close(system.priors_wh, wanted, rtol=0.05, atol=0)
    assert "mean IoU 0.9" in said[0]
    boxed = tiny(size=128, letterbox=True)
    boxed.fit_stage("priors", samples())
    torch.testing.assert_close(
        boxed.priors_wh, torch.tensor([[40.0, 40], [100, 60]]) * 128 / 400 / 32, rtol=0.05, atol=0
    )
    assert mean_best_iou(system.priors_wh, boxed.priors_wh) < 0.8


def test_priors_can_stay_and_without_boxes_there_are_none() -> None:
    said: list[str] = []
    system = tiny(fit_priors=False)
    system.fit_stage("priors", samples(), say=said.append)
    assert system.priors_wh.flatten().tolist() == pytest.approx(PRIORS)
    assert said == ["priors stay as they are: 1.20 x 1.20, 1.60 x 1.60"]
    with pytest.raises(UsageError, match="at least 1"):
        tiny().fit_stage("priors", [sample(torch.zeros(3, 20, 20), target())])
    with pytest.raises(UsageError, match="wanted priors or detector"):
        tiny().begin_stage("rpn")


def test_a_new_size_every_ten_batches_and_none_in_evaluation() -> None:
    system = tiny(train_sizes=SIZES)
    assert system.size_of_batch() is None
    system.train()
    drawn = []
    for batch in range(60):
        system.batches.fill_(batch)
        drawn.append(system.size_of_batch())
    assert all(len(set(drawn[n : n + 10])) == 1 for n in range(0, 60, 10))
    assert len(set(drawn)) > 2
    assert set(drawn) <= set(SIZES)


def test_a_batch_is_resized_with_its_boxes_and_counted() -> None:
    images, targets = pictures()
    system = tiny(train_sizes=(64,)).train()
    seen: list[tuple[int, ...]] = []
    system.network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    found: list[Tensor] = []
    whole = system.region_loss
    system.region_loss = lambda raw, truths, layout: (
        found.extend(t.boxes_xyxy for t in truths),
        whole(raw, truths, layout),
    )[1]  # type: ignore[method-assign]
    assert set(system.loss(images, targets).terms) == TERMS
    assert seen == [(4, 3, 64, 64)]
    objects = targets[0].objects
    assert objects is not None
    torch.testing.assert_close(found[0], objects.boxes_xyxy / 2 / 32)
    assert (int(system.seen), int(system.batches)) == (4, 1)
    system.eval().loss(images, targets)
    assert (int(system.seen), int(system.batches)) == (4, 1)


def test_the_pull_ends_after_so_many_pictures() -> None:
    images, targets = pictures()
    system = tiny(rule=RegionRule(pull_pictures=8))
    assert system.loss(images, targets).terms["pull"] > 0
    system.seen.fill_(8)
    assert system.loss(images, targets).terms["pull"] == 0


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_small_pictures_are_learned_and_survive_a_checkpoint() -> None:
    images, targets = pictures()
    system = tiny().train()
    optimiser = torch.optim.Adam(system.parameters(), 0.003)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        loss = system.loss(images, targets).total
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    system.eval()
    for found, truth in zip(system.predict(images), targets, strict=True):
        assert isinstance(found, Detections)
        assert truth.objects is not None
        sure = found.above(0.3)
        assert sorted(sure.labels.tolist()) == [0, 1]
        for box, label in zip(truth.objects.boxes_xyxy, truth.objects.labels, strict=True):
            assert pairwise_iou(box[None], sure.boxes_xyxy[sure.labels == label]).max() > 0.6
    again = tiny(priors=(3.0, 3.0, 4.0, 4.0))
    again.load_state_dict(system.state_dict())
    one, other = (s.predict(images[:1])[0] for s in (system, again))
    assert isinstance(one, Detections)
    assert isinstance(other, Detections)
    assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)
    assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("letterbox", [True, False])
def test_answers_are_in_each_pictures_pixels_and_no_batch_changes_them(letterbox: bool) -> None:
    system = tiny(letterbox=letterbox)
    images = [torch.rand(3, *size) for size in ((90, 150), (128, 128), (31, 7))]
    together = system.detect_images(images)
    for image, found in zip(images, together, strict=True):
        height, width = image.shape[-2:]
        assert found.size_hw == (height, width)
        assert len(found) <= 100
        assert found.boxes_xyxy.min() >= 0
        assert (found.boxes_xyxy[:, 2:] <= torch.tensor([width, height])).all()
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        (alone,) = system.detect_images([image])
        torch.testing.assert_close(alone.scores, found.scores, atol=1e-5, rtol=1e-4)
    assert set(system.parts.seconds) == {"network", "decoding"}
    assert system.detect_scaled(images, 0.5)[0].size_hw == (90, 150)


def test_candidates_are_all_boxes_and_a_score_for_each_category() -> None:
    system = tiny()
    raw = system(torch.rand(2, 3, 64, 96))
    boxes, scores = system.candidates(raw, (64, 96))
    assert (boxes.shape, scores.shape) == ((2, 2 * 3 * 2, 4), (2, 12, 2))
    split = raw.view(2, 2, 7, 2, 3)
    wanted = split[1, 1, 4, 0, 2].sigmoid() * split[1, 1, 5:, 0, 2].softmax(0)
    torch.testing.assert_close(scores[1, (0 * 3 + 2) * 2 + 1], wanted)


def test_pictures_without_objects_of_any_size_have_a_loss() -> None:
    system = tiny()
    terms = system.loss([torch.rand(3, 50, 70), torch.rand(3, 64, 64)], [target(), target()]).terms
    assert terms["no_object"] > 0
    assert terms["object"] == terms["box"] == terms["class"] == 0
    images, targets = pictures()
    scaled = system.to_network_scale([torch.rand(3, 200, 100)], [target((0, 0, 100, 200, 1))])
    assert scaled[1][0].objects is not None
    assert scaled[1][0].objects.boxes_xyxy.tolist() == [[0, 0, 128, 128]]
    weighted = tiny(class_weights=(1.0, 3.0)).loss(images, targets).terms["class"]
    assert weighted > system.loss(images, targets).terms["class"]


def test_what_cannot_be_is_refused() -> None:
    images, _ = pictures()
    with pytest.raises(UsageError, match="multiple of 32"):
        tiny(size=100)
    with pytest.raises(UsageError, match="widths and heights"):
        tiny(priors=(1.0, 2.0, 3.0))
    with pytest.raises(UsageError, match="class_weights"):
        tiny(class_weights=(1.0,))
    with pytest.raises(RecordError, match="wanted 0 to 1"):
        tiny().loss(images[:1], [target((0, 0, 9, 9, 2))])
    with pytest.raises(UsageError, match="passthrough"):
        RegionNetwork(Darknet19(width=1 / 16), 12, convolutions=0)


def test_the_small_form() -> None:
    small = yolo_v2.yolo_v2_small(CATEGORIES, size=64)
    assert (small.size, small.rule.cross_entropy) == (64, True)
    assert sum(p.numel() for p in small.parameters()) == 3_170_987
