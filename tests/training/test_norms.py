"""Norms' statistics taken anew: right, harmless to everything else, and what the loop measures and writes."""

from pathlib import Path

import pytest
import torch
from loop_parts import Accuracy, TinyClassifier, tiny, train_batches, val_batches
from safetensors.torch import load_file

from bestiary.errors import UsageError
from bestiary.training.engine import Engine, start_engine
from bestiary.training.loop import train
from bestiary.training.norms import recompute_norms, running_norms
from bestiary.training.settings import Settings

STATISTICS = ("stem.1.running_mean", "stem.1.running_var")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return start_engine(Settings(device="cpu", precision="fp32"))


def expected(system: TinyClassifier, first: int, epoch: int = 0) -> dict[str, torch.Tensor]:
    """Means over the batches from number `first` on, by hand."""
    maps = []
    for batch in train_batches().iterate(epoch, first):
        maps.append(system.stem[0](torch.stack(list(batch.images)).float() / 255))  # type: ignore[index]
    means = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variances = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
    return dict(zip(STATISTICS, (means, variances), strict=True))


def recompute(system: TinyClassifier, engine: Engine, pictures: int) -> tuple[str, ...]:
    return recompute_norms(system, train_batches(), pictures, engine, batch=4, seed=0, epoch=0)


@pytest.mark.parametrize(("pictures", "first"), [(16, 0), (1000, 0), (8, 2), (5, 2), (1, 3)])
def test_the_plain_mean_over_the_last_batches(engine: Engine, pictures: int, first: int) -> None:
    system = tiny(norm=True).train()
    system.stem[1].running_mean.fill_(99.0)  # type: ignore[union-attr]
    assert recompute(system, engine, pictures) == STATISTICS
    for name, value in expected(system, first).items():
        torch.testing.assert_close(system.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_nothing_else_moves(engine: Engine) -> None:
    system = tiny(norm=True, dropout=0.5).train()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    recompute(system, engine, 8)
    assert torch.equal(torch.rand(3), wanted)
    changed = {name for name, value in system.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {*STATISTICS, "stem.1.num_batches_tracked"}
    assert system.stem[1].momentum == 0.1
    assert system.training
    assert all(p.grad is None for p in system.parameters())


def test_norms_at_rest_and_norms_that_see_nothing_keep_theirs(engine: Engine) -> None:
    system = tiny(norm=True).train()
    system.stem[1].eval()
    system.unused = torch.nn.BatchNorm2d(2)
    system.unused.running_mean.fill_(3.0)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    assert list(running_norms(system)) == ["unused"]
    recompute(system, engine, 8)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())


@pytest.mark.parametrize("ema", [None, 0.5])
def test_what_a_run_writes_has_the_statistics_of_its_weights(tmp_path: Path, ema: float | None) -> None:
    settings = Settings(
        epochs=2, batch=4, lr=0.5, ema=ema, recompute_norms=16, device="cpu", precision="fp32", tensorboard=False
    )
    system = tiny(norm=True)
    found = train(
        system, train_batches(), val_batches(), settings, out=tmp_path / "run", make_evaluator=Accuracy, quiet=True
    )
    written = load_file(found.last)
    measured = tiny(norm=True)
    measured.load_state_dict({name: value for name, value in written.items() if name in measured.state_dict()})
    for name, value in expected(measured, 0, epoch=1).items():
        torch.testing.assert_close(written[name], value, rtol=1e-4, atol=1e-6)
    if ema is not None:  # the run itself goes on with its own
        assert not torch.allclose(system.state_dict()[STATISTICS[0]], written[STATISTICS[0]], rtol=1e-4)


def test_without_validation_too(tmp_path: Path) -> None:
    settings = Settings(
        epochs=1, batch=4, lr=0.5, recompute_norms=16, device="cpu", precision="fp32", tensorboard=False
    )
    found = train(tiny(norm=True), train_batches(), None, settings, out=tmp_path / "run", quiet=True)
    measured = tiny(norm=True)
    measured.load_state_dict(load_file(found.last))
    for name, value in expected(measured, 0).items():
        torch.testing.assert_close(measured.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(UsageError, match="recompute_norms"):
        Settings(recompute_norms=-1)
