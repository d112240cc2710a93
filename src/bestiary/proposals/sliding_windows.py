"""Boxes that look at no pixel: windows of every size everywhere, and boxes drawn at random.

What any method must beat. Both come in an order in which the first so many are spread like all of them, so that a curve
of recall over their number is fair at each.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.proposals.proposer import Proposals, Proposer

LEAST_STEP, LARGEST_STEP = 0.05, 1e6
"""From one window to the next, in sides of the window."""

ROUNDS = 40
"""Halvings of the interval in which the step is looked for."""


class SlidingWindows(Proposer):
    """About `count` windows: sizes in equal ratios, of each aspect, as many of each size as of any other, where it has
    so many places.

    Args:
        count: at most so many.
        least_side: geometric mean of the sides of the smallest windows, pixels.
        scales: sizes from `least_side` up to the whole picture.
        aspects: width to height.
        seed: of the order.

    Raises:
        UsageError: a setting out of range.
    """

    name: ClassVar[str] = "sliding_windows"
    version: ClassVar[int] = 1

    def __init__(
        self,
        count: int = 2000,
        least_side: float | int = 16,
        scales: int = 8,
        aspects: Sequence[float | int] = (0.5, 1.0, 2.0),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if count < 1 or not least_side > 0 or scales < 1 or not aspects or not all(a > 0 for a in aspects):
            got = f"got count {count}, least_side {least_side}, scales {scales}, aspects {list(aspects)}"
            raise UsageError(f"{got}, wanted more than 0 of each", where=self.name)
        self.count, self.least_side, self.scales, self.seed = count, float(least_side), scales, seed
        self.aspects = tuple(float(a) for a in aspects)

    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("count", "least_side", "scales", "aspects", "seed")}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The windows for a picture of this size."""
        size_hw = int(image.shape[-2]), int(image.shape[-1])
        sizes, left = self._sizes(size_hw), self.count
        found = []
        # Large sizes have few places: what they leave over goes to the smaller ones.
        for number, (height, width) in enumerate(sizes):
            found.append(_places(float(height), float(width), size_hw, max(1, left // (len(sizes) - number))))
            left -= len(found[-1])
        boxes = np.concatenate(found)
        order = np.random.default_rng(self.seed).permutation(len(boxes))[: self.count]
        return in_order(boxes[order])

    def _sizes(self, size_hw: tuple[int, int]) -> Float64[np.ndarray, "S 2"]:
        """Heights and widths, none larger than the picture, none twice, the largest first."""
        height, width = size_hw
        largest = math.sqrt(height * width)
        sides = np.geomspace(min(self.least_side, largest), largest, self.scales)
        sizes = [(min(s / math.sqrt(a), height), min(s * math.sqrt(a), width)) for s in sides for a in self.aspects]
        found = np.unique(np.array(sizes), axis=0)
        return found[np.argsort(-found.prod(1), kind="stable")]


class RandomBoxes(Proposer):
    """Boxes whose centre, mean side and logarithm of the aspect are drawn evenly; what sticks out is cut.

    The same for every picture of a size.

    Args:
        count: how many; fewer where a picture is too small for so many different ones.
        least_side: smallest geometric mean of the sides, pixels.
        largest_aspect: of the longer side to the shorter.
        seed: of the drawing.

    Raises:
        UsageError: a setting out of range.
    """

    name: ClassVar[str] = "random_boxes"
    version: ClassVar[int] = 1

    def __init__(
        self, count: int = 2000, least_side: float | int = 16, largest_aspect: float | int = 3.0, seed: int = 0
    ) -> None:
        super().__init__()
        if count < 1 or not least_side > 0 or not largest_aspect >= 1:
            got = f"got count {count}, least_side {least_side}, largest_aspect {largest_aspect}"
            raise UsageError(f"{got}, wanted at least 1, above 0, at least 1", where=self.name)
        self.count, self.least_side, self.seed = count, float(least_side), seed
        self.largest_aspect = float(largest_aspect)

    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("count", "least_side", "largest_aspect", "seed")}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The boxes for a picture of this size."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        rng = np.random.default_rng([self.seed, height, width])
        largest = math.sqrt(height * width)
        side = rng.uniform(min(self.least_side, largest), largest, self.count)
        half_log = rng.uniform(-1, 1, self.count) * math.log(self.largest_aspect) / 2
        half = 0.5 * np.stack([side * np.exp(half_log), side * np.exp(-half_log)], 1)
        centre = rng.uniform(0, 1, (self.count, 2)) * [width, height]
        boxes = np.concatenate([centre - half, centre + half], 1).clip(0, [width, height, width, height])
        return in_order(boxes)


def in_order(boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Proposals:
    """Boxes whose order is all that is known of them: scores fall evenly from 1. Those that are there already, or too
    thin for float32, are left out.
    """
    boxes = boxes_xyxy.astype(np.float32)
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    scores = 1 - np.arange(len(boxes), dtype=np.float32) / max(1, len(boxes))
    return Proposals(torch.from_numpy(np.ascontiguousarray(boxes)), torch.from_numpy(scores))


def _places(height: float, width: float, size_hw: tuple[int, int], most: int) -> Float64[np.ndarray, "N 4"]:
    """At most `most` windows of one size, spread evenly from border to border, neighbours one share of the sides apart:
    the smallest that will do, but not below `LEAST_STEP`.
    """
    spare = np.array(size_hw) - [height, width]

    def counts(step: float) -> Float64[np.ndarray, " two"]:
        return 1 + np.ceil(spare / (step * np.array([height, width])))

    low, high = LEAST_STEP, LEAST_STEP
    while counts(high).prod() > most and high < LARGEST_STEP:
        low, high = high, 2 * high
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).prod() > most else (low, middle)
    rows, columns = counts(high).astype(int).tolist()
    # A single row or column stands in the middle.
    top = np.linspace(0, spare[0], rows) if rows > 1 else spare[:1] / 2
    left = np.linspace(0, spare[1], columns) if columns > 1 else spare[1:] / 2
    y, x = (a.ravel() for a in np.meshgrid(top, left, indexing="ij"))
    return np.stack([x, y, x + width, y + height], 1)[:most]
