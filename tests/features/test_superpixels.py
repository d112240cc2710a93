"""Segments against scikit-image's and against a twin in plain Python, and what the paper promises of them."""

import numpy as np
import pytest
import torch
from skimage.segmentation import felzenszwalb

from bestiary.errors import RecordError, UsageError
from bestiary.features.superpixels import felzenszwalb_segments, grow, pixel_graph


def smooth(seed: int, channels: int = 3, height: int = 40, width: int = 50) -> torch.Tensor:
    noise = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 255


def same_partition(one: np.ndarray, two: np.ndarray) -> bool:
    pairs = len(np.unique(one.astype(np.int64) * (int(two.max()) + 1) + two))
    return pairs == len(np.unique(one)) == len(np.unique(two))


def naive_segments(pixels: torch.Tensor, k: float, min_size: int) -> np.ndarray:
    values = pixels.permute(1, 2, 0).numpy()
    height, width = values.shape[:2]
    edges = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and x + dx < width:
                    squares = np.float32(0)
                    for c in range(values.shape[2]):
                        squares += (values[y, x, c] - values[y + dy, x + dx, c]) ** 2
                    edges.append((np.sqrt(squares), y * width + x, (y + dy) * width + x + dx))
    edges.sort(key=lambda e: e[0])  # stable
    owner, members = list(range(height * width)), {p: [p] for p in range(height * width)}
    inside = dict.fromkeys(range(height * width), np.float32(0))

    def join(a: int, b: int, weight: np.float32) -> None:
        for p in members[b]:
            owner[p] = a
        members[a] += members.pop(b)
        inside[a] = weight

    for weight, p, q in edges:
        a, b = owner[p], owner[q]
        if a != b and weight <= min(inside[s] + np.float32(k) / np.float32(len(members[s])) for s in (a, b)):
            join(a, b, weight)
    for weight, p, q in edges:
        a, b = owner[p], owner[q]
        if a != b and min(len(members[a]), len(members[b])) < min_size:
            join(a, b, weight)
    return np.array(owner).reshape(height, width)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("k", "sigma", "min_size"), [(100, 0.8, 20), (30, 0.5, 5), (10, 0, 0), (300, 3.0, 1)])
def test_the_partition_is_that_of_scikit_image(seed: int, k: float, sigma: float, min_size: int) -> None:
    pixels = smooth(seed)
    theirs = felzenszwalb(
        pixels.permute(1, 2, 0).double().numpy() / 255, scale=k, sigma=sigma, min_size=min_size, channel_axis=-1
    )
    assert len(np.unique(theirs)) > 1
    assert same_partition(felzenszwalb_segments(pixels, k, sigma, min_size).numpy(), theirs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("k", "min_size"), [(8.0, 1), (20.0, 6)])
def test_equal_weights_are_taken_in_the_order_that_is_promised(channels: int, k: float, min_size: int) -> None:
    levels = torch.randint(0, 4, (channels, 14, 17), generator=torch.Generator().manual_seed(5)).float() * 3
    ours = felzenszwalb_segments(levels, k, 0, min_size).numpy()
    assert same_partition(ours, naive_segments(levels, k, min_size))


def test_segments_are_numbered_in_reading_order() -> None:
    labels = felzenszwalb_segments(smooth(1), 30).flatten().tolist()
    assert list(dict.fromkeys(labels)) == list(range(max(labels) + 1))


def test_no_segment_is_smaller_than_asked_for_unless_it_is_all() -> None:
    labels = felzenszwalb_segments(smooth(2), 5, 0.5, 30)
    assert torch.bincount(labels.flatten()).min() >= 30
    assert felzenszwalb_segments(smooth(2), 5, 0.5, 10**6).max() == 0


def test_a_flat_picture_is_one_segment_and_two_halves_are_two() -> None:
    halves = torch.zeros(1, 20, 30)
    assert felzenszwalb_segments(halves).max() == 0
    halves[:, :, 15:] = 200
    labels = felzenszwalb_segments(halves, k=100, sigma=0)
    assert (labels[:, :15] == 0).all()
    assert (labels[:, 15:] == 1).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_pictures_of_a_pixel_or_a_line(height: int, width: int) -> None:
    assert felzenszwalb_segments(torch.zeros(3, height, width), sigma=2.0).shape == (height, width)


def test_edges_stand_by_weight_and_each_pair_once() -> None:
    values = smooth(3).permute(1, 2, 0).contiguous().numpy()
    graph = pixel_graph(values, 0)
    first, direction = graph.codes // 4, graph.codes % 4
    second = first.astype(np.int64) + np.array([1, 50, 51, -49])[direction]
    assert len(graph.codes) == 40 * 49 + 39 * 50 + 2 * 39 * 49
    assert len({frozenset(p) for p in zip(first.tolist(), second.tolist(), strict=True)}) == len(graph.codes)
    assert (np.diff(graph.weights) >= 0).all()
    flat = values.reshape(-1, 3)
    np.testing.assert_allclose(graph.weights, np.linalg.norm(flat[first] - flat[second], axis=1), rtol=1e-5)


def test_larger_k_means_fewer_segments_of_the_same_graph() -> None:
    graph = pixel_graph(smooth(4).permute(1, 2, 0).contiguous().numpy())
    counts = [grow(graph, k, 1)[1] for k in (5, 50, 500)]
    assert counts[0] > counts[1] > counts[2]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UsageError, match="none below 0"):
        felzenszwalb_segments(smooth(0), k=-1)
    with pytest.raises(RecordError, match="not empty"):
        felzenszwalb_segments(torch.zeros(3, 0, 4))
