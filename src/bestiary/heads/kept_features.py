"""Features that are computed once and kept on disk, under a key made of the picture and of the network's state."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from bestiary.array_cache import ArrayCache, key_of


class StateHash:
    """The hash of everything that modules have learned, made again only after a change.

    A change is seen by the place of a tensor in memory and by torch's count of its in-place changes, so that asking
    again costs nothing even for networks of hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._marks: tuple[tuple[int, int], ...] = ()
        self._hash = ""

    def of(self, modules: Sequence[nn.Module]) -> str:
        """In hexadecimal digits; the same for equal states in another process."""
        states = [module.state_dict() for module in modules]
        marks = tuple(
            (tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)
            for state in states
            for tensor in state.values()
        )
        if not self._hash or marks != self._marks or any(version < 0 for _, version in marks):
            self._marks, self._hash = marks, key_of(states)
        return self._hash


def kept(
    cache: ArrayCache | None, key: str, make: Callable[[], Mapping[str, Float32[Tensor, "..."]]]
) -> dict[str, Float32[Tensor, "..."]]:
    """Named tensors from the cache, or made and put there; on the CPU. Without a cache they are made each time."""
    found = None if cache is None else cache.get(key)
    if found is not None:
        return {name: torch.from_numpy(array) for name, array in found.items()}
    made = {name: tensor.detach().float().cpu().contiguous() for name, tensor in make().items()}
    if cache is not None:
        cache.put(key, {name: tensor.numpy() for name, tensor in made.items()})
    return made


@contextmanager
def at_least_for_now(cache: ArrayCache | None) -> Iterator[ArrayCache]:
    """The cache itself; where there is none, one that is gone after the block."""
    if cache is not None:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="bestiary-features-") as folder:
        yield ArrayCache(folder)
