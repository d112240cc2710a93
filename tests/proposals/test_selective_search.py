"""Groupings against a twin that reads everything anew from the pixels, and what comes out as proposals."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.proposals.proposal_scenes import recall, scene

from bestiary.data.dataset import Dataset
from bestiary.data.opening import open_index
from bestiary.errors import RecordError, UsageError
from bestiary.features.superpixels import grow, pixel_graph
from bestiary.proposals.colour_spaces import COLOUR_SPACES, in_colour_space
from bestiary.proposals.selective_search import (
    Hierarchy,
    SelectiveSearch,
    SelectiveSearchFast,
    SelectiveSearchQuality,
)


def pixels_of(seed: int, height: int = 60, width: int = 70) -> np.ndarray:
    return scene(seed, (height, width), 1).image.permute(1, 2, 0).contiguous().numpy()


def slopes_of(values: np.ndarray) -> np.ndarray:
    """Cell of the slope [H, W, C, 8] in eight directions, in tenths of the channel's steepest."""
    reach = np.arange(-4.0, 5)
    bell = np.exp(-(reach**2) / 2) / np.exp(-(reach**2) / 2).sum()
    padded = np.pad(values.astype(np.float64), ((4, 4), (4, 4), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), (0, 1))
    gx = np.einsum("hwcij,i,j->hwc", around, bell, reach * bell)
    gy = np.einsum("hwcij,i,j->hwc", around, reach * bell, bell)
    angles = np.arange(8) * np.pi / 4
    along = gx[..., None] * np.cos(angles) + gy[..., None] * np.sin(angles)
    return np.floor(along.clip(0) * 9.999 / along.max((0, 1, 3))[:, None]).astype(int)


class NaiveGrouping:
    """The paper's algorithm with regions as masks: histograms, sizes and boxes from the pixels each time."""

    def __init__(self, values: np.ndarray, labels: np.ndarray, letters: str) -> None:
        self.letters, self.area = letters, labels.size
        self.colours, self.slopes = np.minimum(values * 25 / 256, 24).astype(int), slopes_of(values)
        self.masks = [labels == i for i in range(labels.max() + 1)]
        self.children: list[tuple[int, int]] = [(-1, -1)] * len(self.masks)
        alive = set(range(len(self.masks)))
        while len(alive) > 1:
            pairs = [(a, b) for a in alive for b in alive if a < b and self.touch(a, b)]
            a, b = max(pairs, key=lambda pair: self.likeness(*pair))
            self.masks.append(self.masks[a] | self.masks[b])
            self.children.append((a, b))
            alive = (alive - {a, b}) | {len(self.masks) - 1}

    def touch(self, a: int, b: int) -> bool:
        grown = cv2.dilate(self.masks[a].astype(np.uint8), np.ones((3, 3), np.uint8))
        return bool((grown.astype(bool) & self.masks[b]).any())

    def histograms(self, region: int) -> tuple[np.ndarray, np.ndarray]:
        mask = self.masks[region]
        colour = [np.bincount(c, minlength=25) for c in self.colours[mask].T]
        texture = [np.bincount(s, minlength=10) for s in self.slopes[mask].reshape(mask.sum(), -1).T]
        return np.concatenate(colour) / np.sum(colour), np.concatenate(texture) / np.sum(texture)

    def box(self, *regions: int) -> tuple[int, int, int, int]:
        y, x = np.nonzero(np.any([self.masks[r] for r in regions], 0))
        return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1

    def likeness(self, a: int, b: int) -> float:
        (colour_a, texture_a), (colour_b, texture_b) = self.histograms(a), self.histograms(b)
        sizes = self.masks[a].sum() + self.masks[b].sum()
        x1, y1, x2, y2 = self.box(a, b)
        parts = {
            "c": np.minimum(colour_a, colour_b).sum(),
            "t": np.minimum(texture_a, texture_b).sum(),
            "s": 1 - sizes / self.area,
            "f": 1 - ((x2 - x1) * (y2 - y1) - sizes) / self.area,
        }
        return float(sum(parts[letter] for letter in self.letters))


@pytest.mark.parametrize(("space", "letters"), [("hsv", "ctsf"), ("lab", "tsf"), ("intensity", "ct"), ("rgi", "f")])
def test_merges_are_those_of_a_twin_that_recounts_every_region_from_its_pixels(space: str, letters: str) -> None:
    pixels = pixels_of(7)
    (found,) = SelectiveSearch((space,), (letters,), (20,)).hierarchies(pixels)
    values = in_colour_space(pixels, space)
    labels, regions = grow(pixel_graph(values), 20, 20)
    assert regions >= 8
    twin = NaiveGrouping(values, labels, letters)
    assert [tuple(pair) for pair in found.children.tolist()] == twin.children
    assert [tuple(box) for box in found.boxes_xyxy.tolist()] == [twin.box(r) for r in range(2 * regions - 1)]


def hierarchies() -> list[Hierarchy]:
    return SelectiveSearch(("hsv", "lab"), ("ctsf", "s"), (20, 50)).hierarchies(pixels_of(1))


def test_a_hierarchy_of_r_segments_has_2r_minus_1_regions_and_ends_in_the_whole_picture() -> None:
    found = hierarchies()
    assert len(found) == 8
    for one in found:
        segments = int((one.children[:, 0] < 0).sum())
        assert len(one.boxes_xyxy) == 2 * segments - 1
        assert one.boxes_xyxy[-1].tolist() == [0, 0, 70, 60]
        used = one.children[segments:].ravel().tolist()
        assert sorted(used) == list(range(2 * segments - 2))  # each region but the last is merged once


