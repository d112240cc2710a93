"""What a network's maps say of superpixels: means over them, their neighbourhood, their label."""

import torch
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

from bestiary.records import IGNORE_LABEL


def superpixel_means(
    maps: Float[Tensor, "C _h _w"], segments: Int32[Tensor, "H W"], count: int, size_hw: tuple[int, int] | None = None
) -> Float[Tensor, "count C"]:
    """Mean of each map over each superpixel, where every pixel has the value of the map's cell that it lies in.

    Only the pairs of a superpixel and a cell that meet are looked at, each weighed by the pixels that it has.

    Args:
        maps: of any size.
        segments: numbers 0..count - 1.
        count: of superpixels; one without pixels has the mean 0.
        size_hw: of the plane that the maps cover, if it reaches beyond the segments at the right and bottom.
    """
    height, width = segments.shape
    rows, columns = (
        torch.arange(side, device=segments.device) * cells // whole
        for side, cells, whole in zip((height, width), maps.shape[-2:], size_hw or (height, width), strict=True)
    )
    cell = rows[:, None] * maps.shape[-1] + columns
    cells = maps.shape[-2] * maps.shape[-1]
    pairs, pixels = torch.unique(segments.long() * cells + cell, return_counts=True)
    owners, shares = pairs // cells, pixels.to(maps.dtype)
    sums = maps.flatten(1)[:, pairs % cells] * shares
    totals = maps.new_zeros(len(maps), count).index_add(1, owners, sums)
    areas = shares.new_zeros(count).index_add(0, owners, shares)
    return (totals / areas.clamp(min=1)).T


def neighbourhood_boxes(segments: Int32[Tensor, "H W"], count: int, steps: int) -> Int64[Tensor, "count 4"]:
    """Whole-pixel bounds (xyxy, the end outside) of all superpixels that can be reached from each in so many steps,
    each to one that touches along a side of a pixel.
    """
    labels = segments.long()
    height, width = labels.shape
    ys = torch.arange(height, device=labels.device)[:, None].expand(height, width).flatten()
    xs = torch.arange(width, device=labels.device).expand(height, width).flatten()
    # x1 and y1 negated, so that all four grow by maxima
    corners = torch.stack([-xs, -ys, xs + 1, ys + 1], dim=1)
    bounds = torch.full((count, 4), -max(height, width), device=labels.device)
    bounds = _grown(bounds, labels.flatten(), corners)
    touching = [
        torch.stack([labels[:, :-1].flatten(), labels[:, 1:].flatten()], dim=1),
        torch.stack([labels[:-1].flatten(), labels[1:].flatten()], dim=1),
    ]
    pairs = torch.unique(torch.cat(touching), dim=0)
    pairs = torch.cat([pairs, pairs.flip(1)])
    for _ in range(steps):
        bounds = _grown(bounds, pairs[:, 0], bounds[pairs[:, 1]])
    return torch.cat([-bounds[:, :2], bounds[:, 2:]], dim=1)


def _grown(
    bounds: Int64[Tensor, "S 4"], rows: Int64[Tensor, " N"], reached: Int64[Tensor, "N 4"]
) -> Int64[Tensor, "S 4"]:
    return bounds.scatter_reduce(0, rows[:, None].expand(-1, 4), reached, "amax")


def superpixel_labels(
    label_map: UInt8[Tensor, "H W"], segments: Int32[Tensor, "H W"], count: int
) -> UInt8[Tensor, " count"]:
    """The most frequent label of each superpixel's labelled pixels (the lower one of a tie), `IGNORE_LABEL` where there
    is none.
    """
    known = label_map != IGNORE_LABEL
    votes = torch.bincount(
        segments[known].long() * IGNORE_LABEL + label_map[known].long(), minlength=count * IGNORE_LABEL
    )
    table = votes.view(count, IGNORE_LABEL)
    winners = table.argmax(1)
    return torch.where(table.sum(1) > 0, winners, IGNORE_LABEL).to(torch.uint8)
