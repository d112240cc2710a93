"""DFN: Yu, Wang, Peng, Gao, Yu, Sang: Learning a Discriminative Feature Network for Semantic Segmentation, CVPR 2018.

Two networks stand on the four stages of one ResNet. The smooth network goes from the mean of the whole picture down to
the finest stage; at each, channel attention chooses by the coarser features which of the finer ones count, so that a
thing gets one label. The border network goes the other way, from fine to coarse, and says which pixels lie on a border
between classes: it serves in training alone, and makes the stages tell neighbours apart.

Layers, widths and where they stand are those of the first author's public code, but for one refinement block of the
border network that the code makes and never runs. Scores of all four stages of both networks are enlarged to the
picture, corners on corners, and have a loss each: cross-entropy, and the focal loss on borders times 0.1.

Ours. A border is every pixel with another class within the 7 x 7 pixels around it: the code takes Canny's edges of the
label map, which are one pixel wide and on either side, and dilates them by as much. As in the code, an unknown label
counts as the first class where borders are found (VOC separates its things by them); unlike there, unknown pixels have
no part in the loss. The focal loss is the textbook's; the code's takes the sigmoid of a probability. `dfn_resnet18`,
for small machines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Trunk
from bestiary.backbones.residual import conv3x3
from bestiary.backbones.resnet import DEEP_STEM, VARIANTS, ResNet
from bestiary.heads.deep_stem import start_past_the_stem
from bestiary.heads.published import VOC_21
from bestiary.heads.whole_picture import PixelOutputs, PixelTruth, WholePicture
from bestiary.layers.lone_norm import LoneBatchNorm2d
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits
from bestiary.losses.classification import sigmoid_focal_loss
from bestiary.records import IGNORE_LABEL

BORDER_WINDOW = 7
"""Pixels; a border's pixel sees two classes in it."""

SMOOTH_WIDTH, BORDER_WIDTH = 512, 21


class RefinementResidual(nn.Module):
    """A projection to `out_channels` and a residual block on it ("RRB")."""

    def __init__(self, in_channels: int, out_channels: int, ends_with_relu: bool = True) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv1 = conv3x3(out_channels, out_channels, 1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, 1)
        self.ends_with_relu = ends_with_relu

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """relu(p + W2 relu(norm(W1 p))) with p the projection."""
        projected = self.project(features)
        refined = projected + self.conv2(F.relu(self.bn1(self.conv1(projected)), inplace=True))
        return F.relu(refined, inplace=True) if self.ends_with_relu else refined


