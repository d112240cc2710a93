import math

import pytest
import torch
from loop_parts import Accuracy, TinyClassifier, pictures, tiny, val_batches

from bestiary.errors import TrainingError
from bestiary.training.engine import start_engine
from bestiary.training.evaluation import validate
from bestiary.training.settings import Settings


def engine() -> object:
    return start_engine(Settings(device="cpu", precision="fp32"))


def test_means_are_over_pictures_though_the_last_batch_is_smaller() -> None:
    system = tiny().eval()
    found = validate(system, val_batches(6, batch=4), engine(), 0, None)
    samples = pictures(6)
    singles = [system.loss([s.image], [s.target]).terms for s in samples]
    for name in ("class", "weights"):
        assert found.terms[name] == pytest.approx(sum(float(t[name].detach()) for t in singles) / 6, rel=1e-6)
    assert found.loss == pytest.approx(sum(found.terms.values()))
    assert found.scores is None
    assert found.value == -found.loss


def test_predictions_carry_names_and_are_scored() -> None:
    found = validate(tiny(), val_batches(6), engine(), 0, Accuracy)
    assert found.scores is not None
    assert found.scores.values["pictures"] == 6
    assert found.scores.details["names"] == [f"{i:03d}.png" for i in range(6)]
    assert found.value == found.scores.values["top1"]


def test_nothing_is_left_changed() -> None:
    system = tiny(norm=True, dropout=0.5)
    system.train()
    system.stem.eval()
    before = {k: v.clone() for k, v in system.state_dict().items()}
    modes = {name: m.training for name, m in system.named_modules()}
    state = torch.get_rng_state()
    validate(system, val_batches(), engine(), 0, Accuracy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in system.state_dict().items())
    assert {name: m.training for name, m in system.named_modules()} == modes
    assert all(p.grad is None for p in system.parameters())


class Sampling(TinyClassifier):
    """Its loss draws random numbers, as a detector that samples regions does."""

    def loss(self, images, targets):  # type: ignore[no-untyped-def]
        losses = super().loss(images, targets)
        return type(losses)({"class": losses.terms["class"] * torch.rand(())})


def test_systems_that_sample_draw_the_same_each_time() -> None:
    system = Sampling()
    first = validate(system, val_batches(), engine(), 0, None)
    torch.rand(3)
    assert validate(system, val_batches(), engine(), 0, None).loss == first.loss
    assert validate(system, val_batches(), engine(), 1, None).loss != first.loss


def test_the_mode_comes_back_after_an_error() -> None:
    class Broken(TinyClassifier):
        def predict_images(self, images):  # type: ignore[no-untyped-def]
            raise TrainingError("broken")

    system = Broken()
    system.train()
    with pytest.raises(TrainingError):
        validate(system, val_batches(), engine(), 0, Accuracy)
    assert all(m.training for m in system.modules())
    assert torch.is_grad_enabled()


def test_no_picture_gives_no_terms() -> None:
    found = validate(tiny(), val_batches(0), engine(), 0, Accuracy)
    assert found.terms == {}
    assert math.isnan(found.loss)
