"""DeepLab v3's way from a picture to features, which v3+ has too: a dilated ResNet and atrous spatial pyramid pooling.

Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, sections 3 and 4.
It learns at one stride and predicts at a finer one; it is trained in two stages, the second with norms at rest.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.atrous import AtrousResNet, OutputStride
from bestiary.backbones.xception import AlignedXception
from bestiary.errors import UsageError
from bestiary.heads.aspp import ASPP
from bestiary.heads.segmentation import Padding
from bestiary.heads.trunk_labeller import start_trunk
from bestiary.heads.whole_picture import WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize

FIRST, SECOND = "norms_learn", "norms_rest"
"""The stages: at the learning stride with batch norm in training; at stride 8 with batch norm as it then is."""

RATES = (6, 12, 18)
"""Of the pyramid at stride 16; at 8 they are doubled, at 32 halved."""


class AtrousEncoder(nn.Module):
    """Pictures to the trunk's C2 and to the pyramid's features.

    Args:
        backbone: pictures to maps, the first at stride 4; the stride of its last map is that of training.
        predict_stride: of the last map in evaluation mode; None for the same.
        width: channels of the pyramid's branches.
        dropout: of the pyramid's features.
        separable: the pyramid's 3x3 convolutions are a filter a channel and a 1x1 convolution.

    Raises:
        UsageError: a stride that cannot be.
    """

    learning_stride: OutputStride
    predict_stride: OutputStride | None
    backbone: AtrousResNet | AlignedXception
    aspp: ASPP

    def __init__(
        self,
        backbone: AtrousResNet | AlignedXception,
        predict_stride: OutputStride | None = None,
        width: int = 256,
        dropout: float = 0.1,
        separable: bool = False,
    ) -> None:
        super().__init__()
        if predict_stride not in (None, 8, 16, 32):
            raise UsageError(f"got {predict_stride}, wanted 8, 16, 32 or none", where="predict_stride")
        last = backbone.levels[-1]
        self.learning_stride, self.predict_stride = last.stride, predict_stride  # type: ignore[assignment]
        self.backbone = backbone
        self.aspp = ASPP(last.channels, _rates(last.stride), width, dropout, separable)

    def forward(
        self, pixels: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B C2 h w"], Float[Tensor, "B C3 h2 w2"]]:
        """C2 at stride 4, and the features at the stride of the mode."""
        if not torch.compiler.is_compiling():
            self.take_stride()
        maps = self.backbone(pixels)
        return maps[0], self.aspp(maps[-1])

    def train(self, mode: bool = True) -> "AtrousEncoder":
        """The mode, and its stride."""
        super().train(mode)
        self.take_stride()
        return self

    def take_stride(self) -> None:
        """Have the strides and dilations of the mode it is in; the parameters are the same at any."""
        wanted = self.learning_stride if self.training else self.predict_stride or self.learning_stride
        if self.backbone.levels[-1].stride != wanted:
            self.backbone.set_output_stride(wanted)
            self.aspp.set_rates(_rates(wanted))


class AtrousLabeller(WholePicture):
    """Base of the systems that have such an encoder.

    A picture's sides are multiples of the coarser stride, plus 1, so that corners stay corners on every map.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        encoder: pictures to features.

    Attributes:
        norms_rest: batch norm keeps its statistics in training, and its scales and shifts do not learn.
    """

    padding: ClassVar[Padding] = "mean"
    encoder: AtrousEncoder
    norms_rest: bool = False
    first_stride: OutputStride

    def __init__(self, categories: Sequence[str], normalize: Normalize, encoder: AtrousEncoder) -> None:
        super().__init__(categories, normalize)
        self.encoder, self.first_stride = encoder, encoder.learning_stride
        grid = max(encoder.learning_stride, encoder.predict_stride or 8)
        # two places of the last map at least: one alone has no spread, which batch norm divides by
        self.geometry = InputGeometry(grid=grid, smallest=grid + 1)

    def begin_stage(self, name: str) -> None:
        """The stride of the stage, and whether norms learn in it."""
        self.norms_rest = name == SECOND
        stride: OutputStride = 8 if self.norms_rest else self.first_stride
        self.encoder.learning_stride = stride
        for norm in self._norms():
            norm.requires_grad_(not self.norms_rest)
        self.train(self.training)

    def train(self, mode: bool = True) -> "AtrousLabeller":
        """The mode, but for norms that rest."""
        super().train(mode)
        for norm in self._norms() if self.norms_rest else ():
            norm.eval()
        return self

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions."""
        return start_trunk(state, self.state_dict(), "encoder.backbone.")

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]


def _rates(stride: int) -> tuple[int, ...]:
    return tuple(rate * 16 // stride for rate in RATES)
