"""Faster R-CNN's assignment, losses and decoding, each on its own, and the whole on small pictures."""

import copy
import math
import resource

import pytest
import torch
from torch import Tensor, nn

from bestiary.assign.matcher import IGNORE, NEGATIVE, POSITIVE
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import ResNet, Variant, frozen_norm
from bestiary.detection import faster_rcnn
from bestiary.detection.faster_rcnn import FasterRCNN, SampledRegions
from bestiary.errors import RecordError, UsageError
from bestiary.heads.box import RegionSettings
from bestiary.heads.rpn import RPN, ProposalSettings
from bestiary.heads.truth import Truth
from bestiary.layers.frozen_norm import NormLayer
from bestiary.necks.fpn import FPN, CoarserByPool, PyramidBackbone
from bestiary.predictions import Detections
from bestiary.records import Objects, Target

CATEGORIES = ["ant", "bee"]
TERMS = ["rpn_objectness", "rpn_box", "box_class", "box_regression"]


def build(norm: NormLayer = frozen_norm, min_size: int = 64, **regions: float) -> FasterRCNN:
    """A system small enough for tests: one block a stage, 16 channels a level, anchors of 8 to 128 pixels."""
    torch.manual_seed(0)
    trunk = ResNet(Variant(BasicBlock, (1, 1, 1, 1)), norm=norm)
    return FasterRCNN(
        PyramidBackbone(trunk, FPN(trunk.levels, 16, extra=CoarserByPool())),
        CATEGORIES,
        rpn=RPN(16, sizes=((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))),
        min_size=min_size,
        max_size=4 * min_size,
        proposals=ProposalSettings(before_nms=(200, 100), after_nms=(100, 50)),
        regions=RegionSettings(per_image=32, **regions),  # type: ignore[arg-type]
    ).eval()


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def truth(*rows: tuple[float, float, float, float, int]) -> Truth:
    objects = target(*rows).objects
    assert objects is not None
    return Truth.of(objects)


@pytest.fixture
def system() -> FasterRCNN:
    return build()


@pytest.fixture
def images() -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=rng, dtype=torch.uint8) for size in ((64, 90), (70, 64))]


TARGETS = [target((10, 10, 40, 40, 0), (30, 5, 80, 60, 1)), target((5, 20, 35, 60, 1))]


# -- first stage -------------------------------------------------------------------------------------------------------


def test_anchors_are_assigned_by_hand(system: FasterRCNN) -> None:
    anchors = torch.tensor(
        [
            [0.0, 0.0, 10.0, 7.0],  # IoU .7 with the first object: positive, at the threshold
            [0.0, 0.0, 10.0, 6.9],  # just below: ignored
            [0.0, 0.0, 10.0, 3.0],  # .3: at the lower threshold, ignored
            [0.0, 0.0, 10.0, 2.9],  # below: negative
            [50.0, 50.0, 60.0, 60.0],  # .25 with the second object, but its best: positive
            [50.0, 50.0, 60.0, 58.0],  # .2 with it, not its best: negative
            [90.0, 90.0, 99.0, 99.0],  # touches nothing: negative
        ]
    )
    assignment = system.assign_anchors(anchors, truth((0, 0, 10, 10, 0), (50, 50, 70, 70, 1)))
    assert assignment.kind.tolist() == [POSITIVE, IGNORE, IGNORE, NEGATIVE, POSITIVE, NEGATIVE, NEGATIVE]
    assert assignment.object[[0, 4]].tolist() == [0, 1]


def test_every_anchor_that_ties_an_objects_best_is_positive(system: FasterRCNN) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    kinds = system.assign_anchors(anchors, truth((5, 0, 15, 10, 0))).kind
    assert kinds.tolist() == [POSITIVE, POSITIVE, NEGATIVE]


def test_an_object_that_no_anchor_touches_makes_none_positive(system: FasterRCNN) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    assert system.assign_anchors(anchors, truth((500, 500, 510, 510, 0))).kind.tolist() == [NEGATIVE, NEGATIVE]


