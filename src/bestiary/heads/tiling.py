"""Large pictures in overlapping tiles, so that small objects are seen large; objects on a seam are found once.

A box that ends at an edge of its tile where the picture goes on is taken for a piece of an object. It is left to the
neighbouring tile if that sees all of the piece and what lies beyond it. Pieces and whole boxes of two tiles are one
object if they agree in what both tiles see; of those the best scored stays, and where it is a piece it grows to the
outermost of the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import box_area
from bestiary.predictions import Detections
from bestiary.transforms.tiling import Window

SLACK = 0.02
"""Share of a tile's side: a box that ends so near an inner edge is taken to go on beyond it."""

SAME_IOU = 0.5
"""Overlap, within what two tiles both see, from which their boxes are one object."""


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Attributes:
        tile: pixels a side; 0 for no tiles. A picture that is no larger is seen whole.
        overlap: least share of a side that neighbouring tiles have in common. Objects smaller than that are whole in
            some tile.
        whole: the whole picture is looked at, too, for objects larger than a tile.
    """

    tile: int = 0
    overlap: int | float = 0.2
    whole: bool = False

    def __post_init__(self) -> None:
        if self.tile < 0:
            raise UsageError(f"got {self.tile}, wanted pixels, or 0 for no tiles", where="tile")
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(f"got {self.overlap}, wanted a share from 0 to 0.9", where="tile_overlap")

    def windows(self, size_hw: tuple[int, int]) -> list[Window]:
        """Tiles of equal size that cover the picture, row by row: x1, y1, x2, y2 in whole pixels. Not the whole."""
        height, width = size_hw
        if not self.tile:
            return [(0, 0, width, height)]
        tall, wide = min(height, self.tile), min(width, self.tile)
        return [(x, y, x + wide, y + tall) for y in self._origins(height) for x in self._origins(width)]

    def looks_whole(self, size_hw: tuple[int, int]) -> bool:
        """Whether the whole picture is a further view, and not the only tile anyway."""
        return self.whole and len(self.windows(size_hw)) > 1

    def _origins(self, side: int) -> list[int]:
        """Evenly spread, the first at 0 and the last flush with the far end."""
        room = side - self.tile
        if room <= 0:
            return [0]
        step = max(1, int(self.tile * (1 - self.overlap)))
        count = -(-room // step) + 1
        return [round(i * room / (count - 1)) for i in range(count)]


NO_TILES = Tiling()
"""Pictures whole."""


def merge_over_seams(
    found: Detections, windows_xyxy: Float32[Tensor, "N 4"], tiles_xyxy: Float32[Tensor, "T 4"]
) -> Detections:
    """One box for each object, best first.

    Args:
        found: of all tiles, in pixels of the picture, clipped to their tiles.
        windows_xyxy: where each box was looked for: its tile, or the whole picture.
        tiles_xyxy: all tiles, without the whole picture.
    """
    windows, tiles = windows_xyxy.to(found.boxes_xyxy), tiles_xyxy.to(found.boxes_xyxy)
    cut = cut_sides(found.boxes_xyxy, windows, found.size_hw)
    rows = (~seen_better(found.boxes_xyxy, cut, windows, tiles, found.size_hw)).nonzero()[:, 0]
    rows = rows[torch.sort(found.scores[rows], descending=True, stable=True).indices]
    boxes, cut = found.boxes_xyxy[rows], cut[rows]
    groups = _groups(boxes, found.labels[rows], windows[rows], cut)
    merged = [_grown(boxes[group], cut[group[0]]) for group in groups]
    first = rows[torch.tensor([group[0] for group in groups], dtype=torch.int64, device=rows.device)]
    return replace(found[first], boxes_xyxy=torch.stack(merged) if merged else boxes)


def cut_sides(
    boxes_xyxy: Float32[Tensor, "*N 4"], windows_xyxy: Float32[Tensor, "*#N 4"], size_hw: tuple[int, int]
) -> Bool[Tensor, "*N 4"]:
    """Which sides of a box lie at an edge of its window where the picture goes on: left, top, right, bottom."""
    picture = windows_xyxy.new_tensor([0, 0, size_hw[1], size_hw[0]])
    slack = SLACK * (windows_xyxy[..., 2:] - windows_xyxy[..., :2])
    near = boxes_xyxy[..., :2] <= windows_xyxy[..., :2] + slack
    far = boxes_xyxy[..., 2:] >= windows_xyxy[..., 2:] - slack
    return torch.cat([near, far], -1) & (windows_xyxy != picture)


def seen_better(
    boxes_xyxy: Float32[Tensor, "N 4"],
    cut: Bool[Tensor, "N 4"],
    windows_xyxy: Float32[Tensor, "N 4"],
    tiles_xyxy: Float32[Tensor, "T 4"],
    size_hw: tuple[int, int],
) -> Bool[Tensor, " N"]:
    """Whether a box is a piece that lies in another tile as well, and is not cut there where it is cut here."""
    better = torch.zeros(len(boxes_xyxy), dtype=torch.bool, device=boxes_xyxy.device)
    for tile in tiles_xyxy:
        inside = (boxes_xyxy[:, :2] >= tile[:2]).all(1) & (boxes_xyxy[:, 2:] <= tile[2:]).all(1)
        cut_there = (cut & cut_sides(boxes_xyxy, tile[None], size_hw)).any(1)
        better |= inside & ~cut_there & (windows_xyxy != tile).any(1)
    return better & cut.any(1)


def _groups(
    boxes_xyxy: Float32[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    windows_xyxy: Float32[Tensor, "N 4"],
    cut: Bool[Tensor, "N 4"],
) -> list[list[int]]:
    """Boxes of one object each, best first: what agrees with the best, and what agrees with a piece among those."""
    near: dict[int, list[int]] = {}
    for i, j in _agreeing(boxes_xyxy, labels, windows_xyxy):
        near.setdefault(i, []).append(j)
    is_piece, taken = cut.any(1).tolist(), [False] * len(boxes_xyxy)
    groups = []
    for best in range(len(boxes_xyxy)):
        if taken[best]:
            continue
        taken[best], group, asked = True, [best], [best]
        while asked:
            for other in near.get(asked.pop(), ()):
                if not taken[other]:
                    taken[other] = True
                    group.append(other)
                    asked += [other] if is_piece[other] else []
        groups.append(group)
    return groups


def _agreeing(
    boxes_xyxy: Float32[Tensor, "N 4"], labels: Int64[Tensor, " N"], windows_xyxy: Float32[Tensor, "N 4"]
) -> Iterator[tuple[int, int]]:
    """Pairs of boxes of one category and two windows that are the same within what both windows see."""
    for tile in windows_xyxy.unique(dim=0):
        own = (windows_xyxy == tile).all(1)
        reaches = (boxes_xyxy[:, :2] < tile[2:]).all(1) & (boxes_xyxy[:, 2:] > tile[:2]).all(1)
        rows, columns = own.nonzero()[:, 0], (reaches & ~own).nonzero()[:, 0]
        both = _common(windows_xyxy[rows, None], windows_xyxy[columns])
        mine, others = _common(boxes_xyxy[rows, None], both), _common(boxes_xyxy[columns], both)
        shared = box_area(_common(mine, others))
        iou = shared / (box_area(mine) + box_area(others) - shared)
        same = (iou > SAME_IOU) & (labels[rows, None] == labels[columns])
        first, second = same.nonzero(as_tuple=True)
        yield from zip(rows[first].tolist(), columns[second].tolist(), strict=True)


def _common(boxes1: Float[Tensor, "*#P 4"], boxes2: Float[Tensor, "*#P 4"]) -> Float[Tensor, "*P 4"]:
    """What two boxes have in common; without area, and never turned over, where that is nothing."""
    low, high = torch.maximum(boxes1[..., :2], boxes2[..., :2]), torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    return torch.cat([low, torch.maximum(low, high)], -1)


def _grown(group_xyxy: Float32[Tensor, "G 4"], cut: Bool[Tensor, "4"]) -> Float32[Tensor, "4"]:
    """The first box, its cut sides moved out to the outermost of the group."""
    outermost = torch.cat([group_xyxy[:, :2].amin(0), group_xyxy[:, 2:].amax(0)])
    return torch.where(cut, outermost, group_xyxy[0])
