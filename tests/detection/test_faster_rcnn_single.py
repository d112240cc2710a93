"""The forms of 2015: sizes, the paper's rules, what a classifier hands over, and learning on drawn squares."""

import pytest
import torch
from tests.detection.drawn_squares import learn, overlaps_of_the_surest, tiny
from torch import Tensor, nn

from bestiary.assign.matcher import IGNORE
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import VARIANTS, ResNet, Variant
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.detection import faster_rcnn_single as single
from bestiary.detection.faster_rcnn import FasterRCNN
from bestiary.errors import UsageError
from bestiary.heads.rpn import FilterPyramidHead, RPNHead
from bestiary.heads.rpn_learning import assign_anchors
from bestiary.heads.truth import Truth
from bestiary.records import Objects, Target
from bestiary.weights.load import load_state

CATEGORIES = ["ant", "bee"]


def small(**arguments: object) -> FasterRCNN:
    torch.manual_seed(0)
    sizes = {"min_size": 96, "max_size": 160, "anchor_sizes": (16.0, 32.0)}
    return single.faster_rcnn_small(CATEGORIES, **{**sizes, **arguments})  # type: ignore[arg-type]


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def test_vgg16_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        system = single.faster_rcnn_vgg16()
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in system.named_children()}
    assert parts["rpn"] == 512 * 512 * 9 + 512 + 513 * 18 + 513 * 36
    assert sum(parts.values()) == 137_078_239
    assert len(system.categories) == 20
    assert isinstance(system.rpn.head, RPNHead)
    assert system.rpn.head.cls_logits.out_channels == 18
    assert (system.min_size, system.max_size, system.regions.bins) == (600, 1000, 7)


def test_the_settings_are_the_papers() -> None:
    rules = single.PROPOSALS
    assert (rules.positive_iou, rules.negative_iou, rules.per_image, rules.positive_share) == (0.7, 0.3, 256, 0.5)
    assert (rules.before_nms, rules.after_nms, rules.nms_iou) == ((12000, 6000), (2000, 300), 0.7)
    assert (rules.min_side, rules.inside_only) == (16, True)
    assert (single.REGIONS.per_image, single.REGIONS.nms_iou, single.REGIONS.min_score) == (128, 0.3, 0.05)


def test_nine_anchors_a_place_of_the_papers_areas() -> None:
    with torch.device("meta"):
        rpn = single.proposal_network(512, 512, (128.0, 256.0, 512.0))
    (anchors,) = rpn.anchors([(38, 63)], (608, 1008), torch.device("cpu"))
    assert len(anchors) == 38 * 63 * 9
    sides = anchors[:9, 2:] - anchors[:9, :2]
    wanted = torch.tensor([128.0, 256.0, 512.0]).square().repeat(3)
    torch.testing.assert_close(sides.prod(1), wanted, rtol=0.02, atol=0)
    ratios = (sides[:, 1] / sides[:, 0]).view(3, 3).mean(1)
    torch.testing.assert_close(ratios, torch.tensor([0.5, 1.0, 2.0]), rtol=0.02, atol=0)
    step = anchors[9 * 63 : 9 * 63 + 9] - anchors[:9]  # one place down
    assert step.unique(dim=0).tolist() == [[0, 16, 0, 16]]


@pytest.mark.parametrize(("name", "parameters"), [("resnet50", 28_416_863), ("resnet101", 47_356_767)])
def test_conv5_is_the_head_of_a_resnet(name: str, parameters: int) -> None:
    with torch.device("meta"):
        system = getattr(single, f"faster_rcnn_{name}_c4")()
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert [(v.name, v.channels, v.stride) for v in system.backbone.levels] == [("C4", 1024, 16)]
    assert system.roi_heads.box_head.out_features == 2048


