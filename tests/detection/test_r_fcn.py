"""R-FCN's position-sensitive votes, hard examples, and the whole on small pictures."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.levels import Trunk
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import ResNet, ResNetClassifier, Variant
from bestiary.backbones.vgg import VGG
from bestiary.detection import r_fcn
from bestiary.detection.faster_rcnn_single import proposal_network
from bestiary.detection.r_fcn import RFCN, PositionMaps
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.box import RegionSettings
from bestiary.heads.network_scale import NetworkScale
from bestiary.heads.rpn import ProposalSettings
from bestiary.records import Objects, Target

CATEGORIES = ["ant", "bee"]
TERMS = ["rpn_objectness", "rpn_box", "box_class", "box_regression"]
PROPOSALS = ProposalSettings(before_nms=(200, 100), after_nms=(60, 40))
REGIONS = RegionSettings(per_image=32, nms_iou=0.3)


def build(backbone: Trunk | None = None, scale: int = 128, **settings: Any) -> RFCN:
    torch.manual_seed(0)
    trunk = backbone or VGG((1, 1, 1, 1, 1), batch_norm=True, maps=("C4",), width=0.125)
    rpn = proposal_network(trunk.levels[-2:][0].channels, 32, (32.0, 64.0))
    chosen = {"proposals": PROPOSALS, "regions": REGIONS, "hard_per_image": 16, "bins": 3, **settings}
    return RFCN(trunk, CATEGORIES, rpn=rpn, width=32, scale=NetworkScale(scale, 4 * scale), **chosen).eval()


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


# -- votes -------------------------------------------------------------------------------------------------------------


def votes_by_slices(maps: Tensor, box: list[float], bins: int, stride: int) -> Tensor:
    """Each number's bins averaged in their own maps, and then the bins: plain loops over whole map pixels."""
    x1, y1, x2, y2 = (math.floor(v / stride + 0.5) for v in box)
    width, height = max(x2 - x1, 1) / bins, max(y2 - y1, 1) / bins
    answers = []
    for number in range(maps.shape[0] // bins**2):
        total = 0.0
        for i in range(bins):
            for j in range(bins):
                rows = slice(math.floor(y1 + i * height), math.ceil(y1 + (i + 1) * height))
                columns = slice(math.floor(x1 + j * width), math.ceil(x1 + (j + 1) * width))
                total += float(maps[(number * bins + i) * bins + j, rows, columns].mean())
        answers.append(total / bins**2)
    return torch.tensor(answers)


def test_votes_are_the_means_of_slices() -> None:
    system = build()
    maps = torch.randn(2, (3 + 8) * 9, 12, 14)
    boxes = [[16.0, 32.0, 128.0, 150.0], [40.0, 20.0, 90.0, 75.0]]
    logits, deltas = system.vote(maps, [torch.zeros(0, 4), torch.tensor(boxes)])
    assert (logits.shape, deltas.shape) == ((2, 3), (2, 2, 4))
    for row, box in enumerate(boxes):
        wanted = votes_by_slices(maps[1], box, 3, 16)
        torch.testing.assert_close(torch.cat([logits[row], deltas[row].flatten()]), wanted, atol=1e-5, rtol=1e-5)


def planted() -> tuple[RFCN, Tensor]:
    """Maps of class 1 that are 1 in the bin of their own position of one region, and 0 elsewhere."""
    system, maps = build(), torch.zeros(1, (3 + 8) * 9, 20, 20)
    for i in range(3):
        for j in range(3):
            maps[0, (1 * 3 + i) * 3 + j, 3 + 4 * i : 7 + 4 * i, 3 + 4 * j : 7 + 4 * j] = 1
    return system, maps


def test_a_region_whose_every_part_is_in_place_has_score_1_and_one_beside_it_less() -> None:
    system, maps = planted()
    region = torch.tensor([[48.0, 48.0, 240.0, 240.0]])
    shifted = region + torch.tensor([64.0, 0.0, 64.0, 0.0])  # by one bin
    logits, _ = system.vote(maps, [torch.cat([region, shifted])])
    assert logits[0].tolist() == pytest.approx([0, 1, 0])
    assert logits[1].tolist() == [0, 0, 0]
    near = region + 16.0
    assert 0.5 < float(system.vote(maps, [near])[0][0, 1]) < 0.6  # 9 of 16 pixels of each bin


def test_nothing_is_learned_a_region() -> None:
    system = build()
    raw = system(torch.randn(1, 3, 64, 64))
    system.requires_grad_(False)
    counted: list[nn.Module] = []
    for module in system.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, *_: counted.append(m))
    system.vote(raw.positions, [torch.tensor([[0.0, 0.0, 40.0, 40.0]]).repeat(50, 1)])
    assert counted == []


