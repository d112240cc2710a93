"""Convolutions whose filters cannot grow beyond a radius (Zeiler, Fergus, ECCV 2014, section 3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.errors import UsageError

TOLERANCE = 1e-5
"""Share by which a filter may exceed the radius before it is touched: shrinking twice changes no bit."""


class BoundedConv2d(nn.Conv2d):
    """A convolution that scales each filter whose root mean square exceeds `radius` back to it.

    It happens before every pass in training, hence after each step of any optimiser, and once more when training ends
    (`eval()`), so that no pass sees a larger filter. Weights that are only loaded and used, or frozen, stay as they
    are.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: of the square filters.
        stride: pixels a step.
        padding: zeros on each side.
        radius: largest root mean square of a filter; None for no bound.

    Raises:
        UsageError: a radius that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        radius: int | float | None = 0.1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        if radius is not None and not radius > 0:
            raise UsageError(f"got {radius}, wanted a number above 0, or none", where="radius")
        self.radius = radius
        self._trained = False

    @torch.no_grad()
    def shrink(self) -> None:
        """Scale the filters that are too large, unless they are frozen."""
        if self.radius is None or not self.weight.requires_grad:
            return
        rms = self.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        self.weight.mul_(torch.where(rms > self.radius * (1 + TOLERANCE), self.radius / rms, 1.0))

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """The convolution, in training with its filters shrunk first."""
        if self.training:
            self.shrink()
            self._trained = True
        return super().forward(input)

    def train(self, mode: bool = True) -> "BoundedConv2d":
        """As every module's; what the last step of training let grow is shrunk when training ends."""
        if self._trained and not mode:
            self.shrink()
            self._trained = False
        return super().train(mode)

    def extra_repr(self) -> str:
        """The convolution's, and the radius."""
        return f"{super().extra_repr()}, radius={self.radius}"
