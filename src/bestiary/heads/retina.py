"""RetinaNet's two subnets, its anchors, and which of its tens of thousands of scores are worth decoding.

Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017, section 4. State names are
torchvision's.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.geometry.anchors import pyramid_anchors, strides_of
from bestiary.layers.frozen_norm import NormLayer

PRIOR = 0.01
"""Probability that every anchor starts with (section 3.3): without it the background's loss would begin as a cliff."""
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
PAPER_SIZES = tuple(tuple(side * scale for scale in SCALES) for side in (32.0, 64.0, 128.0, 256.0, 512.0))
"""Sides of the square anchors of P3 .. P7: three an octave."""
WHOLE_SIZES = tuple(tuple(float(int(side)) for side in of_level) for of_level in PAPER_SIZES)
"""The same cut to whole pixels, on which torchvision trained."""


class RetinaSubnet(nn.Module):
    """Some 3x3 convolutions with ReLU; a head adds the last, and slides over all levels with the same parameters.

    Args:
        channels: of the pyramid and of the subnet.
        depth: convolutions.
        norm: after each convolution, which then has no bias; none in the paper.
    """

    def __init__(self, channels: int, depth: int, norm: NormLayer | None) -> None:
        super().__init__()
        self.conv = nn.Sequential()
        for _ in range(depth):
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=norm is None)
            layers = [convolution, *([] if norm is None else [norm(channels)]), nn.ReLU(inplace=True)]
            self.conv.append(nn.Sequential(*layers))

    def start(self, last: nn.Conv2d, bias: int | float) -> None:
        """Convolutions normal with a spread of 0.01 and no bias (section 4.1), but the last one's bias as given."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]


class ClassSubnet(RetinaSubnet):
    """One logit for each anchor and output, all outputs of an anchor side by side.

    Args:
        channels: of the pyramid.
        num_anchors: A.
        num_outputs: K.
        depth: convolutions before the last.
        norm: after each of them.
    """

    def __init__(
        self, channels: int, num_anchors: int, num_outputs: int, depth: int = 4, norm: NormLayer | None = None
    ) -> None:
        super().__init__(channels, depth, norm)
        self.cls_logits = nn.Conv2d(channels, num_anchors * num_outputs, 3, padding=1)
        self.start(self.cls_logits, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, feature: Float[Tensor, "B C H W"]) -> Float[Tensor, "B AK H W"]:
        """Logits of one level."""
        return self.cls_logits(self.conv(feature))


class BoxSubnet(RetinaSubnet):
    """Four deltas for each anchor, side by side, the same for all categories.

    Args:
        channels: of the pyramid.
        num_anchors: A.
        depth: convolutions before the last.
        norm: after each of them.
    """

    def __init__(self, channels: int, num_anchors: int, depth: int = 4, norm: NormLayer | None = None) -> None:
        super().__init__(channels, depth, norm)
        self.bbox_reg = nn.Conv2d(channels, num_anchors * 4, 3, padding=1)
        self.start(self.bbox_reg, 0.0)

    def forward(self, feature: Float[Tensor, "B C H W"]) -> Float[Tensor, "B A4 H W"]:
        """Deltas of one level."""
        return self.bbox_reg(self.conv(feature))


class RetinaHead(nn.Module):
    """Both subnets, which share nothing, and the anchors they are read with.

    Args:
        channels: of the pyramid.
        num_outputs: K, of each anchor.
        sizes: for each level the sides of its square anchors, pixels.
        ratios: heights over widths; areas stay.
        depth: convolutions before the last of each subnet.
        norm: after each of them; none in the paper.

    Raises:
        UsageError: levels with different numbers of anchors cannot share a head.
    """

    def __init__(
        self,
        channels: int,
        num_outputs: int,
        sizes: Sequence[Sequence[float]] = PAPER_SIZES,
        ratios: Sequence[float] = RATIOS,
        depth: int = 4,
        norm: NormLayer | None = None,
    ) -> None:
        super().__init__()
        counts = {len(of_level) * len(ratios) for of_level in sizes}
        if len(counts) != 1:
            got = f"got {sorted(counts)} anchors a place, wanted one number for all levels"
            raise UsageError(got, where="RetinaHead(sizes)")
        self.sizes = tuple(tuple(float(side) for side in of_level) for of_level in sizes)
        self.ratios, self.num_anchors, self.num_outputs = tuple(ratios), counts.pop(), num_outputs
        self.classification_head = ClassSubnet(channels, self.num_anchors, num_outputs, depth, norm)
        self.regression_head = BoxSubnet(channels, self.num_anchors, depth, norm)

    def forward(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]]
    ) -> tuple[tuple[Float[Tensor, "B AK _h _w"], ...], tuple[Float[Tensor, "B A4 _h _w"], ...]]:
        """Logits and deltas of each level."""
        if len(pyramid) != len(self.sizes):
            raise UsageError(f"got {len(pyramid)} levels, wanted {len(self.sizes)}, one a set of sizes", where="head")
        logits = tuple(self.classification_head(feature) for feature in pyramid)
        return logits, tuple(self.regression_head(feature) for feature in pyramid)

    def anchors(
        self, maps_hw: Sequence[tuple[int, int]], pixels_hw: tuple[int, int], device: torch.device
    ) -> tuple[Float[Tensor, "_a 4"], ...]:
        """Anchors of each level, pixels of the padded batch, in the order of `by_anchor`: row, column, ratio, size.

        The step is floor(padded side / map side), as in torchvision, on whose step published weights were trained.
        """
        strides = [(float(down), float(across)) for down, across in strides_of(pixels_hw, maps_hw)]
        return tuple(pyramid_anchors(self.sizes, self.ratios, maps_hw, strides, device))


def by_anchor(output: Shaped[Tensor, "B C H W"], num_anchors: int) -> Float[Tensor, "B N P"]:
    """One level's output with a row an anchor: row, column, anchor. P numbers each, at least float32."""
    batch, channels, height, width = output.shape
    numbers = channels // num_anchors
    apart = output.float().view(batch, num_anchors, numbers, height, width).permute(0, 3, 4, 1, 2)
    return apart.reshape(batch, height * width * num_anchors, numbers)


