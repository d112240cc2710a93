"""CornerNet: its two hourglasses, the authors' names, both ways of looking, and the whole on small pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bestiary
from bestiary.backbones.hourglass import StackedHourglass
from bestiary.detection import corner_net
from bestiary.detection.corner_net import CornerNet, corner_net_hourglass104, from_authors
from bestiary.errors import CheckpointError, RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.corner_learning import CornerWeights
from bestiary.heads.corners import PairSettings
from bestiary.heads.network_scale import NetworkScale
from bestiary.heads.suppression import HARD
from bestiary.predictions import Detections
from bestiary.records import Objects, Target
from bestiary.training.checkpoint import write_model
from bestiary.verbs.models import identity_of
from bestiary.weights.load import load_state

CATEGORIES = ["ant", "bee"]
TERMS = ["corners", "pull", "push", "offsets"]
ANY = PairSettings(max_distance=100)


def build(stacks: int = 1, seed: int = 0, **settings: Any) -> CornerNet:
    torch.manual_seed(seed)
    trunk = StackedHourglass(stacks, (16, 24, 32), (1, 1, 1), stem_channels=16, out_channels=16)
    return CornerNet(trunk, CATEGORIES, **{"hidden": 16, "pooled": 16, **settings}).eval()


def find(system: CornerNet, *images: Tensor) -> list[Detections]:
    with torch.inference_mode():
        return system.detect_images(images)


def target(*rows: tuple[float, float, float, float, int]) -> Target:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Target(objects=Objects(table[:, :4].contiguous(), table[:, 4].long()))


def pictures() -> tuple[list[Tensor], list[Target]]:
    """A red and a green square on dark noise, at other places in each picture."""
    rng = torch.Generator().manual_seed(1)
    images, targets = [], []
    for x, y in ((3, 6), (24, 5), (14, 34), (33, 31)):
        image = 0.2 * torch.rand(3, 63, 63, generator=rng)
        image[0, y : y + 26, x : x + 26] += 0.8
        u, v = (x + 31) % 46, (y + 28) % 46
        image[1, v : v + 17, u : u + 17] += 0.8
        images.append(image)
        targets.append(target((x, y, x + 26, y + 26, 0), (u, v, u + 17, v + 17, 1)))
    return images, targets


# -- the network -------------------------------------------------------------------------------------------------------


def authors_names(stacks: int, depth: int, repeats: tuple[int, ...]) -> Iterator[str]:
    """Layers of the authors' network, written down from their modules."""

    def residual(path: str, projected: bool) -> Iterator[str]:
        yield from (f"{path}.{layer}" for layer in ("conv1", "bn1", "conv2", "bn2"))
        if projected:
            yield from (f"{path}.skip.0", f"{path}.skip.1")

    def hourglass(path: str, level: int) -> Iterator[str]:
        count = repeats[level]
        for i in range(count):
            yield from residual(f"{path}.up1.{i}", False)
            yield from residual(f"{path}.low1.{i}", i == 0)
            yield from residual(f"{path}.low3.{i}", i == count - 1 and WIDTHS_CHANGE[level])
        if level + 1 < depth:
            yield from hourglass(f"{path}.low2", level + 1)
        else:
            for i in range(repeats[level + 1]):
                yield from residual(f"{path}.low2.{i}", False)

    yield from ("pre.0.conv", "pre.0.bn")
    yield from residual("pre.1", True)
    for s in range(stacks):
        yield from hourglass(f"kps.{s}", 0)
        yield from (f"cnvs.{s}.conv", f"cnvs.{s}.bn")
        for corner in ("tl", "br"):
            for layer in ("p1_conv1", "p2_conv1", "conv2"):
                yield from (f"{corner}_cnvs.{s}.{layer}.conv", f"{corner}_cnvs.{s}.{layer}.bn")
            yield from (f"{corner}_cnvs.{s}.{layer}" for layer in ("p_conv1", "p_bn1", "conv1", "bn1"))
            for part in ("heats", "tags", "regrs"):
                yield from (f"{corner}_{part}.{s}.0.conv", f"{corner}_{part}.{s}.1")
    for s in range(stacks - 1):
        yield from residual(f"inters.{s}", False)
        yield from (f"{part}.{s}.{i}" for part in ("inters_", "cnvs_") for i in (0, 1))


