import pytest
import torch
from loop_parts import pictures, tiny

from bestiary.data.loader import collate
from bestiary.errors import UsageError
from bestiary.training import engine
from bestiary.training.engine import Objective, choose_precision, deterministic_algorithms, find_device, start_engine
from bestiary.training.settings import Settings

CPU = torch.device("cpu")


def test_the_objective_is_the_systems_loss() -> None:
    system = tiny()
    batch = collate(pictures(4), range(4))
    terms = Objective(system)(batch.images, batch.targets)
    expected = system.loss(batch.images, batch.targets).terms
    assert list(terms) == ["class", "weights"]
    assert all(torch.equal(terms[name], expected[name]) for name in expected)


def test_one_engine_after_another_may_differ() -> None:
    for precision in ("fp32", "bf16", "fp32"):
        started = start_engine(Settings.from_dict({"device": "cpu", "precision": precision}))
        assert (started.precision, started.device.type, started.rank, started.world) == (precision, "cpu", 0, 1)
        assert started.accelerator.mixed_precision == {"fp32": "no"}.get(precision, precision)


def test_one_process_exchanges_nothing() -> None:
    started = start_engine(Settings(device="cpu", precision="fp32"))
    thing = object()
    assert started.any_of([True, False]) == [True, False]
    assert started.totals({"a": 1.5}) == {"a": 1.5}
    assert started.gather(thing) == [thing]
    assert started.from_first(thing) is thing
    assert started.is_first


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu", "CPU"])
def test_an_unknown_device_lists_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=f"device: got '{name}', wanted auto or one of cpu"):
        find_device(name)


def test_auto_device_is_there() -> None:
    torch.zeros(1, device=find_device("auto"))


def test_auto_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_native_bf16", lambda _: False)
    assert choose_precision("auto", CPU) == ("fp32", "fp32: this cpu has no native bf16")
    monkeypatch.setattr(engine, "has_native_bf16", lambda _: True)
    assert choose_precision("auto", CPU) == ("bf16", "bf16: native on this cpu")
    assert choose_precision("bf16", CPU) == ("bf16", "bf16, as set")
    assert choose_precision("fp32", CPU) == ("fp32", "fp32, as set")


def test_a_processor_that_computes_nonsense_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution that gives zeros under autocast, as some GPUs do."""
    true = torch.nn.functional.conv2d

    def broken(pixels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return true(pixels, weight) * (0.0 if torch.is_autocast_enabled("cpu") else 1.0)

    monkeypatch.setattr(torch.nn.functional, "conv2d", broken)
    monkeypatch.setattr(engine, "has_native_bf16", lambda _: True)
    assert choose_precision("auto", CPU)[0] == "fp32"
    with pytest.raises(UsageError, match="test convolution in bf16 went wrong"):
        choose_precision("bf16", CPU)


def test_a_cpu_does_not_train_in_fp16() -> None:
    with pytest.raises(UsageError, match=r"precision: a CPU does not train in fp16\. Use bf16"):
        choose_precision("fp16", CPU)


def test_deterministic_algorithms_end_with_the_block() -> None:
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()
