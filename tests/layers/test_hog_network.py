"""The layers give the kernel's numbers, pass gradients on, and are exported for any size."""

import pytest
import torch

from bestiary.features.hog import HogLayout, hog
from bestiary.layers.hog_network import DirectionalGates, HogNetwork


def pixels(channels: int, height: int, width: int) -> torch.Tensor:
    rough = torch.rand(1, channels, height + 2, width + 2, generator=torch.Generator().manual_seed(height))
    return torch.nn.functional.avg_pool2d(rough, 3, 1)


@pytest.mark.parametrize(
    ("channels", "layout"),
    [(3, HogLayout()), (1, HogLayout(sigma=0.5)), (3, HogLayout(cell=4, cells=3, bins=6, root=True))],
)
def test_the_network_equals_the_kernel(channels: int, layout: HogLayout) -> None:
    batch = torch.cat([pixels(channels, 37, 51), pixels(channels, 37, 51).flip(3)])
    for blocks, picture in zip(HogNetwork(layout)(batch), batch, strict=True):
        torch.testing.assert_close(blocks.permute(1, 2, 0), hog(picture, layout), atol=1e-5, rtol=0)


def test_votes_go_to_the_two_nearest_orientations() -> None:
    angles = torch.tensor([0.0, 10.0, 25.0, 175.0, -5.0, 190.0]).deg2rad()
    edges = torch.stack([angles.cos(), angles.sin()])[None, :, None] * 3
    votes = DirectionalGates(9)(edges)[0, :, 0]
    torch.testing.assert_close(votes.sum(0), torch.full((6,), 3.0))
    torch.testing.assert_close(votes[:, 1], 3 * torch.eye(9)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(votes[[0, 8], 0], torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(votes[[0, 1], 2], torch.tensor([0.75, 2.25]))
    torch.testing.assert_close(votes[:, 3], votes[:, 4])  # opposite directions are one orientation
    torch.testing.assert_close(votes[:, 5], votes[:, 1])


def test_gradients_are_those_of_finite_differences() -> None:
    picture = pixels(2, 16, 16).double().requires_grad_()
    assert torch.autograd.gradcheck(HogNetwork(), (picture,))


def test_a_flat_picture_passes_no_gradient_and_no_nan() -> None:
    picture = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    blocks = HogNetwork()(picture)
    blocks.sum().backward()
    assert picture.grad is not None
    assert torch.equal(blocks, torch.zeros(1, 36, 1, 1))
    assert torch.equal(picture.grad, torch.zeros_like(picture))


def test_an_exported_network_takes_any_size(unchecked: None) -> None:
    network = HogNetwork()
    free = torch.export.Dim.AUTO
    program = torch.export.export(network, (pixels(3, 48, 64),), dynamic_shapes=({2: free, 3: free},))
    other = pixels(3, 77, 39)
    torch.testing.assert_close(program.module()(other), network(other))
