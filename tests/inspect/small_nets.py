"""Small networks of every kind of part, with weights that do not cancel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branches(nn.Module):
    """Grouped convolution, batch norm, in-place ReLU, residual addition, concatenation, ceil-mode pooling."""

    def __init__(self, inplace: bool = True, activation: bool = True) -> None:
        super().__init__()
        self.activation, self.inplace = activation, inplace
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.conv3 = nn.Conv2d(16, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def act(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=self.inplace) if self.activation else x

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.pool(self.act(self.bn1(self.conv1(pixels))))
        x = self.act(self.conv2(x) + x)
        x = self.act(self.conv3(torch.cat([x, 0.5 * x], 1)))
        return self.fc(x.mean((2, 3)))


def branches(inplace: bool = True, activation: bool = True) -> Branches:
    torch.manual_seed(3)
    net = Branches(inplace, activation)
    nn.init.uniform_(net.bn1.weight, 0.5, 1.5)
    nn.init.normal_(net.bn1.bias, std=0.3)
    net.bn1.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
    net.bn1.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return net.eval()


def pixels(batch: int = 1, side: int = 17) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(5))