def test_the_rpn_loss_of_an_undecided_head_is_ln_2(system: FasterRCNN, images: list[Tensor]) -> None:
    for part in (system.rpn.head.cls_logits, system.rpn.head.bbox_pred):
        nn.init.zeros_(part.weight)
    raw = system(torch.rand(1, 3, 64, 64))
    objectness, box = system.rpn_loss(raw.pyramid, (64, 64), [truth()])
    assert objectness.item() == pytest.approx(math.log(2))
    assert box.item() == 0


def test_the_rpn_box_loss_by_hand() -> None:
    system = build()
    system.proposals = ProposalSettings(per_image=10**6, positive_share=1.0)
    for part in (system.rpn.head.cls_logits, system.rpn.head.bbox_pred):
        nn.init.zeros_(part.weight)
    raw = system(torch.rand(1, 3, 64, 64))
    anchors = torch.cat(system.anchors(raw.pyramid, (64, 64)))
    goal = truth((17, 18, 31, 33, 0))
    assignment = system.assign_anchors(anchors, goal)
    _, box = system.rpn_loss(raw.pyramid, (64, 64), [goal])
    wanted = 0.0
    for x1, y1, x2, y2 in anchors[assignment.positive].tolist():
        w, h = x2 - x1, y2 - y1
        shift = ((24 - (x1 + x2) / 2) / w, (25.5 - (y1 + y2) / 2) / h, math.log(14 / w), math.log(15 / h))
        wanted += sum(4.5 * d * d if abs(d) < 1 / 9 else abs(d) - 1 / 18 for d in shift)
    sampled = int((assignment.kind != IGNORE).sum())
    assert int(assignment.positive.sum()) > 0
    assert box.item() == pytest.approx(wanted / sampled, rel=1e-5)


def test_proposals_are_clipped_ranked_and_apart(system: FasterRCNN) -> None:
    nn.init.normal_(system.rpn.head.cls_logits.weight, std=1.0)
    raw = system(torch.rand(2, 3, 64, 96))
    boxes, probs = system.propose(raw, (64, 96), [(64, 90), (50, 96)])
    for of_picture, scores, (height, width) in zip(boxes, probs, [(64, 90), (50, 96)], strict=True):
        assert 0 < len(of_picture) <= 50
        assert (of_picture >= 0).all()
        assert (of_picture[:, 2] <= width).all()
        assert (of_picture[:, 3] <= height).all()
        assert (of_picture[:, 2:] - of_picture[:, :2] >= 1e-3).all()
        assert (scores.diff() <= 0).all()
    assert not boxes[0].requires_grad


def test_training_keeps_more_proposals_than_prediction(system: FasterRCNN) -> None:
    raw = system(torch.rand(1, 3, 64, 64))
    (fewer,), _ = system.propose(raw, (64, 64), [(64, 64)])
    (more,), _ = system.propose(raw, (64, 64), [(64, 64)], for_loss=True)
    assert len(fewer) == 50
    assert 50 < len(more) <= 100


# -- second stage ------------------------------------------------------------------------------------------------------


def test_regions_are_sampled_with_the_objects_among_them(system: FasterRCNN) -> None:
    goal = truth((0, 0, 20, 20, 1), (40, 40, 60, 60, 0))
    proposals = torch.tensor([[0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.0, 9.9], [70.0, 70.0, 80.0, 80.0]])
    sampled = system.sample_regions(proposals, goal)
    assert sampled.boxes_xyxy.tolist() == [proposals[0].tolist(), *goal.boxes_xyxy.tolist(), *proposals[1:].tolist()]
    assert sampled.classes.tolist() == [2, 2, 1, 0, 0]
    assert sampled.truth_xyxy.tolist() == [goal.boxes_xyxy[i].tolist() for i in (0, 0, 1)]


def test_at_most_a_quarter_of_the_regions_is_positive(system: FasterRCNN) -> None:
    goal = truth((0, 0, 20, 20, 1))
    near = torch.tensor([[0.0, 0.0, 20.0, 20.0]]).repeat(50, 1)
    far = torch.tensor([[30.0, 30.0, 50.0, 50.0]]).repeat(50, 1)
    sampled = system.sample_regions(torch.cat([near, far]), goal)
    assert len(sampled.boxes_xyxy) == len(sampled.classes) == 32
    assert sampled.classes.bincount().tolist() == [24, 0, 8]