def test_the_answer_does_not_depend_on_the_number_of_threads() -> None:
    image, threads = scene(3).image, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = SelectiveSearchFast(min_side=1).find(image)
        torch.set_num_threads(3)
        three = SelectiveSearchFast(min_side=1).find(image)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.boxes_xyxy, three.boxes_xyxy)
    assert torch.equal(one.scores, three.scores)


def test_ranks_put_large_regions_first_on_average_and_depend_on_the_seed() -> None:
    image = scene(3).image
    first, second = (SelectiveSearchFast(min_side=1, seed=seed).find(image).boxes_xyxy for seed in (0, 1))
    assert set(map(tuple, first.tolist())) == set(map(tuple, second.tolist()))
    assert not torch.equal(first, second)
    areas = (first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1])
    half = len(areas) // 2
    assert areas[:half].mean() > 1.5 * areas[half:].mean()


def test_small_boxes_are_left_out_and_the_rest_is_cut_at_the_end() -> None:
    image = scene(4).image
    everything = SelectiveSearchFast(min_side=1).find(image).boxes_xyxy
    large = SelectiveSearchFast().find(image).boxes_xyxy
    sides = (everything[:, 2:] - everything[:, :2]).min(1).values
    assert 0 < len(large) < len(everything)
    assert torch.equal(large, everything[sides >= 20])
    assert torch.equal(SelectiveSearchFast(max_boxes=7).find(image).boxes_xyxy, large[:7])


def test_boxes_found_in_a_picture_of_another_width_are_brought_back() -> None:
    sample = scene(5)
    narrow = SelectiveSearchFast(width=80).find(sample.image).boxes_xyxy
    assert narrow.max(0).values.tolist() == [*narrow.max(0).values.tolist()[:2], 160.0, 120.0]
    assert torch.equal(narrow, (narrow / 2).round() * 2)
    assert recall(SelectiveSearchFast(width=320), [sample], 2000, 0.7) == 1.0


def test_the_papers_settings() -> None:
    fast, quality = SelectiveSearchFast().settings(), SelectiveSearchQuality().settings()
    assert [len(fast[name]) for name in ("colour_spaces", "similarities", "ks")] == [2, 2, 2]
    assert [len(quality[name]) for name in ("colour_spaces", "similarities", "ks")] == [5, 4, 4]
    assert fast["ks"] == (50, 100)
    assert quality["ks"] == (50, 100, 150, 300)


def test_quality_finds_more_than_fast_and_both_find_planted_objects() -> None:
    samples = [scene(seed) for seed in range(10, 14)]
    fast, quality = SelectiveSearchFast(), SelectiveSearchQuality()
    assert len(quality.find(samples[0].image)) > 2 * len(fast.find(samples[0].image))
    assert recall(fast, samples, 200, 0.7) == 1.0
    assert recall(quality, samples, 1000, 0.8) == 1.0


def test_grey_and_float_pictures_are_the_same_pictures() -> None:
    grey = scene(6).image[:1]
    wanted = SelectiveSearchFast().find(grey.expand(3, -1, -1)).boxes_xyxy
    assert torch.equal(SelectiveSearchFast().find(grey).boxes_xyxy, wanted)
    assert torch.equal(SelectiveSearchFast().find(grey.float() / 255).boxes_xyxy, wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 25)])
def test_a_picture_of_one_region_gives_its_own_box_or_none(size: tuple[int, int]) -> None:
    found = SelectiveSearchFast().find(torch.zeros(3, *size, dtype=torch.uint8)).boxes_xyxy
    assert found.tolist() == ([[0.0, 0.0, 25.0, 40.0]] if min(size) >= 20 else [])


@pytest.mark.parametrize(
    ("rgb", "space", "wanted"),
    [
        ((255, 0, 0), "hsv", (0, 255, 255)),
        ((0, 0, 255), "hsv", (170, 255, 255)),
        ((0, 255, 0), "hue", (85,)),
        ((255, 255, 255), "lab", (255, 128, 128)),
        ((60, 30, 10), "rgi", (153, 76.5, 100 / 3)),
        ((60, 30, 10), "intensity", (100 / 3,)),
        ((60, 30, 10), "rgb", (60, 30, 10)),
        ((0, 0, 0), "rgi", (0, 0, 0)),
    ],
)
def test_colours_in_each_space(rgb: tuple[int, ...], space: str, wanted: tuple[float, ...]) -> None:
    found = in_colour_space(np.full((2, 3, 3), rgb, np.uint8), space)
    np.testing.assert_allclose(found, np.broadcast_to(np.array(wanted), (2, 3, len(wanted))), atol=0.02)


@pytest.mark.parametrize("space", COLOUR_SPACES)
def test_every_space_lies_on_0_to_255(space: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    found = in_colour_space(noise, space)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 255.01
    assert found.max() > 150


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UsageError, match="wanted one of hsv"):
        SelectiveSearch(("cmyk",))
    with pytest.raises(UsageError, match="each once"):
        SelectiveSearch(similarities=("ctx",))
    with pytest.raises(UsageError, match="k above 0"):
        SelectiveSearch(ks=(0,))
    with pytest.raises(UsageError, match="at least 1"):
        SelectiveSearchFast(width=0)
    with pytest.raises(RecordError, match="at least one pixel"):
        SelectiveSearchFast().find(torch.zeros(3, 0, 5))


def test_real_cells_are_found(real_data: Path) -> None:
    pictures = Dataset(open_index(real_data / "bccd"), "val")
    samples = [pictures[i] for i in range(3)]
    assert recall(SelectiveSearchFast(), samples, 2000) > 0.85
