import pytest
import torch
from torch import nn

from bestiary.errors import CheckpointError, UsageError
from bestiary.training.freezing import freeze
from bestiary.training.optimisers import (
    build_optimiser,
    load_optimiser_tensors,
    optimiser_tensors,
    parameter_groups,
    set_lr,
)
from bestiary.training.settings import Settings


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.eval()  # in training a norm would leave nothing of a bias's gradient but rounding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def step(net: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    optimiser.zero_grad()
    net(x).square().mean().backward()
    optimiser.step()


def test_one_group_where_nothing_differs() -> None:
    groups = parameter_groups(Net(), Settings())
    assert [g["names"] for g in groups] == [[n for n, _ in Net().named_parameters()]]
    assert (groups[0]["weight_decay"], groups[0]["lr_factor"]) == (1e-4, 1.0)


def test_norms_and_biases_go_without_decay() -> None:
    groups = {
        g["weight_decay"]: g["names"] for g in parameter_groups(Net(), Settings(decay_norms=False, weight_decay=0.1))
    }
    assert groups == {
        0.1: ["body.0.weight", "head.weight"],
        0.0: ["body.0.bias", "body.1.weight", "body.1.bias", "head.bias"],
    }


def test_learning_rates_of_parts_and_biases_multiply_and_the_longest_prefix_counts() -> None:
    settings = Settings(bias_lr=2.0, lr_factors=("body=0.5", "body.1=3"))
    factors = {n: g["lr_factor"] for g in parameter_groups(Net(), settings) for n in g["names"]}
    assert factors == {
        "body.0.weight": 0.5,
        "body.0.bias": 1.0,
        "body.1.weight": 3.0,
        "body.1.bias": 6.0,
        "head.weight": 1.0,
        "head.bias": 2.0,
    }
    optimiser = build_optimiser(Net(), settings)
    set_lr(optimiser, 0.1)
    assert sorted({round(g["lr"], 9) for g in optimiser.param_groups}) == [0.05, 0.1, 0.2, 0.3, 0.6]


def test_prefixes_match_whole_words() -> None:
    with pytest.raises(UsageError, match=r"no part is called 'bod'.*Did you mean body"):
        parameter_groups(Net(), Settings(lr_factors=("bod=2",)))


def test_frozen_parameters_are_not_held() -> None:
    net = Net()
    freeze(net, ["body"])
    assert [g["names"] for g in build_optimiser(net, Settings()).param_groups] == [["head.weight", "head.bias"]]
    freeze(net, ["head"])
    with pytest.raises(UsageError, match="nothing to train"):
        build_optimiser(net, Settings())


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_steps_equal_the_plain_optimiser(name: str, channels_last: bool) -> None:
    """Against torch's single-tensor loop; with channels-last weights too, which fused kernels would get wrong."""
    net, twin = Net(), Net()
    if channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = Settings.from_dict({"optimizer": name, "lr": 0.01, "weight_decay": 0.01, "channels_last": channels_last})
    optimiser = build_optimiser(net, settings)
    plain = {"lr": 0.01, "foreach": False}
    peers = {
        "sgd": lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.01, **plain),
        "nesterov": lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=0.01, **plain),
        "adam": lambda p: torch.optim.Adam(p, weight_decay=0.01, **plain),
        "adamw": lambda p: torch.optim.AdamW(p, weight_decay=0.01, **plain),
        "rmsprop": lambda p: torch.optim.RMSprop(p, alpha=0.999, momentum=0.9, weight_decay=0.01, **plain),
    }
    peer = peers[name](twin.parameters())
    for seed in range(4):
        step(net, optimiser, seed)
        step(twin, peer, seed)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_state_taken_out_and_put_back_goes_on_bit_for_bit(name: str, channels_last: bool) -> None:
    settings = Settings.from_dict({"optimizer": name, "lr": 0.01, "channels_last": channels_last})
    net, twin = Net(), Net()
    if channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, second = build_optimiser(net, settings), build_optimiser(twin, settings)
    for seed in range(3):
        step(net, first, seed)
    saved = {k: v.clone(memory_format=torch.contiguous_format) for k, v in optimiser_tensors(first).items()}
    twin.load_state_dict(net.state_dict())
    load_optimiser_tensors(second, saved)
    for seed in (3, 4):
        step(net, first, seed)
        step(twin, second, seed)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    for parameter, state in second.state.items():
        layouts = {v.stride() for v in state.values() if isinstance(v, torch.Tensor) and v.shape == parameter.shape}
        assert layouts <= {parameter.stride()} or parameter.ndim < 2


def test_a_fresh_optimiser_has_no_state() -> None:
    assert optimiser_tensors(build_optimiser(Net(), Settings())) == {}


def test_state_of_other_parameters_is_refused() -> None:
    optimiser = build_optimiser(Net(), Settings())
    with pytest.raises(CheckpointError, match=r"'neck\.weight', which is not a trainable parameter"):
        load_optimiser_tensors(optimiser, {"neck.weight/momentum_buffer": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"shape \(3,\), the parameter \(2,\)"):
        load_optimiser_tensors(optimiser, {"head.bias/momentum_buffer": torch.zeros(3)})
