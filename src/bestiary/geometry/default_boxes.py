"""Default boxes: the boxes of fixed sizes and shapes that SSD lays over its maps (Liu et al., ECCV 2016, section 2.2).

Unlike a proposal network's anchors they are centred on the middle of each cell, their distance is given in pixels and
is not exactly the size of the picture over that of the map, and their sizes are not rounded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.geometry.anchors import grid_anchors
from bestiary.records import require


@dataclass(frozen=True)
class DefaultMap:
    """The boxes of one map: a square of `min_size`, a square of the geometric mean of both sizes, and for each ratio r
    two boxes of the smaller square's area, r times as wide as high and the other way round.

    Attributes:
        min_size: pixels.
        max_size: pixels, the next map's `min_size`; None leaves the second square out.
        ratios: longer over shorter side, above 1.
        step: pixels between neighbouring cells.
    """

    min_size: int | float
    max_size: int | float | None
    ratios: tuple[int | float, ...]
    step: int | float

    def __post_init__(self) -> None:
        sizes = (self.min_size, self.min_size if self.max_size is None else self.max_size, self.step)
        require(min(sizes) > 0, "DefaultMap", f"sizes and step {sizes}", "positive numbers of pixels")
        require(min(self.ratios, default=1) > 0, "DefaultMap.ratios", self.ratios, "positive numbers")

    @property
    def count(self) -> int:
        """Boxes of a cell."""
        return 1 + (self.max_size is not None) + 2 * len(self.ratios)

    def sizes(self, whole_pixels: bool = False, longest: int | float | None = None) -> Float[Tensor, "K 2"]:
        """Width and height of each box of a cell, in the order above.

        Args:
            whole_pixels: both sizes are first cut to whole pixels, as the authors' code does.
            longest: no side is longer; None for no limit.
        """
        small, large = self.min_size, self.max_size
        if whole_pixels:
            small, large = int(small), None if large is None else int(large)
        pairs: list[tuple[int | float, int | float]] = [(small, small)]
        if large is not None:
            middle = math.sqrt(small * large)
            pairs.append((middle, middle))
        for ratio in self.ratios:
            long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
            pairs += [(long, short), (short, long)]
        return torch.tensor(pairs, dtype=torch.float32).clamp(max=math.inf if longest is None else longest)


@dataclass(frozen=True)
class DefaultBoxes:
    """The boxes of all maps.

    Attributes:
        maps: fine to coarse.
        whole_pixels: the authors' code holds a map's two sizes as whole numbers: 35.84 counts as 35.
        longest: torchvision cuts sides (not the boxes) at the side of the picture; None for no limit.
    """

    maps: tuple[DefaultMap, ...]
    whole_pixels: bool = False
    longest: int | float | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Boxes of a cell of each map."""
        return tuple(of_map.count for of_map in self.maps)

    def over(
        self, grid_sizes_hw: Sequence[Sequence[int]], device: torch.device | str | None = None
    ) -> Float[Tensor, "N 4"]:
        """All boxes, `xyxy` in pixels, not clipped to the picture: map by map, cells row by row.

        Args:
            grid_sizes_hw: cells (down, across) of each map.
            device: where they are made.

        Raises:
            RecordError: not one grid a map.
        """
        fits = len(grid_sizes_hw) == len(self.maps)
        require(fits, "DefaultBoxes.over(grid_sizes_hw)", f"{len(grid_sizes_hw)} grids", f"{len(self.maps)}")
        found = []
        for of_map, grid in zip(self.maps, grid_sizes_hw, strict=True):
            half = of_map.sizes(self.whole_pixels, self.longest).to(device) / 2
            cell = torch.cat([-half, half], 1) + of_map.step / 2
            found.append(grid_anchors(cell, grid, (of_map.step, of_map.step)))
        return torch.cat(found)


def default_maps(
    sizes: Sequence[int | float], ratios: Sequence[Sequence[int | float]], steps: Sequence[int | float]
) -> tuple[DefaultMap, ...]:
    """Maps whose larger size is the next one's smaller.

    Args:
        sizes: pixels, one more than there are maps.
        ratios: of each map.
        steps: of each map.

    Raises:
        RecordError: the lengths do not fit.
    """
    lengths = (len(sizes) - 1, len(ratios), len(steps))
    require(len(set(lengths)) == 1, "default_maps", f"{len(sizes)} sizes, {lengths[1:]} ratios and steps", "one a map")
    rows = zip(sizes[:-1], sizes[1:], ratios, steps, strict=True)
    return tuple(DefaultMap(small, large, tuple(of_map), step) for small, large, of_map, step in rows)
