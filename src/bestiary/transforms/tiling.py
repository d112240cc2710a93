"""Training on tiles: the part of a large picture that a detector sees when it predicts tile by tile."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from bestiary.records import Sample, Target
from bestiary.transforms.keep import Keep, visible_fraction
from bestiary.transforms.moving import move_target
from bestiary.transforms.transform import Described, require_argument, require_probability
from bestiary.transforms.warp import Warp

Window = tuple[int, int, int, int]
"""Part of a picture: x1, y1, x2, y2 in whole pixels."""

LEAST_VISIBLE = 0.3
"""Share of an object from which a tile counts as showing it. What shows less can be told neither from background nor
from an object, and the neighbouring tile shows more of it.
"""


@dataclass(frozen=True, repr=False)
class RandomTile(Described):
    """A tile at a random place; a picture that is no larger stays whole.

    Objects that show less than `min_visible` become crowds: neither objects nor background.

    Attributes:
        side: pixels of the tile.
        with_object: probability that the tile is drawn around an object, each equally likely, which it shows whole if
            it is large enough; else every place is equally likely. Small objects are rare on large pictures.
        whole: probability that the picture stays whole.
        min_visible: see above.
    """

    side: int
    with_object: float = 0.7
    whole: float = 0.0
    min_visible: float = LEAST_VISIBLE

    def __post_init__(self) -> None:
        require_argument(self.side >= 1, "RandomTile(side)", self.side, "at least 1 pixel")
        require_probability(self.with_object, "RandomTile(with_object)")
        require_probability(self.whole, "RandomTile(whole)")
        require_probability(self.min_visible, "RandomTile(min_visible)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The tile."""
        if rng.random() < self.whole or max(sample.size_hw) <= self.side:
            return sample
        x1, y1, x2, y2 = self.draw(sample, rng)
        target = cut_to_window(sample.target, sample.size_hw, (x1, y1, x2, y2), self.min_visible)
        return replace(sample, image=sample.image[:, y1:y2, x1:x2].contiguous(), target=target)

    def draw(self, sample: Sample, rng: np.random.Generator) -> Window:
        """The tile's place."""
        objects, (height, width) = sample.target.objects, sample.size_hw
        ranges = [(0.0, float(width)), (0.0, float(height))]
        if rng.random() < self.with_object and objects is not None and len(objects):
            x1, y1, x2, y2 = objects.boxes_xyxy[int(rng.integers(len(objects)))].tolist()
            ranges = [self._around(x1, x2), self._around(y1, y2)]
        corner = [self._origin(low, high, side, rng) for (low, high), side in zip(ranges, (width, height), strict=True)]
        return corner[0], corner[1], corner[0] + min(self.side, width), corner[1] + min(self.side, height)

    def _around(self, low: float, high: float) -> tuple[float, float]:
        """First and last origin from which a tile shows all between `low` and `high`, or nothing else."""
        return min(low, high - self.side), max(low, high - self.side)

    def _origin(self, low: float, high: float, side: int, rng: np.random.Generator) -> int:
        room = max(0, side - self.side)
        first, last = (int(min(max(end, 0), room)) for end in (np.ceil(low), np.floor(high)))
        return int(rng.integers(min(first, last), max(first, last), endpoint=True))


def cut_to_window(
    target: Target, size_hw: tuple[int, int], window_xyxy: Window, min_visible: float = LEAST_VISIBLE
) -> Target:
    """What is known of a part of a picture; objects of which less than `min_visible` shows become crowds, and proposals
    are dropped.

    Args:
        target: of the whole picture.
        size_hw: of the whole picture.
        window_xyxy: the part, inside the picture.
        min_visible: share of a box's area.
    """
    x1, y1, x2, y2 = window_xyxy
    if target.objects is not None and len(target.objects):
        objects = target.objects
        hidden = _visible_share(objects.boxes_xyxy, window_xyxy) < min_visible
        crowd = hidden if objects.crowd is None else objects.crowd | hidden
        target = replace(target, objects=replace(objects, crowd=crowd))
    if target.proposals_xyxy is not None:
        shows = _visible_share(target.proposals_xyxy, window_xyxy) >= min_visible
        target = replace(target, proposals_xyxy=target.proposals_xyxy[shows])
    cut = Warp.cut(size_hw, (x1, y1), (y2 - y1, x2 - x1))
    return move_target(target, replace(cut, keep=Keep(min_visible=0.0)))


def _visible_share(boxes_xyxy: Float32[Tensor, "N 4"], window_xyxy: Window) -> Float64[Tensor, " N"]:
    x1, y1, x2, y2 = window_xyxy
    moved = boxes_xyxy.double().numpy() - np.array([x1, y1, x1, y1], dtype=np.float64)
    cut = np.clip(moved, 0, np.array([x2 - x1, y2 - y1] * 2, dtype=np.float64))
    return torch.from_numpy(visible_fraction(moved, cut, (y2 - y1, x2 - x1)))
