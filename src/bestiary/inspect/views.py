"""What a network sees of a picture, and where that lies in the picture.

A system prepares pictures with its own parts (resizing, cropping, padding, normalising); whatever it does is found by
giving it pictures whose values are coordinates, so that what was seen in the network's input can be shown on the
picture as it was taken.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import as_float
from bestiary.records import Sample
from bestiary.system import System, evaluation_mode

SHOWN_SIDE = 320
"""Shorter side, pixels, that small pictures are enlarged to, by whole factors."""

LARGEST_SIDE = 900
"""Longer side, pixels, that large pictures are shrunk to."""


@dataclass(frozen=True, eq=False)
class View:
    """One picture as the network sees it.

    Attributes:
        name: of the picture.
        pixels: the network's input.
        picture: the part of the picture that the network sees, in the picture's own pixels (enlarged by a whole factor
            where it is small, shrunk where it is large).
        region_xyxy: that part, in pixels of the whole picture.
        scale: shown pixels for a pixel of the picture.
        along: for x and y, `(a, b)`: the picture's coordinate is `a * (the input's coordinate) + b`.
    """

    name: str
    pixels: Float[Tensor, "1 C H W"]
    picture: UInt8[Tensor, "3 h w"]
    region_xyxy: tuple[float, float, float, float]
    scale: float
    along: tuple[tuple[float, float], tuple[float, float]]

    def on_picture(self, values: Float[Tensor, "C2 H2 W2"], mode: str = "bilinear") -> Float[Tensor, "C2 h w"]:
        """Maps that cover the network's input, at any size, brought to the shown picture's pixels.

        Args:
            values: as the network's input lies, at its own or a smaller size.
            mode: "bilinear" or "nearest".
        """
        height, width = self.picture.shape[1:]
        ends = []
        for (a, b), start, count, size in zip(
            self.along, self.region_xyxy[:2], (width, height), (self.pixels.shape[3], self.pixels.shape[2]), strict=True
        ):
            centres = start + (torch.arange(count) + 0.5) / self.scale
            ends.append((centres - b) / a / size * 2 - 1)
        places = torch.stack(torch.meshgrid(ends[1], ends[0], indexing="ij")[::-1], -1)[None]
        return F.grid_sample(values[None].float(), places.float(), mode, "border", align_corners=False)[0]

    def box_on_picture(self, box_xyxy: Sequence[int | float]) -> tuple[float, float, float, float]:
        """A box in the network's input, in the shown picture's pixels, cut by its borders."""
        x1, y1, x2, y2 = box_xyxy
        (ax, bx), (ay, by) = self.along
        left, top = self.region_xyxy[:2]
        height, width = self.picture.shape[1:]
        xs = [min(max((ax * x + bx - left) * self.scale, 0.0), float(width)) for x in (x1, x2)]
        ys = [min(max((ay * y + by - top) * self.scale, 0.0), float(height)) for y in (y1, y2)]
        return min(xs), min(ys), max(xs), max(ys)


def view_of(system: System, image: Shaped[Tensor, "C H W"], name: str = "") -> View:
    """What the system makes of a picture before its network runs: of several windows the first.

    Raises:
        UsageError: the system has no network that runs when it predicts.
    """
    prepare = preparation(system)
    pixels = prepare(image)[:1]
    height, width = image.shape[-2:]
    along = _coordinates(prepare, image, pixels)
    (ax, bx), (ay, by) = along
    x1, x2 = sorted((bx, ax * pixels.shape[3] + bx))
    y1, y2 = sorted((by, ay * pixels.shape[2] + by))
    left, top = max(0, round(x1)), max(0, round(y1))
    right, bottom = min(width, max(left + 1, round(x2))), min(height, max(top + 1, round(y2)))
    picture, scale = _shown(image[:, top:bottom, left:right])
    return View(name, pixels, picture, (float(left), float(top), float(right), float(bottom)), scale, along)


def preparation(system: System) -> Callable[[Tensor], Float[Tensor, "B C H W"]]:
    """Picture to network input. Of a classifier the centre crop; of other systems what `predict` hands to `forward`
    first."""
    if isinstance(system, Classifier):

        def centre(image: Tensor) -> Tensor:
            scaled, _ = system.to_network_scale([image], [])
            return system.normalize(scaled[0])[None]

        return centre
    return lambda image: _first_input(system, image)


def input_batches(
    system: System, samples: Sequence[Sample] | Any, batch: int
) -> Iterator[tuple[list[int], list[Sample], Float[Tensor, "B C H W"]]]:
    """Indices, samples and network inputs of a map-style data set, in order; inputs of one size share a batch."""
    prepare = preparation(system)
    indices: list[int] = []
    taken: list[Sample] = []
    waiting: list[Tensor] = []
    for i in range(len(samples)):
        sample = samples[i]
        pixels = prepare(sample.image)[:1]
        if waiting and (len(waiting) == batch or pixels.shape != waiting[0].shape):
            yield indices, taken, torch.cat(waiting)
            indices, taken, waiting = [], [], []
        indices.append(i)
        taken.append(sample)
        waiting.append(pixels)
    if waiting:
        yield indices, taken, torch.cat(waiting)


class Drawn:
    """A data set of which some pictures are seen: at most `most`, drawn at random, in their order.

    Args:
        samples: map-style.
        most: pictures.
        seed: of the draw.

    Attributes:
        categories: those of the data set, if it has any.
    """

    def __init__(self, samples: Sequence[Sample] | Any, most: int, seed: int = 0) -> None:
        self._samples = samples
        self._chosen: list[int] = sorted(np.random.default_rng(seed).permutation(len(samples))[:most].tolist())
        self.categories: tuple[str, ...] = tuple(getattr(samples, "categories", ()))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[self._chosen[index]]


class _Seen(Exception):  # noqa: N818
    """Ends a prediction as soon as the network is handed its input."""


def _first_input(system: System, image: Tensor) -> Tensor:
    """What the system, or else the first of its parts that is handed a batch of pictures, is given."""
    seen: list[Tensor] = []

    def hook(module: Any, args: tuple[Any, ...]) -> None:
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.ndim == 4 and first.shape[1] == system.in_channels:
            seen.append(first.detach())
            raise _Seen

    parts = [part for part in system.modules() if not isinstance(part, Normalize)]
    handles = [part.register_forward_pre_hook(hook) for part in parts]
    try:
        with evaluation_mode(system), torch.no_grad():
            system.predict_images([image])
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        mend = "Systems that are fitted, not trained, have no layers to look into"
        raise UsageError("no network runs when it predicts", where=system.model_name or None, mend=mend)
    return seen[0]


def _coordinates(
    prepare: Callable[[Tensor], Tensor], image: Tensor, pixels: Tensor
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The picture's coordinate as a linear function of the input's, for x and y: from pictures of ramps, which resizing
    keeps away from the borders and the normalisation changes by a factor and an offset for each channel."""
    channels, height, width = image.shape
    blank, full = torch.zeros(channels, height, width), torch.ones(channels, height, width)
    low = prepare(blank)[0, 0].double()
    span = prepare(full)[0, 0].double() - low
    seen = span.abs() > 0.5 * span.abs().max()  # what is not seen is padding
    along = []
    for axis, size in ((1, width), (0, height)):
        ramp = ((torch.arange(size) + 0.5) / size).view((1, -1) if axis == 1 else (-1, 1)).expand(height, width)
        values = (prepare(ramp.expand(channels, -1, -1).contiguous())[0, 0].double() - low) / span * size
        row = int(torch.nonzero(seen.any(axis)).flatten()[int(seen.any(axis).sum()) // 2])
        line, there = (values[row], seen[row]) if axis == 1 else (values[:, row], seen[:, row])
        along.append(_straight_middle(line, there, size))
    return along[0], along[1]


def _straight_middle(line: Tensor, there: Tensor, size: int) -> tuple[float, float]:
    """Slope and offset of the straight run about the middle of what is seen; beyond it pictures are mirrored or end."""
    places = torch.nonzero(there).flatten().tolist()
    middle = places[len(places) // 2]
    steps = torch.diff(line).tolist()
    if len(places) < 2:
        return float(size), float(line[middle]) - size * (middle + 0.5)
    start = stop = min(max(middle - 1, places[0]), places[-1] - 1)
    slope = steps[start]
    # Antialiased resizing makes steps uneven by some per cent; a mirror turns them round.
    while start > places[0] and abs(steps[start - 1] - slope) < 0.4 * abs(slope):
        start -= 1
    while stop < places[-1] - 1 and abs(steps[stop + 1] - slope) < 0.4 * abs(slope):
        stop += 1
    trimmed = (stop - start) // 8  # at the borders of the picture resizing has less to look at
    start, stop = start + trimmed, stop - trimmed
    slope = float(line[stop + 1] - line[start]) / (stop + 1 - start)
    return slope, float(line[start]) - slope * (start + 0.5)


def _shown(part: Tensor) -> tuple[Tensor, float]:
    """The part as 8-bit RGB at a size that can be looked at, and its factor."""
    image = as_float(part).float().clamp(0, 1)
    image = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    short, longest = min(image.shape[1:]), max(image.shape[1:])
    scale = float(max(1, min(-(-SHOWN_SIDE // short), LARGEST_SIDE // longest)))
    if scale > 1:
        image = image.repeat_interleave(int(scale), 1).repeat_interleave(int(scale), 2)
    elif longest > LARGEST_SIDE:
        scale = LARGEST_SIDE / longest
        size = [max(1, round(n * scale)) for n in image.shape[1:]]
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    return (image * 255).round().to(torch.uint8).contiguous(), scale