def likeliest(
    logits: Float[Tensor, "AK H W"], num_anchors: int, min_score: int | float, most: int, first: int = 0
) -> tuple[Int64[Tensor, " D"], Int64[Tensor, " D"], Float[Tensor, " D"]]:
    """Of one level of one picture the `most` likeliest scores above `min_score`, best first.

    The map stays as the network wrote it: of a million scores a few hundred are ever looked at.

    Args:
        logits: as `ClassSubnet` gives them.
        num_anchors: A.
        min_score: of the probability.
        most: scores.
        first: outputs of an anchor before this one are no categories.

    Returns:
        which anchor, in the order of `by_anchor`; which output after `first`; probability.
    """
    channels, height, width = logits.shape
    outputs = channels // num_anchors
    apart = logits.view(num_anchors, outputs, height, width)[:, first:]
    # The logit of the least score is rounded: a little below it, so that the probabilities themselves decide.
    least = math.log(min_score / (1 - min_score)) - 1e-3 if 0 < min_score < 1 else -math.inf
    anchor, label, row, column = (apart > least).nonzero(as_tuple=True)
    scores = apart[anchor, label, row, column].float().sigmoid()
    likely = (scores > min_score).nonzero()[:, 0]
    best, order = scores[likely].topk(min(most, len(likely)))
    chosen = likely[order]
    place = (row[chosen] * width + column[chosen]) * num_anchors + anchor[chosen]
    return place, label[chosen], best


def deltas_at(deltas: Float[Tensor, "A4 H W"], places: Int64[Tensor, " D"], num_anchors: int) -> Float[Tensor, "D 4"]:
    """The four numbers of some anchors of one level of one picture, anchors in the order of `by_anchor`."""
    cells = deltas.view(num_anchors, 4, -1)
    return cells[places % num_anchors, :, places // num_anchors].float()
