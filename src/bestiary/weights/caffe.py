"""Caffe's `.caffemodel` files, read without Caffe and without protobuf.

A file is one protobuf message: a net that holds layers, each with a name and blobs of float32 (weights, then biases).
Two generations of the format are about: `layers` (to 2014) with blobs of four lengths, and `layer` with a shape. Only
names and blobs are looked at; the network itself says how the numbers are used.

Nets of Caffe take blue, green, red from 0 to 255 less a mean: their files belong into the forms that are named so
(`vgg16_caffe`), whose `normalize` does just that. Nothing is turned around in the file's own numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bestiary.errors import CheckpointError
from bestiary.system import System
from bestiary.weights.load import LoadReport, load_state

LAYERS_V1, LAYERS = 2, 100
NAME_V1, BLOBS_V1 = 4, 6
NAME, BLOBS = 1, 7
LEGACY_SHAPE = (1, 2, 3, 4)
DATA, SHAPE, DOUBLE_DATA = 5, 7, 8
"""Numbers of the fields in Caffe's schema."""

PARTS = ("weight", "bias")
"""What a layer's blobs are."""


@dataclass(frozen=True)
class CaffeLayer:
    """One layer that holds numbers.

    Attributes:
        name: as the net's author called it (`conv1_1`).
        blobs: weights, then biases if it has any.
    """

    name: str
    blobs: tuple[Tensor, ...]


def read_caffe(path: str | Path) -> list[CaffeLayer]:
    """The layers that hold numbers, in the order of the file.

    Raises:
        CheckpointError: no such file, truncated, no Caffe model, or one without numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("no such file", where=str(path))
    data = memoryview(path.read_bytes())
    try:
        layers = list(_layers(data))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        mend = "It is truncated, damaged or no .caffemodel: fetch it again."
        raise CheckpointError(f"cannot be read as a Caffe model ({error})", where=str(path), mend=mend) from error
    if not layers:
        raise CheckpointError("it holds no layer with numbers", where=str(path), mend="Is it a .prototxt, or a solver?")
    return layers


def load_caffe(model: nn.Module, path: str | Path) -> LoadReport:
    """Fit a Caffe file to a network of the same layers in the same order: AlexNet's, VGG's and SqueezeNet's kind.

    Convolutions and linear layers take the file's layers one after another; every shape must agree, but for a last
    layer of other categories, which keeps its initial values. A system that knows Caffe's names of layers
    (`System.start_state`) takes them by these.

    Raises:
        CheckpointError: the file is broken, has another number of layers or other shapes, or the network takes RGB.
    """
    order = getattr(getattr(model, "normalize", None), "channel_order", "rgb")
    if order != "bgr":
        mend = "Choose the form of the network that is named for Caffe (vgg16_caffe)"
        raise CheckpointError("Caffe's nets take blue, green, red, and this one takes RGB", where=str(path), mend=mend)
    layers = read_caffe(path)
    named = {f"{layer.name}.{part}": blob for layer in layers for part, blob in zip(PARTS, layer.blobs, strict=False)}
    if isinstance(model, System) and model.start_state(named)[1]:
        return load_state(model, named, model.model_name, where=str(path))
    places = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if len(layers) != len(places):
        got, wanted = f"{len(layers)} layers ({_ends(layers)})", f"{len(places)} convolutions and linear layers"
        raise CheckpointError(f"got {got}, wanted {wanted}", where=str(path), mend="Is it the file of another network?")
    own, state = model.state_dict(), {}
    for layer, place in zip(layers, places, strict=True):
        for part, blob in zip(PARTS, layer.blobs, strict=False):
            name = f"{place}.{part}"
            state[name] = _without_leading_ones(blob, own[name].ndim) if name in own else blob
    return load_state(model, state, getattr(model, "model_name", ""), where=str(path))


def _ends(layers: list[CaffeLayer]) -> str:
    return f"{layers[0].name} to {layers[-1].name}"


def _without_leading_ones(blob: Tensor, axes: int) -> Tensor:
    """The first format wrote every blob with four lengths, a bias as 1 x 1 x 1 x N."""
    while blob.ndim > axes and blob.shape[0] == 1:
        blob = blob[0]
    return blob


def _layers(data: memoryview) -> Iterator[CaffeLayer]:
    for number, value in _fields(data):
        if number not in (LAYERS, LAYERS_V1) or not isinstance(value, memoryview):
            continue
        name_field, blobs_field = (NAME, BLOBS) if number == LAYERS else (NAME_V1, BLOBS_V1)
        name, blobs = "", []
        for inner, content in _fields(value):
            if inner == name_field and isinstance(content, memoryview):
                name = bytes(content).decode("utf-8")
            elif inner == blobs_field and isinstance(content, memoryview):
                blobs.append(_blob(content))
        if blobs:
            yield CaffeLayer(name, tuple(blobs))


def _blob(data: memoryview) -> Tensor:
    lengths: dict[int, int] = {}
    shape: list[int] | None = None
    pieces: list[np.ndarray] = []
    for number, value in _fields(data):
        if number in LEGACY_SHAPE and isinstance(value, int):
            lengths[number] = value
        elif number == SHAPE and isinstance(value, memoryview):
            shape = [length for _, dim in _fields(value) for length in _varints(dim)]
        elif number in (DATA, DOUBLE_DATA) and isinstance(value, memoryview):
            pieces.append(np.frombuffer(value, dtype="<f4" if number == DATA else "<f8").astype(np.float32))
    numbers = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    wanted = shape if shape is not None else [lengths.get(number, 1) for number in LEGACY_SHAPE]
    if math.prod(wanted) != numbers.size:
        raise ValueError(f"a blob of {numbers.size} numbers is to have the shape {wanted}")
    return torch.from_numpy(numbers).reshape(wanted)


def _varints(value: int | memoryview) -> list[int]:
    """Lengths, packed or one by one."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and contents of a message's fields: integers, or what lies between two places of the file."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"there is no field 0 (at byte {at})")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"field {number} is of the unknown kind {kind}")
        length = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            length, at = _varint(data, at)
        if at + length > len(data):
            raise ValueError(f"it ends within field {number}")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than ten bytes")