class ChannelAttention(nn.Module):
    """Scales each finer channel by a number between 0 and 1, which the means of finer and coarser features give, and
    adds the coarser features ("CAB").
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(2 * channels, channels, 1)
        self.fc2 = nn.Conv2d(channels, channels, 1)

    def forward(self, finer: Float[Tensor, "B C H W"], coarser: Float[Tensor, "B C #H #W"]) -> Float[Tensor, "B C H W"]:
        """sigmoid(W2 relu(W1 [mean finer, mean coarser])) finer + coarser."""
        means = torch.cat([finer.mean((2, 3), keepdim=True), coarser.mean((2, 3), keepdim=True)], dim=1)
        return torch.sigmoid(self.fc2(F.relu(self.fc1(means), inplace=True))) * finer + coarser


class ScoreHead(nn.Sequential):
    """A refinement block of nine times the outputs, without last ReLU, and a 1x1 convolution."""

    def __init__(self, in_channels: int, num_outputs: int) -> None:
        block = RefinementResidual(in_channels, 9 * num_outputs, ends_with_relu=False)
        super().__init__(block, nn.Conv2d(9 * num_outputs, num_outputs, 1))


class SmoothNetwork(nn.Module):
    """From the mean of the picture to the finest stage.

    Args:
        channels: of the trunk's maps, coarse to fine.
        width: of the network.
        num_classes: K.
    """

    def __init__(self, channels: Sequence[int], width: int, num_classes: int) -> None:
        super().__init__()
        # of one picture there is one value a channel
        self.context = nn.Sequential(
            nn.Conv2d(channels[0], width, 1, bias=False), LoneBatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.before = nn.ModuleList(RefinementResidual(c, width) for c in channels)
        self.attention = nn.ModuleList(ChannelAttention(width) for _ in channels)
        self.after = nn.ModuleList(RefinementResidual(width, width) for _ in channels)
        self.heads = nn.ModuleList(ScoreHead(width, num_classes) for _ in channels)

    def forward(self, maps: Sequence[Float[Tensor, "B _c _h _w"]]) -> list[Float[Tensor, "B C _h _w"]]:
        """Features of each map, coarse to fine; what the heads score."""
        coarser, found = self.context(maps[0].mean((2, 3), keepdim=True)), []
        for i, (features, before) in enumerate(zip(maps, self.before, strict=True)):
            own = before(features)
            if i:
                coarser = resize_logits(coarser, (own.shape[-2], own.shape[-1]), align_corners=True)
            coarser = self.after[i](self.attention[i](own, coarser))
            found.append(coarser)
        return found


class BorderNetwork(nn.Module):
    """From the finest stage to the coarsest, all at the size of the finest.

    Args:
        channels: of the trunk's maps, fine to coarse.
        width: of the network.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(RefinementResidual(c, width) for c in channels)
        self.after = nn.ModuleList(RefinementResidual(width, width) for _ in channels[1:])
        self.heads = nn.ModuleList(ScoreHead(width, 1) for _ in channels)

    def forward(self, maps: Sequence[Float[Tensor, "B _c _h _w"]]) -> list[Float[Tensor, "B 1 H W"]]:
        """Logits of lying on a border, of each stage."""
        finer = self.before[0](maps[0])
        size_hw, found = (finer.shape[-2], finer.shape[-1]), [self.heads[0](finer)]
        for features, before, after, head in zip(maps[1:], self.before[1:], self.after, self.heads[1:], strict=True):
            finer = after(finer + resize_logits(before(features), size_hw, align_corners=True))
            found.append(head(finer))
        return found


