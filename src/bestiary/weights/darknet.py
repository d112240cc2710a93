"""Darknet's `.weights` files (Redmon: Darknet: Open Source Neural Networks in C), read and written byte for byte.

A header of three int32 (major, minor, revision) and the number of pictures seen in training, which is 8 bytes long from
version 0.2 on and 4 before. Then, for each layer in the order of the network, float32, little-endian:

| layer | numbers |
|---|---|
| convolution | biases; with batch norm its scales, running means and running variances; weights `[out, in, k, k]` |
| connected | biases; weights `[out, in]`, in files of versions above 1,000 `[in, out]`; with batch norm the three |
| local | biases `[out, h, w]`; weights `[h w, out, in k k]` |

With batch norm the biases are the norm's shift. There are no names and no shapes: the network says how many numbers
belong to what.
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
from bestiary.layers.local_convolution import LocalConvolution
from bestiary.weights.load import LoadReport, Mismatch

BIG_VERSION = 1000
"""Version numbers above this mark files whose connected layers are transposed; their count of pictures is 4 bytes."""

Part = nn.Conv2d | nn.Linear | LocalConvolution
Norm = nn.BatchNorm2d | nn.BatchNorm1d


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

    @property
    def is_transposed(self) -> bool:
        """Whether weights of connected layers lie inputs first."""
        return self.major > BIG_VERSION or self.minor > BIG_VERSION

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
    """One layer of a Darknet network that has numbers.

    Attributes:
        conv: a convolution, a connected or a local layer; without bias where a norm follows.
        norm: the batch norm after it, or None.
    """

    conv: Part
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if (self.conv.bias is None) != (self.norm is not None):
            got = "no bias and no norm" if self.norm is None else "a bias and a norm"
            raise UsageError(f"got a layer with {got}, wanted one of the two", where="darknet.Layer")

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
        if isinstance(self.conv, nn.Linear):
            return norm.bias, self.conv.weight, norm.weight, means, variances
        return norm.bias, norm.weight, means, variances, self.conv.weight

    def as_filed(self, tensor: Tensor, header: Header) -> Tensor:
        """A view of one of `tensors` whose numbers lie in the order of the file."""
        is_transposed = header.is_transposed and isinstance(self.conv, nn.Linear) and tensor is self.conv.weight
        return tensor.t() if is_transposed else tensor

    @property
    def size(self) -> int:
        """How many numbers."""
        return sum(tensor.numel() for tensor in self.tensors)

    @property
    def outputs(self) -> int:
        """Channels that come out, or numbers of a connected layer."""
        return self.conv.out_features if isinstance(self.conv, nn.Linear) else self.conv.out_channels


def layers_of(network: nn.Module) -> list[Layer]:
    """Every convolution, connected and local layer of a network in the order in which it names them, with the batch
    norm that follows it.

    This is the file's order for networks whose parts are declared in the order in which they run.
    """
    parts = [m for m in network.modules() if isinstance(m, Part | Norm)]
    followers = [*parts, None][1:]
    return [
        Layer(part, after if isinstance(after, Norm) else None)
        for part, after in zip(parts, followers, strict=True)
        if isinstance(part, Part)
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
    _fill(numbers[:wanted] if partial else numbers, layers, header, str(path))
    return header


def load_darknet(model: nn.Module, path: str | Path) -> LoadReport:
    """Load a file into a whole network. Its head stays fresh if the file's has another number of outputs; of a file
    that ends after one of the first layers (`extraction.conv.weights`) all later ones stay as they are. A network that
    counts the pictures it was trained on (YOLOv2's buffer `seen`) goes on from a whole file's number.

    Raises:
        CheckpointError: as `read_darknet`.
    """
    layers = layers_of(model)
    if not layers:
        raise CheckpointError("the model has no convolution", where=str(path), mend="Is it Darknet's?")
    header, numbers = _numbers(Path(path))
    own = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    names = {layer: [own[id(tensor)] for tensor in layer.tensors] for layer in layers}
    first = layers_in_file(len(numbers), layers)
    if first is not None:
        _fill(numbers, layers[:first], header, str(path))
        note = f"starts from the first {first} of {len(layers)} layers" if first < len(layers) else ""
        counted = dict(model.named_buffers()).get("seen")
        if counted is not None and not note:
            counted.fill_(header.seen)
            note = f"{header.seen:,} pictures seen before"
        return LoadReport(loaded=tuple(name for layer in layers[:first] for name in names[layer]), note=note)
    there, last = outputs_in_file(len(numbers), layers), layers[-1]
    if there is None:
        raise _unfit(len(numbers), layers, str(path))
    _fill(numbers[: sum(layer.size for layer in layers[:-1])], layers[:-1], header, str(path))
    heads = [(name, tuple(tensor.shape)) for name, tensor in zip(names[last], last.tensors, strict=True)]
    return LoadReport(
        loaded=tuple(name for layer in layers[:-1] for name in names[layer]),
        new_head=tuple(Mismatch(name, (there, *shape[1:]), shape) for name, shape in heads),
    )


def layers_in_file(count: int, layers: Sequence[Layer]) -> int | None:
    """How many of the layers, from the first, a file of `count` numbers holds; None if it ends within one."""
    total = 0
    for place, layer in enumerate(layers, 1):
        total += layer.size
        if total == count:
            return place
    return None


def outputs_in_file(count: int, layers: Sequence[Layer]) -> int | None:
    """Outputs of the last layer in a file of `count` numbers, if they are others than the network's; None if they are
    not, or no number of outputs would explain the file's length.
    """
    last = layers[-1]
    before = sum(layer.size for layer in layers[:-1])
    each = last.size // last.outputs
    outputs, rest = divmod(count - before, each)
    return outputs if outputs >= 1 and rest == 0 and outputs != last.outputs else None


def write_darknet(path: str | Path, layers: Sequence[Layer], header: Header = Header()) -> None:
    """Write the numbers of `layers` as float32. What stood at `path` is replaced only by a whole file."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header.write())
            for layer in layers:
                for tensor in layer.tensors:
                    filed = layer.as_filed(tensor, header).detach().cpu().float().contiguous()
                    file.write(filed.numpy().astype("<f4").tobytes())
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot be written: {error}", where=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _fill(numbers: np.ndarray, layers: Sequence[Layer], header: Header, where: str) -> None:
    if len(numbers) != sum(layer.size for layer in layers):
        raise _unfit(len(numbers), layers, where)
    place = 0
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.tensors:
                part = torch.from_numpy(numbers[place : place + tensor.numel()])
                filed = layer.as_filed(tensor, header)
                filed.copy_(part.view(filed.shape))
                place += tensor.numel()


def _unfit(count: int, layers: Sequence[Layer], where: str) -> CheckpointError:
    wanted = sum(layer.size for layer in layers)
    kind = "truncated" if count < wanted else "of a larger network"
    return CheckpointError(
        f"got {count:,} numbers, wanted {wanted:,} for {len(layers)} layers",
        where=where,
        mend=f"It is {kind}, or the file of another network.",
    )


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
