"""Margins that continue a picture by its mirror image."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from bestiary.records import Sample, require
from bestiary.transforms.resampling import to_image


def reflect(sample: Sample, padded: Sample, margins_ltrb: tuple[int, int, int, int], repeat_edge: bool) -> Sample:
    """`padded` (which is `sample` with margins of a colour) with the margins of picture and maps mirrored instead.

    Normals are mirrored as values too: what leans left leans right in the mirror.

    Raises:
        RecordError: the picture is too small to be mirrored that far.
    """
    left, top, right, bottom = margins_ltrb
    height, width = sample.size_hw
    room = 0 if repeat_edge else 1
    fits = max(left, right) <= width - room and max(top, bottom) <= height - room
    wanted = f"at least {(max(top, bottom) + room, max(left, right) + room)} for margins {margins_ltrb}"
    require(fits, f"Pad: {sample.name}", f"a picture of {(height, width)}", wanted)
    rows, columns = _places(height, top, bottom, room), _places(width, left, right, room)
    target = sample.target
    changed = {
        name: _taken(value, rows, columns)
        for name in ("label_map", "weight_map", "depth")
        if (value := getattr(target, name)) is not None
    }
    if target.normals is not None:
        normals = _taken(target.normals, rows, columns)
        normals[0, :, _mirrored(width, left, right)] *= -1
        normals[1, _mirrored(height, top, bottom)] *= -1
        changed["normals"] = normals
    pixels = sample.image.permute(1, 2, 0).numpy()[rows[:, None], columns]
    return replace(padded, image=to_image(pixels), target=replace(padded.target, **changed))


def _places(side: int, before: int, after: int, room: int) -> np.ndarray:
    """Index of the old row or column that each new one shows."""
    places = np.arange(-before, side + after)
    places = np.where(places < 0, -places - 1 + room, places)
    return np.where(places >= side, 2 * side - 1 - room - places, places)


def _mirrored(side: int, before: int, after: int) -> Tensor:
    inside = np.arange(-before, side + after)
    return torch.from_numpy((inside < 0) | (inside >= side))


def _taken(values: Shaped[Tensor, "*C _h _w"], rows: np.ndarray, columns: np.ndarray) -> Shaped[Tensor, "*C _h2 _w2"]:
    return values[..., torch.from_numpy(rows)[:, None], torch.from_numpy(columns)]
