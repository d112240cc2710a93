"""Shapes of roots, warped examples, sides found without labels, and parts over a root's energy."""

import itertools

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.dpm_hog import dpm_features, mirrored_features
from bestiary.features.part_models import PART, Component
from bestiary.features.part_starts import (
    START_COST,
    START_NORM,
    face_alike,
    root_size,
    split_by_aspect,
    warped,
    with_parts,
)


def boxes(*sizes_wh: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([[3.0, 5.0, 3 + w, 5 + h] for w, h in sizes_wh])


def test_boxes_are_split_into_equal_groups_from_wide_to_tall() -> None:
    found = split_by_aspect(boxes((10, 30), (40, 10), (20, 20), (10, 20), (30, 20), (10, 10)), 3)
    assert [group.tolist() for group in found] == [[1, 4], [2, 5], [3, 0]]
    assert [group.tolist() for group in split_by_aspect(boxes((10, 30)), 3)] == [[0]]


def test_a_root_has_the_commonest_aspect_and_an_area_that_most_boxes_exceed() -> None:
    common = [(40.0, 80.0)] * 6 + [(100.0, 50.0)] * 3
    assert root_size(boxes(*common), (1000, 9000)) == (10, 5)
    assert root_size(boxes(*common), (1000, 800 * 2)) == (7, 4)  # 1600 square pixels: 56.6 x 28.3
    assert root_size(boxes((8, 8)), (100, 5000)) == (3, 3)  # room for a part
    sizes = [(10.0 * k, 10.0 * k) for k in range(1, 11)]
    assert root_size(boxes(*sizes), (0, 1e6)) == (4, 4)  # of ten, the third smallest: 30 x 30


def test_a_box_of_the_roots_own_size_is_not_warped() -> None:
    image = torch.rand(3, 100, 120, generator=torch.Generator().manual_seed(0)) * 255
    found = warped(image, torch.tensor([32.0, 24.0, 72.0, 72.0]), (6, 5))
    wanted = dpm_features(image[:, 16:80, 24:80])
    assert torch.equal(found, wanted)


def test_boxes_at_the_border_repeat_its_pixels_and_any_aspect_fits() -> None:
    image = torch.full((3, 40, 50), 90.0)
    found = warped(image, torch.tensor([-10.0, 20.0, 90.0, 60.0]), (7, 4))
    assert found.shape == (32, 7, 4)
    assert not found.any()


def test_sides_are_found_without_labels() -> None:
    """Copies of two pictures, some of them mirrored: those of each side end up alike."""
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(0)
    ramp = torch.linspace(1, 0.2, 5)
    pattern = torch.rand(32, 6, 5, generator=generator) * ramp
    turned = torch.rand(14, generator=generator) < 0.4
    noisy = pattern + 0.1 * torch.rand(14, 32, 6, 5, generator=generator)
    features = torch.where(turned[:, None, None, None], mirrored_features(noisy), noisy)
    found = face_alike(features, rng)
    assert torch.equal(found, turned) or torch.equal(found, ~turned)
    assert face_alike(features[:1], rng).shape == (1,)


def test_parts_cover_the_energy_of_positive_weights() -> None:
    root = -torch.ones(32, 9, 9)  # negative weights have no energy
    root[3, 1:4, 1:4] = 2.0
    root[7, 5:8, 5:8] = 1.0
    found = with_parts(Component.of_root(root, 0.5), 2, np.random.default_rng(0))
    anchors = sorted(map(tuple, found.anchors.tolist()))
    for (x, y), (wanted_x, wanted_y) in zip(anchors, [(2, 2), (10, 10)], strict=True):
        assert abs(x - wanted_x) <= 1
        assert abs(y - wanted_y) <= 1
    assert found.parts.flatten(1).norm(dim=1).tolist() == pytest.approx([START_NORM] * 2)
    assert found.deformations.tolist() == [pytest.approx([0, 0, START_COST, START_COST])] * 2
    assert torch.equal(found.root, root)
    assert float(found.bias) == 0.5


def test_two_parts_cover_as_much_as_the_best_two() -> None:
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(32, 4, 5, generator=generator)
    double = torch.nn.functional.interpolate(root[None], scale_factor=2, mode="bicubic", align_corners=False)[0]
    energy = (double.clamp(min=0) ** 2).sum(0)

    def covered(places: list[list[int]]) -> float:
        mask = torch.zeros_like(energy)
        for x, y in places:
            mask[y : y + PART, x : x + PART] = 1
        return float((mask * energy).sum())

    found = covered(with_parts(Component.of_root(root), 2, np.random.default_rng(0)).anchors.tolist())
    every = list(itertools.product(range(10 - PART + 1), range(8 - PART + 1)))
    best = max(covered([list(a), list(b)]) for a, b in itertools.combinations(every, 2))
    assert found >= 0.98 * best


def test_no_parts_and_too_small_roots() -> None:
    assert len(with_parts(Component.of_root(torch.ones(32, 4, 4)), 0, np.random.default_rng(0)).parts) == 0
    with pytest.raises(RecordError, match="with_parts"):
        with_parts(Component.of_root(torch.ones(32, 2, 4)), 1, np.random.default_rng(0))