def test_the_region_loss_by_hand(system: FasterRCNN) -> None:
    regions = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    sampled = SampledRegions(regions, torch.tensor([2, 0]), torch.tensor([[1.0, 0.0, 11.0, 20.0]]))
    deltas = torch.zeros(2, 3, 4)
    deltas[0, 2] = torch.tensor([0.95, 5.0, 0.0, 5 * math.log(2)])
    deltas[0, 1] = deltas[1] = 99.0  # other classes and the background must not matter
    classification, box = system.roi_loss(torch.zeros(2, 3), deltas, [sampled])
    assert classification.item() == pytest.approx(math.log(3))
    assert box.item() == pytest.approx(4.5 * 0.05**2 / 2, rel=1e-4)


def test_only_the_true_class_moves_its_box(system: FasterRCNN) -> None:
    sampled = SampledRegions(
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([1]), torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    )
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    system.roi_loss(torch.zeros(1, 3), deltas, [sampled])[1].backward()
    assert deltas.grad is not None
    assert deltas.grad.any(2).tolist() == [[False, True, False]]


def test_decoding_by_hand(system: FasterRCNN) -> None:
    regions = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [30.0, 30.0, 50.0, 50.0]])
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.06, 0.04, 0.9]]).log()
    deltas = torch.zeros(3, 3, 4)
    deltas[2, 2] = torch.tensor([5.0, 0.0, 0.0, 0.0])  # half a width to the right, and over the border
    boxes, labels, scores = system.decode_regions(logits, deltas, regions, (60, 55))
    # The first region's ant (.3) yields to the second's (.7): IoU 9/11. Of the two bees of .1 one remains.
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.1])
    assert labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(boxes[:2], torch.tensor([[40.0, 30.0, 55.0, 50.0], [1.0, 0.0, 11.0, 10.0]]))


@pytest.mark.parametrize(("least", "answers"), [(0.25, 0), (0.2499, 3)])
def test_a_score_must_be_above_the_least_one(least: float, answers: int) -> None:
    region = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    found = build(min_score=least).decode_regions(torch.zeros(1, 4), torch.zeros(1, 4, 4), region, (20, 20))
    assert len(found[0]) == answers


def test_answers_without_extent_are_dropped(system: FasterRCNN) -> None:
    region = torch.tensor([[60.0, 60.0, 70.0, 70.0]])
    boxes, labels, scores = system.decode_regions(torch.zeros(1, 3), torch.zeros(1, 3, 4), region, (60, 60))
    assert boxes.shape == (0, 4)
    assert len(labels) == len(scores) == 0