WIDTHS_CHANGE = (False, True, False, False, True)
"""Whether 256, 256, 384, 384, 384, 512 changes there: where it does not, the way up needs no projection."""


def test_the_papers_network_has_the_authors_entries() -> None:
    with torch.device("meta"):
        state = corner_net_hourglass104().state_dict()
        count = sum(p.numel() for p in corner_net_hourglass104().parameters())
    assert (count, len(state)) == (201_035_212, 1_128)
    layers = {name.rpartition(".")[0] for name in state}
    theirs = list(authors_names(2, 5, (2, 2, 2, 2, 2, 4)))
    assert len(theirs) == len(set(theirs)) == len(layers)
    assert set(from_authors({f"{name}.weight": torch.zeros(0) for name in theirs})) == {f"{n}.weight" for n in layers}


@pytest.mark.parametrize(
    ("name", "parameters"), [("corner_net_hourglass52", 100_330_278), ("corner_net_small", 2_812_038)]
)
def test_named_systems(name: str, parameters: int) -> None:
    with torch.device("meta"):
        system = getattr(corner_net, name)()
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert len(system.categories) == 80
    assert len(system.backbone.levels) == 1


def test_the_authors_file_is_loaded_by_its_names() -> None:
    there, here = build(2), build(2, seed=1)
    state = there.state_dict()
    # names of the small network: whatever maps onto ours
    theirs = {}
    for name in authors_names(2, 2, (1, 1, 1)):
        for end in ("weight", "bias", "running_mean", "running_var"):
            (ours,) = from_authors({f"{name}.{end}": torch.zeros(0)})
            if ours in state:
                theirs[f"{name}.{end}"] = state[ours]
    # in a narrowing network every way up is projected
    for level in range(2):
        path = f"kps.{{}}.{'low2.' * level}low3.0.skip."
        for s, i, end in ((s, i, end) for s in range(2) for i in (0, 1) for end in ("weight", "bias")):
            (ours,) = from_authors({f"{path.format(s)}{i}.{end}": torch.zeros(0)})
            if ours in state:
                theirs[f"{path.format(s)}{i}.{end}"] = state[ours]
        for s, end in ((s, end) for s in range(2) for end in ("running_mean", "running_var")):
            (ours,) = from_authors({f"{path.format(s)}1.{end}": torch.zeros(0)})
            theirs[f"{path.format(s)}1.{end}"] = state[ours]
    report = load_state(here, theirs)
    assert report.note == f"{len(theirs)} entries of the authors' file loaded"
    pixels = torch.rand(1, 3, 63, 63)
    torch.testing.assert_close(here(pixels).top_left.heat, there(pixels).top_left.heat)
    theirs.pop("br_tags.1.1.weight")
    with pytest.raises(CheckpointError, match=r"lacks 1 entries, the first of them bottom_right\.1\.tag\.1\.weight"):
        load_state(here, theirs)


def test_every_hourglass_is_taught_and_the_last_answers() -> None:
    system, (images, _) = build(2), pictures()
    pixels, _ = system.prepare(images[:1])
    both = system.supervised(pixels)
    assert len(both) == 2
    for ours, last in zip(system(pixels), both[-1], strict=True):
        for a, b in zip(ours, last, strict=True):
            torch.testing.assert_close(a, b)
    assert not torch.allclose(both[0].top_left.heat, both[1].top_left.heat)


def test_511_pixels_are_128_cells_and_pictures_lie_in_the_middle_of_black() -> None:
    with torch.device("meta"):
        paper = corner_net_hourglass104()
    assert [paper.padded_size(hw) for hw in ((480, 640), (384, 383), (511, 512))] == [
        (511, 767),
        (511, 383),
        (511, 639),
    ]
    system = build()
    pixels, corners = system.prepare([torch.ones(3, 50, 63), torch.ones(3, 47, 30)])
    assert pixels.shape == (2, 3, 63, 63)
    assert corners == [(0, 6), (16, 8)]
    black = -system.normalize.mean / system.normalize.std
    torch.testing.assert_close(pixels[1, :, 20, 0], black[:, 0, 0].flip(0))
    bright = (pixels[1, 0] > 0).nonzero()
    assert (bright.amin(0).tolist(), bright.amax(0).tolist()) == ([8, 16], [54, 45])


# -- training ----------------------------------------------------------------------------------------------------------


