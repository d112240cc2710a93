"""The hyperbolic tangent that maps 1 to 1 and -1 to -1 (LeCun, Bottou, Orr, Mueller: Efficient BackProp, 1998, section
4.4)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEIGHT = 1.7159
SLOPE = 2 / 3


class ScaledTanh(nn.Module):
    """`1.7159 tanh(2/3 x)`."""

    def forward(self, input: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Value by value."""
        return HEIGHT * torch.tanh(SLOPE * input)