def test_decoding_keeps_the_best_so_many() -> None:
    system = build(max_detections=4)
    regions = torch.tensor([[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(9)])
    logits = torch.zeros(9, 3)
    logits[:, 1] = torch.arange(9.0)
    boxes, _, scores = system.decode_regions(logits, torch.zeros(9, 3, 4), regions, (999, 999))
    assert boxes[:, 0].tolist() == [160, 140, 120, 100]
    assert (scores.diff() < 0).all()


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_four_finite_terms_in_the_papers_order(system: FasterRCNN, images: list[Tensor]) -> None:
    losses = system.loss(images, TARGETS)
    assert list(losses.terms) == TERMS
    assert all(term.isfinite() and term > 0 for term in losses.terms.values())


@pytest.mark.parametrize("targets", [[target(), target()], [target((10, 10, 40, 40, 0)), target()]])
def test_pictures_without_objects_are_legal(system: FasterRCNN, images: list[Tensor], targets: list[Target]) -> None:
    losses = system.loss(images, targets)
    losses.total.backward()
    assert losses.total.isfinite()
    if not any(len(t.objects) for t in targets if t.objects is not None):
        assert losses.terms["rpn_box"].item() == losses.terms["box_regression"].item() == 0


def test_a_picture_that_is_all_crowd_teaches_nothing_there(system: FasterRCNN) -> None:
    objects = Objects(torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.tensor([0]), crowd=torch.tensor([True]))
    losses = system.loss(torch.rand(1, 3, 64, 64), [Target(objects=objects)])
    assert losses.total.isfinite()
    assert losses.terms["rpn_box"].item() == losses.terms["box_regression"].item() == 0


def test_the_loss_is_the_same_in_training_and_evaluation_mode(system: FasterRCNN, images: list[Tensor]) -> None:
    values = []
    for mode in (True, False):
        torch.manual_seed(3)
        values.append([v.item() for v in system.train(mode).loss(images, TARGETS).terms.values()])
    assert values[0] == values[1]


def test_bytes_and_shares_and_layouts_are_the_same_pictures(system: FasterRCNN) -> None:
    batch = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    totals = []
    for images, layout in ((batch, torch.contiguous_format), (list(batch / 255), torch.channels_last)):
        torch.manual_seed(3)
        totals.append(system.to(memory_format=layout).loss(images, TARGETS).total.item())  # type: ignore[call-overload]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


def test_half_precision_gives_finite_losses_and_boxes(system: FasterRCNN, images: list[Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images, TARGETS)
        (found,) = system.predict(images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert found.size_hw == (64, 90)


def test_targets_that_do_not_fit_are_named(system: FasterRCNN, images: list[Tensor]) -> None:
    with pytest.raises(RecordError, match=r"targets\[1\].objects: got None"):
        system.loss(images, [TARGETS[0], Target(label=3)])
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images, [target((0, 0, 9, 9, 2)), target()])


def test_every_parameter_gets_a_gradient(images: list[Tensor]) -> None:
    system = build(norm=nn.BatchNorm2d).train()
    for part in (system.rpn.head.bbox_pred, system.rpn.head.cls_logits):
        nn.init.normal_(part.weight, std=0.1)
    objects = [target((0, 0, 12, 10, 0), (8, 8, 40, 44, 1), (0, 0, 60, 62, 1)), target((2, 2, 60, 60, 0))]
    system.loss(images, objects).total.backward()
    silent = [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_batch_of_many_sizes_predicts_as_one_by_one() -> None:
    system = build(min_score=0.0)
    rng = torch.Generator().manual_seed(2)
    images = [torch.rand(3, *size, generator=rng) for size in ((64, 90), (64, 91), (150, 64), (40, 30))]
    together = system.predict(images, batch=4)
    for image, found in zip(images, together, strict=True):
        (alone,) = system.predict(image)
        assert isinstance(found, Detections)
        assert isinstance(alone, Detections)
        assert len(found) > 0
        torch.testing.assert_close(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3, rtol=1e-4)
        assert torch.equal(found.labels, alone.labels)


def test_answers_are_in_the_pictures_own_pixels() -> None:
    system = build(min_score=0.0, min_size=96)
    (found,) = system.predict(torch.rand(3, 30, 51))
    assert isinstance(found, Detections)
    assert found.size_hw == (30, 51)
    assert found.categories == tuple(CATEGORIES)
    assert (found.boxes_xyxy >= 0).all()
    assert found.boxes_xyxy[:, 2].max() <= 51
    assert found.boxes_xyxy[:, 3].max() <= 30
    assert found.boxes_xyxy[:, 2].max() > 40
    assert (found.scores.diff() <= 0).all()
    assert len(found) <= 100


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 33)])
def test_very_thin_pictures_work(system: FasterRCNN, size: tuple[int, int]) -> None:
    (found,) = system.predict(torch.rand(3, *size))
    assert found.size_hw == size


def test_validation_works_at_the_scale_of_prediction(system: FasterRCNN) -> None:
    scaled, targets = system.to_network_scale([torch.rand(3, 32, 48)], [target((2, 4, 20, 30, 1))])
    assert tuple(scaled[0].shape[-2:]) == (64, 96)
    assert targets[0].objects is not None
    assert targets[0].objects.boxes_xyxy.tolist() == [[4, 8, 40, 60]]
    assert system.validation_loss([torch.rand(3, 32, 48)], [target((2, 4, 20, 30, 1))]).total.isfinite()


