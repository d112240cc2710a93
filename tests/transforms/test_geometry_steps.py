import numpy as np
import pytest
import torch
from transform_scenes import discs

from bestiary.errors import UsageError
from bestiary.transforms import (
    RandomAffine,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomVerticalFlip,
    Transform,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_flips_happen_as_often_as_they_should(flip: type[RandomHorizontalFlip]) -> None:
    generator = rng()
    done = sum(not flip(0.3).plan((4, 5), generator).is_identity for _ in range(3000))
    assert abs(done - 900) < 100  # 4 standard deviations
    assert all(flip(0.0).plan((4, 5), generator).is_identity for _ in range(50))
    assert not any(flip(1.0).plan((4, 5), generator).is_identity for _ in range(50))


def test_quarter_turns_are_drawn_from_those_allowed() -> None:
    sizes = {RandomQuarterTurn((1, 3)).plan((4, 6), rng(seed)).size_hw for seed in range(20)}
    assert sizes == {(6, 4)}
    four = {tuple(RandomQuarterTurn().plan((4, 6), rng(seed)).matrix.flatten()) for seed in range(60)}
    assert len(four) == 4


def test_affine_turns_counter_clockwise_about_the_centre() -> None:
    centre = np.array([[30.0, 20.0]])
    for seed in range(20):
        warp = RandomAffine(90.0).plan((40, 60), rng(seed))
        np.testing.assert_allclose(warp.points(centre), centre, atol=1e-9)
        right = warp.points(centre + np.array([10, 0])) - centre
        angle = np.deg2rad(rng(seed).uniform(-90, 90))
        np.testing.assert_allclose(right[0], [10 * np.cos(angle), -10 * np.sin(angle)], atol=1e-9)


def test_affine_draws_within_its_ranges() -> None:
    generator, zooms, shifts = rng(), [], []
    step = RandomAffine(translate=0.25, scale=(0.5, 2.0))
    for _ in range(500):
        warp = step.plan((40, 60), generator)
        zooms.append(np.log(warp.matrix[0, 0]))
        shifts.append(warp.points(np.array([[30.0, 20.0]]))[0] - [30, 20])
    assert -np.log(2) <= min(zooms) < -0.6
    assert 0.6 < max(zooms) <= np.log(2)
    assert abs(np.mean(zooms)) < 0.08
    assert (np.abs(shifts).max(0) <= [15, 10]).all()
    assert (np.abs(shifts).max(0) > [14, 9]).all()
    sheared = [RandomAffine(shear=30.0).plan((40, 60), generator).matrix for _ in range(50)]
    assert all(m[0, 0] == m[1, 1] == 1 and m[1, 0] == 0 for m in sheared)
    assert max(abs(m[0, 1]) for m in sheared) <= np.tan(np.deg2rad(30))


def test_affine_with_nothing_to_do_does_nothing() -> None:
    sample = discs()
    assert torch.equal(RandomAffine()(sample, rng()).image, sample.image)


def test_a_half_turn_is_both_mirrors() -> None:
    sample = discs()
    half = RandomQuarterTurn((2,))(sample, rng())
    both = RandomVerticalFlip(1.0)(RandomHorizontalFlip(1.0)(sample, rng()), rng())
    assert torch.equal(half.image, both.image)
    a, b = half.target.objects, both.target.objects
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a.boxes_xyxy, b.boxes_xyxy)
    torch.testing.assert_close(a.boxes_3d, b.boxes_3d)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomHorizontalFlip(1.5),
        lambda: RandomVerticalFlip(-0.1),
        lambda: RandomQuarterTurn(()),
        lambda: RandomAffine(-5.0),
        lambda: RandomAffine(shear=90.0),
        lambda: RandomAffine(scale=(0.0, 1.0)),
        lambda: RandomAffine(translate=-1.0),
    ],
)
def test_impossible_arguments_are_refused(make: type[Transform]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        make()
