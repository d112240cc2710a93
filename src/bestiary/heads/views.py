"""How a classifier looks at a picture when it predicts: the test protocols of the papers.

Centre: one crop. Ten crops: Krizhevsky et al., NIPS 2012, section 4.1. Dense: Sermanet et al., OverFeat, ICLR 2014,
section 3.3, and Simonyan, Zisserman, ICLR 2015, section 3.2: fully connected layers become convolutions, the network
runs once over the whole picture, and the map of class scores is averaged over its places. The probabilities of mirror
images and of several scales are averaged.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.layers.scaling import centre_crop, resize_short_side

View = Literal["centre", "ten_crop", "dense"]


@dataclass(frozen=True)
class Views:
    """What of a picture is looked at.

    Attributes:
        kind: centre: the middle; ten_crop: corners and middle, and their mirror images; dense: the whole picture.
        sides: lengths that the shorter side is scaled to, one after the other (Q of the VGG paper); none for the
            system's own.
        flip: also the mirror image of each view; ten crops have theirs anyway.
    """

    kind: View = "centre"
    sides: tuple[int, ...] = ()
    flip: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(View):
            raise UsageError(f"got {self.kind!r}, wanted one of {', '.join(get_args(View))}", where="views")

    def require_room(self, crop: int, min_side: int) -> None:
        """Raise `UsageError` where a side is smaller than what is cut out of it, or than the network can see."""
        least = min_side if self.kind == "dense" else crop
        for side in self.sides:
            if side < least:
                raise UsageError(f"got {side}, wanted at least {least} for {self.kind} views", where="view_sides")

    def of(self, image: Float[Tensor, "C H W"], resize: int, crop: int) -> list[Float[Tensor, "C _h _w"]]:
        """The views of one picture, scale by scale.

        Args:
            image: decoded, 0..1.
            resize: shorter side, where `sides` is empty.
            crop: side of a crop.
        """
        found: list[Tensor] = []
        for side in self.sides or (resize,):
            scaled = resize_short_side(image, side)
            if self.kind == "ten_crop":
                found += ten_crop(scaled, crop)
                continue
            view = scaled if self.kind == "dense" else centre_crop(scaled, crop)
            found += [view, view.flip(-1)] if self.flip else [view]
        return found


CENTRE = Views()


def ten_crop(image: Float[Tensor, "C H W"], side: int) -> list[Float[Tensor, "C side side"]]:
    """Top left, top right, bottom left, bottom right, centre, and the mirror images of these five in that order."""
    bottom, right = image.shape[-2] - side, image.shape[-1] - side
    corners = [image[:, y : y + side, x : x + side] for y in (0, bottom) for x in (0, right)]
    crops = [*corners, centre_crop(image, side)]
    return crops + [crop.flip(-1) for crop in crops]


def class_map(maps: Float[Tensor, "B C H W"], layers: Iterable[nn.Module], grid: int) -> Float[Tensor, "B K _h _w"]:
    """Class scores at every place of a map: fully connected layers applied as convolutions, with the same weights.

    The first linear layer, which reads `grid x grid` places of C channels, is a convolution of that kernel without
    padding; each further one is a 1x1 convolution. The result is `H - grid + 1` places high. Everything that is not
    linear is applied to the map as it is.

    Args:
        maps: as the convolutions give them, before they are flattened.
        layers: in order, `nn.Linear` and what stands between.
        grid: side of the map that the first linear layer was made for.

    Raises:
        UsageError: the map is smaller than `grid`.
    """
    if min(maps.shape[-2:]) < grid:
        got = tuple(maps.shape[-2:])
        raise UsageError(f"got a map of {got}, wanted at least {grid} a side", where="class_map", mend="Scale it up.")
    kernel = grid
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight = layer.weight.view(layer.out_features, -1, kernel, kernel)
            maps, kernel = F.conv2d(maps, weight, layer.bias), 1
        else:
            maps = layer(maps)
    return maps


def batches_of_views(
    views: list[list[Float[Tensor, "C _h _w"]]], batch: int
) -> Iterable[tuple[list[int], Float[Tensor, "N C H W"]]]:
    """Views of equal sizes stacked, at most `batch` at once, each with the number of its picture.

    Args:
        views: of each picture.
        batch: most views of one stack, so that ten crops need no more memory than one.
    """
    shapes: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for picture, found in enumerate(views):
        for view in found:
            shapes.setdefault(tuple(view.shape), []).append((picture, view))
    for same in shapes.values():
        for first in range(0, len(same), batch):
            part = same[first : first + batch]
            yield [picture for picture, _ in part], torch.stack([view for _, view in part])
