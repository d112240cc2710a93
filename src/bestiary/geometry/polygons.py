"""Between polygons and masks.

Convention: a polygon is flat x, y, x, y ... in continuous pixels (the top-left pixel covers 0 to 1), closed by itself.
Filling is COCO's, pixel for pixel: outlines are drawn on a grid five times as fine as the pixels, each polygon is
filled by the even-odd rule, and several polygons are united. A polygon that crosses itself therefore has holes; several
polygons have none in common.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.geometry.rle import Rle, rle_union, shortened
from bestiary.records import require


def polygons_to_rle(polygons: Sequence[Sequence[int | float] | np.ndarray], size_hw: tuple[int, int]) -> Rle:
    """The union of polygons, each filled by the even-odd rule, as COCO rasterises them.

    Args:
        polygons: each flat x, y, x, y ...; continuous pixels; at least three points; may leave the picture.
        size_hw: of the mask.

    Raises:
        RecordError: no polygon, or one with fewer points, half a point, or numbers that are not finite or beyond 10^8.
    """
    from bestiary.geometry._kernels.polygons import polygon_toggles, toggles_to_counts

    height, width = size_hw
    require(len(polygons) > 0, "polygons", "none", "at least one")
    parts: list[Rle] = []
    for i, polygon in enumerate(polygons):
        points = _points(polygon, f"polygons[{i}]")
        toggles = np.empty(1024, np.int64)
        used = polygon_toggles(points, height, width, toggles)
        if used > len(toggles):
            toggles = np.empty(used, np.int64)
            polygon_toggles(points, height, width, toggles)
        parts.append(Rle(size_hw, toggles_to_counts(np.sort(toggles[:used]), height * width)))
    return parts[0] if len(parts) == 1 else rle_union(parts)


def polygons_to_mask(
    polygons: Sequence[Sequence[int | float] | np.ndarray], size_hw: tuple[int, int]
) -> Bool[Tensor, "H W"]:
    """`polygons_to_rle`, pixel by pixel."""
    return polygons_to_rle(polygons, size_hw).decode()


def _points(polygon: Sequence[int | float] | np.ndarray, where: str) -> Float64[np.ndarray, "P 2"]:
    try:
        flat = np.asarray(polygon, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise RecordError(f"got {shortened(polygon)}, wanted numbers x, y, x, y ...", where=where) from error
    fits = len(flat) >= 6 and len(flat) % 2 == 0
    require(fits, where, f"{len(flat)} numbers", "x, y of at least three points")
    # Beyond, the fine grid's integers would overflow before the polygon could matter to any picture.
    sane = bool((np.abs(flat) <= 1e8).all())
    require(sane, where, shortened(flat.tolist()), "finite numbers within 10^8")
    return flat.reshape(-1, 2)


def mask_to_polygons(
    mask: Bool[Tensor, "H W"], holes: Literal["fill", "keep"] = "fill", tolerance: int | float = 0.0
) -> list[Float64[np.ndarray, " P2"]]:
    """Outlines of a mask's connected parts, flat x, y in continuous pixels, largest first.

    Convention: parts touch at corners (8-connected); outlines run a quarter of a pixel inside the pixels' borders.
    `polygons_to_mask` of the result is the mask, exactly, or with "fill" the mask with its holes filled.

    Args:
        mask: pixel by pixel.
        holes: polygon formats know no holes. "fill" leaves them out. "keep" has the outline go to each hole, around it,
            and back along the same line, which the even-odd rule does not see: one polygon a part, as with "fill".
        tolerance: pixels that an outline may be off, for fewer points (Douglas and Peucker, 1973); outlines of which
            less than three are left, are left out. 0 keeps the mask exactly.

    Raises:
        RecordError: `holes` is neither, or the tolerance is negative.
    """
    import cv2

    require(tolerance >= 0, "mask_to_polygons(tolerance)", tolerance, "pixels, 0 or more")
    require(holes in ("fill", "keep"), "mask_to_polygons(holes)", repr(holes), '"fill" or "keep"')
    pixels = mask.detach().cpu().numpy().astype(np.uint8)
    # Twice the size: each pixel is 2 x 2, and the outline's centres can be moved to the pixels' outer borders.
    doubled = pixels.repeat(2, axis=0).repeat(2, axis=1)
    mode = cv2.RETR_EXTERNAL if holes == "fill" else cv2.RETR_CCOMP
    outlines, nesting = cv2.findContours(doubled, mode, cv2.CHAIN_APPROX_SIMPLE)
    rings: dict[int, list[np.ndarray]] = {}
    # With two levels, a row of `nesting` is: next, previous, first hole, outline that the hole lies in.
    parents = [-1] * len(outlines) if holes == "fill" or nesting is None else nesting[0, :, 3].tolist()
    for number, (outline, parent) in enumerate(zip(outlines, parents, strict=True)):
        kept = cv2.approxPolyDP(outline, 2.0 * tolerance, True) if tolerance else outline
        points = kept.reshape(-1, 2).astype(np.float64) * 0.5 + 0.25
        if tolerance and len(points) < 3:
            continue
        if parent < 0:
            rings[number] = [points]
        elif parent in rings:  # a part is listed before its holes
            rings[parent].append(points)
    parts = sorted(rings.items(), key=lambda part: cv2.contourArea(outlines[part[0]]), reverse=True)
    return [_bridged(ring).reshape(-1) for _, ring in parts]


def _bridged(rings: list[Float64[np.ndarray, "_P 2"]]) -> Float64[np.ndarray, "Q 2"]:
    """One closed walk: the first ring, then from its first point around each other ring and back."""
    if len(rings) == 1:
        return rings[0]
    walk = [rings[0], rings[0][:1]]
    for ring in rings[1:]:
        walk += [ring, ring[:1], rings[0][:1]]
    return np.concatenate(walk)
