"""A record's way from a worker to the main process: one buffer for all its tensors.

Sent one by one, each tensor would take a file descriptor of its own; a batch of pictures with boxes, masks and maps has
hundreds, and the usual limit is 1024 for the whole process. The pictures' memory order (height, width, channels)
survives.
"""

import io
import pickle
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

ALIGNMENT = 64
"""Bytes; every tensor starts at a multiple, so that each type may lie anywhere."""


class _Packer(pickle.Pickler):
    """Pickles anything, but leaves the tensors out and remembers where they shall lie."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.pieces: list[tuple[int, Tensor]] = []
        self.end = 0

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        pixels_last = obj.ndim == 3 and not obj.is_contiguous() and obj.permute(1, 2, 0).is_contiguous()
        flat = (obj.permute(1, 2, 0) if pixels_last else obj.contiguous()).reshape(-1).view(torch.uint8)
        offset, self.end = self.end, self.end + -(-len(flat) // ALIGNMENT) * ALIGNMENT
        self.pieces.append((offset, flat))
        return _Hole, (obj.dtype, tuple(obj.shape), pixels_last, offset)


class _Hole:
    """Stands where a tensor stood; `_Unpacker` makes the tensor instead."""


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffer: Tensor) -> None:
        super().__init__(file)
        self.buffer = buffer

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return self.tensor if global_name == "_Hole" else super().find_class(module_name, global_name)

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...], pixels_last: bool, offset: int) -> Tensor:
        count = dtype.itemsize
        for side in shape:
            count *= side
        flat = self.buffer[offset : offset + count].view(dtype)
        if pixels_last:
            channels, height, width = shape
            return flat.view(height, width, channels).permute(2, 0, 1)
        return flat.view(shape)


def pack(thing: Any) -> tuple[bytes, UInt8[Tensor, " n"]]:
    """`thing` without its tensors, pickled, and all its tensors' bytes in one."""
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(thing)
    buffer = torch.empty(packer.end, dtype=torch.uint8)
    for offset, flat in packer.pieces:
        buffer[offset : offset + len(flat)] = flat
    return file.getvalue(), buffer


def unpack(skeleton: bytes, buffer: UInt8[Tensor, " n"]) -> Any:
    """What `pack` was given; the tensors are views of `buffer`."""
    return _Unpacker(io.BytesIO(skeleton), buffer).load()