def test_a_small_c4_pools_fourteen_bins_and_learns_through_all_of_them() -> None:
    torch.manual_seed(0)
    parts = single.c4_parts(Variant(BasicBlock, (1, 1, 1, 1)), nn.BatchNorm2d, 5)
    system = single.build(parts, CATEGORIES, (64, 128), (16.0, 32.0)).train()
    pyramid = system.backbone(torch.rand(1, 3, 64, 96))
    boxes = [torch.tensor([[0.0, 0.0, 40.0, 40.0]])]
    assert tuple(system.pool_regions(pyramid, boxes).shape) == (1, 256, 14, 14)
    logits, deltas = system.classify_regions(pyramid, [torch.zeros(0, 4)])
    assert logits.shape == (0, 3)
    assert deltas.shape == (0, 3, 4)
    system.loss(torch.rand(2, 3, 64, 96), [target((8, 8, 40, 44, 1)), target((20, 8, 60, 40, 0))]).total.backward()
    silent = [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_anchors_that_cross_the_border_learn_nothing() -> None:
    system = small()
    anchors = torch.tensor([[-1.0, 0, 30, 30], [0, 0, 30, 30], [60, 60, 96, 97], [60, 60, 96, 96]])
    truth = Truth.of(target((0, 0, 30, 30, 0)).objects or Objects.empty())
    inside = assign_anchors(anchors, truth, system.proposals, (96, 96))
    assert inside.kind.tolist() == [IGNORE, 1, IGNORE, 0]
    everywhere = assign_anchors(anchors, truth, system.proposals)
    assert everywhere.kind.tolist() == [1, 1, 0, 0]


def test_the_best_anchor_inside_is_positive_where_a_better_one_crosses() -> None:
    truth = Truth.of(target((0, 0, 30, 30, 0)).objects or Objects.empty())
    anchors = torch.tensor([[-2.0, -2, 30, 30], [10.0, 10, 40, 40]])
    assert assign_anchors(anchors, truth, single.PROPOSALS, (96, 96)).kind.tolist() == [IGNORE, 1]


def test_moving_the_picture_by_the_stride_moves_what_is_proposed() -> None:
    system = small().eval()
    picture = torch.zeros(1, 3, 160, 160)
    picture[:, :, 64:96, 64:96] = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before, after = system(picture).objectness[0], system(picture.roll((16, 16), (2, 3))).objectness[0]
    torch.testing.assert_close(after[:, :, 4:8, 4:8], before[:, :, 3:7, 3:7], atol=1e-5, rtol=1e-4)


def test_filters_may_grow_with_the_anchors() -> None:
    system = small(rpn_kernels=(3, 7))
    head = system.rpn.head
    assert isinstance(head, FilterPyramidHead)
    assert [tuple(h.conv[0][0].kernel_size) for h in head.of_size] == [(3, 3), (7, 7)]  # type: ignore[index]
    terms = system.loss(torch.rand(1, 3, 96, 128), [target((8, 8, 40, 44, 1))]).terms
    assert all(value.isfinite() for value in terms.values())


@pytest.mark.parametrize(
    "arguments", [{"rpn_kernels": (3, 5, 7)}, {"rpn_kernels": (4,)}, {"anchor_sizes": ()}, {"anchor_sizes": (0.0,)}]
)
def test_anchors_and_filters_that_cannot_be_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="wanted"), torch.device("meta"):
        small(**arguments)


def test_frozen_blocks_end_at_their_pool() -> None:
    with torch.device("meta"):
        system = single.faster_rcnn_vgg16(frozen_blocks=2)
    frozen = [n for n, p in system.named_parameters() if not p.requires_grad]
    assert frozen == [f"backbone.features.{i}.{kind}" for i in (0, 2, 5, 7) for kind in ("weight", "bias")]
    with pytest.raises(UsageError, match="frozen_blocks"), torch.device("meta"):
        single.faster_rcnn_vgg16(frozen_blocks=6)


def test_a_classifier_hands_over_its_trunk_and_hidden_layers() -> None:
    system, trunk = small(), VGG(DEPTHS["vgg11"], batch_norm=True, width=0.5)
    state: dict[str, Tensor] = dict(trunk.state_dict())
    state["classifier.0.weight"] = torch.full((512, 256 * 49), 0.5)
    state["classifier.0.bias"] = torch.full((512,), 0.25)
    state["classifier.6.weight"] = torch.rand(10, 512)
    report = load_state(system, state, "faster_rcnn_small")
    assert "fc6" in report.summary()
    assert torch.equal(system.backbone.get_parameter("features.0.weight"), trunk.get_parameter("features.0.weight"))
    assert (system.roi_heads.box_head.get_parameter("fc6.bias") == 0.25).all()


def test_a_resnet_hands_its_last_stage_to_the_head() -> None:
    net = ResNet(VARIANTS["resnet18"])
    parts = single.c4_parts(VARIANTS["resnet18"], nn.BatchNorm2d, 5)
    system = single.build(parts, CATEGORIES, (64, 128), (16.0,))
    report = load_state(system, {**net.state_dict(), "fc.weight": torch.rand(4, 512)})
    assert report.note
    for there, here in (("conv1.weight", "backbone."), ("layer3.0.conv1.weight", "backbone.")):
        assert torch.equal(system.get_parameter(here + there), net.get_parameter(there))
    last = "layer4.1.conv2.weight"
    assert torch.equal(system.get_parameter(f"roi_heads.box_head.{last}"), net.get_parameter(last))


def test_predictions_tell_how_long_each_part_took() -> None:
    system = small().eval()
    system.predict(torch.rand(3, 60, 80))
    assert list(system.parts.seconds) == ["features", "proposals", "heads"]
    assert all(seconds > 0 for seconds in system.parts.seconds.values())


def test_class_weights_weigh_their_categories_regions() -> None:
    plain, weighted = small(), small(class_weights=(1.0, 3.0))
    picture, truth = torch.rand(1, 3, 96, 96), [target((10, 10, 40, 40, 1))]
    for system in (plain, weighted):
        system.eval()
    torch.manual_seed(3)
    with torch.no_grad():
        before = plain.loss(picture, truth).terms
    torch.manual_seed(3)
    with torch.no_grad():
        after = weighted.loss(picture, truth).terms
    assert float(after["box_class"]) > float(before["box_class"])
    assert float(after["box_regression"]) == pytest.approx(float(before["box_regression"]))
    with pytest.raises(UsageError, match="class_weights"):
        small(class_weights=(1.0,))


def test_two_pictures_are_learned() -> None:
    system = tiny().train()
    learn(system, 120)
    assert min(overlaps_of_the_surest(system)) > 0.6
