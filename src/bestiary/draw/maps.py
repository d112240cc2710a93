"""What every pixel is: classes over the picture with a legend, depth and normals as colours."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import blend, close_canvas, open_canvas, text_height
from bestiary.draw.colours import UNKNOWN, Colour, colour_of
from bestiary.draw.text import chip_size_hw, fit_text, put_chip
from bestiary.errors import RecordError
from bestiary.records import IGNORE_LABEL


def label_map(
    image: Shaped[Tensor, "C H W"],
    labels: UInt8[Tensor, "H W"],
    categories: Sequence[str],
    opacity: float = 0.5,
    legend: bool = True,
) -> UInt8[Tensor, "3 H W"]:
    """The picture under its coloured classes, with a legend of those present in its lower left corner.

    A category named "background" is not tinted. Pixels whose truth is unknown (255) are hatched in grey.

    Args:
        image: uint8 or floating 0..1.
        labels: indices into `categories`.
        categories: K names; a label without a name is shown as its number.
        opacity: 0 shows the picture alone, 1 the classes alone.
        legend: whether to write the names; those that do not fit are left out, least pixels first.

    Raises:
        RecordError: opacity outside 0..1, or labels of another size than the picture.
    """
    if not 0 <= opacity <= 1:
        raise RecordError(f"got {opacity}, wanted 0..1", where="draw.label_map(opacity)")
    if image.shape[-2:] != labels.shape:
        got, wanted = tuple(labels.shape), tuple(image.shape[-2:])
        raise RecordError(f"got size {got}, wanted the picture's, {wanted}", where="draw.label_map(labels)")
    canvas = open_canvas(image)
    classes = labels.detach().cpu().numpy()
    counts = np.bincount(classes.ravel(), minlength=256)
    present = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    entries = []
    for k in present:
        name = "unknown" if k == IGNORE_LABEL else categories[k] if k < len(categories) else str(k)
        if name == "background":
            continue
        where, colour = classes == k, colour_of(k)
        if k == IGNORE_LABEL:
            rows, columns = np.indices(classes.shape)
            where, colour = where & ((rows + columns) % 6 < 3), UNKNOWN
        blend(canvas, where, colour, opacity)
        entries.append((name, colour))
    if legend:
        _put_legend(canvas, entries)
    return close_canvas(canvas)


def _put_legend(canvas: np.ndarray, entries: Sequence[tuple[str, Colour]]) -> None:
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
