"""What holds for SqueezeNet, SqueezeNext, MobileNet and ShuffleNet alike."""

from collections.abc import Callable

import pytest
import torch
from tests.backbones.compact_nets import CIFAR, PARAMETERS, TRUNKS
from torch import fx, nn

from bestiary.backbones import squeezenet

Build = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("build", PARAMETERS, ids=lambda build: build.__name__)
def test_the_published_number_of_parameters(build: Build) -> None:
    with torch.device("meta"):
        net = build()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[build]


@pytest.mark.parametrize("name", TRUNKS)
def test_levels_are_known_before_any_forward_and_kept(name: str) -> None:
    with torch.device("meta"):
        trunk = TRUNKS[name](in_channels=4)
    levels = trunk.levels
    trunk = trunk.to_empty(device="cpu").eval()
    maps = trunk(torch.rand(1, 4, 192, 128))
    assert [level.name for level in levels] == [f"C{i + 1}" for i in range(len(levels))]
    assert len(maps) == len(levels)
    for level, features in zip(levels, maps, strict=True):
        assert features.shape[:2] == (1, level.channels)
        # SqueezeNet and SqueezeNext pad neither their first convolution, of up to 7x7, nor their pools.
        slack = 1 + 4 / level.stride if "squeeze" in name else 0
        for got, side in zip(features.shape[2:], (192, 128), strict=True):
            assert abs(got - side / level.stride) <= slack, (level, features.shape)


@pytest.mark.parametrize("build", CIFAR, ids=lambda build: build.__name__)
def test_the_small_forms_learn_something_of_one_batch(build: Build) -> None:
    net = build(["a", "b", "c", "d"]).train()
    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    pixels, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 4
    # Without norms, and with a ReLU on its logits, SqueezeNet would die of larger steps.
    optimiser = torch.optim.Adam(net.parameters(), 1e-4 if build is squeezenet.squeezenet_cifar else 1e-3)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(net(pixels), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[2:]) < losses[0]
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


SOME = [build for build in PARAMETERS if not build.__name__.endswith(("_x2", "x2_0", "x1_5", "_g2", "_g4", "x0_75"))]


@pytest.mark.usefixtures("unchecked")  # a traced forward gets proxies, which no shape check lets through
@pytest.mark.parametrize("build", [*SOME, *CIFAR], ids=lambda build: build.__name__)
def test_traceable_with_any_batch_and_size_at_the_least_side(build: Build) -> None:
    net = build(["a", "b"]).eval()
    traced = fx.symbolic_trace(net)
    least = type(net).min_side
    for size in ((3, 3, 112, 128), (1, 3, least, least + 1)):
        pixels = torch.rand(size)
        with torch.inference_mode():
            logits = net(pixels)
            assert torch.equal(traced(pixels), logits)
        assert logits.shape == (size[0], 2)
        assert logits.isfinite().all()


@pytest.mark.parametrize("build", [*SOME, *CIFAR], ids=lambda build: build.__name__)
def test_every_name_of_a_layer_is_one(build: Build) -> None:
    with torch.device("meta"):
        net = build(["a", "b"])
    parts = dict(net.named_modules())
    assert net.layer_names
    assert set(net.layer_names.values()) <= set(parts)


@pytest.mark.parametrize("build", CIFAR, ids=lambda build: build.__name__)
def test_channels_last_changes_nothing_but_rounding(build: Build) -> None:
    net = build(["a", "b"]).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = net(pixels)
        got = net.to(memory_format=torch.channels_last)(pixels.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
