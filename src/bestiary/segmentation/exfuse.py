"""ExFuse: Zhang, Zhang, Peng, Cheng, Sun: ExFuse: Enhancing Feature Fusion for Semantic Segmentation, ECCV 2018, and
the network it builds on, GCN: Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters - Improve Semantic Segmentation by Global
Convolutional Network, CVPR 2017.

GCN scores the classes on all four maps of a ResNet with separable kernels of 15 x 15, refines each score map by a
residual block, and adds them from coarse to fine between transposed convolutions. ExFuse holds that fine maps know too
little of classes, and coarse ones too little of places, and has five remedies, each with a switch; with none of them
`ExFuse` is GCN.

- Layer rearrangement: stages of 8, 8, 9 and 8 blocks in place of ResNeXt-101's 3, 4, 23 and 3.
- Semantic supervision: losses on the fine stages themselves.
- Semantic embedding: a fine map is multiplied by all coarser ones, each convolved 3x3 and enlarged.
- Explicit channel resolution embedding: the coarsest scores are enlarged by sub-pixel convolution, with a loss of their
  own behind it.
- Densely adjacent prediction: each place votes for itself and its eight neighbours, and the votes are averaged.

There is no public code of the authors. Theirs are the five ideas and the numbers above. Ours, where we could not read
more: the groups of the ResNeXt (32 of 4); that semantic supervision is by the labels of pixels, of a head of 3x3 and
1x1 convolutions on stages 2 to 4, while the trunk of the paper has it as it learns ImageNet; the weights of the
auxiliary losses (0.4); that each factor of the semantic embedding begins near 1; that adjacent prediction is at stride
4, before GCN's last two enlargements; and `exfuse_resnet18`, for small machines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, ResNet, Variant
from bestiary.heads.published import VOC_21
from bestiary.heads.trunk_labeller import start_trunk
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits
from bestiary.ops.upsampling import bilinear_filler, icnr_

REARRANGED = (8, 8, 9, 8)
"""Blocks of the four stages."""


@dataclass(frozen=True)
class Remedies:
    """Which of the paper's parts a network has, layer rearrangement aside, which is the trunk's.

    Attributes:
        semantic_supervision: losses on stages 2 to 4.
        semantic_embedding: fine maps are multiplied by the coarser ones.
        channel_resolution: the coarsest scores are enlarged by sub-pixel convolution.
        adjacent_prediction: each place votes for its neighbours.
    """

    semantic_supervision: bool = True
    semantic_embedding: bool = True
    channel_resolution: bool = True
    adjacent_prediction: bool = True


NO_REMEDIES = Remedies(False, False, False, False)


class GlobalConvolution(nn.Module):
    """A k x k convolution as the sum of a k x 1 behind a 1 x k and the reverse, with nothing in between (GCN, figure 2
    b).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        column, row = (kernel, 1), (1, kernel)
        self.left = _two_convolutions(in_channels, out_channels, column, row)
        self.right = _two_convolutions(in_channels, out_channels, row, column)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Scores."""
        return self.left(features) + self.right(features)


class BoundaryRefinement(nn.Module):
    """A residual block on scores (GCN, figure 2 c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, scores: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """s + W2 relu(W1 s)."""
        return scores + self.conv2(F.relu(self.conv1(scores), inplace=True))


class SemanticEmbedding(nn.ModuleList):
    """A fine map times each coarser one, convolved and enlarged (ExFuse, figure 4).

    The biases start at 1 and the weights small: the product of several maps is neither near 0 nor huge at first.

    Args:
        channels: of the fine map.
        coarser: channels of the others.
    """

    def __init__(self, channels: int, coarser: Sequence[int]) -> None:
        super().__init__(nn.Conv2d(c, channels, 3, padding=1) for c in coarser)
        for convolution in self:
            nn.init.normal_(convolution.weight, std=0.1 / (9 * convolution.in_channels) ** 0.5)  # type: ignore[union-attr,operator]
            nn.init.ones_(convolution.bias)  # type: ignore[arg-type]

    def forward(
        self, features: Float[Tensor, "B C H W"], coarser: Sequence[Float[Tensor, "B _c _h _w"]]
    ) -> Float[Tensor, "B C H W"]:
        """The product."""
        for convolution, other in zip(self, coarser, strict=True):
            features = features * resize_logits(convolution(other), (features.shape[-2], features.shape[-1]))
        return features


class AdjacentPrediction(nn.Module):
    """Scores of each place for itself and its eight neighbours, and their means.

    Args:
        channels: K, in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.vote = nn.Conv2d(channels, 9 * channels, 3, padding=1)

    def forward(self, scores: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """Mean of the nine votes for each place."""
        return average_votes(self.vote(scores))


def average_votes(votes: Float[Tensor, "B K9 H W"]) -> Float[Tensor, "B K H W"]:
    """Group (l, m) of the channels, row by row from 0 to 2, says what is at the place (1 - l, 1 - m) further: the place
    (i, j) has the mean over l and m of group (l, m) at (i + l - 1, j + m - 1). Beyond the border nobody votes, and nine
    are counted nevertheless.
    """
    height, width = votes.shape[-2:]
    padded = F.pad(votes, (1, 1, 1, 1))
    groups = padded.unflatten(1, (9, -1)).unbind(1)
    shifted = [group[..., n // 3 : n // 3 + height, n % 3 : n % 3 + width] for n, group in enumerate(groups)]
    return torch.stack(shifted).mean(0)


class SubPixel(nn.Module):
    """Scores of four pixels a place, laid out as a map of twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        icnr_(self.spread.weight, 2)

    def forward(self, scores: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H2 W2"]:
        """Scores at twice the size."""
        return F.pixel_shuffle(self.spread(scores), 2)


class ExFuse(WholePicture):
    """The network.

    Loss terms: the objective on the scores; with semantic supervision on those of stages 2 to 4 ("stage2" ...), with
    channel resolution on those behind it ("resolution"), times 0.4.

    Args:
        backbone: pictures to maps C2 to C5, at strides 4 to 32.
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        remedies: `NO_REMEDIES` for GCN.
        kernel: side of the global convolutions, odd.
    """

    geometry = InputGeometry(grid=32, smallest=64)
    auxiliary_weights: ClassVar[Mapping[str, float]] = {"stage2": 0.4, "stage3": 0.4, "stage4": 0.4, "resolution": 0.4}
    head_names = ("scores", "enlarge", "refine")

    backbone: Trunk
    scores: nn.ModuleList
    embeddings: nn.ModuleList
    enlarge: nn.ModuleList
    refine: nn.ModuleList
    stage_heads: nn.ModuleList
    adjacent: nn.Module

    def __init__(
        self,
        backbone: Trunk,
        categories: Sequence[str],
        normalize: Normalize,
        *,
        remedies: Remedies = Remedies(),
        kernel: int = 15,
    ) -> None:
        super().__init__(categories, normalize)
        channels, num_classes = [level.channels for level in backbone.levels], len(categories)
        self.backbone, self.remedies = backbone, remedies
        self.scores = nn.ModuleList(
            nn.Sequential(GlobalConvolution(c, num_classes, kernel), BoundaryRefinement(num_classes)) for c in channels
        )
        embedded = channels[:-1] if remedies.semantic_embedding else []
        self.embeddings = nn.ModuleList(SemanticEmbedding(c, channels[i + 1 :]) for i, c in enumerate(embedded))
        first = SubPixel(num_classes) if remedies.channel_resolution else _doubling(num_classes)
        self.enlarge = nn.ModuleList([first, *(_doubling(num_classes) for _ in range(4))])
        self.refine = nn.ModuleList(BoundaryRefinement(num_classes) for _ in range(5))
        self.adjacent = AdjacentPrediction(num_classes) if remedies.adjacent_prediction else nn.Identity()
        supervised = channels[:-1] if remedies.semantic_supervision else []
        self.stage_heads = nn.ModuleList(_stage_head(c, num_classes) for c in supervised)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel; auxiliary: "stage2" to "stage4", and "resolution", of those that there are."""
        maps = self.backbone(pixels)
        logits, first = self._fused(maps)
        auxiliary = {f"stage{i + 2}": head(m) for i, (head, m) in enumerate(zip(self.stage_heads, maps, strict=False))}
        if self.remedies.channel_resolution:
            auxiliary["resolution"] = first
        return PixelOutputs(logits, auxiliary)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel; the heads of the stages do not run."""
        return self._fused(self.backbone(pixels))[0]

    def _fused(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "B K H W"], Float[Tensor, "B K _h _w"]]:
        """Scores of every pixel, and the coarsest ones, enlarged once."""
        embedded = list(maps)
        for i, embedding in enumerate(self.embeddings):
            embedded[i] = embedding(maps[i], maps[i + 1 :])
        fine2, fine3, fine4, coarse = (score(m) for score, m in zip(self.scores, embedded, strict=True))
        first = self.enlarge[0](coarse)  # stride 16
        scores = self.refine[0](first + fine4)
        scores = self.refine[1](self.enlarge[1](scores) + fine3)  # stride 8
        scores = self.refine[2](self.enlarge[2](scores) + fine2)  # stride 4
        scores = self.adjacent(scores)
        scores = self.refine[3](self.enlarge[3](scores))  # stride 2
        return self.refine[4](self.enlarge[4](scores)), first

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions."""
        return start_trunk(state, self.state_dict())


def exfuse_resnext101(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    layer_rearrangement: bool = True,
    semantic_supervision: bool = True,
    semantic_embedding: bool = True,
    channel_resolution: bool = True,
    adjacent_prediction: bool = True,
) -> ExFuse:
    """On ResNeXt-101 of 32 groups 4 wide: 97,354,289 parameters for VOC's 21 classes; all switches off is GCN. The
    authors report a mean IoU of 0.879 on VOC's test pictures.

    Args:
        categories: K names; None gives VOC's 21.
        in_channels: channels of a picture.
        layer_rearrangement: stages of 8, 8, 9 and 8 blocks in place of 3, 4, 23 and 3; no published classifier has
            them.
        semantic_supervision: losses on stages 2 to 4.
        semantic_embedding: multiply fine maps by the coarser ones.
        channel_resolution: enlarge the coarsest scores by sub-pixel convolution.
        adjacent_prediction: let each place vote for its neighbours.
    """
    usual = VARIANTS["resnext50_32x4d"]
    depths = REARRANGED if layer_rearrangement else VARIANTS["resnet101"].depths
    trunk = ResNet(Variant(usual.block, depths, usual.groups, usual.group_width), in_channels=in_channels)
    remedies = Remedies(semantic_supervision, semantic_embedding, channel_resolution, adjacent_prediction)
    names = VOC_21 if categories is None else categories
    return ExFuse(trunk, names, channel_normalize(in_channels), remedies=remedies)


def exfuse_resnet18(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 64,
    semantic_supervision: bool = True,
    semantic_embedding: bool = True,
    channel_resolution: bool = True,
    adjacent_prediction: bool = True,
) -> ExFuse:
    """On ResNet-18, whose stages are of equal depth as they are, with global convolutions of 7 x 7, for small machines;
    all switches off is GCN. Arguments as `exfuse_resnext101`.

    Args:
        width: channels of the trunk's first stage, of which each later one has twice as many; a classifier can be the
            start at 64 only.
    """
    trunk = ResNet(replace(VARIANTS["resnet18"], width=width), in_channels=in_channels)
    remedies = Remedies(semantic_supervision, semantic_embedding, channel_resolution, adjacent_prediction)
    names = VOC_21 if categories is None else categories
    return ExFuse(trunk, names, channel_normalize(in_channels), remedies=remedies, kernel=7)


def _two_convolutions(
    in_channels: int, out_channels: int, first: tuple[int, int], second: tuple[int, int]
) -> nn.Sequential:
    pads = [(first[0] // 2, first[1] // 2), (second[0] // 2, second[1] // 2)]
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, first, padding=pads[0]),
        nn.Conv2d(out_channels, out_channels, second, padding=pads[1]),
    )


def _doubling(channels: int) -> nn.ConvTranspose2d:
    """A transposed convolution that starts as bilinear enlargement."""
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(bilinear_filler(4, channels))
    return layer


def _stage_head(in_channels: int, num_classes: int) -> nn.Sequential:
    width = in_channels // 4
    convolution, norm = nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True), nn.Conv2d(width, num_classes, 1))
