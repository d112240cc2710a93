"""Atrous spatial pyramid pooling, which looks at a map with several fields of view at once.

Two forms, of two papers: `SummedASPP` scores the classes with each dilation and adds the scores (Chen et al.: DeepLab,
TPAMI 2018, section 3.2); `ASPP` makes features with each, and of the whole picture's mean, and joins them (Chen et al.:
Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, section 3.3). Names of the state of `ASPP` are
torchvision's.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.layers.depthwise import DepthwiseConv2d
from bestiary.layers.lone_norm import LoneBatchNorm2d


class SummedASPP(nn.ModuleList):
    """Branches that score the classes, each with another dilation; their scores are added.

    Args:
        branches: of one kind: `score_convolution`, or `LargeFOV`, which is the form for VGG ("ASPP-L").
    """

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__(branches)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Scores."""
        scores = [branch(features) for branch in self]
        total = scores[0]
        for further in scores[1:]:
            total = total + further
        return total


class LargeFOV(nn.Module):
    """fc6 and fc7 of VGG as convolutions, the first 3x3 and dilated, and the scores (DeepLab v1, section 3.1).

    Args:
        in_channels: C.
        num_classes: K.
        width: channels of fc6 and fc7.
        rate: dilation of fc6; 12 gives a field of view of 224 pixels.
        norm: batch norm in fc6 and fc7.
    """

    fc6: nn.Sequential
    fc7: nn.Sequential
    score: nn.Conv2d

    def __init__(
        self, in_channels: int, num_classes: int, width: int = 1024, rate: int = 12, norm: bool = False
    ) -> None:
        super().__init__()
        fc6, fc7 = nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate), nn.Conv2d(width, width, 1)
        self.fc6, self.fc7 = _rectified(fc6, norm), _rectified(fc7, norm)
        self.score = score_convolution(width, num_classes, 1)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Scores."""
        return self.score(self.fc7(self.fc6(features)))


class ASPP(nn.Module):
    """A 1x1 and, for each dilation, a 3x3 convolution, and the picture's mean; then one 1x1 convolution of all. Batch
    norm and ReLU after each.

    Args:
        in_channels: C.
        rates: dilations of the 3x3 convolutions.
        width: channels of each branch and of the output.
        dropout: of the output.
        separable: the 3x3 convolutions are a filter a channel and a 1x1 convolution (DeepLab v3+, section 3.1).

    Attributes:
        width: channels of the output.
    """

    convs: nn.ModuleList
    project: nn.Sequential

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        dropout: float = 0.1,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.convs = nn.ModuleList([conv_norm(in_channels, width, 1)])
        make = separable_conv_norm if separable else conv_norm
        self.convs.extend(make(in_channels, width, 3, rate) for rate in rates)
        self.convs.append(PictureMean(in_channels, width))
        self.project = conv_norm(len(self.convs) * width, width, 1).append(nn.Dropout(dropout))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """Joined features."""
        return self.project(torch.cat([convolution(features) for convolution in self.convs], dim=1))

    def set_rates(self, rates: Sequence[int]) -> None:
        """Other dilations for the same parameters."""
        for branch, rate in zip(list(self.convs)[1:-1], rates, strict=True):
            convolution: nn.Conv2d = branch[0]  # type: ignore[index]
            convolution.dilation = convolution.padding = (rate, rate)


class PictureMean(nn.Sequential):
    """The mean over the whole map, a 1x1 convolution, batch norm and ReLU; the same at every place.

    A batch of one picture gives batch norm one value a channel, of which there is no variance: then its running
    statistics serve.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        convolution = nn.Conv2d(in_channels, width, 1, bias=False)
        super().__init__(nn.AdaptiveAvgPool2d(1), convolution, LoneBatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """A constant map of the same size."""
        return super().forward(input).expand(-1, -1, input.shape[-2], input.shape[-1])


def conv_norm(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """A convolution without bias that keeps the size, batch norm, ReLU."""
    padding = kernel // 2 * dilation
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def separable_conv_norm(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """`conv_norm` of a filter a channel, then a 1x1 convolution, each with batch norm and ReLU."""
    padding = kernel // 2 * dilation
    filters = DepthwiseConv2d(in_channels, kernel, 1, padding, dilation)
    first = (filters, nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
    return nn.Sequential(*first, *conv_norm(in_channels, out_channels, 1))


def score_convolution(in_channels: int, num_classes: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution to the classes that keeps the size. Its weights start normal with 0.01, its biases at 0."""
    convolution = nn.Conv2d(in_channels, num_classes, kernel, padding=kernel // 2 * dilation, dilation=dilation)
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _rectified(convolution: nn.Conv2d, norm: bool) -> nn.Sequential:
    """With ReLU and dropout of 0.5; He et al.'s start, without which nets with no norm do not start from noise."""
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    norms = [nn.BatchNorm2d(convolution.out_channels)] if norm else []
    return nn.Sequential(convolution, *norms, nn.ReLU(inplace=True), nn.Dropout(0.5))
