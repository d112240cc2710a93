"""Where in a picture a classifier sees a category.

Class activation maps (Zhou et al.: Learning Deep Features for Discriminative Localization, CVPR 2016) where the network
ends in global average pooling and one linear layer, or in a map for each category that is averaged: there the logit is
the mean of the class map, plus the bias. Grad-CAM (Selvaraju et al., ICCV 2017) elsewhere: the last maps, weighted by
the mean gradient of the logit, positive part. Where both apply they are proportional, up to that positive part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.inspect.layers import find_layer, frozen
from bestiary.ops.dry_run import tensors_in


@dataclass(frozen=True, eq=False)
class ClassMap:
    """Of one picture.

    Attributes:
        heat: evidence for the category at each position of the layer's map; of a class activation map the mean is the
            logit without its bias, Grad-CAM has no negative values.
        category: index.
        logit: of the category.
        method: how it was made.
        layer: whose map it is.
    """

    heat: Float[Tensor, "h w"]
    category: int
    logit: float
    method: Literal["CAM", "Grad-CAM"]
    layer: str


def class_map(
    net: nn.Module, pixels: Float[Tensor, "1 C H W"], category: int | None = None, layer: str | None = None
) -> ClassMap:
    """The map of one category.

    Args:
        net: a classifier: `[1, C, H, W]` to logits `[1, K]`; left as it was.
        pixels: one picture, normalised.
        category: the one of the highest logit if None.
        layer: Grad-CAM on the maps of this layer, whatever the network ends in; where an activation works in place on
            what the layer gives, on the activated maps.

    Raises:
        UsageError: the network gives no logits, has no map, or no such layer or category.
    """
    with frozen(net), torch.enable_grad():
        trace = _run(net, pixels)
        logits = trace.logits
        chosen = int(logits[0].argmax()) if category is None else category
        if not 0 <= chosen < logits.shape[1]:
            raise UsageError(f"got category {chosen}, wanted 0 to {logits.shape[1] - 1}")
        logit = float(logits[0, chosen].detach())
        if layer is None:
            found = _averaged(trace, chosen)
            if found is not None:
                return ClassMap(found[1], chosen, logit, "CAM", found[0])
        path, maps = _last_maps(trace, None if layer is None else find_layer(net, layer))
        (grad,) = torch.autograd.grad(logits[0, chosen], maps, allow_unused=True)
    if grad is None:
        raise UsageError(f"the logits do not depend on layer {path!r}")
    heat = (grad.mean((2, 3), keepdim=True) * maps).sum(1)[0].clamp(min=0)
    return ClassMap(heat.detach(), chosen, logit, "Grad-CAM", path)


@dataclass
class _Trace:
    """One forward pass: maps by the layer that gave them, those of pools, and inputs of linear layers, in order."""

    logits: Tensor
    maps: list[tuple[str, Tensor]]
    pooled: list[Tensor]
    linears: list[tuple[nn.Linear, Tensor]]


def _run(net: nn.Module, pixels: Tensor) -> _Trace:
    maps: list[tuple[str, Tensor]] = []
    linears: list[tuple[nn.Linear, Tensor]] = []
    pooled: list[Tensor] = []

    def listen(path: str, part: nn.Module) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            first = next(iter(tensors_in(output)), None)
            if first is not None and first.ndim == 4:
                maps.append((path, first))
                if "Pool" in type(module).__name__:
                    pooled.append(first)
            if isinstance(module, nn.Linear):
                linears.append((module, args[0].detach()))

        return part.register_forward_hook(hook)

    handles = [listen(path, part) for path, part in net.named_modules() if path]
    try:
        output = net(pixels.detach().clone().requires_grad_(True))
    finally:
        for handle in handles:
            handle.remove()
    logits = next(iter(tensors_in(output)), None)
    if logits is None or logits.ndim != 2 or len(logits) != 1:
        shape = None if logits is None else tuple(logits.shape)
        raise UsageError(f"got an output of shape {shape}, wanted logits [1, K] of one picture", where="class_map")
    return _Trace(logits, maps, pooled, linears)


def _averaged(trace: _Trace, category: int) -> tuple[str, Tensor] | None:
    """Layer and class map where the logit is the mean over some layer's positions; found by the numbers themselves."""
    logits = trace.logits.detach()
    last = trace.linears[-1] if trace.linears else None
    ends_linear = last is not None and last[1].ndim == 2 and _same(last[0](last[1]), logits)
    for path, maps in reversed(trace.maps):
        values, mean = maps.detach(), maps.detach().mean((2, 3))
        if values[0, 0].numel() < 2:
            continue
        if _same(mean, logits):
            return path, values[0, category]
        if ends_linear and last is not None and _same(mean, last[1]):
            return path, torch.einsum("c,chw->hw", last[0].weight[category].detach(), values[0])
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max().clamp(min=1e-6)))


def _last_maps(trace: _Trace, path: str | None) -> tuple[str, Tensor]:
    """The maps of the layer, or the last ones of more than one position that no pool has made coarser."""
    pooled = {id(maps) for maps in trace.pooled}
    found: Sequence[tuple[str, Tensor]] = [
        (name, maps)
        for name, maps in trace.maps
        if (name == path if path else maps[0, 0].numel() > 1 and id(maps) not in pooled)
    ]
    if not found:
        raise UsageError(f"the layer {path!r} gives no map" if path else "the network has no map to look at")
    return found[-1]
