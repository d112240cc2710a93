"""Maps, their composition and what they do to pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transform_scenes import blank, discs, same

from bestiary.records import Sample
from bestiary.transforms import (
    CenterCrop,
    Compose,
    Letterbox,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomResizedCrop,
    RandomVerticalFlip,
    RandomZoomOut,
    Resize,
    ScaleJitter,
)
from bestiary.transforms.moving import Motion, move
from bestiary.transforms.transform import Geometric
from bestiary.transforms.warp import Warp, fill_values


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mirror(size_hw: tuple[int, int]) -> Warp:
    return RandomHorizontalFlip(1.0).plan(size_hw, rng())


def test_a_warp_is_a_motion() -> None:
    assert isinstance(Warp.identity((3, 4)), Motion)


def test_points_and_boxes_by_hand() -> None:
    warp = Warp.resize((10, 20), (20, 60))
    assert warp.points(np.array([[1.0, 2.0]])).tolist() == [[3, 4]]
    assert warp.boxes(np.array([[1.0, 2, 3, 4]])).tolist() == [[3, 4, 9, 8]]
    assert mirror((10, 20)).boxes(np.array([[1.0, 2, 3, 4]])).tolist() == [[17, 2, 19, 4]]
    assert warp.area_scale == pytest.approx(6)
    np.testing.assert_allclose(warp.inverse @ [3, 4, 1], [1, 2])


def test_the_identity_changes_nothing_and_copies_nothing() -> None:
    sample = discs()
    assert move(sample, Warp.identity(sample.size_hw)) is sample
    assert move(sample, Warp.resize(sample.size_hw, sample.size_hw)) is sample
    assert CenterCrop((48, 64))(sample, rng()) is sample


def integer_step(kind: int, a: int, b: int) -> Geometric:
    steps: list[Geometric] = [
        RandomHorizontalFlip(1.0),
        RandomVerticalFlip(1.0),
        RandomQuarterTurn((a % 4,)),
        CenterCrop((3 + a, 3 + b)),
        RandomCrop((4 + b, 2 + a), pad=a % 3),
        RandomZoomOut(1.0, (1.0, 1.5)),
    ]
    return steps[kind]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 6)), max_size=5), st.integers(0, 1 << 30)
)
def test_one_map_shows_bit_for_bit_what_its_steps_show(chain: list[tuple[int, int, int]], seed: int) -> None:
    sample = discs((9, 12), count=2)
    steps = tuple(integer_step(*step) for step in chain)
    together = Compose(steps)(sample, rng(seed))
    one_by_one, generator = sample, rng(seed)
    for step in steps:
        one_by_one = step(one_by_one, generator)
    assert torch.equal(together.image, one_by_one.image)
    for name in ("label_map", "weight_map", "depth", "normals"):
        assert torch.equal(getattr(together.target, name), getattr(one_by_one.target, name)), name
    a, b = together.target.camera, one_by_one.target.camera
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a.intrinsics, b.intrinsics)
    torch.testing.assert_close(a.pose, b.pose)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30))
def test_composed_maps_move_points_as_their_steps(seed: int) -> None:
    generator = rng(seed)
    steps: list[Geometric] = [
        Resize((30, 50)),
        RandomAffine(30.0, 0.2, (0.5, 2.0), 10.0),
        ScaleJitter((0.3, 2.0), (40, 40)),
        RandomResizedCrop((24, 24)),
        RandomHorizontalFlip(),
        RandomQuarterTurn(),
        Letterbox((33, 44)),
    ]
    warp, points = Warp.identity((48, 64)), generator.uniform(0, 40, (5, 2))
    moved = points
    for k in generator.permutation(len(steps)):
        step = steps[k].plan(warp.size_hw, generator)
        moved = step.points(moved)
        joined = warp.then(step)
        if joined is None:
            return
        warp = joined
        np.testing.assert_allclose(warp.points(points), moved, atol=1e-9)
        assert warp.size_hw == step.size_hw


def test_maps_are_not_joined_where_that_would_bring_back_what_was_cut() -> None:
    cut = CenterCrop((4, 4), fill=0.0).plan((8, 8), rng())
    grow = CenterCrop((8, 8), fill=0.0).plan((4, 4), rng())
    joined = cut.then(grow)
    assert joined is not None
    assert joined.window_xyxy == (2, 2, 6, 6), "joined, but the cut is remembered"
    zoomed = ScaleJitter((1.7, 1.7), (8, 8), fill=0.0).plan((8, 8), rng(3))
    assert zoomed.then(CenterCrop((12, 12), fill=0.0).plan((8, 8), rng())) is None
    turned = RandomAffine(30.0, fill=0.0).plan((8, 8), rng())
    assert turned.then(CenterCrop((12, 12), fill=0.0).plan((8, 8), rng())) is None
    assert turned.then(CenterCrop((4, 4), fill=0.0).plan((8, 8), rng())) is not None


def test_maps_of_different_fill_are_not_joined() -> None:
    black, white = (CenterCrop((n, n), fill=f).plan((m, m), rng()) for n, m, f in ((6, 4, 0.0), (8, 6, 255.0)))
    assert black.then(white) is None
    assert black.then(mirror((6, 6))) is not None
    assert mirror((4, 4)).then(black) is not None


def naive_nearest(source: Tensor, warp: Warp, fill: float) -> Tensor:
    """In exact arithmetic, pixel by pixel."""
    out = torch.full(warp.size_hw, fill)
    (a, b, c), (d, e, f) = [[Fraction(float(v)).limit_denominator(10**9) for v in row] for row in warp.matrix]
    det = a * e - b * d
    left, top, right, bottom = warp.window_xyxy
    for y in range(warp.size_hw[0]):
        for x in range(warp.size_hw[1]):
            u, v = x + Fraction(1, 2) - c, y + Fraction(1, 2) - f
            column, row = (e * u - b * v) / det // 1, (a * v - d * u) / det // 1
            if left <= column < right and top <= row < bottom:
                out[y, x] = source[row, column]
    return out


@pytest.mark.parametrize(
    "step",
    [
        Resize((5, 7)),
        Resize((13, 4)),
        Resize((12, 16)),
        Resize((3, 4)),
        RandomResizedCrop((5, 5)),
        Letterbox((9, 9)),
        ScaleJitter((0.4, 2.0), (7, 7)),
        RandomQuarterTurn((1,)),
        RandomQuarterTurn((3,)),
        RandomAffine(40.0, 0.1, (0.7, 1.4), 20.0),
    ],
    ids=repr,
)
def test_nearest_equals_the_naive_twin(step: Geometric) -> None:
    source = torch.rand(6, 8)
    for seed in range(4):
        warp = step.plan((6, 8), rng(seed))
        assert torch.equal(warp.nearest(source, -1.0), naive_nearest(source, warp, -1.0))


def test_nearest_resize_equals_torch_nearest_exact() -> None:
    source = torch.rand(1, 1, 17, 23)
    for size in ((5, 9), (34, 46), (40, 31), (17, 23)):
        want = F.interpolate(source, size=size, mode="nearest-exact")[0, 0]
        assert torch.equal(Warp.resize((17, 23), size).nearest(source[0, 0], 0.0), want)


@pytest.mark.parametrize("flip", [RandomHorizontalFlip(1.0), RandomVerticalFlip(1.0)])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_mirrored_twice_is_bit_exact(flip: Geometric, channels: int, dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (channels, 7, 5)).to(dtype)
    warp = flip.plan((7, 5), rng())
    once = warp.image(image)
    assert torch.equal(once, image.flip(2 if isinstance(flip, RandomHorizontalFlip) else 1))
    assert torch.equal(warp.image(once), image)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_quarter_turns_are_exact(turns: int) -> None:
    sample = discs()
    turned = RandomQuarterTurn((turns,))(sample, rng())
    assert torch.equal(turned.image, torch.rot90(sample.image, turns, (1, 2)))
    assert sample.target.label_map is not None
    assert turned.target.label_map is not None
    assert torch.equal(turned.target.label_map, torch.rot90(sample.target.label_map, turns, (0, 1)))


@pytest.mark.parametrize("size_hw", [(20, 30), (33, 24), (60, 90), (15, 23), (31, 90)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resize_equals_torch_and_opencv(size_hw: tuple[int, int], dtype: torch.dtype) -> None:
    image = (torch.rand(3, 30, 45) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    got = Warp.resize((30, 45), size_hw).image(image)
    want = F.interpolate(image.float()[None], size=size_hw, mode="bilinear", align_corners=False)[0]
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=1.0 if dtype == torch.uint8 else 1e-5, rtol=0)
    opencv = cv2.resize(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), size_hw[::-1])
    assert np.array_equal(got.permute(1, 2, 0).numpy(), opencv)


def test_strong_shrinking_averages() -> None:
    image = torch.zeros(1, 64, 64)
    image[:, ::4] = 1.0  # bilinear sampling at an eighth would see all of the lines or none
    torch.testing.assert_close(Warp.resize((64, 64), (8, 8)).image(image), torch.full((1, 8, 8), 0.25))
    turned = RandomAffine(degrees=45.0, scale=(0.125, 0.125)).plan((64, 64), rng(1))
    assert turned.image(image)[0, 30:34, 30:34].sub(0.25).abs().max() < 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([1, 3, 5]))
def test_interpolated_pixels_are_where_points_go(seed: int, channels: int) -> None:
    """A picture whose values are its own coordinates reads, at each new pixel's centre, the old coordinates."""
    generator = rng(seed)
    height, width = 40, 50
    ys, xs = np.mgrid[:height, :width] + 0.5
    planes = [xs / 64, ys / 64, (xs + ys) / 128, xs / 128, ys / 128][:channels]
    image = torch.from_numpy(np.stack(planes).astype(np.float32))
    warp = RandomAffine(180.0, 0.1, (0.6, 1.6), 15.0).plan((height, width), generator)
    got = warp.image(image).numpy()
    new_y, new_x = np.mgrid[:height, :width] + 0.5
    old = np.einsum("ij,jhw->ihw", warp.inverse, np.stack([new_x, new_y, np.ones_like(new_x)]))
    inside = (old[0] > 1) & (old[0] < width - 1) & (old[1] > 1) & (old[1] < height - 1)
    assert inside.sum() > 100
    # Opencv 4 rounds source positions to 1/32 pixel, 5 does not
    np.testing.assert_allclose(got[0][inside], old[0][inside] / 64, atol=1 / 32 / 64 + 1e-5)
    if channels > 1:
        np.testing.assert_allclose(got[1][inside], old[1][inside] / 64, atol=1 / 32 / 64 + 1e-5)
    if channels > 4:
        np.testing.assert_allclose(got[4][inside], old[1][inside] / 128, atol=1 / 32 / 128 + 1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize(
    "step",
    [Letterbox((20, 20), 9.0), RandomZoomOut(1.0, (2.0, 2.0), 9.0), RandomAffine(45.0, scale=(0.6, 0.6), fill=9.0)],
)
def test_outside_is_the_fill(step: Geometric, channels: int) -> None:
    sample = blank((10, 16), channels=channels)
    warp = step.plan(sample.size_hw, rng(1))
    got = warp.image(torch.full_like(sample.image, 200))
    covered = warp.nearest(torch.ones(10, 16), 0.0) > 0
    grown = F.max_pool2d(covered[None].float(), 3, 1, 1)[0] > 0
    assert (~grown).any()
    assert (got[:, ~grown] == 9).all()
    shrunk = F.max_pool2d(1 - covered[None].float(), 3, 1, 1)[0] == 0
    assert (got[:, shrunk] == 200).all()


def test_fill_colours() -> None:
    assert fill_values((10.0, 20.0, 30.0), 3, torch.uint8) == (10, 20, 30)
    assert fill_values((10.0, 20.0, 30.0), 1, torch.uint8) == (20,)
    assert fill_values((10.0, 20.0, 30.0), 5, torch.uint8) == (20,) * 5
    assert fill_values(51.0, 2, torch.float32) == (0.2, 0.2)
    assert fill_values(None, 3, torch.uint8) == (124, 116, 104)


def test_a_window_is_respected_by_pictures_and_maps_alike() -> None:
    sample = discs((20, 20))
    warp = Warp(np.array([[1.5, 0, 0], [0, 1.5, 0]]), (20, 20), (30, 30), (4, 6, 10, 12), fill=7.0)
    image, ones = warp.image(torch.full_like(sample.image, 200)), warp.nearest(torch.ones(20, 20), 0.0)
    assert ones.nonzero().min(0).values.tolist() == [9, 6]
    assert ones.nonzero().max(0).values.tolist() == [17, 14]
    assert (image[0] == 200).equal(ones == 1)
    assert (image[0] == 7).equal(ones == 0)


def test_an_empty_window_gives_nothing_but_fill() -> None:
    warp = Warp.cut((6, 8), (20, 20), (4, 4), fill=5.0)
    assert (warp.image(blank().image) == 5).all()
    assert (warp.nearest(torch.ones(6, 8), 0.0) == 0).all()
    moved = move(discs((6, 8)), warp)
    assert moved.target.objects is not None
    assert len(moved.target.objects) == 0


def test_far_stretched_pictures_take_the_other_path_to_the_same_pixels() -> None:
    sample = blank((300, 400))
    jitter = ScaleJitter((6.0, 6.0), (200, 200))
    warp = jitter.plan(sample.size_hw, rng(2))
    big = Warp.resize(
        sample.size_hw, tuple(round(s * f) for s, f in zip((300, 400), np.diag(warp.matrix)[::-1], strict=True))
    )
    x, y = (-warp.matrix[:, 2]).astype(int)
    want = big.image(sample.image)[:, y : y + 200, x : x + 200]
    assert (warp.image(sample.image).int() - want.int()).abs().float().mean() < 1.5


def test_pictures_come_out_in_the_memory_order_of_pixels() -> None:
    for step in (Resize((12, 9)), RandomHorizontalFlip(1.0), RandomAffine(20.0), Letterbox((30, 30))):
        for image in (blank().image, blank().image.contiguous()):
            assert step.plan((6, 8), rng()).image(image).permute(1, 2, 0).is_contiguous()


@dataclass(frozen=True)
class Halve:
    """A step that is not geometric."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return Sample(sample.image // 2, sample.target, sample.name, sample.original_size_hw)


def test_compose_keeps_the_order_around_other_steps() -> None:
    sample = blank()
    steps = (RandomHorizontalFlip(1.0), Halve(), RandomVerticalFlip(1.0))
    assert torch.equal(Compose(steps)(sample, rng()).image, (sample.image // 2).flip(1, 2))
    assert same(Compose(())(sample, rng()), sample)
    assert repr(Compose(steps)) == "RandomHorizontalFlip(p=1.0) | Halve() | RandomVerticalFlip(p=1.0)"


def test_transforms_leave_what_they_are_given_alone() -> None:
    sample, before = discs(), discs()
    chain: tuple[Callable[[Sample, np.random.Generator], Sample], ...] = (
        RandomCrop((30, 30)),
        RandomAffine(10.0),
        RandomQuarterTurn(),
    )
    for step in chain:
        step(sample, rng())
    assert same(sample, before)
