"""The transposed convolution that starts as bilinear interpolation (Long, Shelhamer, Darrell: FCN, CVPR 2015, section
3.3), every class for itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.ops.upsampling import bilinear_filler


class BilinearUpsampling(nn.ConvTranspose2d):
    """`n` cells become `factor * (n + 1)`: kernel 2 `factor`, no padding, no bias. Cell 0 has its middle at index
    `factor - 1/2` of the output; before it and behind the last cell the output fades to zero.

    The kernels are dense over the channels, as in Caffe's files. Where they do not learn, only their diagonal is not
    zero, and interpolation of the map with a border of zeros gives the same in a fraction of the time.

    Args:
        channels: in and out.
        factor: even.
        learns: whether the kernels are trained; otherwise they are interpolation, whatever they are set to.

    Raises:
        UsageError: an odd factor, whose kernels lie on other places.
    """

    def __init__(self, channels: int, factor: int, learns: bool) -> None:
        if factor < 2 or factor % 2:
            raise UsageError(f"got {factor}, wanted an even number", where="BilinearUpsampling(factor)")
        super().__init__(channels, channels, 2 * factor, factor, bias=False)
        self.factor, self.learns = factor, learns
        with torch.no_grad():
            self.weight.copy_(bilinear_filler(2 * factor, channels))
        self.requires_grad_(learns)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:  # type: ignore[override]
        """The larger map."""
        if self.learns:
            return super().forward(input)
        height, width = input.shape[-2:]
        bordered = F.pad(input, [1, 1, 1, 1])
        size, skipped = (self.factor * (height + 2), self.factor * (width + 2)), self.factor // 2
        larger = F.interpolate(bordered, size=size, mode="bilinear", align_corners=False)
        return larger[
            ..., skipped : skipped + self.factor * (height + 1), skipped : skipped + self.factor * (width + 1)
        ]
