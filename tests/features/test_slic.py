"""SLIC against a twin in plain Python, against scikit-image's quality, and what it promises."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.segmentation import slic

from bestiary.errors import RecordError, UsageError
from bestiary.features.slic import _colours, _grid, slic_segments


def blobs(seed: int = 0, height: int = 60, width: int = 80, channels: int = 3) -> torch.Tensor:
    noise = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise[None], 9, 1, 4)[0]
    low, high = smooth.amin(), smooth.amax()
    return ((smooth - low) / (high - low) * 255).to(torch.uint8)


def naive_labels(image: torch.Tensor, count: int, compactness: float, rounds: int) -> np.ndarray:
    pixels = _colours(image)
    height, width = pixels.shape[:2]
    step = (height * width / count) ** 0.5
    centres, labels = _grid(pixels, step)
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    for _ in range(rounds):
        distances = np.full((len(centres), height, width), np.inf)
        for s, centre in enumerate(centres.astype(np.float64)):
            squared = ((pixels - centre[2:]) ** 2).sum(2)
            squared = squared + (compactness / step) ** 2 * ((ys - centre[0]) ** 2 + (xs - centre[1]) ** 2)
            near = (abs(ys - centre[0]) <= step) & (abs(xs - centre[1]) <= step)
            distances[s][near] = squared[near]
        reached = np.isfinite(distances.min(0))
        labels = np.where(reached, distances.argmin(0), labels)
        for s in np.unique(labels):
            mine = labels == s
            centres[s] = [ys[mine].mean(), xs[mine].mean(), *pixels[mine].mean(0)]
    return labels


@pytest.mark.parametrize(("count", "compactness", "rounds"), [(40, 10.0, 1), (40, 10.0, 4), (25, 30.0, 3)])
def test_clusters_are_those_of_plain_python(count: int, compactness: float, rounds: int) -> None:
    image = blobs()
    ours = slic_segments(image, count, compactness, rounds).numpy()
    plain = naive_labels(image, count, compactness, rounds)
    # parts large enough to stand alone must coincide; small ones join a neighbour
    parts = np.zeros_like(ours)
    for label in np.unique(plain):
        found, number = ndimage.label(plain == label)
        for part in range(1, number + 1):
            mine = found == part
            if mine.sum() >= 60 * 80 / count / 4:
                inside = ours[mine]
                agreed = (inside == np.bincount(inside).argmax()).mean()
                assert agreed > 0.999, (label, part, agreed)
                parts[mine] = 1
    assert parts.mean() > 0.9


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_superpixels_are_connected_and_numbered_in_reading_order(channels: int) -> None:
    labels = slic_segments(blobs(1, channels=channels), 50, 5.0).numpy()
    order = list(dict.fromkeys(labels.flatten().tolist()))
    assert order == list(range(labels.max() + 1))
    assert all(ndimage.label(labels == s)[1] == 1 for s in order)
    assert 35 <= len(order) <= 70
    assert min(np.bincount(labels.flatten())) >= 60 * 80 // 50 // 4 - 1


def test_borders_follow_edges_as_well_as_scikit_images() -> None:
    truth = np.zeros((96, 96), int)
    ys, xs = np.mgrid[:96, :96]
    truth[(ys - 40) ** 2 + (xs - 50) ** 2 < 30**2] = 1
    truth[ys + xs > 150] = 2
    rng = np.random.default_rng(0)
    colours = np.array([[200, 40, 60], [60, 160, 60], [90, 90, 210]])
    image = np.clip(colours[truth] + rng.normal(0, 12, (96, 96, 3)), 0, 255).astype(np.uint8)
    theirs = slic(image, n_segments=80, compactness=10, start_label=0)
    ours = slic_segments(torch.from_numpy(image).permute(2, 0, 1), 80).numpy()

    def reachable(labels: np.ndarray) -> float:
        """Share of the pixels that are right if every superpixel takes its most frequent label."""
        return sum(np.bincount(truth[labels == s]).max() for s in np.unique(labels)) / truth.size

    assert reachable(ours) >= min(reachable(theirs), 0.995) - 0.002
    assert len(np.unique(ours)) <= 88, "not by being smaller"


def test_a_flat_picture_is_cut_into_equal_squares() -> None:
    labels = slic_segments(torch.full((3, 64, 64), 90, dtype=torch.uint8), 16)
    assert sorted(labels.flatten().bincount().tolist())[0] >= 150
    assert int(labels.max()) == 15


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (3, 4)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    labels = slic_segments(blobs(0, *size), 500)
    assert labels.shape == size
    assert int(labels.min()) == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecordError, match="not empty"):
        slic_segments(torch.zeros(3, 0, 4, dtype=torch.uint8))
    for wrong in ({"count": 0}, {"rounds": 0}, {"compactness": 0.0}):
        with pytest.raises(UsageError, match="wanted at least 1"):
            slic_segments(blobs(), **wrong)  # type: ignore[arg-type]
