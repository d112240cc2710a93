"""Boxes as pairs of corners: what predicts the corners, and how two become a box (Law, Deng: CornerNet, ECCV 2018,
sections 3.1, 3.3 and 4.1).

Maps are at stride 4 of pictures whose sides are one less than a multiple: 511 pixels give 128 cells, a cell is 511 /
128 pixels. All that decodes works on batched tensors of sizes that follow from the maps' alone, so that it can be
exported.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.hourglass import ConvNormReLU
from bestiary.errors import UsageError
from bestiary.ops import corner_pool

Corner = Literal["top_left", "bottom_right"]

HEAT_BIAS = -2.19
"""Start of the heatmaps' logits: a probability of 0.1."""

NEVER = -1.0
"""Score of what cannot be."""


class CornerMaps(NamedTuple):
    """What is said of one of the two corners at each cell.

    Attributes:
        heat: logits, `[B, K, h, w]`.
        tag: `[B, 1, h, w]`; the two corners of an object should have equal ones.
        offset: x and y of the corner within the cell, in cells, `[B, 2, h, w]`.
    """

    heat: Tensor
    tag: Tensor
    offset: Tensor


class CornerPool(nn.Module):
    """Figure 7: two maps, one scanned down or up and one sideways, added, and beside them the input itself.

    Args:
        channels: in and out.
        pooled: of the two maps; 128 in the paper.
        corner: a top-left corner sees what lies below it and to its right, the other what lies above and to its left.
    """

    def __init__(self, channels: int, pooled: int, corner: Corner) -> None:
        super().__init__()
        self.corner: Corner = corner
        self.vertical = ConvNormReLU(channels, pooled)
        self.horizontal = ConvNormReLU(channels, pooled)
        self.sum_conv = nn.Conv2d(pooled, channels, 3, padding=1, bias=False)
        self.sum_bn = nn.BatchNorm2d(channels)
        self.skip_conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.skip_bn = nn.BatchNorm2d(channels)
        self.out = ConvNormReLU(channels, channels)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The pooled map."""
        top_left = self.corner == "top_left"
        # in float32, where half precision would miss the fast kernel on a processor; maxima are the same
        along = corner_pool(self.vertical(maps).float(), "top" if top_left else "bottom")
        across = corner_pool(self.horizontal(maps).float(), "left" if top_left else "right")
        pooled = self.sum_bn(self.sum_conv((along + across).to(maps.dtype)))
        return self.out(F.relu(pooled + self.skip_bn(self.skip_conv(maps))))


class CornerHead(nn.Module):
    """Corner pooling, and heat, tag and offset of a 3x3 convolution with ReLU and a 1x1 each.

    Args:
        channels: of the map.
        hidden: between the two convolutions.
        pooled: channels that are pooled.
        num_categories: K.
        corner: which.
    """

    def __init__(self, channels: int, hidden: int, pooled: int, num_categories: int, corner: Corner) -> None:
        super().__init__()
        self.pool = CornerPool(channels, pooled, corner)
        self.heat, self.tag, self.offset = (_branch(channels, hidden, out) for out in (num_categories, 1, 2))
        nn.init.constant_(self.heat[-1].bias, HEAT_BIAS)  # type: ignore[arg-type]

    def forward(self, maps: Float[Tensor, "B C H W"]) -> CornerMaps:
        """Of every cell."""
        pooled = self.pool(maps)
        return CornerMaps(self.heat(pooled), self.tag(pooled), self.offset(pooled))


def _branch(channels: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(channels, hidden, norm=False), nn.Conv2d(hidden, out, 1))


@dataclass(frozen=True)
class PairSettings:
    """Which two corners make a box.

    Attributes:
        corners: of each kind the so many best of a picture.
        pairs: boxes of a picture, the best.
        max_distance: corners whose tags differ by more are of two objects.
    """

    corners: int = 100
    pairs: int = 1000
    max_distance: int | float = 0.5

    def __post_init__(self) -> None:
        if min(self.corners, self.pairs) < 1 or self.max_distance < 0:
            wanted = "at least one corner and pair, and no negative distance"
            raise UsageError(f"got {self}, wanted {wanted}", where="PairSettings")


class Corners(NamedTuple):
    """The best corners of one kind of each picture.

    Attributes:
        scores: probabilities, best first, `[B, P]`; `NEVER` where a map has no more peaks.
        labels: `[B, P]`.
        xy: in cells, `[B, P, 2]`.
        tags: `[B, P]`.
    """

    scores: Tensor
    labels: Tensor
    xy: Tensor
    tags: Tensor


def peaks_of(heat: Float[Tensor, "B K H W"]) -> Bool[Tensor, "B K H W"]:
    """Cells that no neighbour of the same category exceeds (3x3)."""
    return F.max_pool2d(heat, 3, 1, 1) == heat


def best_corners(maps: CornerMaps, count: int) -> Corners:
    """The `count` most probable peaks of all categories, or all cells if those are fewer."""
    height, width = maps.heat.shape[-2:]
    heat = maps.heat.float()
    probs = torch.where(peaks_of(heat), heat.sigmoid(), NEVER).flatten(1)
    count = min(count, probs.shape[1])
    scores, places = probs.topk(count, dim=1)
    cells = places % (height * width)
    offsets = _at(maps.offset, cells)
    xy = torch.stack([cells % width, cells // width], -1) + offsets
    return Corners(scores, places // (height * width), xy, _at(maps.tag, cells)[..., 0])


def _at(maps: Float[Tensor, "B C H W"], cells: Int64[Tensor, "B P"]) -> Float[Tensor, "B P C"]:
    """What stands at flat cells."""
    channels = maps.shape[1]
    return maps.float().flatten(2).gather(2, cells[:, None].expand(-1, channels, -1)).transpose(1, 2)


def pair_corners(
    top_left: Corners, bottom_right: Corners, settings: PairSettings
) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N"], Int64[Tensor, "B N"]]:
    """Boxes in cells, scores and labels of the best pairs.

    Two corners make a box if they are of one category, the second lies below and to the right of the first, and their
    tags are near. Its score is the mean of theirs; pairs that make none have the score `NEVER` and stand last.
    """
    first, second = top_left, bottom_right
    batch, p, q = first.scores.shape[0], first.scores.shape[1], second.scores.shape[1]
    fits = first.labels[:, :, None] == second.labels[:, None]
    fits &= (first.tags[:, :, None] - second.tags[:, None]).abs() <= settings.max_distance
    fits &= (first.xy[:, :, None] < second.xy[:, None]).all(-1)
    fits &= (first.scores[:, :, None] >= 0) & (second.scores[:, None] >= 0)
    means = (first.scores[:, :, None] + second.scores[:, None]) / 2
    scores, places = torch.where(fits, means, NEVER).view(batch, p * q).topk(min(settings.pairs, p * q), dim=1)
    of_first, of_second = places // q, places % q
    corners = [
        c.xy.gather(1, index[..., None].expand(-1, -1, 2)) for c, index in ((first, of_first), (second, of_second))
    ]
    return torch.cat(corners, -1), scores, first.labels.gather(1, of_first)
