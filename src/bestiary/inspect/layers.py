"""A network's layers by name, and what comes out of them while it runs.

By hooks, not by tracing: what cannot be traced (loops over levels, branches on sizes) is looked into all the same.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bestiary.errors import BestiaryError, UsageError
from bestiary.ops.dry_run import tensors_in

Unit = int | tuple[int, ...]
"""A channel, or a channel with a position on its map: `(channel, y, x)`."""


def find_layer(net: nn.Module, name: str) -> str:
    """The dotted path that `name` means: a module's path, or a name of the net's own `layer_names` ("conv4_3").

    The empty name is the network itself: its outputs.

    Raises:
        UsageError: no such layer; the nearest are named.
    """
    own = getattr(net, "layer_names", {})
    path = own.get(name, name) if isinstance(own, dict) or hasattr(own, "get") else name
    paths = [p for p, _ in net.named_modules()]
    if path in paths:
        return path
    names = [*own, *(p for p in paths if p)]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    choices = close or names[:8]
    raise UsageError(f"no layer is called {name!r}", mend=f"Nearest: {', '.join(choices)}" if choices else None)


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients of parameters; afterwards every part is as it was."""
    training = [part for part in net.modules() if part.training]
    learning = [p for p in net.parameters() if p.requires_grad]
    net.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for part in training:
            part.training = True


class _AllSeen(Exception):  # noqa: N818
    """Ends a forward pass of which nothing more is wanted."""


class Tap(nn.Module):
    """A network cut open: `forward` gives one tensor for each layer named, the first that the layer gives the first
    time it runs. What lies behind the last of them is not run.

    Copies are given, so that an in-place operator behind a layer does not change what is seen of it.

    Args:
        net: looked into where it stands; it becomes a part.
        paths: layers; the empty path is the network itself.
        lenient: give what was reached if the network stops with an error (an input of a size that its last layers do
            not take), in place of the error; `reached` says which layers that were.

    Attributes:
        reached: paths of the layers that the last forward pass gave, in the order in which they finished.
        counts: how many tensors each of them gave.
    """

    def __init__(self, net: nn.Module, paths: Sequence[str], lenient: bool = False) -> None:
        super().__init__()
        self.net, self.paths, self.lenient = net, tuple(paths), lenient
        self.reached: tuple[str, ...] = ()
        self.counts: dict[str, int] = {}

    def forward(self, pixels: Float[Tensor, "..."]) -> tuple[Tensor, ...]:
        """One tensor a layer, in the order of `paths`, or of `reached` where the pass was cut short.

        Raises:
            UsageError: a layer did not run, or gave no tensor.
        """
        found: dict[str, Tensor] = {}
        handles = [self._listen(part, path, found) for path, part in self.net.named_modules() if path in self.paths]
        try:
            self.net(pixels)
        except _AllSeen:
            pass
        except (RuntimeError, NotImplementedError, BestiaryError):
            if not self.lenient:
                raise
        finally:
            for handle in handles:
                handle.remove()
        self.reached = tuple(found)
        if self.lenient:
            return tuple(found.values())
        for path in self.paths:
            if path not in found:
                raise UsageError(f"the layer {path!r} gives no tensor when the network runs", where="layer")
        return tuple(found[path] for path in self.paths)

    def _listen(self, part: nn.Module, path: str, found: dict[str, Tensor]) -> RemovableHandle:
        def hook(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            several = list(tensors_in(output))
            if path not in found and several:
                found[path], self.counts[path] = several[0].clone(), len(several)
                if len(found) == len(set(self.paths)):
                    raise _AllSeen

        return part.register_forward_hook(hook)


def activations(net: nn.Module, pixels: Float[Tensor, "B C H W"], layers: Sequence[str]) -> dict[str, Tensor]:
    """What each layer gives, in evaluation mode, by the name it was asked for; gradients flow to `pixels` if these
    want them.

    Raises:
        UsageError: no such layer, or it did not run.
    """
    paths = [find_layer(net, name) for name in layers]
    with frozen(net):
        found = dict(zip(dict.fromkeys(paths), Tap(net, list(dict.fromkeys(paths)))(pixels), strict=True))
    return {name: found[path] for name, path in zip(layers, paths, strict=True)}


def strongest_positions(maps: Float[Tensor, "B C *spatial"], unit: Unit) -> list[tuple[int, ...]]:
    """Where the unit is looked at in each picture: at its own position, or where its channel is strongest.

    Raises:
        UsageError: no such channel or position.
    """
    channel, *position = (unit,) if isinstance(unit, int) else unit
    size = tuple(maps.shape[2:])
    if not 0 <= channel < maps.shape[1]:
        raise UsageError(f"got unit {channel}, wanted 0 to {maps.shape[1] - 1}, one of the layer's channels")
    if position:
        if len(position) != len(size) or not all(0 <= p < n for p, n in zip(position, size, strict=True)):
            raise UsageError(f"got position {tuple(position)}, wanted a place on the layer's map of {size}")
        return [tuple(position)] * len(maps)
    places = []
    for plane in maps[:, channel]:
        flat = int(plane.reshape(-1).argmax())
        place: tuple[int, ...] = ()
        for n in reversed(size):
            flat, rest = divmod(flat, n)
            place = (rest, *place)
        places.append(place)
    return places


def channel_of(unit: Unit) -> int:
    """The unit's channel."""
    return unit if isinstance(unit, int) else unit[0]


def strongest_units(maps: Float[Tensor, "1 C *spatial"], count: int) -> list[int]:
    """Channels by their strongest value on one picture, highest first; ties go to the lower channel."""
    peaks = maps[0].flatten(1).amax(1) if maps.ndim > 2 else maps[0]
    return peaks.sort(descending=True, stable=True).indices[:count].tolist()
