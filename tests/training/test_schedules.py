import itertools
import math

import pytest
import torch

from bestiary.training.schedules import cosine, lr_factor, milestone_steps, poly, step_down, warmup
from bestiary.training.settings import Settings


def test_warmup_is_a_line() -> None:
    assert [warmup(s, 4, 0.2) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert warmup(0, 0, 0.2) == 1.0


def test_cosine_at_its_marks() -> None:
    assert [cosine(p) for p in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)] == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-15)


def test_poly_at_its_marks() -> None:
    assert [poly(p, 2.0) for p in (0.0, 0.5, 1.0)] == [1, 0.25, 0]
    assert poly(0.5, 0.9) == pytest.approx(math.exp(0.9 * math.log(0.5)))


def test_a_milestone_counts_from_its_own_step() -> None:
    assert [step_down(s, [3, 5], 0.1) for s in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step_down(9, [], 0.1) == 1


def test_milestones_are_fractions_below_one_and_epochs_from_one() -> None:
    assert milestone_steps((0.5, 1.0, 8.0), total_steps=100, steps_per_epoch=10) == [50, 10, 80]


@pytest.mark.parametrize("total", [1, 7, 50])
def test_cosine_equals_torch(total: int) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=total)
    for step in range(total):
        assert lr_factor(step, total, 5, Settings(schedule="cosine")) == pytest.approx(peer.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        peer.step()


def test_detection_recipe_equals_torch() -> None:
    """Linear warm-up from 1/1000 times two milestones, as in the detection recipes around torch."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=0.001, total_iters=20)
    fall = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[80, 110], gamma=0.1)
    settings = Settings(schedule="step", milestones=(8.0, 11.0), warmup_steps=20, warmup_factor=0.001)
    for step in range(120):
        assert lr_factor(step, 120, 10, settings) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        rise.step()
        fall.step()


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_after_warmup_the_schedule_starts_at_its_top_and_ends_at_zero(schedule: str) -> None:
    settings = Settings.from_dict({"schedule": schedule, "warmup_steps": 10, "warmup_factor": 0.0})
    factors = [lr_factor(s, 30, 5, settings) for s in range(31)]
    assert factors[0] == 0
    assert factors[5] == pytest.approx(0.5)
    assert factors[10] == 1
    assert factors[30] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))


def test_warmup_longer_than_the_run_and_steps_past_the_end() -> None:
    assert lr_factor(3, 5, 5, Settings(warmup_steps=100, warmup_factor=0.0)) == pytest.approx(0.03)
    assert lr_factor(9, 5, 5, Settings(schedule="poly")) == 0
    assert lr_factor(9, 5, 5, Settings(schedule="constant")) == 1


def test_more_epochs_ask_the_same_function() -> None:
    settings = Settings(schedule="cosine")
    assert lr_factor(50, 100, 10, settings) == pytest.approx(0.5)
    assert lr_factor(50, 200, 10, settings) == pytest.approx(cosine(0.25))
