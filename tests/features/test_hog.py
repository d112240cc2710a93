"""HOG against its definition, against OpenCV's numbers, and what it is blind to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.features.hog import HogLayout, block_histograms, hog, template_picture, window_length

OPENCV = Path(__file__).parent / "hog_opencv.npz"
"""Of a picture of smooth colour noise, cv2.HOGDescriptor of OpenCV 4.12 (64 x 128, no gamma correction): `alike` with
winSigma 1e6, which weighs all pixels of a block alike, `gaussian` with its default of 4; blocks in our order."""


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    rough = torch.rand(channels, height + 2, width + 2, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(rough[None], 3, 1)[0]
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).round().byte()


def by_definition(image: Tensor, layout: HogLayout) -> np.ndarray:
    """Votes of single pixels, added one by one in double precision; not normalised."""
    levels = np.pad(image.double().numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    dx, dy = levels[:, 1:-1, 2:] - levels[:, 1:-1, :-2], levels[:, 2:, 1:-1] - levels[:, :-2, 1:-1]
    rows, columns = layout.grid_hw((image.shape[1], image.shape[2]))
    weights = layout.cell_weights().double().numpy()
    out = np.zeros((rows, columns, layout.cells, layout.cells, layout.bins))
    for row, column, i, j in np.ndindex(rows, columns, layout.block, layout.block):
        y, x = row * layout.cell + i, column * layout.cell + j
        strongest = (dx[:, y, x] ** 2 + dy[:, y, x] ** 2).argmax()
        gx, gy = dx[strongest, y, x], dy[strongest, y, x]
        place = np.arctan2(gy, gx) % np.pi * layout.bins / np.pi - 0.5
        low, share, length = int(np.floor(place)), place - np.floor(place), np.hypot(gx, gy)
        for cell_y, cell_x in np.ndindex(layout.cells, layout.cells):
            vote = weights[i, cell_y] * weights[j, cell_x] * length
            out[row, column, cell_y, cell_x, low % layout.bins] += vote * (1 - share)
            out[row, column, cell_y, cell_x, (low + 1) % layout.bins] += vote * share
    return out.reshape(rows, columns, -1)


@pytest.mark.parametrize("layout", [HogLayout(), HogLayout(cell=4, cells=3, bins=6, sigma=0.5), HogLayout(cells=1)])
def test_histograms_are_those_of_the_definition(layout: HogLayout) -> None:
    image = noise(29, 37)
    expected = by_definition(image, layout)
    np.testing.assert_allclose(block_histograms(image, layout).numpy(), expected, atol=1e-5 * expected.max())


def test_a_window_of_64_x_128_has_3780_numbers() -> None:
    blocks = hog(noise(128, 64))
    assert tuple(blocks.shape) == (15, 7, 36)
    assert blocks.numel() == window_length((128, 64)) == 3780


def opencv_normalised(histograms: Tensor) -> np.ndarray:
    """L2-Hys with OpenCV's own additions to the lengths."""
    blocks = histograms.numpy()
    blocks = np.minimum(blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 3.6), 0.2)
    return blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-3)


def test_parity_with_opencv() -> None:
    """OpenCV's arctangent is wrong by up to 0.3 degrees, a 66th of an orientation: hence single numbers differ."""
    golden = np.load(OPENCV)
    image = torch.from_numpy(golden["image"])
    # Its Gaussian stands at the pixel right of and below the block's middle.
    away = (torch.arange(16) - 8.0) / 4
    weights = HogLayout().cell_weights() * (-0.5 * away.square()).exp()[:, None]
    for ours, theirs in (
        (opencv_normalised(block_histograms(image)), golden["alike"]),
        (opencv_normalised(block_histograms(image, weights=weights)), golden["gaussian"]),
        (hog(image).numpy(), golden["alike"]),
    ):
        apart = np.abs(ours - theirs)
        assert np.median(apart) < 2e-4
        assert np.quantile(apart, 0.99) < 0.012
        assert apart.max() < 0.025


def test_brightness_and_contrast_do_not_matter() -> None:
    image = noise(64, 64, channels=1).float() / 255  # one channel: no tie between channels that rounding would break
    plain = hog(image)
    torch.testing.assert_close(hog(image * 0.5 + 0.3), plain, atol=1e-3, rtol=0)
    torch.testing.assert_close(plain.square().sum(2), torch.ones(7, 7), atol=1e-5, rtol=0)


def test_a_constant_picture_has_no_gradient_and_no_nan() -> None:
    assert torch.equal(hog(torch.full((3, 40, 40), 77, dtype=torch.uint8)), torch.zeros(4, 4, 36))
    assert tuple(hog(torch.zeros(3, 15, 100)).shape) == (0, 11, 36)
    assert tuple(hog(torch.zeros(1, 16, 1)).shape) == (1, 0, 36)


def test_the_strongest_channel_votes() -> None:
    red = noise(32, 32, channels=1)
    coloured = torch.cat([red // 4, red, red // 3])
    torch.testing.assert_close(hog(coloured), hog(red))
    torch.testing.assert_close(hog(coloured.float() / 255), hog(red), atol=1e-5, rtol=0)


def test_a_mirror_image_has_mirrored_blocks_and_orientations() -> None:
    image = noise(48, 64)
    mirrored = hog(image.flip(2)).reshape(5, 7, 2, 2, 9)
    torch.testing.assert_close(mirrored.flip(1, 3, 4).flatten(2), hog(image), atol=1e-5, rtol=0)


def test_a_window_is_a_part_of_the_map() -> None:
    image = noise(96, 80)
    window = hog(image[:, 15:65, 7:57])
    inside = hog(image)
    # Cut out with a pixel around it, the window's blocks begin at its second pixel; here they are cells of the map.
    part = hog(image[:, 8:64, 8:56])
    torch.testing.assert_close(part[1:-1, 1:-1], inside[2:6, 2:5], atol=1e-6, rtol=0)
    assert not torch.allclose(window[:4, :3], inside[1:5, 1:4], atol=1e-3)


def test_threads_do_not_change_the_answer() -> None:
    image, before = noise(480, 320), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = hog(image)
        torch.set_num_threads(3)
        assert torch.equal(hog(image), alone)
    finally:
        torch.set_num_threads(before)


def test_roots_halve_what_stands_out_in_the_light() -> None:
    image = noise(32, 32).float() / 255
    torch.testing.assert_close(hog(image, HogLayout(root=True)), hog(image.sqrt()), atol=1e-5, rtol=0)


def test_a_template_is_drawn_along_its_edges() -> None:
    weight = torch.zeros(1, 1, 36)
    weight[0, 0, 0] = 1  # cell (0, 0): a gradient 10 degrees below the x axis, so an edge that is nearly upright
    weight[0, 0, 9 + 4] = -1
    picture = template_picture(weight, side=16)
    assert tuple(picture.shape) == (32, 32)
    assert not picture[16:].any()
    assert not picture[:, 16:].any()
    upright = picture[:16, :16].sum(0)
    assert upright[6:10].sum() > 0.7 * upright.sum()


def test_numbers_that_cannot_be_are_named() -> None:
    for wrong in ({"cell": 1}, {"cells": 0}, {"bins": 1}, {"sigma": 0}, {"clip": 0}, {"epsilon": 0}):
        with pytest.raises(RecordError, match=next(iter(wrong))):
            HogLayout(**wrong)
    with pytest.raises(RecordError, match="multiples of 8"):
        window_length((128, 60))
    with pytest.raises(RecordError, match=r"\(C, H, W\)"):
        hog(torch.zeros(0, 20, 20))
