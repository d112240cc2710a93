import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import dilation, disk
from skimage.segmentation import find_boundaries

from bestiary.errors import RecordError
from bestiary.ops.edges import canny, label_boundaries, sobel_gradients, suppress_nonmaxima, within_distance


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 15), st.integers(1, 15), st.integers(2, 5), st.integers(0, 999))
def test_boundaries_equal_scikit_image(height: int, width: int, labels: int, seed: int) -> None:
    grid = np.random.default_rng(seed).integers(0, labels, (height, width)).astype(np.int32)
    # Coarse patches: with noise alone nearly every pixel is a boundary.
    for label_map in (grid, np.kron(grid, np.ones((3, 4), np.int32))):
        for connectivity, mode in ((c, m) for c in (4, 8) for m in ("thick", "inner", "outer")):
            got = label_boundaries(torch.from_numpy(label_map), connectivity, mode)
            assert np.array_equal(got.numpy(), find_boundaries(label_map, connectivity // 4, mode))


def test_batches_bool_maps_and_other_backgrounds() -> None:
    maps = torch.randint(0, 3, (2, 5, 9, 11), generator=torch.Generator().manual_seed(0))
    whole = label_boundaries(maps, 8, "outer", background=2)
    for index in np.ndindex(2, 5):
        one = label_boundaries(maps[index], 8, "outer", background=2)
        assert torch.equal(whole[index], one)
        # scikit-image takes the background to be the lowest label.
        renamed = ((maps[index].numpy() + 1) % 3).astype(np.int32)
        assert np.array_equal(one.numpy(), find_boundaries(renamed, 2, "outer"))
    mask = maps[0, 0] > 0
    assert torch.equal(label_boundaries(mask, 4, "inner"), label_boundaries(mask.int(), 4, "inner"))
    assert torch.equal(label_boundaries(maps.transpose(-1, -2), 8), label_boundaries(maps, 8).transpose(-1, -2))
    assert label_boundaries(maps[..., :0]).shape == (2, 5, 9, 0)


def test_a_square_by_hand() -> None:
    labels = torch.zeros(5, 5, dtype=torch.uint8)
    labels[1:4, 1:4] = 7
    inner, outer = label_boundaries(labels, 4, "inner"), label_boundaries(labels, 4, "outer")
    assert inner.sum() == 8
    assert not inner[2, 2]
    assert outer.sum() == 12
    assert not outer[0, 0]
    assert torch.equal(label_boundaries(labels, 4), inner | outer)
    assert label_boundaries(labels, 8, "outer")[0, 0]


@pytest.mark.parametrize("radius", [0, 1, 2, 3.5, 5])
def test_tolerance_is_dilation_by_a_disk(radius: float) -> None:
    mask = torch.rand(40, 50, generator=torch.Generator().manual_seed(1)) < 0.01
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    footprint = x * x + y * y <= radius * radius
    assert np.array_equal(footprint, disk(reach)) or radius != reach
    assert np.array_equal(within_distance(mask, radius).numpy(), dilation(mask.numpy(), footprint))
    assert not within_distance(mask & ~mask, radius).any()


def test_sobel_equals_opencv_and_gives_slopes() -> None:
    picture = torch.rand(3, 12, 17, generator=torch.Generator().manual_seed(2))
    along_x, along_y = sobel_gradients(picture)
    for plane, gx, gy in zip(picture.numpy(), along_x.numpy(), along_y.numpy(), strict=True):
        for got, (dx, dy) in ((gx, (1, 0)), (gy, (0, 1))):
            wanted = cv2.Sobel(plane, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE) / 8
            np.testing.assert_allclose(got, wanted, atol=1e-6)
    ramp = 2 * torch.arange(9.0)[None] - 3 * torch.arange(7.0)[:, None]
    gx, gy = sobel_gradients(ramp)
    assert (gx[:, 1:-1] == 2).all()
    assert (gy[1:-1] == -3).all()
    assert sobel_gradients(ramp.half())[0].dtype == torch.float16
    twice = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sobel_gradients, (twice,))


def naive_thin(strength: np.ndarray, direction: np.ndarray, slack: float) -> np.ndarray:
    height, width = strength.shape
    out = np.zeros_like(strength)
    for y, x in np.ndindex(height, width):
        keep = True
        for sign in (1, -1):
            v = min(max(y + sign * np.sin(direction[y, x]), 0), height - 1)
            u = min(max(x + sign * np.cos(direction[y, x]), 0), width - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = strength[y0, x0] * (1 - u + x0) + strength[y0, x1] * (u - x0)
            bottom = strength[y1, x0] * (1 - u + x0) + strength[y1, x1] * (u - x0)
            keep &= strength[y, x] * slack >= top * (1 - v + y0) + bottom * (v - y0)
        out[y, x] = strength[y, x] if keep else 0
    return out


@pytest.mark.parametrize("slack", [1.0, 1.2])
def test_thinning_equals_the_loops(slack: float) -> None:
    g = torch.Generator().manual_seed(3)
    strength = torch.rand(2, 13, 16, generator=g, dtype=torch.float64)
    direction = (torch.rand(2, 13, 16, generator=g, dtype=torch.float64) * 2 - 1) * np.pi
    got = suppress_nonmaxima(strength, direction, slack)
    for s, d, thin in zip(strength.numpy(), direction.numpy(), got.numpy(), strict=True):
        assert np.array_equal(thin, naive_thin(s, d, slack))


def test_a_smooth_ridge_becomes_one_pixel_wide() -> None:
    x = torch.arange(21.0)
    ridge = torch.exp(-((x - 10) ** 2) / 8).expand(15, 21)
    for turn in (0.0, np.pi):
        thin = suppress_nonmaxima(ridge, torch.full_like(ridge, turn))
        assert torch.equal(thin > 0, (x == 10).expand(15, 21))
    assert (suppress_nonmaxima(torch.ones(4, 5), torch.zeros(4, 5)) == 1).all()


def test_canny_is_opencvs_and_finds_a_square() -> None:
    picture = torch.zeros(3, 40, 40, dtype=torch.uint8)
    picture[:, 10:30, 12:28] = 200
    edges = canny(picture, 50, 100, sigma=0)
    assert np.array_equal(
        edges.numpy(), cv2.Canny(picture.permute(1, 2, 0).numpy().copy(), 50, 100, L2gradient=True) > 0
    )
    near = within_distance(label_boundaries(picture[0], 4), 1)
    assert edges.any()
    assert not (edges & ~near).any()
    assert torch.equal(canny(picture[:1].float() / 255, 50, 100), canny(picture[:1], 50, 100))
    assert canny(picture[:, :0], 1, 2).shape == (0, 40)


@pytest.mark.usefixtures("unchecked")
def test_bad_wishes_are_named() -> None:
    labels = torch.zeros(3, 3, dtype=torch.int64)
    with pytest.raises(RecordError, match="4 or 8"):
        label_boundaries(labels, 6)
    with pytest.raises(RecordError, match="0 or more"):
        within_distance(labels.bool(), -1)
    with pytest.raises(RecordError, match="thick"):
        label_boundaries(labels, 4, "both")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="0 <= low <= high"):
        canny(torch.zeros(3, 4, 4), 3, 2)
    with pytest.raises(RecordError, match="1 or 3"):
        canny(torch.zeros(2, 4, 4), 1, 2)
    with pytest.raises(RecordError, match="not empty"):
        sobel_gradients(torch.zeros(0, 3))
    with pytest.raises(RecordError, match="wanted"):
        suppress_nonmaxima(torch.zeros(3, 3), torch.zeros(3, 4))
    with pytest.raises(RecordError, match=r"wanted \(\.\.\., H, W\)"):
        label_boundaries(labels[0])
