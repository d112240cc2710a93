"""A network that answers for one window of a picture, evaluated at all windows at once.

Where a layer of stride s is evaluated at every place instead of each s-th, the values that one window is made of stand
s apart; so all layers after it reach s times as far. Nothing else changes: each answer is that of the window cut out
and seen alone (Giusti et al., Fast Image Scanning with Deep Max-Pooling Convolutional Neural Networks, ICIP 2013, keep
the same values in fragments; Holschneider's algorithme a trous is the dilated form used here).
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.layers.scaled_tanh import ScaledTanh


def window_side(layers: Iterable[nn.Module]) -> int:
    """Pixels a side of the window that one answer of the layers is made of."""
    side, step = 1, 1
    for layer in layers:
        kernel, stride = _reach(layer)
        side += (kernel - 1) * step
        step *= stride
    return side


def dense(
    layers: Iterable[nn.Module], features: Float[Tensor, "B C H W"], spacing: int = 1
) -> Float[Tensor, "B C2 H2 W2"]:
    """The layers' answers for the windows at every place: `window_side - 1` fewer a side than there are pixels (for a
    spacing of 1).

    Args:
        layers: square convolutions and max poolings without padding, and layers that treat each value alone.
        features: input.
        spacing: of the pixels that a window is made of.

    Raises:
        UsageError: another kind of layer that mixes places.
    """
    for layer in layers:
        _reach(layer)
        if isinstance(layer, nn.Conv2d):
            # Planes, as `layers.planes` says why: it cannot see that these kernels are dilated here.
            weight = layer.weight.contiguous()
            features = F.conv2d(features.contiguous(), weight, layer.bias, dilation=spacing * layer.dilation[0])
            spacing *= layer.stride[0]
        elif isinstance(layer, nn.MaxPool2d):
            features = _sliding_maximum(features, int(layer.kernel_size), spacing)  # type: ignore[arg-type]
            spacing *= int(layer.stride)  # type: ignore[arg-type]
        else:
            features = layer(features)
    return features


def _sliding_maximum(features: Float[Tensor, "B C H W"], kernel: int, spacing: int) -> Float[Tensor, "B C H2 W2"]:
    """Axis by axis, as whole planes: pooling with dilation is several times slower and not in every runtime."""
    for axis in (-2, -1):
        side = features.shape[axis] - (kernel - 1) * spacing
        shifted = [features.narrow(axis, i * spacing, side) for i in range(kernel)]
        features = shifted[0]
        for other in shifted[1:]:
            features = torch.maximum(features, other)
    return features


def _reach(layer: nn.Module) -> tuple[int, int]:
    """Width and stride along one axis; 1 and 1 for layers that treat each value alone."""
    if isinstance(layer, nn.Conv2d):
        kernel = (layer.kernel_size[0] - 1) * layer.dilation[0] + 1
        square = len(set(layer.kernel_size)) == len(set(layer.stride)) == len(set(layer.dilation)) == 1
        if square and not any(layer.padding):
            return kernel, layer.stride[0]
    elif isinstance(layer, nn.MaxPool2d):
        sides = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        if all(isinstance(side, int) for side in sides) and layer.padding == 0 and layer.dilation == 1:
            return int(layer.kernel_size), int(layer.stride)  # type: ignore[arg-type]
    elif isinstance(layer, nn.Tanh | nn.ReLU | nn.Dropout | nn.Identity | ScaledTanh):
        return 1, 1
    wanted = "square convolutions and max poolings without padding, and layers that treat each value alone"
    raise UsageError(f"got {layer}, wanted {wanted}", where="dense")
