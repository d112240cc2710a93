"""What every pixel is: classes over the picture with a legend, depth and normals as colours."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import blend, close_canvas, line_width, open_canvas, text_height
from bestiary.draw.colours import UNKNOWN, Colour, colour_of
from bestiary.draw.text import chip_size_hw, fit_text, put_chip
from bestiary.errors import RecordError
from bestiary.records import IGNORE_LABEL

MapStyle = Literal["overlay", "contours", "colours", "side_by_side"]
"""How a label map is drawn; `label_map` has the words."""

MISTAKE: Colour = (200, 30, 30)
"""Of pixels that are named wrongly."""


def label_map(
    image: Shaped[Tensor, "C H W"],
    labels: UInt8[Tensor, "H W"],
    categories: Sequence[str],
    opacity: float = 0.5,
    legend: bool = True,
    style: MapStyle = "overlay",
) -> UInt8[Tensor, "3 _h _w"]:
    """The picture and its classes, with a legend of those present in the lower left corner.

    A category named "background" is neither tinted nor outlined. Pixels whose truth is unknown (255) are hatched in
    grey, but by contours alone, which leave them as they are.

    Args:
        image: uint8 or floating 0..1.
        labels: indices into `categories`.
        categories: K names; a label without a name is shown as its number.
        opacity: of the overlay: 0 shows the picture alone, 1 the classes alone.
        legend: whether to write the names; those that do not fit are left out, least pixels first.
        style: "overlay" tints the picture; "contours" draws the inner border of every region in its class's colour;
            "colours" shows the classes without the picture, the background black; "side_by_side" puts the picture to
            the left of its overlay, the only style that changes the size.

    Raises:
        RecordError: an unknown style, opacity outside 0..1, or labels of another size than the picture.
    """
    if style not in get_args(MapStyle):
        raise RecordError(f"got {style!r}, wanted {', '.join(get_args(MapStyle))}", where="draw.label_map(style)")
    if not 0 <= opacity <= 1:
        raise RecordError(f"got {opacity}, wanted 0..1", where="draw.label_map(opacity)")
    if image.shape[-2:] != labels.shape:
        got, wanted = tuple(labels.shape), tuple(image.shape[-2:])
        raise RecordError(f"got size {got}, wanted the picture's, {wanted}", where="draw.label_map(labels)")
    plain = open_canvas(image)
    canvas = np.zeros_like(plain) if style == "colours" else plain.copy()
    classes = labels.detach().cpu().numpy()
    entries = _present(classes, categories)
    if style == "contours":
        entries = [entry for entry in entries if entry[0] != IGNORE_LABEL]
        _put_contours(canvas, classes, entries)
    else:
        _put_regions(canvas, classes, entries, 1.0 if style == "colours" else opacity)
    if legend:
        put_legend(canvas, [(name, colour) for _, name, colour in entries])
    return close_canvas(np.concatenate([plain, canvas], axis=1) if style == "side_by_side" else canvas)


def _present(classes: np.ndarray, categories: Sequence[str]) -> list[tuple[int, str, Colour]]:
    """Label, name and colour of the classes to be drawn, most pixels first."""
    counts = np.bincount(classes.ravel(), minlength=256)
    found: list[tuple[int, str, Colour]] = []
    for k in map(int, np.argsort(-counts, kind="stable")):
        name = "unknown" if k == IGNORE_LABEL else categories[k] if k < len(categories) else str(k)
        if counts[k] and name != "background":
            found.append((k, name, UNKNOWN if k == IGNORE_LABEL else colour_of(k)))
    return found


def _put_regions(
    canvas: np.ndarray, classes: np.ndarray, entries: Sequence[tuple[int, str, Colour]], opacity: float
) -> None:
    for k, _, colour in entries:
        where = classes == k
        if k == IGNORE_LABEL:
            rows, columns = np.indices(classes.shape)
            where = where & ((rows + columns) % 6 < 3)
        blend(canvas, where, colour, opacity)


def _put_contours(canvas: np.ndarray, classes: np.ndarray, entries: Sequence[tuple[int, str, Colour]]) -> None:
    """The pixels of each class that lie next to another one: each side of a border in its own colour."""
    import cv2

    meets = np.zeros(classes.shape, np.uint8)
    for ours, theirs in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differ = classes[ours] != classes[theirs]
        meets[ours] |= differ
        meets[theirs] |= differ
    # What meets is two pixels wide already, one on each side.
    width = line_width(canvas)
    near = cv2.dilate(meets, np.ones((2 * width - 1, 2 * width - 1), np.uint8)) if width > 1 else meets
    for k, _, colour in entries:
        canvas[(near > 0) & (classes == k)] = colour


def put_legend(canvas: np.ndarray, entries: Sequence[tuple[str, Colour]]) -> None:
    """Chips from the lower left corner upwards, in at most the lower half of the picture, most pixels on top."""
    chips: list[tuple[tuple[str, int], Colour, int]] = []
    room = canvas.shape[0] // 2
    for name, colour in entries:
        fitted = fit_text(name, text_height(canvas), canvas.shape[1])
        if fitted is None:
            continue
        rows = chip_size_hw(*fitted)[0]
        if rows > room:
            break
        room -= rows
        chips.append((fitted, colour, rows))
    top = canvas.shape[0] - sum(rows for _, _, rows in chips)
    for fitted, colour, rows in chips:
        put_chip(canvas, *fitted, (0, top), colour)
        top += rows


def mistake_map(
    image: Shaped[Tensor, "C H W"], truth: UInt8[Tensor, "H W"], said: UInt8[Tensor, "H W"]
) -> UInt8[Tensor, "3 H W"]:
    """The picture in pale grey with the pixels that are named wrongly in red; those of unknown truth hatched.

    Raises:
        RecordError: maps of another size than the picture.
    """
    for labels, where in ((truth, "truth"), (said, "said")):
        if image.shape[-2:] != labels.shape:
            got, wanted = tuple(labels.shape), tuple(image.shape[-2:])
            raise RecordError(f"got size {got}, wanted the picture's, {wanted}", where=f"draw.mistake_map({where})")
    canvas = open_canvas(image)
    grey = canvas.mean(axis=2, keepdims=True, dtype=np.float32) * 0.45 + 130
    canvas[:] = grey.astype(np.uint8)
    true, found = truth.detach().cpu().numpy(), said.detach().cpu().numpy()
    blend(canvas, (true != found) & (true != IGNORE_LABEL), MISTAKE, 0.8)
    _put_regions(canvas, true, [(IGNORE_LABEL, "unknown", UNKNOWN)], 0.5)
    return close_canvas(canvas)


def depth_map(depth: Float[Tensor, "H W"]) -> UInt8[Tensor, "3 H W"]:
    """Depth as colours (Google's Turbo): near is red, far is blue, unknown (0, negative or not finite) is black.

    The scale is the inverse depth between the 2nd and 98th percentile of the known pixels, so that the near, where
    most is to be seen, gets most of the colours.
    """
    import cv2

    metres = depth.detach().cpu().double().numpy()
    known = np.isfinite(metres) & (metres > 0)
    canvas = np.zeros((*metres.shape, 3), dtype=np.uint8)
    if known.any():
        inverse = 1 / metres[known]
        low, high = np.percentile(inverse, [2, 98])
        level = np.clip((inverse - low) / max(high - low, 1e-12), 0, 1)
        colours = cv2.applyColorMap(np.round(level * 255).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)
        canvas[known] = colours[:, 0, ::-1]
    return close_canvas(canvas)


def normal_map(normals: Float[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """Unit normals as colours: right is red, up is green, towards the camera is blue, as in computer graphics; a zero
    vector is black."""
    vectors = normals.detach().cpu().double().numpy().transpose(1, 2, 0)
    known = np.isfinite(vectors).all(axis=2) & (np.abs(vectors).sum(axis=2) > 0)
    canvas = np.zeros(vectors.shape, dtype=np.uint8)
    canvas[known] = np.round(np.clip(vectors[known] * (0.5, -0.5, -0.5) + 0.5, 0, 1) * 255).astype(np.uint8)
    return close_canvas(canvas)
