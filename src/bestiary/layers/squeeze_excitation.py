"""Squeeze-and-excitation (Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SqueezeExcitation(nn.Module):
    """Scales every channel by a number between 0 and 1 that depends on the averages of all channels (figure 2).

    Args:
        channels: C.
        squeezed: channels between the two 1x1 convolutions.
        gate: the last activation; the paper's is `nn.Sigmoid()`, MobileNetV3's `nn.Hardsigmoid()`.
    """

    fc1: nn.Conv2d
    fc2: nn.Conv2d
    gate: nn.Module

    def __init__(self, channels: int, squeezed: int, gate: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """gate(W2 relu(W1 mean(x))) * x."""
        averages = features.mean((2, 3), keepdim=True)
        return self.gate(self.fc2(F.relu(self.fc1(averages), inplace=True))) * features