def test_memory_does_not_grow_with_objects_times_anchors(system: FasterRCNN) -> None:
    anchors = torch.cat(
        system.rpn.anchors([(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)], (800, 1344), torch.device("cpu"))
    )
    low = torch.rand(500, 2) * 700
    crowded = Truth(
        torch.cat([low, low + 5 + 60 * torch.rand(500, 2)], 1), torch.zeros(500, dtype=torch.int64), torch.zeros(0, 4)
    )
    system.assign_anchors(anchors[:1000], crowded)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assignment = system.assign_anchors(anchors, crowded)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    # All overlaps at once would be 500 x 268,569 floats: 512 MiB.
    assert grown < 100
    assert len(assignment.object[assignment.positive].unique()) > 100


def test_one_picture_is_learned() -> None:
    system = build(norm=nn.BatchNorm2d).train()
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, 0, 8:40, 8:40] = 1.0
    picture[:, 1, 36:60, 44:60] = 1.0
    picture = picture.repeat(2, 1, 1, 1)
    objects = [target((8, 8, 40, 40, 0), (44, 36, 60, 60, 1))] * 2
    optimiser = torch.optim.SGD(system.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for turn in range(130):
        optimiser.param_groups[0]["lr"] = 0.02 if turn < 104 else 0.004
        loss = system.loss(picture, objects).total
        optimiser.zero_grad()
        loss.backward()
        # without a warm-up some orders of samples make the first steps too long
        nn.utils.clip_grad_norm_(system.parameters(), 4.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.35 * sum(losses[:5])
    (found,) = system.predict(picture[0])
    assert isinstance(found, Detections)
    best = found.above(0.5)
    assert sorted(best.labels.tolist()) == [0, 1]
    wanted = torch.tensor([[8.0, 8, 40, 40], [44, 36, 60, 60]])
    assert (best.boxes_xyxy[best.labels.argsort()] - wanted).abs().max() < 4


def test_the_model_can_be_copied_and_keeps_its_answers(system: FasterRCNN) -> None:
    picture = torch.rand(3, 64, 64)
    twin = copy.deepcopy(system)
    a, b = system.predict(picture)[0], twin.predict(picture)[0]
    assert isinstance(a, Detections)
    assert isinstance(b, Detections)
    assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fasterrcnn_resnet18_fpn", 28_780_000),
        ("fasterrcnn_resnet34_fpn", 38_890_000),
        ("fasterrcnn_resnet50_fpn", 41_755_286),
        ("fasterrcnn_resnet101_fpn", 60_690_000),
    ],
)
def test_named_systems(name: str, parameters: int) -> None:
    constructor = getattr(faster_rcnn, name)
    with torch.device("meta"):
        published, own = constructor(), constructor(CATEGORIES, min_size=320, max_size=533, trainable_layers=3)
    assert sum(p.numel() for p in published.parameters()) == pytest.approx(parameters, rel=0.005)
    assert published.roi_heads.box_predictor.cls_score.out_features == 91
    assert own.roi_heads.box_predictor.cls_score.out_features == 3
    assert (own.min_size, own.max_size, own.categories) == (320, 533, tuple(CATEGORIES))
    assert {n.split(".")[2] for n, p in own.named_parameters() if not p.requires_grad} <= {"conv1", "bn1", "layer1"}


@pytest.mark.parametrize("arguments", [{"categories": []}, {"min_size": 900, "max_size": 800}, {"min_size": 0}])
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="wanted"), torch.device("meta"):
        faster_rcnn.fasterrcnn_resnet18_fpn(**arguments)  # type: ignore[arg-type]


def test_a_wrong_number_of_trainable_layers_is_an_error() -> None:
    with pytest.raises(UsageError, match="trainable_layers"), torch.device("meta"):
        faster_rcnn.fasterrcnn_resnet50_fpn(trainable_layers=7)
