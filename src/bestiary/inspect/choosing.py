"""Which layers and units are worth a look where nobody named any."""

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.inspect.layers import Tap, frozen

DULL = ("Pool", "Dropout", "Identity", "Flatten", "Norm")
"""Kinds that end no stage."""


def stage_layers(net: nn.Module, pixels: Float[Tensor, "B C H W"]) -> list[str]:
    """A layer for each size of map on the way down (C1, C2 ... of a classifier): the outermost part that ends there,
    the last one of equals. What lies on the way up again (decoders, heads of finer levels) is left out.

    Maps of one position are not maps, and parts that give several maps end nowhere. A network that keeps one size has
    one such layer.
    """
    kinds = {name: type(part).__name__ for name, part in net.named_modules() if name}
    tap = Tap(net, list(kinds), lenient=True)
    with frozen(net):
        outputs = tap(pixels[:1])
    found = [
        (path, maps[0, 0].numel())
        for path, maps in zip(tap.reached, outputs, strict=True)
        if maps.ndim == pixels.ndim
        and maps[0, 0].numel() > 1
        and tap.counts[path] == 1
        and not any(word in kinds[path] for word in DULL)
    ]
    if not found:
        return []
    smallest = min(size for _, size in found)
    bottom = max(i for i, (_, size) in enumerate(found) if size == smallest)
    chosen: dict[int, str] = {}
    for path, size in found[: bottom + 1]:
        if size not in chosen or path.count(".") <= chosen[size].count("."):
            chosen[size] = path
    return [chosen[size] for size in sorted(chosen, reverse=True)]
