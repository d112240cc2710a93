"""Darknet's `.weights` files (Redmon: Darknet: Open Source Neural Networks in C), read and written byte for byte.

A header of three int32 (major, minor, revision) and the number of pictures seen in training, which is 8 bytes long from
version 0.2 on and 4 before. Then, for each convolution in the order of the network, float32, little-endian: biases;
with batch norm its scales, running means and running variances (the biases are then the norm's shift); weights
`[out, in, kernel, kernel]`. There are no names and no shapes: the network says how many numbers belong to what.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bestiary.errors import CheckpointError, UsageError
from bestiary.weights.load import LoadReport, Mismatch

BIG_VERSION = 1000
"""Version numbers above this mark another layout of fully connected layers; their count of pictures is 4 bytes."""


@dataclass(frozen=True)
class Header:
    """What stands before the numbers.

    Attributes:
        major: version of the format.
        minor: likewise; 2 in files of the last Darknet.
        revision: likewise.
        seen: pictures that the network was trained on.
    """

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def layout(self) -> str:
        """Of the whole header, for `struct`."""
        small = self.major < BIG_VERSION and self.minor < BIG_VERSION
        return "<iiiQ" if small and self.major * 10 + self.minor >= 2 else "<iiii"

    @classmethod
    def read(cls, data: bytes, where: str) -> tuple["Header", int]:
        """The header at the beginning of `data`, and how many bytes it has."""
        if len(data) >= struct.calcsize("<iii"):
            layout = cls(*struct.unpack_from("<iii", data)).layout
            if len(data) >= struct.calcsize(layout):
                return cls(*struct.unpack_from(layout, data)), struct.calcsize(layout)
        mend = "It is truncated or no Darknet file: fetch it again."
        raise CheckpointError(f"got {len(data)} bytes, too few for a header", where=where, mend=mend)

    def write(self) -> bytes:
        """The header's bytes."""
        return struct.pack(self.layout, self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True)
class Layer:
    """One convolution of a Darknet network.

    Attributes:
        conv: without bias where a norm follows.
        norm: the batch norm after it, or None.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None

    def __post_init__(self) -> None:
        if (self.conv.bias is None) != (self.norm is not None):
            got = "no bias and no norm" if self.norm is None else "a bias and a norm"
            raise UsageError(f"got a convolution with {got}, wanted one of the two", where="darknet.Layer")

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of the file."""
        norm = self.norm
        if norm is None:
            bias = self.conv.bias
            return (self.conv.weight,) if bias is None else (bias, self.conv.weight)
        means, variances = norm.running_mean, norm.running_var
        if means is None or variances is None:
            raise UsageError("got a norm without running statistics", where="darknet.Layer")
        return norm.bias, norm.weight, means, variances, self.conv.weight

    @property
    def size(self) -> int:
        """How many numbers."""
        return sum(tensor.numel() for tensor in self.tensors)


def layers_of(network: nn.Module) -> list[Layer]:
    """Every convolution of a network in the order in which it names them, with the batch norm that follows it.

    This is the file's order for networks whose parts are declared in the order in which they run.
    """
    parts = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    followers = [*parts, None][1:]
    return [
        Layer(part, after if isinstance(after, nn.BatchNorm2d) else None)
        for part, after in zip(parts, followers, strict=True)
        if isinstance(part, nn.Conv2d)
    ]


def read_darknet(path: str | Path, layers: Sequence[Layer], *, partial: bool = False) -> Header:
    """Fill `layers` from a file. If it does not fit, they stay as they are.

    Args:
        path: a `.weights` file, or one cut after some layers (`darknet19_448.conv.23`).
        layers: all of the network, in order, or the first ones.
        partial: numbers left over at the end are passed over.

    Raises:
        CheckpointError: no such file, or it holds fewer or more numbers than the layers have.
    """
    header, numbers = _numbers(Path(path))
    wanted = sum(layer.size for layer in layers)
    _fill(numbers[:wanted] if partial else numbers, layers, str(path))
    return header


def load_darknet(model: nn.Module, path: str | Path) -> LoadReport:
    """Load a file into a whole network, whose head stays fresh if the file's has another number of outputs.

    Raises:
        CheckpointError: as `read_darknet`.
    """
    layers = layers_of(model)
    if not layers:
        raise CheckpointError("the model has no convolution", where=str(path), mend="Is it Darknet's?")
    _, numbers = _numbers(Path(path))
    there, last = outputs_in_file(len(numbers), layers), layers[-1]
    if there is None:
        _fill(numbers, layers, str(path))
    else:
        _fill(numbers[: sum(layer.size for layer in layers[:-1])], layers[:-1], str(path))
    own = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    names = {layer: [own[id(tensor)] for tensor in layer.tensors] for layer in layers}
    if there is None:
        return LoadReport(loaded=tuple(name for layer in layers for name in names[layer]))
    heads = [(name, tuple(tensor.shape)) for name, tensor in zip(names[last], last.tensors, strict=True)]
    return LoadReport(
        loaded=tuple(name for layer in layers[:-1] for name in names[layer]),
        new_head=tuple(Mismatch(name, (there, *shape[1:]), shape) for name, shape in heads),
    )


def outputs_in_file(count: int, layers: Sequence[Layer]) -> int | None:
    """Outputs of the last layer in a file of `count` numbers, if they are others than the network's; None if they are
    not, or no number of outputs would explain the file's length.
    """
    last = layers[-1]
    before = sum(layer.size for layer in layers[:-1])
    each = last.size // last.conv.out_channels
    outputs, rest = divmod(count - before, each)
    return outputs if outputs >= 1 and rest == 0 and outputs != last.conv.out_channels else None


def write_darknet(path: str | Path, layers: Sequence[Layer], header: Header = Header()) -> None:
    """Write the numbers of `layers` as float32. What stood at `path` is replaced only by a whole file."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header.write())
            for layer in layers:
                for tensor in layer.tensors:
                    file.write(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot be written: {error}", where=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _fill(numbers: np.ndarray, layers: Sequence[Layer], where: str) -> None:
    wanted = sum(layer.size for layer in layers)
    if len(numbers) != wanted:
        kind = "truncated" if len(numbers) < wanted else "of a larger network"
        raise CheckpointError(
            f"got {len(numbers):,} numbers, wanted {wanted:,} for {len(layers)} convolutions",
            where=where,
            mend=f"It is {kind}, or the file of another network.",
        )
    place = 0
    with torch.no_grad():
        for tensor in (tensor for layer in layers for tensor in layer.tensors):
            part = numbers[place : place + tensor.numel()]
            tensor.copy_(torch.from_numpy(part).view(tensor.shape))
            place += tensor.numel()


def _numbers(path: Path) -> tuple[Header, np.ndarray]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError("no such file", where=str(path)) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    header, begin = Header.read(data, str(path))
    if (len(data) - begin) % 4:
        got = f"{len(data) - begin} bytes after the header"
        raise CheckpointError(f"got {got}, wanted whole numbers of 4", where=str(path), mend="Fetch it again.")
    return header, np.frombuffer(data, "<f4", offset=begin).astype(np.float32)
