"""Objects on pictures: soft masks with a contour, boxes, joints with limbs, and a chip of text each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import blend, close_canvas, line_width, open_canvas, text_height
from bestiary.draw.colours import Colour, colour_of
from bestiary.draw.skeletons import limbs_of
from bestiary.draw.text import chip_size_hw, fit_text, put_chip
from bestiary.errors import RecordError

Corner = tuple[int, int]
SMALLEST_WITH_TEXT = 48
"""Shorter side, pixels, below which chips would hide the objects and are left out."""


def objects(
    image: Shaped[Tensor, "C H W"],
    boxes_xyxy: Float[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    texts: Sequence[str],
    masks: Bool[Tensor, "N H W"] | None = None,
    keypoints: Float[Tensor, "N J 3"] | None = None,
    limbs: Sequence[tuple[int, int]] | None = None,
) -> UInt8[Tensor, "3 H W"]:
    """The picture with boxes, texts, masks and joints, coloured by label; larger objects lie below smaller ones.

    Args:
        image: uint8 or floating 0..1, any number of channels.
        boxes_xyxy: pixels.
        labels: colour each object.
        texts: one an object, written where it covers no other text if there is such a place; "" writes none.
        masks: filled softly, with a contour.
        keypoints: x, y and visibility or score; joints whose third number is not positive are left out.
        limbs: pairs of joints to join; by default those of the known layout (COCO 17, MPII 16, LSP 14) with that many
            joints.

    Raises:
        RecordError: not one text an object.
    """
    if len(texts) != len(boxes_xyxy):
        raise RecordError(f"got {len(texts)} texts, wanted {len(boxes_xyxy)}, one a box", where="draw.objects(texts)")
    canvas = open_canvas(image)
    boxes = boxes_xyxy.detach().cpu().double().numpy()
    colours = [colour_of(label) for label in labels.tolist()]
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable").tolist()
    if masks is not None:
        filled = masks.detach().cpu().numpy()
        for i in order:
            put_mask(canvas, filled[i], colours[i])
    for i in order:
        _put_box(canvas, boxes[i], colours[i])
    if keypoints is not None:
        points = keypoints.detach().cpu().double().numpy()
        joined = limbs_of(points.shape[1]) if limbs is None else limbs
        for i in order:
            _put_joints(canvas, points[i], colours[i], joined)
    _put_texts(canvas, boxes, colours, texts)
    return close_canvas(canvas)


def put_mask(canvas: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """A soft tint and a contour."""
    import cv2

    blend(canvas, mask, colour, 0.4)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, colour, line_width(canvas))


def _put_box(canvas: np.ndarray, box: np.ndarray, colour: Colour) -> None:
    import cv2

    if not np.isfinite(box).all():
        return
    # A continuous edge at x lies between pixels x - 1 and x; the line is drawn inside the box, on the pixels it holds.
    x1, y1, x2, y2 = np.clip(np.round(box), -1e6, 1e6).astype(int).tolist()
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    width = line_width(canvas)
    if width > 1:
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), width + 2, cv2.LINE_8)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, width, cv2.LINE_8)


def _put_joints(canvas: np.ndarray, points: np.ndarray, colour: Colour, limbs: Sequence[tuple[int, int]]) -> None:
    """Limbs in the object's colour over a dark line, joints as discs with a dark rim; positions are drawn to a
    sixteenth of a pixel."""
    import cv2

    width = line_width(canvas)
    seen = (points[:, 2] > 0) & np.isfinite(points).all(axis=1)
    # OpenCV's centre of the top left pixel is (0, 0), ours is (0.5, 0.5).
    fixed = np.clip(np.round((np.nan_to_num(points[:, :2]) - 0.5) * 16), -1e6, 1e6).astype(int).tolist()
    # Where lines are one pixel wide a rim would hide what is below.
    for under in (True, False) if width > 1 else (False,):
        for a, b in limbs:
            if a < len(seen) and b < len(seen) and seen[a] and seen[b]:
                ink, thick = ((0, 0, 0), width + 2) if under else (colour, width)
                cv2.line(canvas, fixed[a], fixed[b], ink, thick, cv2.LINE_AA, 4)
    for point, drawn in zip(fixed, seen, strict=True):
        if drawn:
            if width > 1:
                cv2.circle(canvas, point, (width + 1) * 16, (0, 0, 0), -1, cv2.LINE_AA, 4)
            cv2.circle(canvas, point, width * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)


def _put_texts(canvas: np.ndarray, boxes: np.ndarray, colours: Sequence[Colour], texts: Sequence[str]) -> None:
    taken: list[tuple[int, int, int, int]] = []
    height, width = canvas.shape[:2]
    if min(height, width) < SMALLEST_WITH_TEXT:
        return
    for box, colour, text in zip(boxes, colours, texts, strict=True):
        fitted = fit_text(text, text_height(canvas), width) if text and np.isfinite(box).all() else None
        if fitted is None:
            continue
        rows, columns = chip_size_hw(*fitted)
        if rows > height:
            continue
        places = [_pull_in(corner, (rows, columns), (height, width)) for corner in _corners(box, rows, columns)]
        x, y = min(places, key=lambda place: _overlap((*place, place[0] + columns, place[1] + rows), taken))
        taken.append((x, y, x + columns, y + rows))
        put_chip(canvas, *fitted, (x, y), colour)


def _corners(box: np.ndarray, rows: int, columns: int) -> list[Corner]:
    """Where a chip may sit, best first: above the box, inside its top, below it, inside its bottom; left, then
    right."""
    x1, y1, x2, y2 = np.clip(np.round(box), -1e6, 1e6).astype(int).tolist()
    tops = (y1 - rows, y1, y2, y2 - rows)
    return [(x, y) for y in tops for x in (x1, x2 - columns)]


def _pull_in(corner: Corner, chip_hw: tuple[int, int], size_hw: tuple[int, int]) -> Corner:
    return max(0, min(corner[0], size_hw[1] - chip_hw[1])), max(0, min(corner[1], size_hw[0] - chip_hw[0]))


def _overlap(chip: tuple[int, int, int, int], taken: Sequence[tuple[int, int, int, int]]) -> int:
    """Square pixels of earlier chips that a chip at this place would cover."""
    return sum(
        max(0, min(chip[2], x2) - max(chip[0], x1)) * max(0, min(chip[3], y2) - max(chip[1], y1))
        for x1, y1, x2, y2 in taken
    )
