"""Anchors: boxes of fixed sizes and shapes laid over the cells of feature maps (Ren et al., NIPS 2015, section 3.1).

Cell anchors are centred on the cell's corner point (0, 0), not its middle, and rounded to whole pixels: torchvision's
layout, on which published weights were trained.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.records import require


def cell_anchors(sizes: Sequence[int | float], aspect_ratios: Sequence[int | float]) -> Float[Tensor, "K 4"]:
    """Anchors of one cell, `xyxy` about (0, 0), rounded to whole pixels (halves to even).

    An anchor of size s and ratio r is s / sqrt(r) wide and s sqrt(r) high, so that s * s is its area.

    Args:
        sizes: square root of the area, pixels.
        aspect_ratios: height / width.

    Returns:
        ratio by ratio, and within a ratio size by size.
    """
    require(len(sizes) > 0 and min(sizes) > 0, "cell_anchors(sizes)", sizes, "positive numbers of pixels")
    fits = len(aspect_ratios) > 0 and min(aspect_ratios) > 0
    require(fits, "cell_anchors(aspect_ratios)", aspect_ratios, "positive ratios")
    size = torch.tensor([float(s) for s in sizes])
    root = torch.tensor([float(r) for r in aspect_ratios]).sqrt()[:, None]
    # Width by the reciprocal, then a product: the rounding of s / root would put some halves on the other side.
    half = torch.stack([(1 / root) * size, root * size], dim=-1).reshape(-1, 2) / 2
    return torch.cat([-half, half], dim=1).round()


def strides_of(image_hw: Sequence[int], grid_sizes_hw: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(down, across) pixels between cells of each map: the padded picture's size over the map's, rounded down."""
    for grid in grid_sizes_hw:
        require(min(grid) > 0, "strides_of(grid_sizes_hw)", tuple(grid), "at least one cell each way")
    return [(image_hw[0] // grid[0], image_hw[1] // grid[1]) for grid in grid_sizes_hw]


def grid_anchors(
    anchors: Float[Tensor, "K 4"], grid_hw: Sequence[int], stride_hw: Sequence[int | float]
) -> Float[Tensor, "HWK 4"]:
    """The anchors of one cell repeated over a map: cells row by row, and within a cell in the order given.

    Args:
        anchors: of the cell (0, 0), pixels.
        grid_hw: cells (down, across).
        stride_hw: pixels between cells (down, across).
    """
    down = torch.arange(grid_hw[0], device=anchors.device, dtype=anchors.dtype) * stride_hw[0]
    across = torch.arange(grid_hw[1], device=anchors.device, dtype=anchors.dtype) * stride_hw[1]
    y, x = torch.meshgrid(down, across, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + anchors).reshape(-1, 4)


def pyramid_anchors(
    sizes: Sequence[Sequence[int | float]],
    aspect_ratios: Sequence[int | float],
    grid_sizes_hw: Sequence[Sequence[int]],
    strides_hw: Sequence[Sequence[int | float]],
    device: torch.device | str | None = None,
) -> list[Float[Tensor, "_a 4"]]:
    """All anchors of a pyramid, `xyxy` in pixels of the padded picture, a tensor per map.

    Args:
        sizes: of each map, one or more.
        aspect_ratios: height / width, the same on every map.
        grid_sizes_hw: height and width of each map.
        strides_hw: (down, across) pixels between its cells (`strides_of`).
        device: where the anchors are made.

    Raises:
        RecordError: not one entry a map.
    """
    counts = (len(sizes), len(grid_sizes_hw), len(strides_hw))
    require(len(set(counts)) == 1, "pyramid_anchors", f"{counts} sizes, grids and strides", "as many of each")
    return [
        grid_anchors(cell_anchors(of_map, aspect_ratios).to(device), grid, stride)
        for of_map, grid, stride in zip(sizes, grid_sizes_hw, strides_hw, strict=True)
    ]
