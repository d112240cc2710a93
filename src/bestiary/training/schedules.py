"""Learning-rate schedules as pure functions: optimiser step to factor on the learning rate.

The state of a schedule is the step's number alone, so that resuming needs nothing else, and a longer run (more epochs)
simply asks the same function with a larger total.
"""

import math
from collections.abc import Sequence

from bestiary.training.settings import Settings


def warmup(step: int, warmup_steps: int, start: float) -> float:
    """A line from `start` at step 0 to 1 at `warmup_steps` (Goyal et al. 2017, section 2.2)."""
    if step >= warmup_steps:
        return 1.0
    return start + (1.0 - start) * step / warmup_steps


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, SGDR, 2017, equation 5 with minimum 0); `progress` is 0..1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def poly(progress: float, power: float) -> float:
    """`(1 - progress) ** power` (Chen et al., DeepLab, 2018, section 4.1.1: power 0.9)."""
    return (1.0 - progress) ** power


def step_down(step: int, steps_at: Sequence[int], gamma: float) -> float:
    """`gamma` to the number of milestones that `step` has reached."""
    return gamma ** sum(step >= at for at in steps_at)


def milestone_steps(milestones: Sequence[float], total_steps: int, steps_per_epoch: int) -> list[int]:
    """Milestones as steps: below 1 they are fractions of `total_steps`, else epochs."""
    return [round(m * (total_steps if m < 1 else steps_per_epoch)) for m in milestones]


def lr_factor(step: int, total_steps: int, steps_per_epoch: int, settings: Settings) -> float:
    """Factor on `settings.lr` for the optimiser step number `step` (0-based) of `total_steps`.

    Warm-up multiplies the schedule. Cosine and poly begin where warm-up ends, so that they still start from 1 and
    reach 0 at `total_steps`; milestones are counted from the first step.
    """
    factor = warmup(step, settings.warmup_steps, settings.warmup_factor)
    if settings.schedule == "step":
        steps_at = milestone_steps(settings.milestones, total_steps, steps_per_epoch)
        return factor * step_down(step, steps_at, settings.gamma)
    after = max(0, step - settings.warmup_steps)
    progress = min(1.0, after / max(1, total_steps - settings.warmup_steps))
    if settings.schedule == "cosine":
        return factor * cosine(progress)
    if settings.schedule == "poly":
        return factor * poly(progress, settings.poly_power)
    return factor
