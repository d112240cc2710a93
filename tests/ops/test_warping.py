"""Sampling and warping against OpenCV, whose pixels are counted from their centres, and by hand."""

import inspect

import cv2
import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.ops.warping import sample_at, warp, warp_by_flow


def picture(height: int = 40, width: int = 60) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) * 0.15, torch.arange(width) * 0.1, indexing="ij")
    return torch.stack([torch.sin(x + y), torch.cos(x) * y, x * 0.3])[None].float()


def test_values_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    points = torch.tensor([[[0.5, 0.5], [1.5, 0.5], [1.0, 1.0], [1.0, 0.5], [0.0, 0.5], [-0.5, 0.5], [9.0, 9.0]]])
    assert sample_at(image, points)[0, 0].tolist() == [1.0, 2.0, 2.5, 1.5, 0.5, 0.0, 0.0]
    assert sample_at(image, points, outside="border")[0, 0].tolist() == [1.0, 2.0, 2.5, 1.5, 1.0, 1.0, 4.0]
    assert sample_at(image, points[:, :2], mode="nearest")[0, 0].tolist() == [1.0, 2.0]
    assert sample_at(image, points.reshape(1, 7, 1, 2)).shape == (1, 1, 7, 1)
    assert sample_at(image, points[:, :0]).shape == (1, 1, 0)


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.9, 0.2, 3.0], [-0.1, 1.1, -2.0]],
        [[0.9, 0.2, 3.0], [-0.1, 1.1, -2.0], [0.002, -0.003, 1.0]],
    ],
)
def test_warps_are_opencvs(matrix: list[list[float]]) -> None:
    image, m = picture(), np.eye(3)
    m[: len(matrix)] = matrix
    to_centres = np.array([[1.0, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    theirs = to_centres @ m @ np.linalg.inv(to_centres)
    expected = cv2.warpPerspective(image[0].permute(1, 2, 0).numpy(), theirs, (50, 30), flags=cv2.INTER_LINEAR)
    got = warp(image, torch.tensor(matrix), (30, 50))[0].permute(1, 2, 0).numpy()
    # OpenCV may round places to 1/32 of a pixel, over which this picture changes by less than 0.03
    inside = warp(torch.ones_like(image), torch.tensor(matrix), (30, 50))[0, 0].numpy() > 0.999
    assert inside.mean() > 0.5
    np.testing.assert_allclose(got[inside], expected[inside], atol=0.03)
    assert np.abs(got[inside] - expected[inside]).mean() < 0.005


def test_the_identity_changes_nothing_and_a_mirror_mirrors() -> None:
    image = picture()
    assert torch.allclose(warp(image, torch.eye(3)), image, atol=1e-5)
    mirror = torch.tensor([[-1.0, 0.0, 60.0], [0.0, 1.0, 0.0]])
    assert torch.allclose(warp(image, mirror), image.flip(-1), atol=1e-5)
    assert torch.allclose(warp(image, -torch.eye(3)), image, atol=1e-5)


def test_each_picture_may_have_its_own_map() -> None:
    image = picture().expand(2, -1, -1, -1)
    maps = torch.tensor([[[1.0, 0, 2], [0, 1, 0]], [[1.0, 0, 0], [0, 1, 3]]])
    both = warp(image, maps)
    for i in range(2):
        assert torch.allclose(both[i], warp(image[:1], maps[i])[0], atol=1e-6)
    assert torch.allclose(both[0, :, :, 2:], image[0, :, :, :-2], atol=1e-5)
    assert (both[0, :, :, 0] == 0).all()


def test_beyond_the_horizon_is_outside() -> None:
    tilted = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.05, 0, 1.0]])
    # x' = x / (1 + x / 20) stays below 20; columns further right show what is behind
    shown = warp(torch.ones(1, 1, 40, 60), tilted)[0, 0]
    assert shown[0, 5] == 1
    assert (shown[:, 20:] == 0).all()


def test_a_flow_fetches_from_where_it_points() -> None:
    image = picture()
    flow = torch.zeros(1, 2, 40, 60)
    flow[:, 0] = 3
    assert torch.allclose(warp_by_flow(image, flow)[..., :-3], image[..., 3:], atol=1e-5)


def test_gradients_reach_picture_points_and_map() -> None:
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    points = torch.tensor([[[1.3, 2.2], [3.9, 1.1]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_at, (image, points))
    matrix = torch.tensor([[0.9, 0.1, 0.33], [-0.05, 1.1, 0.21]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, m: warp(i, m, outside="border"), (image, matrix))


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(RecordError, match="without inverse"):
        warp(picture(), torch.zeros(2, 3))
    with pytest.raises(RecordError, match=r"warp\(matrix\)"):
        warp(picture(), torch.zeros(2, 2, 3))
    with pytest.raises(RecordError, match=r"\(B, 2, H, W\)"):
        inspect.unwrap(warp_by_flow)(picture(), torch.zeros(1, 3, 4, 4))
