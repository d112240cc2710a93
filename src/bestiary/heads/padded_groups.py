"""Which pictures of different sizes can share a forward pass, none seeing another's padding."""

from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor

from bestiary.heads.network_scale import size_of


def by_padded_size(images: Sequence[Shaped[Tensor, "C _h _w"]], divisor: int) -> list[list[int]]:
    """Indices of the pictures whose sizes agree once rounded up to multiples of `divisor`, group by group.

    A network's answers to a picture depend on the padding around it: in such groups it is the one that the picture has
    alone.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        height, width = size_of(image)
        groups.setdefault((-(-height // divisor), -(-width // divisor)), []).append(i)
    return list(groups.values())
