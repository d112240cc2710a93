"""Parts of one size at many zooms, around points that lie well inside the picture."""

from dataclasses import dataclass, replace

import numpy as np

from bestiary.transforms.keep import KEEP_ALL, Keep
from bestiary.transforms.transform import Geometric, require_argument, require_range, require_size
from bestiary.transforms.warp import Fill, Warp

CORNER_NET_FACTORS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""The authors name 0.6 to 1.4 in steps of 0.1, of which numpy's `arange` leaves out the last."""


@dataclass(frozen=True, repr=False)
class RandomCentredCrop(Geometric):
    """CornerNet's crop: a window around a random point, brought to a fixed size; it may reach beyond the picture.

    Attributes:
        size_hw: size that comes out.
        factors: sides of the window over `size_hw`, to choose from, equally likely: below 1 objects grow.
        border: pixels that the point keeps from the picture's edges; halved until there is room.
        fill: colour outside; black.
        keep: which objects stay; all of which something is left.
    """

    size_hw: tuple[int, int]
    factors: tuple[float, ...] = CORNER_NET_FACTORS
    border: int = 128
    fill: Fill = 0.0
    keep: Keep = KEEP_ALL

    def __post_init__(self) -> None:
        require_size(self.size_hw, "RandomCentredCrop(size_hw)")
        require_argument(len(self.factors) > 0, "RandomCentredCrop(factors)", "none", "at least one")
        require_range((min(self.factors), max(self.factors)), 1e-3, "RandomCentredCrop(factors)")
        require_argument(self.border >= 0, "RandomCentredCrop(border)", self.border, "at least 0")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """Cut and resize as one map."""
        factor = self.factors[int(rng.integers(len(self.factors)))]
        window = [max(1, int(side * factor)) for side in self.size_hw]
        centre = [self._centre(side, rng) for side in size_hw]
        scales = [new / old for new, old in zip(self.size_hw, window, strict=True)]
        top, left = (c - w // 2 for c, w in zip(centre, window, strict=True))
        matrix = np.array([[scales[1], 0, -left * scales[1]], [0, scales[0], -top * scales[0]]])
        return replace(Warp.whole(matrix, size_hw, self.size_hw, self.fill), keep=self.keep)

    def _centre(self, side: int, rng: np.random.Generator) -> int:
        border = self.border
        while side <= 2 * border:
            border //= 2
        return int(rng.integers(border, side - border))
