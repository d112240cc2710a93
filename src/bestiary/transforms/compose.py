"""Transforms of transforms: one after the other, sometimes, one of several."""

from dataclasses import dataclass

import numpy as np

from bestiary.records import Sample
from bestiary.transforms.moving import move
from bestiary.transforms.transform import Described, Geometric, Transform, require_argument, require_probability
from bestiary.transforms.warp import Warp

__all__ = ["Compose", "OneOf", "Sometimes", "Transform"]


@dataclass(frozen=True, repr=False)
class Compose(Described):
    """One after the other. Geometric ones in a row become one map where that shows the same part of the picture:
    pixels are interpolated once, not once a step, and objects are judged once, at the end, by the strictest of the
    rules.

    Attributes:
        transforms: the steps; any callables of the kind.
    """

    transforms: tuple[Transform, ...]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample after all steps."""
        pending: Warp | None = None
        for transform in self.transforms:
            if not isinstance(transform, Geometric):
                sample = transform(sample if pending is None else move(sample, pending), rng)
                pending = None
                continue
            warp = transform.plan(sample.size_hw if pending is None else pending.size_hw, rng)
            joined = warp if pending is None else pending.then(warp)
            if pending is not None and joined is None:
                sample = move(sample, pending)
            pending = warp if joined is None else joined
        return sample if pending is None else move(sample, pending)

    def __repr__(self) -> str:
        """The steps in order, on one line."""
        return " | ".join(repr(transform) for transform in self.transforms) or "Compose()"


@dataclass(frozen=True, repr=False)
class Sometimes(Described):
    """A transform with probability `p`."""

    transform: Transform
    p: float = 0.5

    def __post_init__(self) -> None:
        require_probability(self.p, "Sometimes(p)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Transformed, or as it was."""
        return self.transform(sample, rng) if rng.random() < self.p else sample


@dataclass(frozen=True, repr=False)
class OneOf(Described):
    """One of several transforms, equally likely."""

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        require_argument(len(self.transforms) > 0, "OneOf(transforms)", "none", "at least one")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """What the chosen one makes of it."""
        return self.transforms[int(rng.integers(len(self.transforms)))](sample, rng)
