import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from transform_scenes import discs

from bestiary.errors import UsageError
from bestiary.transforms import Elastic
from bestiary.transforms.warping import Field, displacements


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_coarse_grid_ends_on_the_pictures_edges_and_is_met() -> None:
    coarse = rng().normal(size=(2, 3, 5))
    fine = displacements(coarse, (41, 801))
    # the middle row of the grid is the middle pixel row's centre; grid columns are 200 pixels apart
    for column, x in ((1, 200.25), (2, 400.5), (3, 600.75)):
        np.testing.assert_allclose(fine[:, 20, int(x)], coarse[:, 1, column], atol=0.02)
    np.testing.assert_allclose(fine[:, 20, 0], coarse[:, 1, 0], atol=0.03)
    np.testing.assert_allclose(fine[:, 20, -1], coarse[:, 1, -1], atol=0.03)


@given(st.integers(2, 6), st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5))
def test_bicubic_interpolation_reproduces_planes(grid: int, a: float, b: float, c: float) -> None:
    ys, xs = np.mgrid[:grid, :grid] / (grid - 1)
    plane = np.stack([a + b * xs + c * ys] * 2)
    ys, xs = (np.mgrid[:9, :13] + 0.5) / [[[9]], [[13]]]
    np.testing.assert_allclose(displacements(plane, (9, 13))[0], a + b * xs + c * ys, atol=1e-5)


def test_bicubic_interpolation_equals_pillow_away_from_the_edge() -> None:
    coarse = rng().normal(size=(2, 8, 8)).astype(np.float32).astype(np.float64)
    fine = displacements(coarse, (70, 63))
    for got, plane in zip(fine, coarse, strict=True):
        picture = Image.fromarray(plane.astype(np.float32))
        want = np.asarray(picture.resize((63, 70), Image.Resampling.BICUBIC, box=(0.5, 0.5, 7.5, 7.5)))
        np.testing.assert_allclose(got[10:60, 9:54], want[10:60, 9:54], atol=1e-5)  # Pillow has another edge
    halfway = np.array([-1, 9, 9, -1]) / 16  # Catmull-Rom between two nodes; 3.5 is the middle of 8
    middle = halfway @ coarse[0, 2:6, 2:6] @ halfway
    np.testing.assert_allclose(displacements(coarse, (71, 71))[0, 35, 35], middle, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30))
def test_points_meet_the_pixels_they_mark(seed: int) -> None:
    coarse = rng(seed).normal(0, 4, (2, 3, 3))
    field = Field(displacements(coarse, (80, 100)))
    xs, ys = field.old_xy
    new = np.stack(np.mgrid[20:60:7, 20:80:7], -1).reshape(-1, 2)[:, ::-1] + 0.5
    old = np.stack(
        [xs[new[:, 1].astype(int), new[:, 0].astype(int)], ys[new[:, 1].astype(int), new[:, 0].astype(int)]], 1
    )
    np.testing.assert_allclose(field.points(old.astype(np.float64)), new, atol=0.05)


def test_pictures_and_maps_are_sampled_where_the_field_says() -> None:
    sample = discs((40, 50))
    field = Field(displacements(rng(1).normal(0, 3, (2, 3, 3)), (40, 50)), fill=0.0)
    xs, ys = field.old_xy
    got = field.image(sample.image.float() / 255)
    padded = np.pad(sample.image[0].numpy() / 255.0, 8)
    want = ndimage.map_coordinates(padded, [ys - 0.5 + 8, xs - 0.5 + 8], order=1)
    np.testing.assert_allclose(got[0].numpy(), want, atol=0.05)  # OpenCV 4 takes steps of 1/32 pixel
    assert np.abs(got[0].numpy() - want).mean() < 0.005
    labels = field.nearest(sample.target.label_map, 255.0)
    for y in range(40):
        for x in range(50):
            v, u = int(np.floor(ys[y, x] + 1e-7)), int(np.floor(xs[y, x] + 1e-7))
            inside = 0 <= u < 50 and 0 <= v < 40
            assert labels[y, x] == (sample.target.label_map[v, u] if inside else 255)


def test_elastic_bends_picture_labels_masks_and_boxes_alike() -> None:
    sample = discs((96, 128), count=3, seed=2)
    bent = Elastic(4.0)(sample, rng(3))
    assert bent.size_hw == sample.size_hw
    assert not torch.equal(bent.image, sample.image)
    found = bent.target.objects
    assert found is not None
    assert found.masks is not None
    for mask, box, label in zip(found.masks, found.boxes_xyxy, found.labels, strict=True):
        ys, xs = mask.nonzero(as_tuple=True)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert (bent.target.label_map[mask] >= label + 1).all()
        colour = bent.image[0][mask].float()
        assert (colour > 20).float().mean() > 0.95, "its pixels are its own colour, but for the blurred edge"
    without = type(sample)(
        sample.image,
        type(sample.target)(objects=type(found)(sample.target.objects.boxes_xyxy, found.labels)),
        "b",
        (96, 128),
    )
    loose = Elastic(4.0)(without, rng(3)).target.objects
    assert loose is not None
    grown = loose.boxes_xyxy + torch.tensor([-1.5, -1.5, 1.5, 1.5])
    assert (found.boxes_xyxy[:, :2] >= grown[:, :2]).all(), "a bent box holds its bent mask"
    assert (found.boxes_xyxy[:, 2:] <= grown[:, 2:]).all()


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_any_number_of_channels(channels: int) -> None:
    sample = discs((20, 30), channels=channels)
    bent = Elastic(2.0)(sample, rng())
    assert bent.image.shape == (channels, 20, 30)
    assert torch.equal(bent.image[0], bent.image[-1])


def test_no_displacement_is_no_change_and_bad_arguments_are_refused() -> None:
    sample = discs()
    assert Elastic(0.0)(sample, rng()) is sample
    for bad in ({"displacement": -1.0}, {"grid": 1}):
        with pytest.raises(UsageError, match="at least"):
            Elastic(**bad)


def test_displacements_have_the_papers_spread() -> None:
    drawn = np.array([rng(seed).normal(0.0, 10.0, (2, 3, 3)) for seed in range(400)])
    fine = np.array([displacements(d, (9, 9))[:, 4, 4] for d in drawn])
    assert abs(fine.std() - 10) < 1, "at the middle node the field is the draw itself"
