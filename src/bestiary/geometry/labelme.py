"""Regions and boxes as LabelMe keeps them: one JSON document a picture, which annotation programs open and correct.

Convention: points are continuous pixels, as everywhere here. A region that has a hole goes to it and back along one
line, as polygons know no holes (`mask_to_polygons`).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from bestiary.geometry.polygons import mask_to_polygons

VERSION = "5.5.0"
"""Of the program whose layout this is."""


def document(name: str, size_hw: tuple[int, int], shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """The document of one picture, which it names but does not hold."""
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": size_hw[0],
        "imageWidth": size_hw[1],
    }


def region_shapes(
    label: str, mask: Bool[Tensor, "H W"], group: int | None = None, tolerance: int | float = 0.0
) -> list[dict[str, Any]]:
    """One polygon for each connected part of a mask, largest first.

    Args:
        label: its category.
        mask: pixel by pixel.
        group: number shared by the parts of one object.
        tolerance: pixels by which an outline may be simplified; 0 keeps the mask exactly.
    """
    found = mask_to_polygons(mask, "keep", tolerance)
    return [_shape(label, "polygon", points.reshape(-1, 2), group) for points in found]


def box_shape(label: str, box_xyxy: list[float], group: int | None = None) -> dict[str, Any]:
    """A box by two of its corners."""
    return _shape(label, "rectangle", np.asarray(box_xyxy, np.float64).reshape(2, 2), group)


def _shape(label: str, kind: str, points: Float64[np.ndarray, "P 2"], group: int | None) -> dict[str, Any]:
    return {
        "label": label,
        "points": points.round(2).tolist(),
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }
