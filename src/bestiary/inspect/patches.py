"""The patches of a data set that a unit likes best (Zeiler and Fergus, figure 2)."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.inspect.fields import field_box, layer_field
from bestiary.inspect.layers import Tap, Unit, channel_of, find_layer, frozen, strongest_positions
from bestiary.inspect.painting import signal_picture
from bestiary.inspect.signals import Way, project
from bestiary.inspect.views import View, input_batches, view_of
from bestiary.ops.receptive_fields import ReceptiveField
from bestiary.records import Sample
from bestiary.system import System


@dataclass(frozen=True, eq=False)
class Patch:
    """Where one picture excites a unit most.

    Attributes:
        name: of the picture.
        activation: there.
        position: (y, x) on the layer's map.
        box_xyxy: what the unit sees, in pixels of the network's input.
        picture: that part of the picture.
        signal: the unit carried back to the same pixels.
    """

    name: str
    activation: float
    position: tuple[int, ...]
    box_xyxy: tuple[int, int, int, int]
    picture: UInt8[Tensor, "3 h w"]
    signal: UInt8[Tensor, "3 h w"]


def top_patches(
    system: System,
    samples: Sequence[Sample] | Any,
    layer: str,
    units: Sequence[Unit],
    count: int = 9,
    way: Way = "guided",
    batch: int = 32,
    say: Callable[[str], None] = lambda _: None,
) -> dict[Unit, list[Patch]]:
    """The `count` pictures that excite each unit most, strongest first, cut to what the unit sees.

    One pass over the data; of each picture its strongest position alone, so that all patches are of different pictures.
    Of equal activations the earlier picture comes first. Memory holds no picture.

    Args:
        system: its preparation of pictures is used.
        samples: map-style: `len` and `[i]` give samples.
        layer: path or name.
        units: channels, or channels with a position.
        count: patches a unit.
        way: how units are carried back to the pixels.
        batch: pictures a forward pass, where they are of one size.
        say: told how far it is.

    Raises:
        UsageError: no such layer or unit, or no picture.
    """
    path = find_layer(system, layer)
    best: dict[Unit, list[tuple[float, int, tuple[int, ...]]]] = {unit: [] for unit in units}
    tap = Tap(system, [path])
    for indices, _, pixels in input_batches(system, samples, batch):
        with frozen(system), torch.inference_mode():
            (maps,) = tap(pixels)
        for unit in units:
            for i, row, place in zip(indices, maps, strongest_positions(maps, unit), strict=True):
                entry = (float(row[(channel_of(unit), *place)]), -i, place)
                if len(best[unit]) < count:
                    heapq.heappush(best[unit], entry)
                elif entry > best[unit][0]:
                    heapq.heapreplace(best[unit], entry)
        if (indices[-1] + 1) // 1000 > indices[0] // 1000:
            say(f"{layer}: {indices[-1] + 1} of {len(samples)} pictures")
    if not any(best.values()):
        raise UsageError("got no picture, wanted one at least", where="top_patches")
    fields: dict[tuple[int, ...], ReceptiveField] = {}
    made: dict[Unit, list[Patch]] = {}
    for unit, entries in best.items():
        made[unit] = [
            _cut(system, samples[-negative], path, (channel_of(unit), *place), way, fields)
            for _, negative, place in sorted(entries, reverse=True)
        ]
    return made


def _cut(
    system: System,
    sample: Sample,
    path: str,
    unit: tuple[int, ...],
    way: Way,
    fields: dict[tuple[int, ...], ReceptiveField],
) -> Patch:
    view = view_of(system, sample.image, sample.name)
    shape = tuple(view.pixels.shape)
    if shape not in fields:
        fields[shape] = layer_field(system, shape, path)
    projection = project(system, view.pixels, path, unit, way)
    box = field_box(fields[shape], unit[1:])
    signal = signal_picture(view.on_picture(projection.signal[0], "nearest"))
    picture, there = (_inside(view, image, box) for image in (view.picture, signal))
    return Patch(sample.name, float(projection.activations[0]), unit[1:], box, picture, there)


def _inside(view: View, picture: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    x1, y1, x2, y2 = (round(v) for v in view.box_on_picture(box))
    x1, y1 = min(x1, picture.shape[2] - 1), min(y1, picture.shape[1] - 1)
    return picture[:, y1 : max(y1 + 1, y2), x1 : max(x1 + 1, x2)].contiguous()