def test_the_papers_numbers_of_maps() -> None:
    maps = PositionMaps(2048, 20)
    assert (maps.conv_new_1.out_channels, maps.rfcn_cls.out_channels, maps.rfcn_bbox.out_channels) == (1024, 1029, 392)
    assert maps(torch.zeros(1, 2048, 2, 3)).shape == (1, 1421, 2, 3)


# -- two maps of one stride --------------------------------------------------------------------------------------------


def test_the_proposal_network_reads_conv4_and_the_scores_conv5() -> None:
    trunk = ResNet(Variant(BasicBlock, (1, 1, 1, 1)), dilate=(False, False, True))
    system = build(trunk, scale=64)
    assert system.stride == 16
    raw = system(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in raw] == [(1, 6, 4, 6), (1, 24, 4, 6), (1, 99, 4, 6)]
    raw.objectness.sum().backward(retain_graph=True)
    assert trunk.get_parameter("layer3.0.conv1.weight").grad is not None
    assert trunk.get_parameter("layer4.0.conv1.weight").grad is None
    raw.positions.sum().backward()
    assert trunk.get_parameter("layer4.0.conv1.weight").grad is not None


def test_it_starts_from_a_classifiers_convolutions() -> None:
    tiny = Variant(BasicBlock, (1, 1, 1, 1))
    classifier = ResNetClassifier(ResNet(tiny), ["x", "y"]).eval()
    system = build(ResNet(tiny, dilate=(False, False, True)), scale=64)
    taken, note = system.start_state(classifier.state_dict())
    assert note == "starts from a classifier: its convolutions"
    missing, unexpected = system.load_state_dict(taken, strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"rpn", "position_maps"}
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(system.backbone(pixels)[2], classifier.maps(pixels)[2])


def test_maps_of_two_strides_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got maps of strides \[16, 32\], wanted one stride"):
        build(ResNet(Variant(BasicBlock, (1, 1, 1, 1))))


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_hardest_regions_of_all_learn() -> None:
    system, (images, targets) = build(), pictures()
    raw = system(torch.stack(images[:2]))
    truths = r_fcn.truths_of(targets[:2], 2, 2)
    proposals = system.propose(raw, (128, 128), [(128, 128)] * 2, for_loss=True)
    hard = sum(float(v.detach()) for v in system.region_loss(raw.positions, proposals, truths))
    system.hard_per_image = None
    torch.manual_seed(0)
    drawn = sum(float(v.detach()) for v in system.region_loss(raw.positions, proposals, truths))
    system.hard_per_image = 10**6
    everything = sum(float(v.detach()) for v in system.region_loss(raw.positions, proposals, truths))
    assert hard > everything
    assert hard > drawn


def test_only_the_chosen_regions_have_a_gradient() -> None:
    system = build(hard_per_image=1)
    maps = torch.zeros(1, 99, 8, 8)
    # Everything looks like background but one far corner, which looks like a bee: the hardest of all.
    maps[:, :9] = 9.0
    maps[0, 18:27, 6:, 6:] = 30.0
    maps.requires_grad_()
    far = torch.tensor([[96.0, 96.0, 112.0, 112.0], [0.0, 96.0, 16.0, 112.0]])
    system.region_loss(maps, [far], r_fcn.truths_of([target()], 1, 2))[0].backward()
    assert maps.grad is not None
    rows, columns = maps.grad[0].abs().sum(0).nonzero(as_tuple=True)
    assert set(rows.tolist()) == set(columns.tolist()) == {6}


