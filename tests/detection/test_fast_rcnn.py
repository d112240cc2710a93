"""Fast R-CNN on small pictures with regions from a grid."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

import bestiary
from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.detection import fast_rcnn
from bestiary.detection.fast_rcnn import PUBLISHED, FastRCNN, compress, distinct_parts, factor_layers
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.box import BoxHead
from bestiary.heads.network_scale import NetworkScale
from bestiary.layers.truncated_svd import FactoredLinear
from bestiary.ops import roi_pool
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import Objects, Target
from bestiary.training.checkpoint import write_model
from bestiary.verbs.models import identity_of

CATEGORIES = ["ant", "bee"]
DEPTHS = (1, 1, 1, 1, 1)


class Grid(Proposer):
    """Windows of a few sizes all over a picture."""

    name = "grid"

    def __init__(self, sides: tuple[int, ...] = (32, 40, 56), step: int = 8) -> None:
        super().__init__()
        self.sides, self.step, self.calls = sides, step, 0

    def settings(self) -> Mapping[str, Any]:
        """Sizes and step."""
        return {"sides": self.sides, "step": self.step}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """All windows inside."""
        self.calls += 1
        height, width = image.shape[-2:]
        rows = [
            [x, y, x + side, y + side]
            for side in self.sides
            for y in range(0, height - side + 1, self.step)
            for x in range(0, width - side + 1, self.step)
        ]
        boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 4)
        return Proposals(boxes, torch.linspace(1, 0, len(boxes)))


def build(scale: int = 128, proposer: Proposer | None = None, **settings: Any) -> FastRCNN:
    """One convolution a block, an eighth of VGG's channels."""
    torch.manual_seed(0)
    trunk = VGG(DEPTHS, batch_norm=True, maps=("C4",), width=0.125)
    head = BoxHead(trunk.channels, 7, 32)
    sizes = NetworkScale(scale, 4 * scale)
    return FastRCNN(trunk, head, CATEGORIES, proposer or Grid(), scale=sizes, **settings).eval()


def target(*rows: tuple[float, float, float, float, int], proposals: Tensor | None = None) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    found = torch.zeros(0, 4) if proposals is None else proposals
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()), proposals_xyxy=found)


def pictures() -> tuple[list[Tensor], list[Target]]:
    """A red and a green square on dark noise, at other places in each picture, and the grid's regions."""
    rng = torch.Generator().manual_seed(1)
    images, targets = [], []
    for x, y in ((8, 10), (50, 12), (26, 62), (66, 70)):
        image = 0.2 * torch.rand(3, 128, 128, generator=rng)
        image[0, y : y + 50, x : x + 50] += 0.8
        u, v = (x + 60) % 90, (y + 56) % 90
        image[1, v : v + 36, u : u + 36] += 0.8
        rows = ((x, y, x + 50, y + 50, 0), (u, v, u + 36, v + 36, 1))
        images.append(image)
        targets.append(target(*rows, proposals=Grid().find(image).boxes_xyxy))
    return images, targets


