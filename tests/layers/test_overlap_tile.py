import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import RecordError, UsageError
from bestiary.layers.overlap_tile import InputGeometry, mirror_indices, mirror_window, plan_tiles

UNET = InputGeometry(margin=92, grid=16, smallest=4)


def test_legal_sides_are_those_of_the_paper() -> None:
    assert UNET.fits(572)
    assert [side for side in range(150, 240) if UNET.fits(side)] == [188, 204, 220, 236]
    assert UNET.nearest(573) == (572, 588)
    assert UNET.nearest(571) == (556, 572)
    assert UNET.nearest(100) == (188,)


@given(st.integers(1, 3000))
def test_covering_is_the_smallest_legal_output_that_suffices(side: int) -> None:
    cover = UNET.covering(side)
    assert cover >= side
    assert UNET.fits(cover + 184)
    assert cover == 4 or cover - 16 < side


def test_illegal_size_names_the_nearest_legal_ones() -> None:
    with pytest.raises(RecordError, match=r"570 x 572.*556 or 572, width 572 or 588"):
        UNET.require((570, 572))
    UNET.require((188, 572))


@given(st.integers(1, 2000), st.integers(20, 400))
def test_tiles_cover_all_pixels_from_origins_on_the_pooling_grid(side: int, largest: int) -> None:
    tiles = plan_tiles(side, UNET, largest)
    assert tiles.side <= largest
    assert UNET.fits(tiles.side + 184)
    assert all(origin % 16 == 0 for origin in tiles.origins)
    assert tiles.origins[0] == 0
    assert list(tiles.origins) == sorted(set(tiles.origins))
    steps = np.diff([*tiles.origins])
    assert (steps <= tiles.side).all()
    assert tiles.origins[-1] + tiles.side >= side
    # no tile predicts only what is outside
    assert tiles.origins[-1] < side


def test_tiles_are_as_few_and_as_equal_as_can_be() -> None:
    assert plan_tiles(388, UNET, 388).origins == (0,)
    two = plan_tiles(484, UNET, 388)
    assert two.origins == (0, 240)
    assert two.side == 244
    with pytest.raises(UsageError, match="wanted at least 20"):
        plan_tiles(100, UNET, 19)


@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_mirroring_is_numpys_reflection(side: int, before: int, after: int) -> None:
    ours = mirror_indices(-before, side + after, side)
    theirs = np.pad(np.arange(side), (before, after), mode="reflect")
    assert ours.tolist() == theirs.tolist()


def test_window_is_a_crop_of_the_reflected_picture() -> None:
    image = torch.arange(2 * 5 * 7).view(2, 5, 7)
    whole = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (20, 20), (20, 20)), mode="reflect"))
    for top, left, size in ((-3, -4, (9, 30)), (1, 2, (3, 4)), (4, 6, (12, 12)), (-20, -20, (45, 47))):
        expected = whole[:, top + 20 : top + 20 + size[0], left + 20 : left + 20 + size[1]]
        assert torch.equal(mirror_window(image, top, left, size), expected)


def test_no_pixel_cannot_be_mirrored() -> None:
    with pytest.raises(RecordError, match="at least one pixel"):
        mirror_window(torch.zeros(1, 0, 4), 0, 0, (2, 2))