def test_four_finite_terms_and_a_gradient_for_every_parameter() -> None:
    system, (images, targets) = build().train(), pictures()
    losses = system.loss(images[:2], targets[:2])
    assert list(losses.terms) == TERMS
    assert all(term.isfinite() and term > 0 for term in losses.terms.values())
    losses.total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("hard", [16, None])
def test_pictures_without_objects_are_legal_and_wrong_truth_is_named(hard: int | None) -> None:
    system, (images, _) = build(hard_per_image=hard), pictures()
    losses = system.loss(images[:2], [target(), target()])
    losses.total.backward()
    assert losses.total.isfinite()
    assert float(losses.terms["box_regression"].detach()) == float(losses.terms["rpn_box"].detach()) == 0
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images[:1], [target((0, 0, 9, 9, 2))])


def test_class_weights_reach_the_loss() -> None:
    plain, heavy = build(hard_per_image=10**6), build(hard_per_image=10**6, class_weights=[5.0, 5.0])
    images, targets = pictures()
    with torch.no_grad():
        a, b = (system.loss(images[:1], targets[:1]).terms["box_class"] for system in (plain, heavy))
    assert float(b) > 1.05 * float(a)


def test_half_precision_gives_finite_losses_and_boxes() -> None:
    system, (images, targets) = build(), pictures()
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images[:2], targets[:2])
        (found,) = system.predict(images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert found.size_hw == (128, 128)


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_it_learns_and_finds_what_it_learned() -> None:
    system, (images, targets) = build(), pictures()
    system.train()
    optimiser = torch.optim.SGD(system.parameters(), lr=0.05, momentum=0.9)
    for step in range(80):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 80)
        pair = [2 * (step % 2), 2 * (step % 2) + 1]
        loss = system.loss([images[i] for i in pair], [targets[i] for i in pair]).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    system.eval()
    for image, wanted in zip(images, targets, strict=True):
        found = system.detect_images([image])[0].above(0.5)
        assert wanted.objects is not None
        best = pairwise_iou(wanted.objects.boxes_xyxy, found.boxes_xyxy).max(1)
        assert (best.values > 0.5).all()
        assert found.labels[best.indices].tolist() == wanted.objects.labels.tolist()


def test_answers_are_in_the_pictures_own_pixels_and_parts_are_timed() -> None:
    system = build(scale=96, regions=replace(REGIONS, min_score=0.0))
    (found,) = system.detect_images([torch.rand(3, 48, 75)])
    assert found.size_hw == (48, 75)
    assert found.boxes_xyxy[:, 2].max() <= 75
    assert found.boxes_xyxy[:, 2].max() > 40
    assert (found.scores.diff() <= 0).all()
    assert set(system.parts.seconds) == {"proposals", "features", "heads"}
    (larger,) = system.detect_scaled([torch.rand(3, 48, 75)], 2.0)
    assert larger.size_hw == (48, 75)


@pytest.mark.parametrize("size", [(1, 1), (1, 200)])
def test_very_thin_pictures_work(size: tuple[int, int]) -> None:
    (found,) = build(scale=32).predict(torch.rand(3, *size))
    assert found.size_hw == size


@pytest.mark.parametrize(
    ("name", "trunk", "width", "channels"),
    [
        ("r_fcn_resnet101", 42_394_816, 1024, (1024, 2048, 512)),
        ("r_fcn_resnet50", 23_454_912, 1024, (1024, 2048, 512)),
        ("r_fcn_resnet18", 11_176_512, 512, (256, 512, 256)),
        ("r_fcn_small", 2_308_992, 512, (256, 256, 256)),
    ],
)
def test_named_systems(name: str, trunk: int, width: int, channels: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        system = getattr(r_fcn, name)()
    c4, c5, hidden = channels
    rpn = c4 * hidden * 9 + hidden + (18 + 36) * (hidden + 1)
    maps = c5 * width + width + (1029 + 392) * (width + 1)
    assert sum(p.numel() for p in system.parameters()) == trunk + rpn + maps
    assert len(system.categories) == 20
    assert system.hard_per_image == 128