class DFN(WholePicture):
    """The network.

    Loss terms: the objective at the finest stage of the smooth network, at the three coarser ones ("smooth3" to
    "smooth5"), and "border": the focal loss (alpha 0.25, gamma 2) of all four stages of the border network, the mean
    over the labelled pixels, times `border_weight`.

    Args:
        backbone: pictures to maps C2 to C5.
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        width: channels of the smooth network.
        border_width: channels of the border network.
        border_weight: factor on its loss; 0 trains without it.
    """

    geometry = InputGeometry(grid=32, smallest=64)
    auxiliary_weights: ClassVar[Mapping[str, float]] = {"smooth3": 1.0, "smooth4": 1.0, "smooth5": 1.0}
    head_names = ("smooth.heads",)

    backbone: Trunk
    smooth: SmoothNetwork
    border: BorderNetwork

    def __init__(
        self,
        backbone: Trunk,
        categories: Sequence[str],
        normalize: Normalize,
        *,
        width: int = SMOOTH_WIDTH,
        border_width: int = BORDER_WIDTH,
        border_weight: float = 0.1,
    ) -> None:
        super().__init__(categories, normalize)
        channels = [level.channels for level in backbone.levels]
        self.backbone, self.border_weight = backbone, border_weight
        self.smooth = SmoothNetwork(channels[::-1], width, len(categories))
        self.border = BorderNetwork(channels, border_width)
        for part in (self.smooth, self.border):
            part.apply(_start)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel; auxiliary: "smooth3" to "smooth5", and one logit of "border2" to "border5"."""
        maps, size_hw = self.backbone(pixels), (pixels.shape[-2], pixels.shape[-1])
        smooth = [head(m) for head, m in zip(self.smooth.heads, self.smooth(maps[::-1]), strict=True)]
        *coarser, finest = (resize_logits(scores, size_hw, align_corners=True) for scores in smooth)
        auxiliary = {f"smooth{5 - i}": scores for i, scores in enumerate(coarser)}
        borders = {
            f"border{i + 2}": resize_logits(b, size_hw, align_corners=True) for i, b in enumerate(self.border(maps))
        }
        return PixelOutputs(finest, {**auxiliary, **borders})

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel; neither the coarser heads nor the border network run."""
        finest = self.smooth.heads[-1](self.smooth(self.backbone(pixels)[::-1])[-1])
        return resize_logits(finest, (pixels.shape[-2], pixels.shape[-1]), align_corners=True)

    def loss_terms(self, outputs: PixelOutputs, truth: PixelTruth) -> dict[str, Tensor]:
        """The objective on all scores of classes, and "border"."""
        borders = {name: logits for name, logits in outputs.auxiliary.items() if name.startswith("border")}
        classes = {name: logits for name, logits in outputs.auxiliary.items() if name not in borders}
        terms = super().loss_terms(PixelOutputs(outputs.logits, classes), truth)
        wanted, known = border_maps(truth.label_maps, truth.class_masks), truth.label_maps != IGNORE_LABEL
        losses = [sigmoid_focal_loss(logits[:, 0], wanted.to(logits.dtype)) * known for logits in borders.values()]
        terms["border"] = self.border_weight * torch.stack(losses).sum() / known.sum().clamp(min=1)
        return terms

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions."""
        return start_past_the_stem(state, self.state_dict())


def border_maps(
    label_maps: UInt8[Tensor, "B H W"],
    class_masks: Bool[Tensor, "B K H W"] | None = None,
    window: int = BORDER_WINDOW,
) -> Bool[Tensor, "B H W"]:
    """Pixels that have another class, or of masks any class's border, within `window` x `window` pixels around them.

    Unknown counts as class 0. There is no border to the right of the last column that has a label, and below the last
    such row, where a batch is padded.

    Args:
        label_maps: class of each pixel, `IGNORE_LABEL` where it is unknown.
        class_masks: which pixels belong to each class, where classes may overlap.
        window: odd.
    """
    found = torch.zeros(label_maps.shape, dtype=torch.bool, device=label_maps.device)
    known = label_maps != IGNORE_LABEL
    planes = torch.where(known, label_maps, 0)[:, None] if class_masks is None else class_masks & known[:, None]
    for border, classes, inside in zip(found, planes, known, strict=True):
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        if len(rows):
            height, width = int(rows[-1]) + 1, int(columns[-1]) + 1
            labelled = classes[None, :, :height, :width].float()
            largest = F.max_pool2d(labelled, window, 1, window // 2)
            smallest = -F.max_pool2d(-labelled, window, 1, window // 2)
            border[:height, :width] = (largest != smallest)[0].any(0)
    return found


def dfn_resnet101(categories: Sequence[str] | None = None, in_channels: int = 3) -> DFN:
    """On ResNet-101 with a stem of three 3x3 convolutions, the smooth network 512 wide, the border network 21:
    90,715,923 parameters for VOC's 21 classes. The authors report a mean IoU of 0.862 on VOC, 0.803 on Cityscapes.

    Args:
        categories: K names; None gives VOC's 21.
        in_channels: channels of a picture.
    """
    trunk = ResNet(VARIANTS["resnet101"], stem=DEEP_STEM, in_channels=in_channels)
    return DFN(trunk, VOC_21 if categories is None else categories, channel_normalize(in_channels))


def dfn_resnet18(
    categories: Sequence[str] | None = None, in_channels: int = 3, width: int = 64, border_weight: float = 0.1
) -> DFN:
    """On ResNet-18 with its plain stem, the smooth network as wide as the first stage, for small machines: 12,747,995
    parameters for 11 classes. Arguments as `dfn_resnet101`.

    Args:
        width: channels of the trunk's first stage, of which each later one has twice as many, and of the smooth
            network; a classifier can be the start at 64 only.
        border_weight: factor on the loss of the border network; 0 trains without it.
    """
    trunk = ResNet(replace(VARIANTS["resnet18"], width=width), in_channels=in_channels)
    names, normalize = VOC_21 if categories is None else categories, channel_normalize(in_channels)
    return DFN(trunk, names, normalize, width=width, border_weight=border_weight)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ScoreHead):  # reached after its parts; the first loss is then that of even odds
        nn.init.normal_(module[-1].weight, std=0.001)  # type: ignore[arg-type]
