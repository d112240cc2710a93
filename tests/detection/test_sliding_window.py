"""The sliding-window CNN: its two ways agree, its loss is that of regions, and it learns."""

import pytest
import torch
from torch import Tensor, nn

from bestiary import zoo
from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.backbones.vgg import vgg16
from bestiary.detection.sliding_window import NEAR_TRUTH, SlidingWindowCNN, around, sliding_window_small
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.box import BoxHead, RegionSettings
from bestiary.heads.network_scale import NetworkScale
from bestiary.heads.window_levels import WindowLevels
from bestiary.predictions import Detections
from bestiary.records import Objects, Target
from bestiary.weights.load import load_state

CATEGORIES = ("square", "bar")


def bare(**arguments: object) -> SlidingWindowCNN:
    """Four places of a network without padding to each window of 19 pixels, 4 apart."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
    trunk = Chain(layers, {3: Level("C2", 8, 4)})
    windows = WindowLevels(19, 4, (12, 19, 30), (1.0, 2.0))
    settings = {"scale": NetworkScale(60, 100), "regions": RegionSettings(per_image=16, min_score=0.2), **arguments}
    return SlidingWindowCNN(trunk, BoxHead(8, 4, 16), CATEGORIES, windows, **settings)  # type: ignore[arg-type]


def scene(seed: int = 0) -> tuple[Tensor, Target]:
    """Noise with a bright square and a bright bar."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(3, 60, 80, generator=draw) * 0.2
    x, y = (int(torch.randint(0, n, (1,), generator=draw)) for n in (24, 20))
    image[:, y : y + 18, x : x + 18] += 0.7
    left = x + 24
    image[0, y + 20 : y + 34, left : left + 28] += 0.7
    boxes = torch.tensor([[x, y, x + 18, y + 18], [left, y + 20, left + 28, y + 34]]).float()
    return image, Target(objects=Objects(boxes, torch.tensor([0, 1])))


