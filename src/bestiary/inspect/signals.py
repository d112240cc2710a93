"""What in a picture made a unit fire: three ways back from the unit to the pixels, which differ at the ReLU alone.

| way | at a ReLU with input x, the signal g becomes | paper |
|---|---|---|
| `gradient` | g where x > 0 | Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, ICLR workshop 2014 |
| `deconvnet` | g where g > 0 | Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014 |
| `guided` | g where x > 0 and g > 0 | Springenberg et al.: Striving for Simplicity, ICLR workshop 2015 |

All else is the same: convolutions are transposed, max pooling puts the signal back where the maximum was (the switches;
where windows overlap, sums), additions and concatenations hand it to all their parts, batch normalisation is the linear
map that it is in evaluation mode. Without a ReLU on the way the three are equal.

Beyond the papers: other activations that suppress the negative (leaky ReLU, ReLU6, SiLU, hardswish, GELU ...) are taken
for ReLUs: a deconvnet keeps what is positive of the signal (leaky ones pass the signal through themselves), guided
gradients are the activation's derivative times what is positive of the signal. Sigmoids and tanh (gates), response
normalisation and softmax pass their gradient in all three. An activation written as `clamp` or `max` is not recognised
and passes its gradient.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bestiary.errors import UsageError
from bestiary.inspect.layers import Tap, Unit, channel_of, find_layer, frozen, strongest_positions

Way = Literal["gradient", "deconvnet", "guided"]
WAYS: tuple[Way, ...] = ("gradient", "deconvnet", "guided")


@dataclass(frozen=True, eq=False)
class Projection:
    """A unit carried back to the pixels, for each picture of a batch.

    Attributes:
        signal: what reached the pixels; the unit's own signal starts at 1, not at its activation.
        activations: of the unit.
        positions: where on its map the unit was looked at; empty for a layer without map.
    """

    signal: Float[Tensor, "B C H W"]
    activations: Float[Tensor, " B"]
    positions: list[tuple[int, ...]]


def gradient(net: nn.Module, pixels: Float[Tensor, "B C H W"], layer: str, unit: Unit) -> Projection:
    """The unit's gradient. Arguments as `project`."""
    return project(net, pixels, layer, unit, "gradient")


def deconvnet(net: nn.Module, pixels: Float[Tensor, "B C H W"], layer: str, unit: Unit) -> Projection:
    """Zeiler and Fergus's reconstruction from the unit alone. Arguments as `project`."""
    return project(net, pixels, layer, unit, "deconvnet")


def guided(net: nn.Module, pixels: Float[Tensor, "B C H W"], layer: str, unit: Unit) -> Projection:
    """Guided backpropagation. Arguments as `project`."""
    return project(net, pixels, layer, unit, "guided")


def saliency(net: nn.Module, pixels: Float[Tensor, "B C H W"], category: int) -> Float[Tensor, "B H W"]:
    """How much each pixel can move the logit of a category: largest absolute gradient over the channels (Simonyan)."""
    return project(net, pixels, "", category, "gradient").signal.abs().amax(1)


def project(net: nn.Module, pixels: Float[Tensor, "B C H W"], layer: str, unit: Unit, way: Way) -> Projection:
    """Carry one unit of `layer` back to the pixels.

    Args:
        net: any network; run in evaluation mode and left as it was.
        pixels: its input, normalised.
        layer: path or name of the layer; empty for the network's output, whose units are the categories.
        unit: channel (looked at where it is strongest in each picture), or (channel, y, x).
        way: "gradient", "deconvnet" or "guided".

    Raises:
        UsageError: no such layer or unit, or nothing of the pixels reaches it with a gradient.
    """
    path = find_layer(net, layer)
    leaf = pixels.detach().clone().requires_grad_(True)
    with frozen(net), torch.enable_grad():
        with nullcontext() if way == "gradient" else _ReluRule(way):
            (maps,) = Tap(net, [path])(leaf)
        if maps.ndim < 2 or len(maps) != len(pixels):
            wanted = f"one map or vector a picture, [{len(pixels)}, channels, ...]"
            raise UsageError(f"got the shape {tuple(maps.shape)} from layer {layer!r}, wanted {wanted}")
        places = strongest_positions(maps.detach(), unit)
        chosen = torch.stack([row[(channel_of(unit), *place)] for row, place in zip(maps, places, strict=True)])
        if not chosen.requires_grad:
            raise UsageError(f"no gradient reaches the pixels from layer {layer!r}")
        (signal,) = torch.autograd.grad(chosen.sum(), leaf, allow_unused=True)
    if signal is None:
        signal = torch.zeros_like(leaf)
    return Projection(signal.detach(), chosen.detach(), places)


_HOMOGENEOUS: set[Callable[..., Any]] = {F.leaky_relu, F.leaky_relu_, F.prelu, torch.prelu}
_RECTIFIERS: set[Callable[..., Any]] = {
    *(F.relu, F.relu_, F.relu6, F.hardtanh, F.hardtanh_, F.elu, F.elu_, F.selu, F.selu_, F.celu, F.celu_),
    *(F.gelu, F.silu, F.mish, F.softplus, F.hardswish, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    *_HOMOGENEOUS,
}


class _ReluRule(TorchFunctionMode):
    """Activations go forward as always and back by the rule."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way = way

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in _RECTIFIERS:
            return func(*args, **kwargs)
        values = kwargs.pop("input", None) if not args else args[0]
        # The only flag that an activation takes says whether it works in place.
        in_place = func.__name__.endswith("_") or bool(kwargs.get("inplace")) or any(a is True for a in args[1:])
        rest = args[1:]

        def activate(x: Tensor) -> Tensor:
            return func(x.clone(), *rest, **kwargs)

        back = _BACK[self.way] if func not in _HOMOGENEOUS or self.way == "guided" else _through_itself
        return _Activation.apply(values, activate, back, in_place)


class _Activation(torch.autograd.Function):
    """An activation with a backward rule of its own; where the network works in place, so does this."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, activate: Any, back: Any, in_place: bool) -> Tensor:
        ctx.activate, ctx.back = activate, back
        ctx.save_for_backward(values.clone() if in_place else values)
        activated = activate(values)
        if not in_place:
            return activated
        ctx.mark_dirty(values)
        return values.copy_(activated)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        return ctx.back(ctx.activate, values, grads[0]), None, None, None


def _positive(activate: Callable[[Tensor], Tensor], values: Tensor, signal: Tensor) -> Tensor:
    return signal.clamp(min=0)


def _through_itself(activate: Callable[[Tensor], Tensor], values: Tensor, signal: Tensor) -> Tensor:
    return activate(signal)


def _guided(activate: Callable[[Tensor], Tensor], values: Tensor, signal: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = values.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(activate(leaf), leaf, signal.clamp(min=0))
    return grad


_BACK: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]] = {
    "deconvnet": _positive,
    "guided": _guided,
}
