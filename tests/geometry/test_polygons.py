import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes, label

from bestiary.errors import RecordError
from bestiary.geometry.polygons import mask_to_polygons, polygons_to_mask


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.1, 0.5, 0.8, 0.95, 1]), st.integers(0, 1000))
def test_outlines_that_keep_holes_give_the_mask_back(height: int, width: int, share: float, seed: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).random((height, width)) < share)
    polygons = mask_to_polygons(mask, holes="keep")
    parts = label(mask.numpy(), np.ones((3, 3)))[1]
    assert len(polygons) == parts
    if parts:
        assert torch.equal(polygons_to_mask(polygons, (height, width)), mask)


def test_a_ring_with_a_thing_in_its_hole() -> None:
    mask = torch.zeros(12, 14).bool()
    mask[1:11, 1:12], mask[3:9, 3:10], mask[5:7, 5:8] = True, False, True
    kept, filled = mask_to_polygons(mask, "keep"), mask_to_polygons(mask)
    assert [len(p) for p in filled] == [8]
    assert len(kept) == 2
    assert kept[0].reshape(-1, 2).min(0).tolist() == [1.25, 1.25]
    assert torch.equal(polygons_to_mask(kept, (12, 14)), mask)
    assert np.array_equal(polygons_to_mask(filled, (12, 14)).numpy(), binary_fill_holes(mask.numpy()))


@pytest.mark.usefixtures("unchecked")
def test_other_wishes_for_holes_are_refused() -> None:
    with pytest.raises(RecordError, match='"fill" or "keep"'):
        mask_to_polygons(torch.ones(2, 2).bool(), "drop")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="tolerance"):
        mask_to_polygons(torch.ones(2, 2).bool(), tolerance=-1)


def test_simpler_outlines_stay_near_and_lose_what_is_smaller_than_the_tolerance() -> None:
    mask = torch.zeros(60, 60).bool()
    mask[5:50, 5:50] = torch.ones(45, 45).tril().bool()  # a staircase
    mask[20, 8] = False
    mask[57, 57] = True
    exact, simple = (mask_to_polygons(mask, "keep", tolerance) for tolerance in (0, 1))
    assert (len(exact), len(simple)) == (2, 1)
    assert len(simple[0]) == 6
    away = (polygons_to_mask(simple, (60, 60)) != mask).sum()
    assert 0 < away <= 45 + 2
