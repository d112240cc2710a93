"""Pictures recognised by points that lie as in training pictures; the contract of all fitted systems is elsewhere."""

import cv2
import numpy as np
import pytest
import torch

from bestiary.classification.sift_fit import SiftFit, sift_fit
from bestiary.errors import UsageError
from bestiary.records import Sample, Target

CATEGORIES = ("one", "two", "three")


def scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    canvas = np.full((120, 140, 3), 128, np.uint8)
    for _ in range(60):
        centre = (int(rng.integers(140)), int(rng.integers(120)))
        axes = (int(rng.integers(3, 14)), int(rng.integers(3, 14)))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(canvas, (0, 0), 0.8)


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def sample(seed: int, label: int) -> Sample:
    return Sample(tensor(scene(seed)), Target(label=label), f"{seed}.png", (120, 140))


@pytest.fixture(scope="module")
def fitted() -> SiftFit:
    system = sift_fit(CATEGORIES, points=80)
    system.fit([sample(seed, seed % 3) for seed in range(6)])
    return system.eval()


def turned(seed: int, degrees: float, zoom: float) -> torch.Tensor:
    matrix = cv2.getRotationMatrix2D((70, 60), degrees, zoom)
    return tensor(cv2.warpAffine(scene(seed), matrix, (140, 120), borderValue=(128, 128, 128)))


@pytest.mark.parametrize("seed", range(6))
def test_known_scenes_are_recognised_turned_scaled_and_darkened(fitted: SiftFit, seed: int) -> None:
    picture = (0.6 * turned(seed, 35 + 40 * seed, 0.8 + 0.1 * seed)).to(torch.uint8)
    probs = fitted.probs_of([picture])[0]
    assert probs.argmax() == seed % 3
    assert probs[seed % 3] > 0.8


def test_inliers_are_the_scene_s_own_points(fitted: SiftFit) -> None:
    points, descriptors, _ = fitted.points_of(turned(2, 60, 1.2))
    from bestiary.features.matching import nearest

    rows = nearest(descriptors, fitted.descriptors, 5)[1]
    mine, theirs = fitted.inliers_of(points, rows, 2)
    assert len(mine) > 15
    assert len(mine.unique()) == len(mine)
    assert (fitted.owner[theirs] == 2).all()
    assert len(fitted.inliers_of(points, rows, 3)[0]) < len(mine) / 4


def scrambled(picture: torch.Tensor) -> torch.Tensor:
    """The same patches of 40 x 35 pixels at other places and turned, so that no map explains them."""
    patches = [
        picture[:, y : y + 40, x : x + 35].flip(1).flip(2) if (x + y) % 3 else picture[:, y : y + 40, x : x + 35]
        for y in range(0, 120, 40)
        for x in range(0, 140, 35)
    ]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3)).tolist()
    rows = [torch.cat([patches[i] for i in order[k : k + 4]], dim=2) for k in (0, 4, 8)]
    return torch.cat(rows, dim=1)


def test_geometry_tells_the_scene_from_its_scrambled_patches(fitted: SiftFit) -> None:
    from bestiary.features.matching import nearest

    picture = tensor(scene(4))
    counts = []
    for seen in (picture, scrambled(picture)):
        points, descriptors, _ = fitted.points_of(seen)
        rows = nearest(descriptors, fitted.descriptors, 5)[1]
        counts.append(len(fitted.inliers_of(points, rows, 4)[0]))
    assert counts[1] < counts[0] / 2


def test_what_is_learned_is_bounded(fitted: SiftFit) -> None:
    small = sift_fit(CATEGORIES, points=10, pictures=1)
    small.fit([sample(seed, seed % 3) for seed in range(6)], seed=1)
    assert len(small.labels) == 3
    assert sorted(small.labels.tolist()) == [0, 1, 2]
    assert len(small.descriptors) == 30
    assert small.descriptors.dtype == torch.uint8
    again = sift_fit(CATEGORIES, points=10, pictures=1)
    again.fit([sample(seed, seed % 3) for seed in range(6)], seed=1)
    assert torch.equal(small.descriptors, again.descriptors)
    assert len(fitted.labels) == 6


def test_pictures_without_points_are_undecided(fitted: SiftFit) -> None:
    flat = torch.full((3, 50, 60), 90, dtype=torch.uint8)
    both = fitted.probs_of([flat, tensor(scene(1))])
    assert torch.allclose(both[0], torch.full((3,), 1 / 3))
    assert both[1].argmax() == 1
    with pytest.raises(UsageError, match="no point"):
        sift_fit(CATEGORIES).fit([Sample(flat, Target(label=0), "flat", (50, 60))])


def test_small_pictures_are_enlarged(fitted: SiftFit) -> None:
    small = torch.nn.functional.interpolate(tensor(scene(0))[None].float(), (32, 32), mode="area")[0].to(torch.uint8)
    points, _, side = fitted.points_of(small)
    assert side == 128
    assert len(points) > 5


@pytest.mark.parametrize(
    "wrong",
    [{"shortest": 8}, {"shortest": 500}, {"points": 0}, {"neighbours": 0}, {"tolerance": 0.0}, {"contrast": -1.0}],
    ids=str,
)
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        sift_fit(CATEGORIES, **wrong)  # type: ignore[arg-type]
