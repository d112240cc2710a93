"""What every dense labeller keeps, whatever is inside: checks that the tests of each call."""

import copy

import torch
from torch import Tensor, nn

from bestiary.heads.segmentation import PixelSystem
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL, Target


def noise(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def stirred(system: PixelSystem) -> PixelSystem:
    """Statistics as after some training, so that evaluation mode is not the identity."""
    torch.manual_seed(5)
    for module in system.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return system.eval()


def striped(height: int, width: int, classes: int) -> tuple[Tensor, Target]:
    """A picture of vertical stripes, a colour a class, and its truth."""
    label_map = (torch.arange(width) * classes // width).to(torch.uint8).expand(height, width).contiguous()
    image = torch.stack([(label_map == c % classes).float() for c in range(3)]) * 0.8 + 0.1
    return image, Target(label_map=label_map)


@torch.inference_mode()
def check_sizes(system: PixelSystem, sizes: tuple[tuple[int, int], ...] = ((1, 1), (17, 31), (1, 40))) -> None:
    """Any picture is named, pixel by pixel, and learned from, whatever its size and channels."""
    for height, width in sizes:
        image = noise(1, 1, height, width)[0]
        label_map = torch.zeros(height, width, dtype=torch.uint8)
        (found,) = system.eval().predict_images([image])
        assert isinstance(found, Segmentation)
        assert found.label_map.shape == (height, width)
        assert torch.isfinite(system.train().loss([image], [Target(label_map=label_map)]).total)
    system.eval()


@torch.inference_mode()
def check_batches(system: PixelSystem, size_hw: tuple[int, int] = (40, 33)) -> None:
    """Pictures together are named as each alone, in the order given."""
    system = stirred(system)
    system.take({"keep_probs": True})
    images = [*noise(2, 3, *size_hw), noise(1, 3, size_hw[1], size_hw[0], seed=1)[0]]
    together = system.predict_images([images[0], images[2], images[1]])
    for image, one in zip((images[0], images[2], images[1]), together, strict=True):
        (alone,) = system.predict_images([image])
        assert isinstance(one, Segmentation)
        assert isinstance(alone, Segmentation)
        torch.testing.assert_close(one.probs, alone.probs, rtol=0, atol=2e-5)
    system.take({"keep_probs": False})


def check_unknown_truth(system: PixelSystem) -> None:
    """A picture of which nothing is known teaches nothing."""
    image = noise(1, 3, 24, 40)[0]
    losses = system.train().loss([image], [Target(label_map=torch.full((24, 40), IGNORE_LABEL, dtype=torch.uint8))])
    assert float(losses.total.detach()) == 0
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in system.parameters() if p.grad is not None)
    system.zero_grad()


def check_learning(system: PixelSystem, steps: int = 12, size_hw: tuple[int, int] = (32, 48), lr: float = 0.01) -> None:
    """Every parameter has a gradient, and one picture is learned."""
    torch.manual_seed(0)
    image, target = striped(*size_hw, len(system.categories))
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], lr=lr)
    system.train()
    history = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = system.loss([image, image.flip(-1)], [target, Target(label_map=target.label_map.flip(-1))]).total  # type: ignore[union-attr]
        loss.backward()
        if not step:
            silent = [name for name, p in system.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert silent == [], f"no gradient reaches {silent}"
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-5:]) / 5 < 0.65 * history[0], history


@torch.inference_mode()
def check_state(system: PixelSystem) -> None:
    """A copy that takes over the state says the same."""
    system = stirred(system)
    twin = copy.deepcopy(system)
    for parameter in twin.parameters():
        parameter.zero_()
    twin.load_state_dict(system.state_dict())
    pixels = noise(1, 3, 40, 33)
    assert torch.equal(twin.predict_logits(pixels), system.predict_logits(pixels))