def test_windows_one_by_one_equal_the_dense_pass_without_padding() -> None:
    system = bare().eval()
    nn.init.normal_(system.roi_heads.box_predictor.cls_score.weight)
    nn.init.normal_(system.roi_heads.box_predictor.bbox_pred.weight)
    pixels = torch.randn(3, 60, 80)
    levels = system.windows.levels((60, 80))
    with torch.no_grad():
        dense = system.judge(pixels, levels)
        system.way = "warp"
        single = system.judge(pixels, levels)
    assert len(dense[0]) == system.windows.count((60, 80)) > 400
    torch.testing.assert_close(dense[0], single[0], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(dense[1], single[1], atol=2e-4, rtol=1e-4)
    assert dense[0].std(0).min() > 100 * 2e-4, "windows say different things"


def test_context_makes_windows_what_the_dense_pass_sees() -> None:
    """A padding network whose places see 13 pixels: with 8 pixels of context, windows inside are the dense pass's."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 8, 5, 2, 2))
    trunk = Chain(layers, {2: Level("C2", 8, 4)})
    windows = WindowLevels(16, 4, (16,))
    picture = torch.randn(3, 64, 80)
    apart = []
    for context in (0, 8):
        torch.manual_seed(1)
        system = SlidingWindowCNN(trunk, BoxHead(8, 4, 16), CATEGORIES, windows, context=context).eval()
        levels = windows.levels((64, 80))
        with torch.no_grad():
            dense, _ = system.judge(picture, levels)
            system.way = "warp"
            single, _ = system.judge(picture, levels)
        down, across = levels[0].places_hw
        difference = (dense - single).view(down, across, -1)[2:-2, 2:-2].abs().max()
        apart.append(float(difference / dense.std()))
    assert apart[0] > 0.01
    assert apart[1] < 1e-4
    with pytest.raises(UsageError, match="context"):
        SlidingWindowCNN(trunk, BoxHead(8, 4, 16), CATEGORIES, windows, context=6)


def test_a_planted_object_is_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    system = bare(regress=False).eval()
    truth = torch.tensor([[20.0, 16, 42, 36]])

    def judge(pixels: Tensor, levels: object) -> tuple[Tensor, Tensor]:
        boxes = system.windows.boxes(levels, (60, 80))  # type: ignore[arg-type]
        overlap = pairwise_iou(boxes, truth)[:, 0]
        logits = torch.stack([torch.zeros_like(overlap), 8 * overlap - 3, torch.full_like(overlap, -9.0)], 1)
        return logits, torch.zeros(len(boxes), 3, 4)

    monkeypatch.setattr(system, "judge", judge)
    (found,) = system.predict_images([torch.zeros(3, 120, 160)])
    assert isinstance(found, Detections)
    best = system.windows.boxes(system.windows.levels((60, 80)), (60, 80))
    best = best[pairwise_iou(best, truth)[:, 0].argmax()]
    torch.testing.assert_close(found.boxes_xyxy[0], 2 * best)
    assert found.labels[0] == 0
    others = pairwise_iou(found.boxes_xyxy[1:], found.boxes_xyxy[:1])
    assert (others <= system.regions.nms_iou).all()


def test_a_picture_twice_as_large_has_its_boxes_twice_as_large() -> None:
    system = bare().eval()
    image, _ = scene()
    (small,) = system.detect_images([image])
    (large,) = system.detect_images([image.repeat_interleave(2, 1).repeat_interleave(2, 2)])
    assert (small.size_hw, large.size_hw) == ((60, 80), (120, 160))
    assert len(small) > 0
    torch.testing.assert_close(large.boxes_xyxy, 2 * small.boxes_xyxy, atol=0.5, rtol=0.05)


def test_windows_around_objects_are_near_them() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 10, 30, 50], [40, 40, 44, 44]])
    near = around(boxes)
    assert len(near) == 2 * NEAR_TRUTH
    overlaps = pairwise_iou(near, boxes)
    assert overlaps[:NEAR_TRUTH, 0].mean() > 0.4
    assert overlaps[NEAR_TRUTH:, 1].mean() > 0.4
    assert around(torch.zeros(0, 4)).shape == (0, 4)


def test_the_loss_has_a_term_for_boxes_only_with_a_regressor() -> None:
    image, target = scene()
    torch.manual_seed(0)
    with_boxes = bare().loss([image], [target])
    assert list(with_boxes.terms) == ["window_class", "window_box"]
    assert float(with_boxes.terms["window_class"].detach()) == pytest.approx(torch.tensor(3.0).log().item(), rel=0.05)
    without = bare(regress=False)
    losses = without.loss([image], [target])
    assert list(losses.terms) == ["window_class"]
    losses.total.backward()
    predictor = without.roi_heads.box_predictor
    assert predictor.bbox_pred.weight.grad is None
    assert not predictor.bbox_pred.weight.any()


def test_class_weights_weigh_the_windows_of_a_category() -> None:
    image, target = scene()
    losses = []
    for weights in (None, (1.0, 1.0), (3.0, 3.0)):
        system = bare(class_weights=weights)
        torch.manual_seed(1)
        losses.append(float(system.loss([image], [target]).terms["window_class"].detach()))
    assert losses[0] == losses[1]
    # a quarter of 16 windows are objects: (12 + 4 * 3) / 16 of about log 3 each
    assert losses[2] == pytest.approx(1.5 * losses[0], rel=0.02)
    with pytest.raises(UsageError, match="class_weights"):
        bare(class_weights=(1.0,))


def test_a_picture_without_objects_is_background() -> None:
    image, _ = scene()
    losses = bare().loss([image], [Target(objects=Objects.empty())])
    assert float(losses.terms["window_box"].detach()) == 0
    with pytest.raises(RecordError, match="objects"):
        bare().loss([image], [Target()])


def test_it_learns_and_then_finds() -> None:
    system = bare(regions=RegionSettings(per_image=32, min_score=0.2)).train()
    optimiser = torch.optim.Adam(system.parameters(), 0.01)
    pictures = [scene(seed) for seed in range(6)]
    for _ in range(60):
        optimiser.zero_grad()
        system.loss([p[0] for p in pictures], [p[1] for p in pictures]).total.backward()
        optimiser.step()
    system.eval()
    image, target = scene(99)
    (found,) = system.predict([image])
    assert isinstance(found, Detections)
    assert target.objects is not None
    for box, label in zip(target.objects.boxes_xyxy, target.objects.labels, strict=True):
        mine = found[(found.labels == label) & (found.scores > 0.5)]
        assert len(mine) > 0
        assert float(pairwise_iou(mine.boxes_xyxy, box[None]).max()) > 0.6
    assert set(system.parts.seconds) == {"features", "heads"}


def test_a_window_must_fit_the_network(unchecked: None) -> None:
    with pytest.raises(UsageError, match="apart"):
        SlidingWindowCNN(bare().backbone, BoxHead(8, 4, 16), CATEGORIES, WindowLevels(19, 8, (12,)))
    with pytest.raises(UsageError, match="way"):
        bare(way="slow")


def test_the_small_form_as_the_zoo_builds_it() -> None:
    system = zoo.build("sliding_window_small", CATEGORIES, {"tile": 128, "window_sides": [48]})
    assert isinstance(system, SlidingWindowCNN)
    assert (system.tiling.tile, system.windows.sides) == (128, (48,))
    (found,) = system.eval().predict([torch.rand(3, 100, 140)])
    assert isinstance(found, Detections)
    assert found.size_hw == (100, 140)


def test_parameters_are_those_of_the_table() -> None:
    assert sum(p.numel() for p in sliding_window_small(("a", "b", "c")).parameters()) == 4_679_572
    with torch.device("meta"):
        assert sum(p.numel() for p in zoo.build("sliding_window_vgg16").parameters()) == 134_690_729


def test_the_large_form_starts_from_the_classifier() -> None:
    with torch.device("meta"):
        state = vgg16().state_dict()
        system = zoo.build("sliding_window_vgg16", CATEGORIES)
        taken, note = system.start_state(state)
    assert note == "starts from a classifier: its convolutions, fc6, fc7"
    assert {name.split(".")[0] for name in taken} == {"backbone", "roi_heads"}
    own = system.state_dict()
    assert all(own[name].shape == value.shape for name, value in taken.items() if name in own)
    assert {name for name in own if name not in taken} == {
        f"roi_heads.box_predictor.{layer}.{part}" for layer in ("cls_score", "bbox_pred") for part in ("weight", "bias")
    }


def test_the_small_form_starts_from_a_small_classifier() -> None:
    first, second = (zoo.build("sliding_window_small", CATEGORIES) for _ in range(2))
    load_state(second, first.state_dict(), "sliding_window_small", where="memory")
    name = "roi_heads.box_head.fc6.weight"
    assert torch.equal(second.get_parameter(name), first.get_parameter(name))