def test_four_finite_terms_and_a_gradient_for_every_parameter() -> None:
    system, (images, targets) = build(2).train(), pictures()
    losses = system.loss(images, targets)
    assert list(losses.terms) == TERMS
    assert all(term.isfinite() and term > 0 for term in losses.terms.values())
    losses.total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_loss_is_the_mean_over_hourglasses_and_weights_count() -> None:
    system, (images, targets) = build(2), pictures()
    with torch.no_grad():
        whole = system.loss(images, targets).terms
        system.weights = CornerWeights(pull=0.2, push=0.3, offset=2.0)
        heavy = system.loss(images, targets).terms
        system.supervised = lambda pixels: [system(pixels)]  # type: ignore[method-assign]
        last = system.loss(images, targets).terms
    factors = {"corners": 1, "pull": 2, "push": 3, "offsets": 2}
    for name, factor in factors.items():
        assert float(heavy[name]) == pytest.approx(factor * float(whole[name]), rel=1e-4)
    assert float(last["corners"]) != pytest.approx(float(heavy["corners"]), rel=1e-3)


def test_boxes_move_with_pictures_into_the_middle() -> None:
    system, (images, targets) = build(), pictures()
    small = images[0][:, :55, :50]
    pixels, ((left, top),) = system.prepare([small])
    assert (left, top) == (6, 4)
    moved = targets[0].objects
    assert moved is not None
    shifted = target(
        *(
            (*(box + torch.tensor([6.0, 4, 6, 4])).tolist(), int(k))
            for box, k in zip(moved.boxes_xyxy, moved.labels, strict=True)
        )
    )
    padded = torch.zeros(3, 63, 63)
    padded[:, 4:59, 6:56] = small
    with torch.no_grad():
        a, b = system.loss([small], [targets[0]]), system.loss([padded], [shifted])
    assert float(a.total) == pytest.approx(float(b.total), rel=1e-5)
    assert pixels.shape[-2:] == (63, 63)


def test_pictures_without_objects_are_legal_and_wrong_truth_is_named() -> None:
    system, (images, _) = build().train(), pictures()
    losses = system.loss(images[:2], [target(), target()])
    losses.total.backward()
    assert losses.total.isfinite()
    assert [float(losses.terms[n].detach()) for n in TERMS[1:]] == [0, 0, 0]
    with pytest.raises(RecordError, match=r"labels\[0\]: got 2, wanted 0 to 1"):
        system.loss(images[:1], [target((0, 0, 9, 9, 2))])


def test_class_weights_reach_the_loss_and_are_judged() -> None:
    images, targets = pictures()
    with torch.no_grad():
        plain, heavy = (build(class_weights=w).loss(images, targets) for w in (None, [3.0, 3.0]))
    assert float(heavy.terms["corners"]) == pytest.approx(3 * float(plain.terms["corners"]), rel=1e-5)
    with pytest.raises(UsageError, match="wanted 2 positive numbers"):
        build(class_weights=[1.0])


def test_half_precision_gives_finite_losses_and_boxes() -> None:
    system, (images, targets) = build(pairs=ANY), pictures()
    with torch.autocast("cpu", torch.bfloat16):
        losses = system.loss(images[:2], targets[:2])
        (found,) = system.predict(images[0])
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    assert found.size_hw == (63, 63)


# -- prediction --------------------------------------------------------------------------------------------------------


def test_a_mirror_image_gives_mirrored_boxes() -> None:
    system = build(pairs=ANY)
    image = torch.rand(3, 63, 95)
    (a,), (b,) = find(system, image), find(system, image.flip(-1))
    assert len(a) == len(b) > 10
    x1, y1, x2, y2 = b.boxes_xyxy.unbind(1)
    torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=0)
    overlap = pairwise_iou(a.boxes_xyxy, torch.stack([95 - x2, y1, 95 - x1, y2], 1)).amax(1)
    assert (overlap[:10] > 0.99).all()


def test_both_views_are_suppressed_together_once() -> None:
    system = build(pairs=ANY)
    image = torch.rand(3, 63, 95)
    seen: list[int] = []
    suppress = system.suppress

    def count(boxes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        seen.append(len(boxes))
        return suppress(boxes, *rest)

    system.suppress = count  # type: ignore[method-assign]
    find(system, image)
    system.take({"test_flip": False})
    assert system.test_views.each == ((1.0, False),)
    find(system, image)
    system.take({"test_flip": True})
    assert system.test_flip
    assert system.test_views.each == ((1.0, False),)
    find(system, image)
    assert seen == [seen[0], seen[1], seen[0]]
    assert seen[1] < seen[0] <= 2 * 1000


def test_overlapping_boxes_are_lowered_unless_told_otherwise() -> None:
    system = build()
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    kept, scores = system.suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), 0.5)
    assert kept.tolist() == [0, 2, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * 2.718281828**-2])
    system.take({"suppression": "nms"})
    assert system.suppression.kind == HARD.kind
    kept, _ = system.suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), 0.5)
    assert kept.tolist() == [0, 2]


