"""ZFNet: the paper's maps, numbers and bound on the filters."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.alexnet import AlexNet
from bestiary.backbones.levels import Level
from bestiary.backbones.zfnet import convolutions, small_convolutions, zfnet, zfnet_cifar
from bestiary.data.loader import Batch
from bestiary.errors import UsageError
from bestiary.layers.bounded_filters import BoundedConv2d
from bestiary.ops import Window, stacked_field
from bestiary.records import Target
from bestiary.training import loop
from bestiary.training.settings import Settings


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        network = zfnet()
    assert sum(p.numel() for p in network.parameters()) == 62_357_608


def test_maps_and_levels_are_the_papers() -> None:
    trunk = AlexNet(convolutions()).eval()
    assert [level.name for level in trunk.levels] == ["C1", "C2", "C3", "C4", "C5"]
    assert trunk.levels[0] == Level("C1", 96, 2)
    maps = trunk(torch.rand(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (96, 110, 110), (96, 55, 55), (256, 26, 26), (256, 13, 13), (256, 6, 6),
    ]  # fmt: skip
    assert [level.channels for level in trunk.levels] == [m.shape[1] for m in maps]


def test_receptive_fields_of_conv5_and_pool5() -> None:
    layers = [m for m in convolutions() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    numbers = [(m.kernel_size, m.stride, m.padding) for m in layers]
    windows = [Window(*(int(n[0]) if isinstance(n, tuple) else int(n) for n in three)) for three in numbers]
    assert stacked_field(windows[:-1]).size == 139
    assert (stacked_field(windows).size, stacked_field(windows).stride) == (171, 32)


@pytest.mark.parametrize(("crop", "inputs"), [(224, 9216), (128, 2304), (112, 1024), (53, 256)])
def test_fc6_is_made_for_the_crop(crop: int, inputs: int) -> None:
    with torch.device("meta"):
        network = zfnet(["a", "b"], crop=crop)
        assert network.get_parameter("classifier.0.weight").shape == (4096, inputs)
        assert network(torch.rand(1, 3, crop, crop)).shape == (1, 2)


def test_the_smallest_crop() -> None:
    with pytest.raises(UsageError, match="at least 53"):
        zfnet(["a"], crop=52)
    with torch.device("meta"), pytest.raises(RuntimeError, match="too small"):
        convolutions()(torch.rand(1, 3, 52, 52))


def test_start_is_the_papers() -> None:
    network = zfnet(["a", "b"], resize=60, crop=53)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert not any(m.bias.detach().any() for m in layers if m.bias is not None)
    assert [float(m.weight.detach().std()) for m in layers[:7]] == pytest.approx([0.01] * 7, rel=0.02)


def largest(network: nn.Module) -> float:
    """Largest root mean square of a filter."""
    filters = [m.weight.detach() for m in network.modules() if isinstance(m, BoundedConv2d)]
    return max(float(f.square().mean((1, 2, 3)).sqrt().max()) for f in filters)


@pytest.mark.parametrize(("radius", "grows"), [(0.1, False), (None, True)])
def test_training_bounds_the_filters_unless_told_otherwise(radius: float | None, grows: bool) -> None:
    network = zfnet(["a", "b"], resize=60, crop=53, filter_radius=radius)
    first = network.features[0]
    assert isinstance(first, BoundedConv2d)
    with torch.no_grad():
        first.weight.mul_(20)  # to 0.2
    optimiser = torch.optim.SGD(network.features.parameters(), 1e-4)
    images = [torch.randint(0, 256, (3, 53, 53), dtype=torch.uint8) for _ in range(2)]
    network.loss(images, [Target(label=0), Target(label=1)]).total.backward()
    optimiser.step()
    network.eval()
    assert (largest(network) > 0.1001) is grows


class TwoPictures:
    """A loader of one batch."""

    def __len__(self) -> int:
        return 1

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        images = [torch.randint(0, 256, (3, 53, 53), dtype=torch.uint8) for _ in range(2)]
        batch = Batch(images, [Target(label=0), Target(label=1)], ["first", "second"], [0, 1])
        yield from [batch][start_batch:]


def test_the_loop_bounds_the_filters_that_it_keeps(tmp_path: Path) -> None:
    network = zfnet(["a", "b"], resize=60, crop=53)
    with torch.no_grad():
        network.features.get_parameter("0.weight").mul_(20)
    settings = Settings(epochs=1, lr=1e-4, precision="fp32", tensorboard=False)
    loop.train(network, TwoPictures(), TwoPictures(), settings, out=tmp_path / "run", quiet=True)
    assert largest(network) < 0.1001


def test_small_form() -> None:
    trunk = AlexNet(small_convolutions()).eval()
    maps: tuple[Tensor, ...] = trunk(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(72, 32, 32), (72, 16, 16), (192, 8, 8), (192, 3, 3)]
    network = zfnet_cifar([str(i) for i in range(10)])
    loss = network.loss(torch.rand(4, 3, 32, 32), [Target(label=i) for i in range(4)]).total
    loss.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert float(loss.detach()) == pytest.approx(2.3, abs=0.2), "the answer is open at the start"


def test_layers_have_the_papers_names() -> None:
    with torch.device("meta"):
        network = zfnet(["a"], resize=60, crop=53)
    parts = dict(network.named_modules())
    kinds = {name: type(parts[path]).__name__ for name, path in network.layer_names.items()}
    assert {kinds[f"conv{i}"] for i in range(1, 6)} == {"ReLU"}
    assert (kinds["norm1"], kinds["pool2"], kinds["fc8"]) == ("LocalResponseNorm", "MaxPool2d", "Linear")
    assert network.layer_names["C1"] == network.layer_names["conv1"]
