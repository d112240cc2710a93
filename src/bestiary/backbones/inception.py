"""The parts of GoogLeNet: convolution units, inception module, auxiliary classifier; and what differs between the
paper's form and torchvision's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.layers.fixed_map import FixedMap
from bestiary.layers.response_norm import caffe_response_norm
from bestiary.ops import convolution_output_size, pooling_output_size


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """No value is negative."""
        return F.relu(self.bn(self.conv(features)), inplace=True)


class ConvBias(nn.Module):
    """Convolution with bias, ReLU."""

    conv: nn.Conv2d

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """No value is negative."""
        return F.relu(self.conv(features), inplace=True)


def truncated_start(network: nn.Module) -> None:
    """torchvision's: weights normal with 0.01, cut at 2."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, 0.0, 0.01, -2, 2)


def caffe_start(network: nn.Module) -> None:
    """The replication's for Caffe: weights uniform with deviation sqrt(1 / fan-in); biases 0.2, of logits 0."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            edge = math.sqrt(3 / module.weight[0].numel())
            nn.init.uniform_(module.weight, -edge, edge)
            is_logits = isinstance(module, nn.Linear) and not name.endswith("fc1")
            nn.init.constant_(module.bias, 0.0 if is_logits else 0.2)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Design:
    """What differs between the forms.

    Attributes:
        unit: makes every convolution.
        five: kernel of the "5x5" branches.
        norm: makes what stands behind the first pool and before the second.
        last_pool: kernel of the pool before inception 5a; its stride is 2.
        auxiliary_grid: side of the average that an auxiliary classifier sees; None for averages of 5x5/3.
        start: initialises.
        stem: kernel and stride of the first convolution; a pool follows unless the stride is 1.
        width: factor on all channels.
    """

    unit: type[ConvNorm] | type[ConvBias] = ConvNorm
    five: int = 3
    norm: Callable[[], nn.Module] = nn.Identity
    last_pool: int = 2
    auxiliary_grid: int | None = 4
    start: Callable[[nn.Module], None] = truncated_start
    stem: tuple[int, int] = (7, 2)
    width: float = 1.0

    def scaled(self, channels: int) -> int:
        """Channels times `width`."""
        return round(channels * self.width)


TORCHVISION = Design()
PAPER = Design(ConvBias, 5, caffe_response_norm, 3, None, caffe_start)
SMALL = replace(TORCHVISION, stem=(3, 1), width=0.5)


class Inception(nn.Module):
    """Figure 2(b): four branches side by side, concatenated in the order 1x1, 3x3, 5x5, pool.

    Args:
        in_channels: of the input.
        widths: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
        design: the form.
    """

    branch1: nn.Module
    branch2: nn.Sequential
    branch3: nn.Sequential
    branch4: nn.Sequential

    def __init__(self, in_channels: int, widths: Sequence[int], design: Design) -> None:
        super().__init__()
        unit = design.unit
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch1 = unit(in_channels, one)
        self.branch2 = nn.Sequential(unit(in_channels, reduce3), unit(reduce3, three, 3))
        self.branch3 = nn.Sequential(unit(in_channels, reduce5), unit(reduce5, five, design.five))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(in_channels, pooled))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """The four branches' channels."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(features) for branch in branches], 1)


class Auxiliary(nn.Module):
    """Section 5: an average, 128 1x1 convolutions, 1,024 hidden units, dropout, logits.

    Args:
        in_channels: of the map.
        outputs: K.
        design: the form.
        crop: side of the pictures; counts where the design has averages of 5x5/3, to size the hidden layer.

    Raises:
        UsageError: a crop whose map is too small for such an average.
    """

    conv: nn.Module
    fc1: nn.Linear
    fc2: nn.Linear

    def __init__(self, in_channels: int, outputs: int, design: Design, crop: int) -> None:
        super().__init__()
        side = design.auxiliary_grid or side_of_averages(crop)
        if design.auxiliary_grid is None:
            self.pool = nn.Sequential(nn.AvgPool2d(5, 3), FixedMap(side, crop))
        else:
            self.pool = nn.AdaptiveAvgPool2d(side)
        self.conv = design.unit(in_channels, 128)
        self.fc1 = nn.Linear(128 * side**2, 1024)
        self.fc2 = nn.Linear(1024, outputs)
        self.dropout = nn.Dropout(0.7)
        design.start(self)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        hidden = F.relu(self.fc1(self.conv(self.pool(features)).flatten(1)), inplace=True)
        return self.fc2(self.dropout(hidden))


def side_of_averages(crop: int) -> int:
    """Side of the 5x5/3 averages over inception 4a's map: 4 at 224, 2 at 128, 1 at 79 to 112.

    Raises:
        UsageError: there is none.
    """
    side = convolution_output_size(crop, 7, 2, 3)
    for _ in range(3):
        side = pooling_output_size(side, 3, 2, ceil_mode=True)
    if side < 5:
        mend = "Take a larger crop, or leave the auxiliary classifiers out (auxiliary=False)"
        raise UsageError(f"got {crop}, wanted at least 79 for the auxiliary classifiers", where="crop", mend=mend)
    return (side - 5) // 3 + 1
