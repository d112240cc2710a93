"""Windows of several sizes and shapes all over a picture, as one window over several sizes of the picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import scale_boxes


@dataclass(frozen=True)
class WindowLevel:
    """The picture at one size, and the windows on it.

    Attributes:
        size_hw: of the resized picture; each axis has a factor of its own, so that windows of any shape become squares.
        places_hw: windows down and across.
    """

    size_hw: tuple[int, int]
    places_hw: tuple[int, int]

    @property
    def count(self) -> int:
        """Windows."""
        return self.places_hw[0] * self.places_hw[1]


@dataclass(frozen=True)
class WindowLevels:
    """Which windows there are.

    An axis of W pixels, on which windows are w pixels long, is resized to S + n stride pixels with

        n = max(0, round((W S / w - S) / stride)),

    S pixels a window: n + 1 windows, the first and the last flush with the picture's ends. Of a level that is n + 1
    windows wide and m + 1 high there are (n + 1)(m + 1); `count` is their sum over all different levels.

    Attributes:
        window: S, side of the network's input.
        stride: pixels of a level from one window to the next.
        sides: roots of the windows' areas, pixels of the picture.
        aspects: width over height.
    """

    window: int
    stride: int
    sides: tuple[int | float, ...]
    aspects: tuple[int | float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            got = f"a window of {self.window} with a stride of {self.stride}"
            raise UsageError(f"got {got}, wanted a stride from 1 to the window", where="window")
        for name, values in (("window_sides", self.sides), ("aspects", self.aspects)):
            if not values or min(values) <= 0:
                raise UsageError(f"got {values}, wanted one or more numbers above 0", where=name)

    def levels(self, size_hw: tuple[int, int]) -> list[WindowLevel]:
        """The different levels of a picture, small windows first."""
        found = {}
        for side in sorted(self.sides):
            for aspect in self.aspects:
                shape_hw = side / math.sqrt(aspect), side * math.sqrt(aspect)
                steps = [self._steps(length, own) for length, own in zip(size_hw, shape_hw, strict=True)]
                level_hw = self.window + steps[0] * self.stride, self.window + steps[1] * self.stride
                found[level_hw] = WindowLevel(level_hw, (steps[0] + 1, steps[1] + 1))
        return list(found.values())

    def _steps(self, length: int, own: float) -> int:
        return max(0, round((length * self.window / own - self.window) / self.stride))

    def count(self, size_hw: tuple[int, int]) -> int:
        """Windows of a picture."""
        return sum(level.count for level in self.levels(size_hw))

    def boxes(
        self, levels: Sequence[WindowLevel], size_hw: tuple[int, int], device: torch.device | None = None
    ) -> Float32[Tensor, "N 4"]:
        """All windows in pixels of the picture: level by level, each row by row."""
        found = [torch.zeros(0, 4, device=device)]
        for level in levels:
            y, x = (torch.arange(places, device=device) * self.stride for places in level.places_hw)
            top, left = torch.meshgrid(y, x, indexing="ij")
            low = torch.stack([left, top], -1).flatten(0, 1).float()
            found.append(scale_boxes(torch.cat([low, low + self.window], 1), level.size_hw, size_hw))
        return torch.cat(found)
