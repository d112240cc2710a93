"""RetinaNet's decoding, and the whole on small pictures; its losses are tested with their functions."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import ResNet, Variant
from bestiary.backbones.trunks import build_trunk
from bestiary.detection import retinanet
from bestiary.detection.retinanet import RawLevels, RetinaNet
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import clip_boxes
from bestiary.heads.network_scale import NetworkScale
from bestiary.heads.published import COCO_90
from bestiary.heads.retina import RetinaHead
from bestiary.heads.retina_learning import ClassLoss, RetinaSettings
from bestiary.necks.fpn import FPN, CoarserByConvolution, PyramidBackbone
from bestiary.ops import batched_nms
from bestiary.predictions import Detections
from bestiary.records import Objects, Target
from bestiary.weights.load import load_state

CATEGORIES = ["ant", "bee"]
SIZES = tuple((side, 1.26 * side, 1.59 * side) for side in (16.0, 32.0, 64.0, 128.0, 256.0))


def build(
    min_size: int = 64, outputs: int = 2, class_weights: tuple[float, ...] | None = None, **settings: float | ClassLoss
) -> RetinaNet:
    """A system small enough for tests: one block a stage, 32 channels a level, anchors from 16 pixels."""
    torch.manual_seed(0)
    trunk = ResNet(Variant(BasicBlock, (1, 1, 1, 1)))
    fpn = FPN(trunk.levels[1:], 32, extra=CoarserByConvolution(32, 32, from_features=False))
    return RetinaNet(
        PyramidBackbone(trunk, fpn),
        CATEGORIES,
        head=RetinaHead(32, outputs, SIZES, depth=2, norm=partial(nn.GroupNorm, 8)),
        scale=NetworkScale(min_size, 4 * min_size),
        settings=RetinaSettings(**settings),  # type: ignore[arg-type]
        class_weights=class_weights,
    ).eval()


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def sure_of(system: RetinaNet) -> RetinaNet:
    """Parameters that make scores differ widely."""
    for part in (system.head.classification_head.cls_logits, system.head.regression_head.bbox_reg):
        nn.init.normal_(part.weight, std=0.2)
    return system


def look(system: RetinaNet, picture: Tensor) -> Detections:
    (found,) = system.predict(picture)
    assert isinstance(found, Detections)
    return found


@pytest.fixture
def system() -> RetinaNet:
    return build()


@pytest.fixture
def images() -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=rng, dtype=torch.uint8) for size in ((64, 90), (70, 64))]


TARGETS = [target((10, 10, 40, 40, 0), (30, 5, 80, 60, 1)), target((5, 20, 35, 60, 1))]


# -- decoding ----------------------------------------------------------------------------------------------------------


def test_decoding_is_the_same_rule_on_all_candidates() -> None:
    system = sure_of(build(before_nms=50, min_score=0.02))
    pixels = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        raw = system(pixels)
        boxes, probs = system.candidates(raw, (64, 96))
        answers = system.decode(raw, (64, 96), [(64, 90), (60, 96)])
    counts = [len(level) for level in system.anchors(raw, (64, 96))]
    assert boxes.shape == (2, sum(counts), 4)
    assert probs.shape == (2, sum(counts), 2)
    for picture, (found, size_hw) in enumerate(zip(answers, [(64, 90), (60, 96)], strict=True)):
        rows, first = [], 0
        for count in counts:
            flat = probs[picture, first : first + count].flatten()
            best, index = flat.topk(min(50, len(flat)))
            rows.append(index[best > 0.02] + 2 * first)
            first += count
        chosen = torch.cat(rows)
        clipped = clip_boxes(boxes[picture, chosen // 2], size_hw)
        scores = probs[picture].flatten()[chosen]
        keep = batched_nms(clipped, scores, chosen % 2, 0.5)[:300]
        assert len(keep) > 20
        torch.testing.assert_close(found[0], clipped[keep], atol=1e-4, rtol=1e-5)
        assert torch.equal(found[1], (chosen % 2)[keep])
        torch.testing.assert_close(found[2], scores[keep])


def test_decoding_by_hand(system: RetinaNet) -> None:
    logits = [torch.full((1, 18, s, s), -9.0) for s in (8, 4, 2, 1, 1)]
    deltas = [torch.zeros(1, 36, s, s) for s in (8, 4, 2, 1, 1)]
    # anchor 3 is the square of 16 pixels; at row 2, column 3 it is centred on (24, 16)
    logits[0][0, 2 * 3 + 1, 2, 3] = 2.0  # a bee
    logits[0][0, 2 * 3 + 0, 2, 3] = 1.0  # and an ant in the same place
    logits[0][0, 2 * 3 + 1, 2, 2] = 1.5  # another bee, moved onto the first: suppressed
    deltas[0][0, 4 * 3, 2, 2] = 0.5
    logits[1][0, 2 * 3 + 1, 3, 3] = 0.0  # P4, square of 32, centred on (48, 48), half of it outside
    boxes, labels, scores = system.decode(RawLevels(tuple(logits), tuple(deltas)), (64, 64), [(64, 60)])[0]
    assert labels.tolist() == [1, 0, 1]
    assert scores.tolist() == pytest.approx([torch.tensor(x).sigmoid().item() for x in (2.0, 1.0, 0.0)])
    assert boxes.tolist() == [[16, 8, 32, 24], [16, 8, 32, 24], [32, 32, 60, 64]]


def test_the_first_output_of_the_published_layout_never_answers() -> None:
    system = build(outputs=3)
    bias = system.head.classification_head.cls_logits.bias
    assert bias is not None
    with torch.no_grad():
        bias.view(9, 3)[:, 0] = 5.0
        bias.view(9, 3)[:, 2] = 1.0
    found = look(system, torch.rand(3, 64, 64))
    assert set(found.labels.tolist()) == {1}
    system.loss(torch.rand(1, 3, 64, 64), TARGETS[:1]).total.backward()
    assert bias.grad is not None
    assert bias.grad.view(9, 3).any(0).tolist() == [False, True, True]


def test_answers_are_limited_and_best_first() -> None:
    system = sure_of(build(min_score=0.0, max_detections=7))
    found = look(system, torch.rand(3, 64, 64))
    assert len(found) == 7
    assert (found.scores.diff() <= 0).all()
    system.take({"max_detections": 5, "suppression": "soft_linear"})
    assert len(look(system, torch.rand(3, 64, 64))) == 5


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["focal", "cross_entropy", "ohem", "ohem_1_3"])
def test_two_finite_terms_in_either_mode(kind: ClassLoss, images: list[Tensor]) -> None:
    system = build(class_loss=kind)
    losses = system.loss(images, TARGETS)
    assert list(losses.terms) == ["classification", "box_regression"]
    assert all(term.isfinite() and term > 0 for term in losses.terms.values())


def test_a_new_system_believes_in_nothing(system: RetinaNet, images: list[Tensor]) -> None:
    with torch.inference_mode():
        _, probs = system.candidates(system(torch.rand(1, 3, 64, 96)), (64, 96))
        losses = system.loss(images, [target(), target()])
    assert probs.mean().item() == pytest.approx(0.01, rel=0.2)
    assert losses.terms["classification"] < 0.1
    assert losses.terms["box_regression"] == 0
    assert len(look(system, images[0])) == 0


def test_class_weights_are_factors_of_objects(images: list[Tensor]) -> None:
    plain, weighted = (build(class_weights=w).loss(images, TARGETS).terms for w in (None, (1.0, 10.0)))
    assert weighted["classification"] > 3 * plain["classification"]
    assert weighted["box_regression"] == plain["box_regression"]
    with pytest.raises(UsageError, match="class_weights"):
        build(class_weights=(1.0,))


def test_half_precision_gives_finite_losses_and_boxes(system: RetinaNet, images: list[Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images, TARGETS)
        (found,) = system.predict(images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert found.size_hw == (64, 90)


def test_targets_that_do_not_fit_are_named(system: RetinaNet, images: list[Tensor]) -> None:
    with pytest.raises(RecordError, match=r"targets\[1\].objects: got None"):
        system.loss(images, [TARGETS[0], Target(label=3)])
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images, [target((0, 0, 9, 9, 2)), target()])


def test_every_parameter_gets_a_gradient(images: list[Tensor]) -> None:
    system = sure_of(build()).train()
    objects = [target((0, 0, 18, 16, 0), (8, 8, 40, 44, 1)), target((2, 2, 60, 60, 0), (0, 0, 200, 200, 1))]
    system.loss(images, objects).total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_batch_of_many_sizes_predicts_as_one_by_one() -> None:
    system = sure_of(build(min_score=0.01))
    rng = torch.Generator().manual_seed(2)
    images = [torch.rand(3, *size, generator=rng) for size in ((64, 90), (64, 91), (150, 64), (40, 30), (1, 70))]
    together = system.predict(images, batch=5)
    for image, found in zip(images, together, strict=True):
        alone = look(system, image)
        assert isinstance(found, Detections)
        assert len(found) > 0
        assert found.size_hw == tuple(image.shape[-2:])
        torch.testing.assert_close(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3, rtol=1e-4)
        assert torch.equal(found.labels, alone.labels)
    assert list(system.parts.seconds) == ["network", "decoding"]


def test_validation_works_at_the_scale_of_prediction(system: RetinaNet) -> None:
    scaled, targets = system.to_network_scale([torch.rand(3, 32, 48)], [target((2, 4, 20, 30, 1))])
    assert tuple(scaled[0].shape[-2:]) == (64, 96)
    assert targets[0].objects is not None
    assert targets[0].objects.boxes_xyxy.tolist() == [[4, 8, 40, 60]]
    assert system.validation_loss([torch.rand(3, 32, 48)], [target((2, 4, 20, 30, 1))]).total.isfinite()


def test_one_picture_is_learned_and_the_state_keeps_it() -> None:
    system = build().train()
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, 0, 8:40, 8:40] = 1.0
    picture[:, 1, 36:60, 44:60] = 1.0
    batch, objects = picture.repeat(2, 1, 1, 1), [target((8, 8, 40, 40, 0), (44, 36, 60, 60, 1))] * 2
    optimiser = torch.optim.SGD(system.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for turn in range(90):
        optimiser.param_groups[0]["lr"] = 0.02 if turn < 70 else 0.004
        loss = system.loss(batch, objects).total
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(system.parameters(), 4.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    found = look(system, picture[0])
    best = found.above(0.4)
    assert sorted(best.labels.tolist()) == [0, 1]
    wanted = torch.tensor([[8.0, 8, 40, 40], [44, 36, 60, 60]])
    assert (best.boxes_xyxy[best.labels.argsort()] - wanted).abs().max() < 4
    twin = build()
    twin.load_state_dict(copy.deepcopy(system.state_dict()))
    again = look(twin, picture[0])
    assert torch.equal(again.boxes_xyxy, found.boxes_xyxy)


# -- the forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("retinanet_resnet50_fpn", 34_014_999),
        ("retinanet_resnet50_fpn_v2", 38_198_935),
        ("retinanet_resnet50_paper", 38_123_022),
        ("retinanet_resnet101_paper", 57_062_926),
        ("retinanet_resnet18_fpn", 14_197_015),
    ],
)
def test_forms_have_their_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        system = getattr(retinanet, name)()
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert system.categories == COCO_90
    assert system.unused_outputs == (0 if "paper" in name else 1)


def test_the_published_layout_is_that_of_its_names() -> None:
    with torch.device("meta"):
        again = retinanet.retinanet_resnet50_fpn(list(COCO_90))
        own = retinanet.retinanet_resnet50_fpn(["a", "b"])
    assert (again.unused_outputs, own.unused_outputs) == (1, 0)
    assert again.head.classification_head.cls_logits.out_channels == 819
    assert own.head.classification_head.cls_logits.out_channels == 18


def test_forms_say_what_they_differ_in() -> None:
    with torch.device("meta"):
        first, paper = retinanet.retinanet_resnet50_fpn(["a"]), retinanet.retinanet_resnet50_paper(["a"])
    assert (first.settings.box_loss, paper.settings.box_loss) == ("l1", "smooth_l1")
    assert (first.max_detections, paper.max_detections) == (300, 100)
    p6 = [system.backbone.fpn.extra_blocks.p6.in_channels for system in (first, paper)]  # type: ignore[union-attr]
    assert p6 == [256, 2048]
    assert [level.name for level in first.backbone.levels] == ["P3", "P4", "P5", "P6", "P7"]


def test_layers_freeze_from_the_first() -> None:
    with torch.device("meta"):
        system = retinanet.retinanet_resnet50_fpn(["a"], trainable_layers=3)
    frozen = {n.split(".")[2] for n, p in system.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}


def test_any_trunk_carries_it_and_its_classifier_is_a_start() -> None:
    system = retinanet.retinanet_fpn(["a"], backbone="mobilenet_v3_small", min_size=64, max_size=96)
    system.loss(torch.rand(2, 3, 64, 90), [target((8, 8, 40, 44, 0))] * 2).total.backward()
    name = "features.3.block.0.0.weight"
    assert system.get_parameter(f"backbone.body.{name}").grad is not None
    trunk = build_trunk("mobilenet_v3_small")
    report = load_state(system, {**trunk.state_dict(), "classifier.3.weight": torch.rand(9, 9)})
    assert report.note == "starts from a classifier: its convolutions"
    assert torch.equal(system.get_parameter(f"backbone.body.{name}"), trunk.get_parameter(name))
