"""Pictures to the size a classifier sees, and to one batch."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.system import Images


def as_float(image: Shaped[Tensor, "C H W"]) -> Float[Tensor, "C H W"]:
    """uint8 0..255 to float 0..1; floats as they are."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def resize_short_side(image: Float[Tensor, "C H W"], side: int) -> Float[Tensor, "C H2 W2"]:
    """Bilinear and antialiased, the shorter side to `side`, the longer to floor(longer * side / shorter)."""
    height, width = image.shape[-2:]
    short = min(height, width)
    if short == side:
        return image
    size = (int(height * side / short), int(width * side / short)) if short else (side, side)
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def resize_logits(
    logits: Float[Tensor, "B K H W"], size_hw: tuple[int, int], align_corners: bool = False
) -> Float[Tensor, "B K H2 W2"]:
    """Logits or probabilities of pixels, bilinear, to `size_hw`; as they are if they have it."""
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=align_corners)


def centre_crop(image: Float[Tensor, "C H W"], side: int) -> Float[Tensor, "C side side"]:
    """The middle `side x side` pixels; where the margin is odd, Python's round decides, as in torchvision."""
    top, left = round((image.shape[-2] - side) / 2), round((image.shape[-1] - side) / 2)
    return image[:, top : top + side, left : left + side]


def stack_equal(images: Images) -> Shaped[Tensor, "B C H W"]:
    """One batch of pictures that all have one size.

    Raises:
        RecordError: they do not.
    """
    if isinstance(images, Tensor):
        return images
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) != 1:
        got = ", ".join(str(s) for s in sorted(sizes)) or "no picture"
        mend = "Resize or crop them in the transform; `to_network_scale` does it as prediction would."
        raise RecordError(f"got pictures of shapes {got}, wanted one shape for the batch", where="images", mend=mend)
    return torch.stack(list(images))
