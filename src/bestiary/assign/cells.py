"""Which cell of a grid answers for which object (Redmon et al., You Only Look Once, CVPR 2016, section 2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bestiary.geometry.boxes import xyxy_to_cxcywh
from bestiary.records import Record, require

NOBODY = -1
"""Label of a cell that no object's centre falls into."""


@dataclass(frozen=True, eq=False)
class CellTruth(Record):
    """What each of S x S cells of B pictures is to learn.

    Attributes:
        labels: category of the cell's object, or NOBODY.
        boxes: its centre x, y, from 0 to 1 within the cell, and its width and height as shares of the picture's;
            zeros where there is none.
        ignored: cells without object whose centre lies on a crowd: there nothing is known.
    """

    labels: Int64[Tensor, "B S S"]
    boxes: Float[Tensor, "B S S 4"]
    ignored: Bool[Tensor, "B S S"]

    @property
    def occupied(self) -> Bool[Tensor, "B S S"]:
        """Cells that have an object."""
        return self.labels != NOBODY


def assign_cells(
    boxes_xyxy: Float[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    size_hw: tuple[int, int],
    side: int,
    crowds_xyxy: Float[Tensor, "M 4"] | None = None,
) -> CellTruth:
    """The cells of one picture (B is 1): an object belongs to the cell that its centre falls into, and a cell to the
    first such object in their order. The others are lost to training; the authors' code shuffles the objects first,
    where here the moved frames of augmentation part them.

    Args:
        boxes_xyxy: objects, pixels.
        labels: their categories.
        size_hw: of the picture.
        side: S.
        crowds_xyxy: boxes around groups.
    """
    require(side >= 1, "assign_cells(side)", side, "at least 1")
    height, width = size_hw
    shares = xyxy_to_cxcywh(boxes_xyxy) / boxes_xyxy.new_tensor([width, height, width, height])
    places = (shares[:, :2] * side).long().clamp(0, side - 1)
    cells = places[:, 1] * side + places[:, 0]
    grid = torch.full((side * side,), NOBODY, dtype=torch.int64, device=labels.device)
    truth = shares.new_zeros(side * side, 4)
    rows = torch.arange(len(labels), device=labels.device)
    owner = torch.full_like(grid, len(labels)).scatter_reduce(0, cells, rows, "amin")
    taken = owner < len(labels)
    grid[taken] = labels[owner[taken]]
    within = torch.cat([shares[:, :2] * side - places, shares[:, 2:]], 1)
    truth[taken] = within[owner[taken]]
    ignored = _on_crowds(crowds_xyxy, size_hw, side) if crowds_xyxy is not None else torch.zeros_like(taken)
    shape = (1, side, side)
    return CellTruth(grid.view(shape), truth.view(*shape, 4), (ignored & ~taken).view(shape))


def joined_cells(parts: list[CellTruth]) -> CellTruth:
    """The pictures of all parts, one after the other."""
    return CellTruth(
        torch.cat([part.labels for part in parts]),
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.ignored for part in parts]),
    )


def _on_crowds(crowds_xyxy: Float[Tensor, "M 4"], size_hw: tuple[int, int], side: int) -> Bool[Tensor, " C"]:
    """Cells whose centres lie in one of the boxes."""
    steps = (torch.arange(side, device=crowds_xyxy.device) + 0.5) / side
    y, x = torch.meshgrid(steps * size_hw[0], steps * size_hw[1], indexing="ij")
    x, y = x.flatten(), y.flatten()
    x1, y1, x2, y2 = crowds_xyxy[:, :, None].unbind(1)
    return ((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)).any(0)
