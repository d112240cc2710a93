"""How strongly each input pixel reaches one output position, by gradients."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bestiary.ops.dry_run import tensors_in
from bestiary.ops.shapes import per_axis
from bestiary.records import require


def influence_map(
    module: nn.Module, input_shape: Sequence[int], position: Sequence[int] | None = None, output: int = 0
) -> Float64[Tensor, " *spatial"]:
    """Each input pixel's share in one output position, channels together, of the network with every weight positive.

    The gradient of the network as it stands is the "effective receptive field" (Luo et al., NIPS 2016) of one set of
    weights on one picture: zeros in it may be dead units or cancelled terms. Here weights are equal and positive, batch
    normalisation is the identity, activations pass everything and maxima are means, so that the gradient is zero
    exactly where no path leads: the twin of `receptive_field`, found another way.

    Convention: computed in float64 (the corner of ResNet-152's field has a share of 1e-50), on the CPU, and computed
    indeed: choose the input no larger than needed.

    Args:
        module: left as it was.
        input_shape: `(1, C, *spatial)`.
        position: place on the spatial axes of the output; the middle (size // 2) if None. Without such axes: all of it.
        output: which of the output's tensors.

    Returns:
        Of the input's spatial size; sums to 1, or is zero everywhere if nothing reaches the position.

    Raises:
        RecordError: no spatial axis, or no such output or position.
    """
    require(len(input_shape) >= 3, "influence_map(input_shape)", tuple(input_shape), "(B, C, spatial sizes)")
    pixels = torch.ones(tuple(input_shape), dtype=torch.float64, requires_grad=True)
    state = {name: _positive(value) for name, value in _state(module)}
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.enable_grad(), _Linear():
            outputs = list(tensors_in(torch.func.functional_call(module, state, (pixels,))))
    finally:
        for part in training:
            part.training = True
    require(0 <= output < len(outputs), "influence_map(output)", output, f"0 to {len(outputs) - 1}")
    chosen = outputs[output]
    if chosen.ndim == len(input_shape):
        size = tuple(chosen.shape[2:])
        place = tuple(n // 2 for n in size) if position is None else tuple(position)
        fits = len(place) == len(size) and all(0 <= p < n for p, n in zip(place, size, strict=True))
        require(fits, "influence_map(position)", place, f"inside {size}")
        chosen = chosen[(slice(None), slice(None), *place)]
    if not chosen.requires_grad:
        return torch.zeros(tuple(input_shape[2:]), dtype=torch.float64)
    (grad,) = torch.autograd.grad(chosen.sum(), pixels)
    share = grad.abs().sum((0, 1))
    return share / share.sum().clamp(min=torch.finfo(torch.float64).tiny)


def _state(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _positive(value: Tensor) -> Tensor:
    """Weights that average what they see; for vectors (biases, batch normalisation and its statistics) ones, with which
    (x - 1) / 1 * 1 + 1 is x."""
    if not value.is_floating_point():
        return value
    fan_in = value[0].numel() if value.ndim > 1 else 1
    return torch.full(value.shape, 1 / max(1, fan_in), dtype=torch.float64)


class _Linear(TorchFunctionMode):
    """Activations are left out, and maxima become means of the same windows."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ACTIVATIONS:
            return args[0]
        if func in _MEANS:
            return _MEANS[func](*args, **kwargs)
        return func(*args, **kwargs)


_ACTIVATIONS: set[Callable[..., Any]] = {
    *(F.relu, F.relu6, F.gelu, F.silu, F.elu, F.selu, F.celu, F.leaky_relu, F.prelu, F.hardtanh, F.hardswish),
    *(F.hardsigmoid, F.mish, F.softplus, F.sigmoid, F.tanh, F.logsigmoid, torch.relu, torch.relu_, torch.sigmoid),
    *(torch.tanh, torch.sigmoid_, torch.tanh_, Tensor.relu, Tensor.relu_, Tensor.sigmoid, Tensor.tanh),
    *(Tensor.clamp, Tensor.clamp_, torch.clamp),
}


def _mean_of_windows(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    axes = input.ndim - 2
    kernel = per_axis(kernel_size, axes, "kernel_size")
    step = per_axis(stride, axes, "stride") if stride else kernel
    before, apart = per_axis(padding, axes, "padding", least=0), per_axis(dilation, axes, "dilation")
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
    with torch.no_grad():
        plain, indices = pool(input, kernel, step, before, apart, ceil_mode, True)
    sides: list[int] = []
    for n, k, s, p, d, out in zip(input.shape[2:], kernel, step, before, apart, plain.shape[2:], strict=True):
        sides = [p, max(0, (out - 1) * s + d * (k - 1) + 1 - n - p), *sides]
    ones = torch.ones(input.shape[1], 1, *kernel, dtype=input.dtype) / torch.Size(kernel).numel()
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    mean = convolve(F.pad(input, sides), ones, stride=step, dilation=apart, groups=input.shape[1])
    mean = mean[(..., *(slice(0, n) for n in plain.shape[2:]))]
    return (mean, indices) if return_indices else mean


def _with_places(*args: Any, **kwargs: Any) -> Any:
    return _mean_of_windows(
        *args[:6], **{k: v for k, v in kwargs.items() if k != "return_indices"}, return_indices=True
    )


def _adaptive(pool: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda input, output_size, return_indices=False: pool(input, output_size)


_MEANS: dict[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys((torch.max_pool1d, torch.max_pool2d, torch.max_pool3d), _mean_of_windows),
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, F.max_pool3d), _mean_of_windows),
    F.max_pool1d_with_indices: _with_places,
    F.max_pool2d_with_indices: _with_places,
    F.max_pool3d_with_indices: _with_places,
    F.adaptive_max_pool1d: _adaptive(F.adaptive_avg_pool1d),
    F.adaptive_max_pool2d: _adaptive(F.adaptive_avg_pool2d),
    F.adaptive_max_pool3d: _adaptive(F.adaptive_avg_pool3d),
    torch.amax: torch.mean,
    Tensor.amax: Tensor.mean,
}
"""Maxima under all the names that a network may call them by: a function of `F` hides the one of `torch` it calls."""
