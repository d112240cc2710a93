import contextlib

import pytest
import torch
from loop_parts import tiny
from torch import nn

from bestiary.training.ema import WeightAverage, ema_decay


def test_the_ramp() -> None:
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(90, 0.999) == pytest.approx(0.91)
    assert ema_decay(889, 0.999) < 0.99 <= ema_decay(890, 0.999)
    assert ema_decay(10**6, 0.999) == 0.999


def test_the_average_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = WeightAverage(module, decay=0.15)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, -1.0]):
        nn.init.constant_(module.weight, value)
        average.update(step)
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.averages["weight"]) == pytest.approx(expected, rel=1e-6)
    assert average.updates == 3


def test_during_warmup_it_follows() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, decay=0.9, warmup_steps=2)
    for step, value in enumerate([1.0, 2.0]):
        nn.init.constant_(module.weight, value)
        average.update(step)
        assert float(average.averages["weight"]) == value
    nn.init.constant_(module.weight, 3.0)
    average.update(2)
    assert float(average.averages["weight"]) == pytest.approx(0.1 * 2 + 0.9 * 3)
    assert average.updates == 1


def test_running_statistics_are_averaged_and_counters_are_not() -> None:
    system = tiny(norm=True)
    average = WeightAverage(system, decay=0.5)
    assert "stem.1.running_mean" in average.averages
    assert "stem.1.num_batches_tracked" not in average.averages


def test_in_place_swaps_and_swaps_back_bit_for_bit() -> None:
    system = tiny(norm=True)
    average = WeightAverage(system, decay=0.5)
    with torch.no_grad():
        for p in system.parameters():
            p.mul_(1.7).add_(0.3)
    live = {k: v.clone() for k, v in system.state_dict().items()}
    with contextlib.suppress(KeyError), average.in_place():
        for name, value in average.averages.items():
            assert torch.equal(system.state_dict()[name], value)
        raise KeyError
    assert all(torch.equal(v, live[k]) for k, v in system.state_dict().items())
    assert not torch.equal(average.averages["head.weight"], live["head.weight"])


def test_constant_weights_have_themselves_as_average() -> None:
    system = tiny()
    average = WeightAverage(system, decay=0.999)
    for step in range(20):
        average.update(step)
    assert all(torch.equal(average.averages[k], v) for k, v in system.state_dict().items())


def test_put_back_it_goes_on() -> None:
    first, second = tiny(), tiny()
    a, b = WeightAverage(first, 0.9), WeightAverage(second, 0.9)
    for step in range(3):
        nn.init.constant_(first.head.weight, float(step))
        a.update(step)
    second.load_state_dict(first.state_dict())
    b.load({k: v.clone() for k, v in a.averages.items()}, a.updates)
    for one, average in ((first, a), (second, b)):
        nn.init.constant_(one.head.weight, 9.0)
        average.update(3)
    assert all(torch.equal(b.averages[k], v) for k, v in a.averages.items())