def test_a_batch_of_several_sizes_gives_what_each_picture_gives_alone() -> None:
    system = build(pairs=ANY)
    rng = torch.Generator().manual_seed(3)
    images = [torch.rand(3, *hw, generator=rng) for hw in ((40, 63), (70, 95), (47, 50), (65, 80))]
    together = find(system, *images)
    for image, found in zip(images, together, strict=True):
        (alone,) = find(system, image)
        assert found.size_hw == tuple(image.shape[1:])
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.boxes_xyxy[:10], alone.boxes_xyxy[:10], atol=1e-3, rtol=0)


def test_candidates_are_the_boxes_of_the_decoder_with_a_score_for_each_category() -> None:
    system = build(pairs=ANY)
    raw = system(torch.randn(2, 3, 63, 47))
    boxes, scores, labels = system.decode(raw, (63, 47))
    again, table = system.candidates(raw, (63, 47))
    assert torch.equal(again, boxes)
    assert table.shape == (2, 1000, 2)
    assert torch.equal(table.sum(-1), scores.clamp(min=0))
    alive = scores > 0
    assert alive.any()
    assert torch.equal(table.argmax(-1)[alive], labels[alive])


def test_a_scale_of_its_own_is_the_networks() -> None:
    system = build(scale=NetworkScale(47, 80), pairs=ANY)
    image = torch.rand(3, 100, 150)
    (found,) = find(system, image)
    assert found.size_hw == (100, 150)
    assert found.boxes_xyxy[:, 2].max() > 100
    (larger,) = system.detect_scaled([image], 2.0)
    assert larger.size_hw == (100, 150)
    (resized,), (moved,) = system.to_network_scale([image], [target((10, 20, 50, 60, 0))])
    assert resized.shape == (3, 47, 70)
    assert moved.objects is not None
    assert moved.objects.boxes_xyxy[0].tolist() == pytest.approx([10 * 0.4667, 9.4, 50 * 0.4667, 28.2], abs=0.01)
    images, _ = build().to_network_scale([image], [target()])
    assert images[0] is image


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (64, 3)])
def test_very_thin_pictures_work(size: tuple[int, int]) -> None:
    (found,) = find(build(pairs=ANY), torch.rand(3, *size))
    assert found.size_hw == size
    assert (found.scores.diff() <= 0).all()
    assert len(found) <= 100


def test_a_checkpoint_answers_as_before(tmp_path: Path) -> None:
    system = bestiary.create(
        "corner_net_small", ["ant"], arguments={"min_size": 63, "max_size": 96, "test_flip": False}
    )
    assert isinstance(system, CornerNet)
    assert not system.test_flip
    write_model(tmp_path / "it.safetensors", system.state_dict(), identity_of(system))
    again = bestiary.load(tmp_path / "it.safetensors")
    assert isinstance(again, CornerNet)
    assert not again.test_flip
    system.pairs = again.pairs = ANY
    image = torch.rand(3, 63, 80)
    (a,), (b,) = find(system.eval(), image), find(again.eval(), image)
    assert len(a) > 0
    assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_it_learns_and_finds_what_it_learned() -> None:
    system, (images, targets) = build(), pictures()
    system.train()
    optimiser = torch.optim.Adam(system.parameters(), lr=0.01)
    for step in range(40):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 40)
        loss = system.loss(images, targets).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    system.eval()
    system.parts.clear()
    for image, wanted in zip(images, targets, strict=True):
        found = find(system, image)[0].above(0.7)
        assert wanted.objects is not None
        assert len(found) == 2
        best = pairwise_iou(wanted.objects.boxes_xyxy, found.boxes_xyxy).max(1)
        assert (best.values > 0.9).all()
        assert found.labels[best.indices].tolist() == wanted.objects.labels.tolist()
    assert list(system.parts.seconds) == ["network", "decoding"]
