import numpy as np
import pytest
import torch
from transform_scenes import blank, discs

from bestiary.errors import RecordError, UsageError
from bestiary.records import Objects, Sample
from bestiary.transforms import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomIoUCrop,
    RandomResizedCrop,
    RandomZoomOut,
    Transform,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_center_crop_by_hand() -> None:
    sample = blank((6, 8))
    assert torch.equal(CenterCrop((2, 4))(sample, rng()).image, sample.image[:, 2:4, 2:6])
    assert torch.equal(CenterCrop((3, 8))(sample, rng()).image, sample.image[:, 1:4])
    padded = CenterCrop((10, 8), fill=5.0)(sample, rng()).image
    assert torch.equal(padded[:, 2:8], sample.image)
    assert (padded[:, [0, 1, 8, 9]] == 5).all()


def test_random_crop_reaches_every_place_and_no_other() -> None:
    seen = {RandomCrop((4, 6)).plan((6, 8), rng(seed)).window_xyxy[:2] for seed in range(200)}
    assert seen == {(x, y) for x in range(3) for y in range(3)}


def test_random_crop_pads_first() -> None:
    sample, seen = blank((6, 8)), set()
    for seed in range(300):
        warp = RandomCrop((6, 8), pad=2, fill=5.0).plan((6, 8), rng(seed))
        x, y = (-warp.matrix[:, 2]).astype(int)
        seen.add((x, y))
        padded = torch.full((3, 10, 12), 5, dtype=torch.uint8)
        padded[:, 2:8, 2:10] = sample.image
        assert torch.equal(warp.image(sample.image), padded[:, y + 2 : y + 8, x + 2 : x + 10])
    assert seen == {(x, y) for x in range(-2, 3) for y in range(-2, 3)}


def test_random_crop_of_a_smaller_picture_shows_it_whole() -> None:
    for seed in range(20):
        moved = RandomCrop((9, 9), fill=5.0)(discs((4, 5), count=0), rng(seed))
        assert moved.size_hw == (9, 9)
        assert int((moved.target.label_map == 0).sum()) == 20


def test_random_resized_crop_keeps_area_and_aspect_in_range() -> None:
    step, generator, areas, aspects = RandomResizedCrop((10, 10), (0.2, 0.6), (0.5, 2.0)), rng(), [], []
    for _ in range(2000):
        x, y, width, height = step.draw((100, 120), generator)
        assert 0 <= x <= 120 - width
        assert 0 <= y <= 100 - height
        areas.append(width * height / 12000)
        aspects.append(width / height)
    assert 0.19 < min(areas) < 0.22
    assert 0.57 < max(areas) < 0.61
    assert 0.49 < min(aspects) < 0.55
    assert 1.8 < max(aspects) < 2.05
    assert abs(np.mean(areas) - 0.4) < 0.02, "evenly in area"
    assert abs(np.mean(np.log(aspects))) < 0.06, "evenly in the aspect's logarithm"


@pytest.mark.parametrize(("size_hw", "want"), [((10, 1000), (493, 0, 13, 10)), ((1000, 9), (0, 494, 9, 12))])
def test_random_resized_crop_falls_back_to_the_middle(
    size_hw: tuple[int, int], want: tuple[int, int, int, int]
) -> None:
    assert RandomResizedCrop((5, 5), (0.9, 1.0)).draw(size_hw, rng()) == want


def test_random_resized_crop_of_one_pixel() -> None:
    moved = RandomResizedCrop((4, 4))(blank((1, 1)), rng())
    assert (moved.image == blank((1, 1)).image).all()


def test_random_resized_crop_of_the_whole_is_a_resize() -> None:
    sample = discs((40, 40))
    step = RandomResizedCrop((20, 20), (1.0, 1.0), (1.0, 1.0))
    small = step(sample, rng())
    assert small.target.objects is not None
    assert sample.target.objects is not None
    torch.testing.assert_close(small.target.objects.boxes_xyxy, sample.target.objects.boxes_xyxy / 2)


def test_zoom_out_shows_the_picture_untouched_on_a_larger_canvas() -> None:
    sample = discs((10, 12), count=2)
    for seed in range(20):
        out = RandomZoomOut(1.0, (1.0, 3.0), fill=5.0)(sample, rng(seed))
        shown = out.target.label_map != 255
        assert int(shown.sum()) == 120
        assert torch.equal(out.image[:, shown].reshape(3, 10, 12), sample.image)
        assert 10 <= out.size_hw[0] <= 30
    assert RandomZoomOut(0.0)(sample, rng()) is sample


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(0.0, width) * max(0.0, height)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def part_of(whole: Sample, cut: Sample) -> list[float]:
    """Where a cut was made, read off pictures whose pixels are all different."""
    value = int(cut.image[0, 0, 0]) + 256 * int(cut.image[1, 0, 0])
    y, x = divmod(value, whole.size_hw[1])
    return [x, y, x + cut.size_hw[1], y + cut.size_hw[0]]


