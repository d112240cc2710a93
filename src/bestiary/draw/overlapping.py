"""Classes that may overlap, over the picture."""

from collections.abc import Sequence

from jaxtyping import Bool, Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import close_canvas, open_canvas
from bestiary.draw.colours import Colour, colour_of
from bestiary.draw.instances import put_mask
from bestiary.draw.maps import put_legend
from bestiary.errors import RecordError


def class_masks(
    image: Shaped[Tensor, "C H W"], masks: Bool[Tensor, "K H W"], categories: Sequence[str]
) -> UInt8[Tensor, "3 H W"]:
    """The picture under each class's tint and contour, larger ones below smaller ones, with a legend of those present.

    Args:
        image: uint8 or floating 0..1.
        masks: pixels of each class.
        categories: K names; a class without a name is shown as its number.

    Raises:
        RecordError: masks of another size than the picture.
    """
    if image.shape[-2:] != masks.shape[-2:]:
        got, wanted = tuple(masks.shape[-2:]), tuple(image.shape[-2:])
        raise RecordError(f"got size {got}, wanted the picture's, {wanted}", where="draw.class_masks(masks)")
    canvas = open_canvas(image)
    sizes: list[int] = masks.sum((1, 2)).tolist()
    entries: list[tuple[str, Colour]] = []
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        if sizes[k]:
            put_mask(canvas, masks[k].cpu().numpy(), colour_of(k))
            entries.append((categories[k] if k < len(categories) else str(k), colour_of(k)))
    put_legend(canvas, entries)
    return close_canvas(canvas)
