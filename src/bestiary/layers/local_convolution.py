"""A convolution whose every place has weights of its own."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError


class LocalConvolution(nn.Module):
    """Darknet's local layer: a window as of a convolution, at each place of a map of one fixed size with filters that
    no other place shares.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: odd side of the window; the map is padded so that its size stays.
        size_hw: of the map.

    Attributes:
        weight: `[H W, D, C kernel kernel]`, places row by row; windows in the order of `unfold`.
        bias: `[D, H, W]`.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, kernel: int, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel, self.size_hw = in_channels, out_channels, kernel, size_hw
        inputs = in_channels * kernel * kernel
        self.weight = nn.Parameter(torch.empty(size_hw[0] * size_hw[1], out_channels, inputs))
        self.bias = nn.Parameter(torch.zeros(out_channels, *size_hw))
        scale = math.sqrt(2 / inputs)
        nn.init.uniform_(self.weight, -scale, scale)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Each place through its own filters.

        Raises:
            RecordError: a map of another size.
        """
        if tuple(maps.shape[-2:]) != self.size_hw:
            got = f"got a map of {tuple(maps.shape[-2:])}, wanted {self.size_hw}"
            raise RecordError(got, where="LocalConvolution", mend="Its filters belong to places of that map.")
        windows = F.unfold(maps, self.kernel, padding=self.kernel // 2)
        # One product a place: [HW, B, C k k] by [HW, C k k, D].
        out = torch.bmm(windows.permute(2, 0, 1), self.weight.transpose(1, 2))
        return out.permute(1, 2, 0).unflatten(2, self.size_hw) + self.bias
