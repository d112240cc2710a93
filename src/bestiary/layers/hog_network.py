"""HOG as a convolutional network: the steps of `features.hog` as layers that gradients pass through.

Edge filters, directional gates, pooling over cells and local normalisation: the same numbers as the kernel's, from any
picture size, on any device, and exported like any network (Mahendran, Vedaldi, Understanding Deep Image Representations
by Inverting Them, CVPR 2015, section 4.1, write HOG and DSIFT so to invert them).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.features.hog import PAPER, HogLayout


class EdgeFilters(nn.Module):
    """Differences of the neighbours along x and y, of the channel in which they are largest."""

    taps: Tensor
    """[2, 1, 3, 3]: [-1, 0, 1] along x and along y."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.zeros(2, 1, 3, 3)
        taps[0, 0, 1, 0], taps[0, 0, 1, 2] = -1, 1
        taps[1, 0, 0, 1], taps[1, 0, 2, 1] = -1, 1
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, levels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 2 H W"]:
        """Gradients along x and y; the picture goes on mirrored, so that none points out of it."""
        channels = levels.shape[1]
        mirrored = F.pad(levels, (1, 1, 1, 1), mode="reflect")
        edges = F.conv2d(mirrored, self.taps.to(levels.dtype).repeat(channels, 1, 1, 1), groups=channels)
        edges = edges.unflatten(1, (channels, 2))
        if channels == 1:
            return edges[:, 0]
        strongest = edges.square().sum(2).argmax(1)[:, None, None]
        return edges.gather(1, strongest.expand(-1, -1, 2, -1, -1))[:, 0]


class DirectionalGates(nn.Module):
    """The gradient's length, let through to the two orientations next to its own, linearly shared.

    Args:
        bins: K, over half a turn; orientation k has its centre at (k + 1/2) pi / K.
    """

    centres: Tensor
    """[K], in bins."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("centres", torch.arange(bins) + 0.5, persistent=False)

    def forward(self, edges: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B K H W"]:
        """Votes. Where there is no gradient the votes are 0, and so is what is passed back."""
        dx, dy = edges.unbind(1)
        square = dx.square() + dy.square()
        flat = square == 0
        length = torch.where(flat, 1.0, square).sqrt() * (~flat).to(edges.dtype)
        place = torch.atan2(torch.where(flat, 0.0, dy), torch.where(flat, 1.0, dx)) * (self.bins / math.pi)
        away = (place[:, None] - self.centres.to(edges.dtype)[:, None, None]).abs()
        # Angles reach from -bins to bins; the nearest way round is at most half of them.
        away = torch.remainder(away, self.bins)
        away = torch.minimum(away, self.bins - away)
        return length[:, None] * (1 - away).clamp(min=0)


class BlockPooling(nn.Module):
    """Sums of the votes in the cells of each block: a strided convolution of each orientation for itself.

    Args:
        layout: of the blocks.
    """

    weights: Tensor
    """[cells * cells, 1, side, side]: shares of the block's pixels in each cell."""

    def __init__(self, layout: HogLayout) -> None:
        super().__init__()
        self.layout = layout
        shares = layout.cell_weights()
        weights = torch.einsum("ia,jb->abij", shares, shares).flatten(0, 1)[:, None]
        self.register_buffer("weights", weights.contiguous(), persistent=False)

    def forward(self, votes: Float[Tensor, "B K H W"]) -> Float[Tensor, "B D Y X"]:
        """Histograms: (cell row, cell column, orientation)."""
        bins = votes.shape[1]
        weights = self.weights.to(votes.dtype).repeat(bins, 1, 1, 1)
        pooled = F.conv2d(votes, weights, stride=self.layout.cell, groups=bins)
        return pooled.unflatten(1, (bins, -1)).transpose(1, 2).flatten(1, 2)


class BlockNormalisation(nn.Module):
    """L2-Hys: each block by its length, clipped, by its length again.

    Args:
        epsilon: added in quadrature to the first length.
        clip: the largest number between the two.
    """

    def __init__(self, epsilon: float | int, clip: float | int) -> None:
        super().__init__()
        self.epsilon, self.clip = float(epsilon), float(clip)

    def forward(self, blocks: Float[Tensor, "B D Y X"]) -> Float[Tensor, "B D Y X"]:
        """Blocks of length 1, or 0 where there was no gradient."""
        shares = blocks / (blocks.square().sum(1, keepdim=True) + self.epsilon**2).sqrt()
        clipped = shares.clamp(max=self.clip)
        square = clipped.square().sum(1, keepdim=True)
        return clipped / torch.where(square == 0, 1.0, square).sqrt()


class HogNetwork(nn.Sequential):
    """Pixels to blocks, by four layers without a learned parameter.

    Args:
        layout: of the blocks.
    """

    def __init__(self, layout: HogLayout = PAPER) -> None:
        super().__init__(
            EdgeFilters(),
            DirectionalGates(layout.bins),
            BlockPooling(layout),
            BlockNormalisation(layout.epsilon, layout.clip),
        )
        self.layout = layout

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D Y X"]:
        """Blocks of pictures 0..1, each at least a block large; equal to `features.hog.hog` of each."""
        shares = input.clamp(min=0).sqrt() if self.layout.root else input
        return super().forward(shares * 255)