def learn(system: FastRCNN, steps: int) -> list[float]:
    images, targets = pictures()
    torch.manual_seed(0)
    system.train()
    optimiser = torch.optim.SGD(system.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(steps):
        pair = [2 * (step % 2), 2 * (step % 2) + 1]
        loss = system.loss([images[i] for i in pair], [targets[i] for i in pair]).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    system.eval()
    return losses


# -- the network -------------------------------------------------------------------------------------------------------


def test_each_region_is_pooled_from_its_own_picture() -> None:
    system = build()
    features = system(torch.randn(2, 3, 64, 80))
    assert features.shape == (2, 64, 4, 5)
    first, second = (
        torch.tensor([[0.0, 0.0, 40.0, 60.0]]),
        torch.tensor([[16.0, 8.0, 70.0, 64.0], [0.0, 0.0, 9.0, 9.0]]),
    )
    logits, deltas = system.classify_regions(features, [first, second])
    assert (logits.shape, deltas.shape) == ((3, 3), (3, 3, 4))
    alone, _ = system.classify_regions(features[1:], [second])
    torch.testing.assert_close(logits[1:], alone)
    pooled = roi_pool(features, [first, second], 7, 1 / 16)
    torch.testing.assert_close(system.roi_heads(pooled)[0], logits)


def test_regions_that_round_to_one_place_are_classified_once_and_nothing_changes() -> None:
    system = build()
    features = system(torch.randn(1, 3, 64, 96))
    low = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 60
    regions = torch.cat([low, low + 4 + 40 * torch.rand(300, 2, generator=torch.Generator().manual_seed(1))], 1)
    first, index = distinct_parts(regions, 1 / 16)
    assert 20 < len(first) < 200
    pooled = roi_pool(features, [regions], 7, 1 / 16)
    assert torch.equal(pooled[first][index], pooled)
    assert all(int(first[index[i]]) <= i for i in range(300))
    seen: list[int] = []
    system.roi_heads.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    once = system.classify_once(features, regions)
    assert sum(seen) == len(first)
    for a, b in zip(once, system.classify_regions(features, [regions]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_regions_that_end_beyond_the_map_are_not_mixed_up() -> None:
    # Both end at the map's border once cut, but their bins are of other sizes.
    regions = torch.tensor([[0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 96.0, 64.0], [0.0, 0.0, 65.0, 64.0]])
    first, index = distinct_parts(regions, 1 / 16)
    assert sorted(first.tolist()) == [0, 1]
    assert first[index].tolist() == [0, 1, 0]


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_step_sees_64_regions_of_each_of_its_two_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    system, (images, targets) = build(), pictures()
    assert PUBLISHED.per_image == 64
    seen: list[list[int]] = []
    classify = system.classify_regions

    def watch(features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        seen.append([len(b) for b in boxes])
        return classify(features, boxes)

    monkeypatch.setattr(system, "classify_regions", watch)
    near = torch.tensor([[8.0, 10.0, 40.0, 42.0]]).repeat(100, 1)  # IoU .41: background that touches
    crowded = [replace(t, proposals_xyxy=torch.cat([near, t.proposals_xyxy])) for t in targets[:1]]  # type: ignore[list-item]
    system.loss([images[0], images[0]], [crowded[0], crowded[0]])
    assert seen == [[64, 64]]


def test_two_finite_terms_and_a_gradient_for_every_parameter() -> None:
    system, (images, targets) = build().train(), pictures()
    losses = system.loss(images[:2], targets[:2])
    assert list(losses.terms) == ["box_class", "box_regression"]
    losses.total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_loss_is_the_same_in_training_and_evaluation_mode_without_dropout() -> None:
    images, targets = pictures()
    system = build()
    for norm in (m for m in system.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None
    values = []
    for mode in (True, False):
        torch.manual_seed(3)
        values.append(float(system.train(mode).loss(images[:2], targets[:2]).total.detach()))
    assert values[0] == values[1]


def test_pictures_without_objects_or_proposals_are_legal_and_missing_ones_are_named() -> None:
    system, (images, targets) = build(), pictures()
    empty = target(proposals=torch.tensor([[0.0, 0.0, 20.0, 20.0]]))
    losses = system.loss(images[:2], [targets[0], empty])
    assert losses.total.isfinite()
    nothing = system.loss(images[:1], [target()])
    assert float(nothing.total.detach()) == 0
    nothing.total.backward()
    with pytest.raises(RecordError, match=r"targets\[1\].proposals_xyxy: got None"):
        system.loss(images[:2], [targets[0], replace(targets[1], proposals_xyxy=None)])
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images[:1], [target((0, 0, 9, 9, 2))])


def test_class_weights_weigh_the_regions_of_a_category() -> None:
    images, _ = pictures()
    only = [target((10, 10, 30, 30, 1))]  # the object itself is the only region
    plain, heavy = build(), build(class_weights=[1.0, 3.0])
    with torch.no_grad():
        a, b = plain.loss(images[:1], only), heavy.loss(images[:1], only)
    assert float(b.terms["box_class"]) == pytest.approx(3 * float(a.terms["box_class"]), rel=1e-5)
    assert float(b.terms["box_regression"]) == pytest.approx(float(a.terms["box_regression"]), rel=1e-5)
    assert "class_weights" not in heavy.state_dict()


def test_half_precision_gives_finite_losses_and_boxes() -> None:
    system, (images, targets) = build(), pictures()
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images[:2], targets[:2])
        (found,) = system.predict(images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert found.size_hw == (128, 128)


def test_validation_moves_proposals_with_the_picture() -> None:
    system, (images, targets) = build(scale=256), pictures()
    scaled, moved = system.to_network_scale(images[:1], targets[:1])
    assert tuple(scaled[0].shape) == (3, 256, 256)
    assert moved[0].proposals_xyxy is not None
    assert targets[0].proposals_xyxy is not None
    torch.testing.assert_close(moved[0].proposals_xyxy, 2 * targets[0].proposals_xyxy)
    assert system.validation_loss(images[:1], targets[:1]).total.isfinite()


# -- learning and prediction -------------------------------------------------------------------------------------------


def test_it_learns_and_finds_what_it_learned() -> None:
    system, (images, targets) = build(), pictures()
    losses = learn(system, 80)
    assert sum(losses[-4:]) < 0.4 * sum(losses[:4])
    for image, wanted in zip(images, targets, strict=True):
        found = system.detect_images([image])[0].above(0.5)
        assert wanted.objects is not None
        best = pairwise_iou(wanted.objects.boxes_xyxy, found.boxes_xyxy).max(1)
        assert (best.values > 0.5).all()
        assert found.labels[best.indices].tolist() == wanted.objects.labels.tolist()


def look_alikes(rng: torch.Generator) -> tuple[list[Tensor], list[Target]]:
    """Pictures of two squares that differ in the green channel alone; which is which is a matter of chance."""
    images, targets = [], []
    for _ in range(2):
        image = 0.2 * torch.rand(3, 64, 128, generator=rng)
        x, y, yellow = (int(v) for v in torch.randint(0, 20, (3,), generator=rng))
        lefts = (x, x + 64)
        image[0, y : y + 44, lefts[0] : lefts[0] + 44] += 0.8
        image[0, y : y + 44, lefts[1] : lefts[1] + 44] += 0.8
        image[1, y : y + 44, lefts[yellow % 2] : lefts[yellow % 2] + 44] += 0.8
        images.append(image)
        targets.append(target(*((left, y, left + 44, y + 44, int(i == yellow % 2)) for i, left in enumerate(lefts))))
    return images, targets


@pytest.mark.parametrize("frozen", [False, True])
def test_learning_the_convolutions_too_beats_leaving_them(frozen: bool) -> None:
    system = build(scale=64).train()
    first = system.backbone.get_parameter("features.0.weight")
    nn.init.zeros_(first[:, 1])  # the convolutions do not see green
    system.backbone.requires_grad_(not frozen)
    before = {name: value.clone() for name, value in system.backbone.named_parameters()}
    optimiser = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    rng, losses = torch.Generator().manual_seed(0), []
    for _ in range(40):
        terms = system.loss(*look_alikes(rng))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        losses.append(float(terms.terms["box_class"].detach()))
    last = sum(losses[-8:]) / 8
    if frozen:  # nobody can tell two equals apart: ln 2
        assert last > 0.55
        assert all(torch.equal(before[name], value) for name, value in system.backbone.named_parameters())
    else:
        assert last < 0.1


def test_answers_are_in_the_pictures_own_pixels_and_parts_are_timed() -> None:
    system = build(scale=96, regions=replace(PUBLISHED, min_score=0.0), proposal_count=40)
    seen: list[int] = []
    system.roi_heads.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    (found,) = system.detect_images([torch.rand(3, 48, 75)])
    assert found.size_hw == (48, 75)
    assert found.boxes_xyxy[:, 2].max() <= 75
    assert found.boxes_xyxy[:, 2].max() > 40
    assert (found.scores.diff() <= 0).all()
    assert sum(seen) <= 40
    assert set(system.parts.seconds) == {"proposals", "features", "heads"}


def test_a_picture_without_proposals_has_no_answer() -> None:
    system = build(proposer=Grid(sides=(500,)))
    (found,) = system.predict(torch.rand(3, 40, 40))
    assert len(found) == 0  # type: ignore[arg-type]


def test_proposals_are_of_the_picture_as_it_is_at_every_scale() -> None:
    grid = Grid()
    system = build(proposer=grid, regions=replace(PUBLISHED, min_score=0.0))
    shapes: list[tuple[int, ...]] = []
    system.backbone.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape[-2:])))
    system.take({"test_scales": (1.0, 2.0)})
    (found,) = system.predict(torch.rand(3, 64, 64))
    assert shapes == [(128, 128), (256, 256)]
    assert grid.calls == 2
    assert found.size_hw == (64, 64)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_full_rank_keeps_the_answers_and_a_lower_one_nearly() -> None:
    system = build(regions=replace(PUBLISHED, min_score=0.0))
    image = torch.rand(3, 64, 64)
    (before,) = system.detect_images([image])
    full = compress(system, (32, 32))
    (after,) = full.detect_images([image])
    torch.testing.assert_close(after.scores, before.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after.boxes_xyxy, before.boxes_xyxy, atol=1e-2, rtol=1e-4)
    small = compress(system, (8, 4))
    assert small.arguments["svd_ranks"] == (8, 4)
    assert isinstance(system.roi_heads.box_head.get_submodule("fc6"), nn.Linear)
    saved = sum(p.numel() for p in system.parameters()) - sum(p.numel() for p in small.parameters())
    assert saved == (64 * 49 * 32 - 8 * (64 * 49 + 32)) + (32 * 32 - 4 * (32 + 32))
    with pytest.raises(UsageError, match="fc6 is factored already"):
        compress(small, (4, 4))
    with pytest.raises(UsageError, match="wanted two ranks, of fc6 and fc7"):
        compress(system, (4,))


def test_weights_of_whole_layers_are_factored_as_they_are_loaded() -> None:
    system, thin = build(), build()
    factor_layers(thin.roi_heads.box_head, (32, 32))
    taken, note = thin.start_state(system.state_dict())
    assert note == "fc6 factored to rank 32; fc7 factored to rank 32"
    thin.load_state_dict(taken)
    image = torch.rand(3, 64, 64)
    features = system(image[None])
    region = [torch.tensor([[0.0, 0.0, 40.0, 40.0]])]
    assert isinstance(thin.roi_heads.box_head.get_submodule("fc6"), FactoredLinear)
    for a, b in zip(system.classify_regions(features, region), thin.classify_regions(features, region), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert thin.start_state(thin.state_dict())[1] == ""


@pytest.mark.parametrize("factored", [False, True])
def test_it_starts_from_a_classifier(factored: bool) -> None:
    torch.manual_seed(1)
    classifier = VGGClassifier(VGG(DEPTHS, batch_norm=True, width=0.125), ["x", "y", "z"], hidden=(32, 32)).eval()
    system = build()
    if factored:
        factor_layers(system.roi_heads.box_head, (32, 32))
    taken, note = system.start_state(classifier.state_dict())
    assert note.startswith("starts from a classifier: its convolutions, fc6, fc7")
    system.load_state_dict(taken, strict=False)
    pixels = torch.randn(1, 3, 112, 112)
    # One region that is the whole 7x7 map: fc7 sees what the classifier without its last pool sees.
    features = system(pixels)
    assert torch.equal(features, classifier.features[:-1](pixels))
    whole = [torch.tensor([[0.0, 0.0, 96.0, 96.0]])]
    vectors = system.roi_heads.box_head(roi_pool(features, whole, 7, 1 / 16))
    torch.testing.assert_close(vectors, classifier.classifier[:-1](features.flatten(1)), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(UsageError, match="got 0, wanted 1 or more"):
        build(proposal_count=0)
    with pytest.raises(UsageError, match="wanted one"):
        FastRCNN(VGG(DEPTHS, width=0.125), BoxHead(64, 7, 8), CATEGORIES, Grid())


# -- named systems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "bins"),
    [
        ("fast_rcnn_vgg16", 134_690_729, 7),
        ("fast_rcnn_alexnet", 2_334_080 + (9216 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 105, 6),
        ("fast_rcnn_small", 2_308_992 + (256 * 49 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 105, 7),
    ],
)
def test_named_systems(name: str, parameters: int, bins: int) -> None:
    with torch.device("meta"):
        system = getattr(fast_rcnn, name)()
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert (len(system.categories), system.stride, system.regions.bins) == (20, 16, bins)
    assert (system.regions.per_image, system.regions.positive_share, system.background_from) == (64, 0.25, 0.1)
    assert system.proposer.name == "selective_search_fast"


def test_every_place_of_caffenets_map_lies_over_its_own_16_pixels() -> None:
    with torch.device("meta"):
        system = fast_rcnn.fast_rcnn_alexnet(["ant"], frozen_blocks=1)
        shapes = [tuple(system(torch.zeros(1, 3, *hw)).shape[-2:]) for hw in ((320, 512), (608, 992))]
    assert shapes == [(20, 32), (38, 62)]
    assert not system.backbone.get_parameter("features.0.weight").requires_grad
    assert system.backbone.get_parameter("features.4.weight").requires_grad


def test_a_compressed_system_is_saved_and_loaded_like_another(tmp_path: Path) -> None:
    arguments = {"proposals": "sliding_windows", "proposal_options": ("count=30",), "min_size": 64, "max_size": 96}
    system = bestiary.create("fast_rcnn_small", ["ant", "bee"], arguments=arguments)
    assert isinstance(system, FastRCNN)
    system.regions = replace(system.regions, min_score=0.0)
    thin = compress(system, (40, 20))
    for name, one in (("whole", system), ("thin", thin)):
        write_model(tmp_path / f"{name}.safetensors", one.state_dict(), identity_of(one))
    again = bestiary.load(tmp_path / "thin.safetensors")
    assert isinstance(again, FastRCNN)
    again.regions = system.regions
    image = torch.rand(3, 64, 80)
    (a,), (b,) = thin.detect_images([image]), again.detect_images([image])
    assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)
    started = bestiary.create(
        "fast_rcnn_small", ["ant", "bee"], tmp_path / "whole.safetensors", {**arguments, "svd_ranks": (40, 20)}
    )
    torch.testing.assert_close(
        started.get_parameter("roi_heads.box_head.fc7.outputs.weight"),
        thin.get_parameter("roi_heads.box_head.fc7.outputs.weight"),
    )
