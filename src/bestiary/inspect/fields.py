"""What one unit sees of a picture: the box that can reach it, and how much each pixel in it weighs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.inspect.layers import Tap, find_layer
from bestiary.ops.influence import influence_map
from bestiary.ops.receptive_fields import ReceptiveField, receptive_field

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the network's input, the right and bottom edge outside."""


def layer_field(net: nn.Module, input_shape: Sequence[int], layer: str) -> ReceptiveField:
    """Receptive field of each position of a layer's map, on an input of this size.

    Raises:
        UsageError: no such layer, or it does not run.
    """
    return receptive_field(Tap(net, [find_layer(net, layer)]), input_shape)[0]


def field_box(field: ReceptiveField, position: Sequence[int]) -> Box:
    """What the unit at `position` (y, x) sees, cut by the borders of the input; all of it for a layer without map.

    Raises:
        UsageError: the input has not two axes, or the position is not on the map.
    """
    if len(field.axes) != 2:
        raise UsageError(f"got a field on {len(field.axes)} axes, wanted two, of a picture", where="field_box")
    places = tuple(position) or (0, 0)
    counts = tuple(len(axis.first) for axis in field.axes)
    if len(places) != 2 or not all(0 <= p < n for p, n in zip(places, counts, strict=True)):
        raise UsageError(f"got position {tuple(position)}, wanted a place on the map of {counts}", where="field_box")
    (y1, y2), (x1, x2) = (
        (int(axis.first[place]), int(axis.last[place]) + 1) for axis, place in zip(field.axes, places, strict=True)
    )
    return x1, y1, max(x1, x2), max(y1, y2)


@dataclass(frozen=True, eq=False)
class MeasuredField:
    """The field of a layer's middle position, found twice.

    Attributes:
        layer: its path.
        position: the middle of its map; empty if it has none.
        computed: box by the rules of the operators.
        measured: box of the pixels with a gradient, every weight positive (`ops.influence`).
        influence: each pixel's share, sums to 1: paths counted, so the middle of a field weighs more than its rim.
    """

    layer: str
    position: tuple[int, ...]
    computed: Box
    measured: Box
    influence: Float64[Tensor, "H W"]

    @property
    def agree(self) -> bool:
        """Whether both are one box."""
        return self.computed == self.measured


def measured_field(net: nn.Module, input_shape: Sequence[int], layer: str) -> MeasuredField:
    """Computed and measured field of the layer's middle position. The measuring runs the network up to the layer, and
    back, in float64.

    Raises:
        UsageError: no such layer, or it does not run.
    """
    path = find_layer(net, layer)
    shape = (1, *(int(n) for n in input_shape[1:]))
    field = layer_field(net, shape, path)
    mapped = len(field.shape) == len(shape)
    position = tuple(n // 2 for n in field.shape[2:]) if mapped else ()
    influence = influence_map(Tap(net, [path]), shape, position or None)
    return MeasuredField(path, position, field_box(field, position), _hull(influence), influence)


def _hull(influence: Tensor) -> Box:
    rows, columns = (torch.nonzero(influence.sum(axis) > 0).flatten().tolist() for axis in (1, 0))
    if not rows:
        return 0, 0, 0, 0
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