@pytest.mark.parametrize("min_iou", [0.1, 0.5, 0.7, 0.9])
def test_iou_crops_keep_their_promise(min_iou: float) -> None:
    numbers = torch.arange(60 * 80).view(60, 80)
    image = torch.stack([numbers % 256, numbers // 256, numbers * 0]).to(torch.uint8)
    boxes = torch.tensor([[5.0, 5, 60, 50], [30, 20, 75, 55], [0, 0, 10, 10]])
    sample = Sample(image, blank((60, 80), Objects(boxes, torch.arange(3))).target, "numbers", (60, 80))
    cuts = 0
    for seed in range(60):
        cut = RandomIoUCrop((min_iou,))(sample, rng(seed))
        assert cut.target.objects is not None
        assert len(cut.target.objects) >= 1
        if cut is sample:
            continue
        cuts += 1
        part = part_of(sample, cut)
        assert max(iou(part, box) for box in boxes.tolist()) >= min_iou
        assert 0.5 <= cut.size_hw[1] / cut.size_hw[0] <= 2
        assert cut.size_hw[0] >= 18
        assert cut.size_hw[1] >= 24
        inside = [
            n
            for n, (x1, y1, x2, y2) in enumerate(boxes.tolist())
            if part[0] <= (x1 + x2) / 2 < part[2] and part[1] <= (y1 + y2) / 2 < part[3]
        ]
        assert cut.target.objects.labels.tolist() == inside, "objects stay by their centres"
    assert cuts > 0


def test_iou_crops_leave_the_picture_whole_where_they_must() -> None:
    sample = discs()
    assert RandomIoUCrop((None,))(sample, rng()) is sample
    assert RandomIoUCrop((1.0,), (0.3, 0.5))(sample, rng()) is sample, "no part can be a disc's box"
    empty = discs(count=0)
    assert RandomIoUCrop((0.5,))(empty, rng()) is empty
    assert RandomIoUCrop((0.0,))(empty, rng(1)).size_hw != empty.size_hw
    bare = Sample(sample.image, type(sample.target)(), "bare", sample.size_hw)
    assert RandomIoUCrop((0.0,))(bare, rng(1)).size_hw != bare.size_hw


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("mirror", "symmetric")])
def test_pad_equals_numpy(mode: str, numpy_mode: str) -> None:
    sample = discs((7, 9), count=2)
    margins = (3, 1, 6, 4)
    padded = Pad(margins, mode)(sample, rng())
    widths = [(1, 4), (3, 6)]
    want = np.pad(sample.image.numpy(), [(0, 0), *widths], mode=numpy_mode)
    assert np.array_equal(padded.image.numpy(), want)
    for name in ("label_map", "weight_map", "depth"):
        before, after = getattr(sample.target, name), getattr(padded.target, name)
        assert np.array_equal(after.numpy(), np.pad(before.numpy(), widths, mode=numpy_mode)), name
    assert sample.target.normals is not None
    assert padded.target.normals is not None
    n, m = sample.target.normals, padded.target.normals
    assert torch.equal(m[:, 1:8, 3:12], n)
    edge = 1 if mode == "reflect" else 0
    assert m[0, 1, 2] == -n[0, 0, edge]
    assert m[1, 1, 2] == n[1, 0, edge]
    assert m[1, 0, 3] == -n[1, edge, 0]
    assert padded.target.objects is not None
    assert sample.target.objects is not None
    shift = torch.tensor([3.0, 1, 3, 1])
    torch.testing.assert_close(padded.target.objects.boxes_xyxy, sample.target.objects.boxes_xyxy + shift)
    assert padded.target.objects.masks is not None
    assert padded.target.objects.masks.sum() == sample.target.objects.masks.sum()


def test_pad_with_a_colour() -> None:
    sample = discs((7, 9), count=2)
    padded = Pad((1, 2, 3, 4), fill=8.0)(sample, rng())
    assert padded.size_hw == (13, 13)
    assert torch.equal(padded.image[:, 2:9, 1:10], sample.image)
    assert (padded.image[:, :2] == 8).all()
    assert (padded.target.label_map[:, 10:] == 255).all()


def test_pad_says_how_large_a_picture_must_be() -> None:
    with pytest.raises(RecordError, match=r"picture of \(6, 8\), wanted at least \(2, 9\)"):
        Pad((8, 1, 0, 0), "reflect")(blank(), rng())
    assert Pad((8, 6, 0, 0), "mirror")(blank(), rng()).size_hw == (12, 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CenterCrop((0, 1)),
        lambda: RandomCrop((4, 4), pad=-1),
        lambda: RandomResizedCrop((4, 4), (0.5, 1.5)),
        lambda: RandomResizedCrop((4, 4), (0.0, 0.0)),
        lambda: RandomResizedCrop((4, 4), aspect=(2.0, 1.0)),
        lambda: RandomZoomOut(ratio=(0.5, 2.0)),
        lambda: RandomIoUCrop(()),
        lambda: RandomIoUCrop(side=(0.3, 1.2)),
        lambda: Pad((1, -1, 0, 0)),
    ],
)
def test_impossible_arguments_are_refused(make: type[Transform]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        make()
