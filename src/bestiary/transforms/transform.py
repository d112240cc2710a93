"""What a transform is: a sample and a random generator in, a sample out.

Transforms are frozen dataclasses, so that a recipe can hold, compare and print them; all randomness comes from the
generator that is handed in. None changes what it is given: pictures may be views of cached ones.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from bestiary.errors import UsageError
from bestiary.records import Sample
from bestiary.transforms.moving import move
from bestiary.transforms.warp import Warp


@runtime_checkable
class Transform(Protocol):
    """The classes here, or any function of this kind."""

    def __call__(self, sample: Sample, rng: np.random.Generator, /) -> Sample:
        """The transformed sample; `sample` itself is left as it was."""
        ...


class Described:
    """Base of the transforms here, all of them frozen dataclasses: a short `repr`."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The transformed sample; `sample` itself is left as it was."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """One line: the name and what is not at its default."""
        return f"{type(self).__name__}({', '.join(_settings(self))})"


class Geometric(Described):
    """A transform that only moves pixels, by an affine map that depends on nothing but the picture's size and the
    generator.
    """

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The map for a picture of this size, drawn from `rng`."""
        raise NotImplementedError

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The moved sample."""
        return move(sample, self.plan(sample.size_hw, rng))


def _settings(transform: object) -> list[str]:
    settings = []
    for field in dataclasses.fields(transform):  # type: ignore[arg-type]
        value = getattr(transform, field.name)
        has_default = field.default is not dataclasses.MISSING
        if not has_default or value != field.default:
            settings.append(f"{field.name}={value!r}" if has_default else repr(value))
    return settings


def require_argument(condition: bool, where: str, got: object, wanted: str) -> None:
    """Raise `UsageError` naming the argument unless `condition` holds."""
    if not condition:
        raise UsageError(f"got {got}, wanted {wanted}", where=where)


def require_size(size_hw: tuple[int, int], where: str) -> None:
    """Raise `UsageError` unless both sides are at least one pixel."""
    require_argument(min(size_hw) >= 1, where, size_hw, "a height and a width of at least 1")


def require_probability(p: float, where: str) -> None:
    """Raise `UsageError` unless 0 <= p <= 1."""
    require_argument(0 <= p <= 1, where, p, "a probability, 0..1")


def require_range(low_high: tuple[float, float], least: float, where: str) -> None:
    """Raise `UsageError` unless least <= low <= high."""
    low, high = low_high
    wanted = f"(low, high) with {least} <= low <= high"
    require_argument(least <= low <= high, where, low_high, wanted)
