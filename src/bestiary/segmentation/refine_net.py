"""RefineNet: Lin, Milan, Shen, Reid: RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic
Segmentation, CVPR 2017.

Each of a ResNet's four maps has a path of its own, from the coarsest to the finest: residual convolution units adapt
the map, the path before it is brought to its size and added, chained residual pooling gathers the surroundings, and
more units end it. Between the scores and every stage of the ResNet there are identities and single convolutions, so
that the gradient reaches each without passing the others.

Numbers are those of the network that the authors published, by its public PyTorch port, whose files load: four links a
chain and three units at each end, where the paper's figure 3 has two and one. No norms outside the ResNet; paths are
enlarged with corners on corners; scores at stride 4 are enlarged to the picture. Ours: the new layers start normal with
deviation 0.01, and `refine_net_resnet18`, for small machines.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Trunk
from bestiary.backbones.residual import conv3x3
from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.heads.published import VOC_21
from bestiary.heads.trunk_labeller import start_trunk
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.scaling import resize_logits

PORT: tuple[tuple[str, str], ...] = (
    (r"^(conv1|bn1|layer\d)\.", r"backbone.\1."),
    (r"^p_ims1d2_outl(\d)_dimred\.", r"paths.\1.reduce."),
    (r"^adapt_stage(\d)_b\.0\.(\d)_", r"paths.\1.adapt.\2."),
    (r"^adapt_stage(\d)_b2_joint_varout_dimred\.", r"paths.\1.join."),
    (r"^mflow_conv_g(\d)_pool\.0\.(\d)_outvar_dimred\.", r"paths.\1.pool.\2."),
    (r"^mflow_conv_g(\d)_b\.0\.(\d)_", r"paths.\1.refine.\2."),
    (r"^mflow_conv_g(\d)_b3_joint_varout_dimred\.", r"paths.\1.leave."),
    (r"\.conv_relu_varout_dimred\.", ".conv2."),
    (r"^(paths\..*)\.conv\.", r"\1.conv1."),
    (r"^clf_conv\.", "classifier."),
)
"""The public port's names and ours, whose numbers are one less."""


class ResidualConvUnit(nn.Module):
    """A residual block without norms that begins with its ReLU (figure 3 b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = conv3x3(channels, channels, 1)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """x + W2 relu(W1 relu(x))."""
        return features + self.conv2(F.relu(self.conv1(F.relu(features)), inplace=True))


class ChainedResidualPooling(nn.ModuleList):
    """Each link pools 5x5 and convolves what the one before it gave; all are added to the map (figure 3 d)."""

    def __init__(self, channels: int, links: int = 4) -> None:
        super().__init__(conv3x3(channels, channels, 1) for _ in range(links))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """x + p1(x) + p2(p1(x)) + ..."""
        link = features
        for convolution in self:
            link = convolution(F.max_pool2d(link, 5, 1, 2))
            features = features + link
        return features


class RefinePath(nn.Module):
    """One block of the cascade (figure 3).

    Args:
        in_channels: of the trunk's map.
        width: of the path.
        out_channels: handed to the next finer path; None for the finest.
        is_first: nothing coarser joins it.
    """

    reduce: nn.Conv2d
    adapt: nn.Sequential
    join: nn.Conv2d | None
    pool: ChainedResidualPooling
    refine: nn.Sequential
    leave: nn.Conv2d | None

    def __init__(self, in_channels: int, width: int, out_channels: int | None, is_first: bool) -> None:
        super().__init__()
        self.reduce = conv3x3(in_channels, width, 1)
        self.adapt = nn.Sequential(*(ResidualConvUnit(width) for _ in range(2)))
        self.join = None if is_first else conv3x3(width, width, 1)
        self.pool = ChainedResidualPooling(width)
        self.refine = nn.Sequential(*(ResidualConvUnit(width) for _ in range(3)))
        self.leave = None if out_channels is None else conv3x3(width, out_channels, 1)

    def forward(
        self, features: Float[Tensor, "B C H W"], coarser: Float[Tensor, "B C2 _h _w"] | None = None
    ) -> Float[Tensor, "B C3 H W"]:
        """Features of the map's size."""
        own = self.adapt(self.reduce(features))
        if self.join is not None and coarser is not None:
            size_hw = (features.shape[-2], features.shape[-1])
            own = self.join(own) + resize_logits(coarser, size_hw, align_corners=True)
        own = self.refine(self.pool(F.relu(own)))
        return own if self.leave is None else self.leave(own)


class RefineNet(WholePicture):
    """The network; its loss is the mean cross-entropy of the labelled pixels.

    Args:
        backbone: pictures to maps, fine to coarse.
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        widths: channels of the paths, coarse to fine, as many as there are maps.
        dropout: probability on the two coarsest maps and before the classifier.
    """

    # A map of one cell has no spread, which batch norm divides by.
    geometry = InputGeometry(smallest=33)
    head_names = ("classifier",)

    backbone: Trunk
    paths: nn.ModuleList
    classifier: nn.Conv2d

    def __init__(
        self,
        backbone: Trunk,
        categories: Sequence[str],
        normalize: Normalize,
        *,
        widths: Sequence[int] = (512, 256, 256, 256),
        dropout: float = 0.5,
    ) -> None:
        super().__init__(categories, normalize)
        levels = backbone.levels[::-1]
        self.backbone = backbone
        self.paths = nn.ModuleList(
            RefinePath(level.channels, width, out, is_first=i == 0)
            for i, (level, width, out) in enumerate(zip(levels, widths, (*widths[1:], None), strict=True))
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(widths[-1], len(categories), 3, padding=1)
        for part in (self.paths, self.classifier):
            part.apply(_start)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel."""
        *finer, c4, c5 = self.backbone(pixels)
        features = None
        for path, level in zip(self.paths, (self.dropout(c5), self.dropout(c4), *reversed(finer)), strict=True):
            features = path(level, features)  # strides 32 16 8 4
        logits = self.classifier(self.dropout(features))
        return PixelOutputs(resize_logits(logits, (pixels.shape[-2], pixels.shape[-1])))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions; the public port's file by our names."""
        if "clf_conv.weight" not in state:
            return start_trunk(state, self.state_dict())
        renamed = {_renamed(name): value for name, value in state.items()}
        return renamed, f"{len(renamed)} entries of the public port's file loaded"


def refine_net_resnet101(categories: Sequence[str] | None = None, in_channels: int = 3) -> RefineNet:
    """On ResNet-101: 118,052,437 parameters for VOC's 21 classes. The authors report a mean IoU of 0.834 on VOC's test
    pictures, their best.

    Args:
        categories: K names; None gives VOC's 21.
        in_channels: channels of a picture.
    """
    trunk = ResNet(VARIANTS["resnet101"], in_channels=in_channels)
    return RefineNet(trunk, VOC_21 if categories is None else categories, channel_normalize(in_channels))


def refine_net_resnet18(categories: Sequence[str] | None = None, in_channels: int = 3, width: int = 64) -> RefineNet:
    """On ResNet-18 with paths 128 and 64 wide and dropout 0.1, for small machines: 15,903,051 parameters for 11
    classes. Arguments as `refine_net_resnet101`.

    Args:
        width: channels of the trunk's first stage, of which each later one has twice as many, and of the three finer
            paths; a classifier can be the start at 64 only.
    """
    trunk = ResNet(replace(VARIANTS["resnet18"], width=width), in_channels=in_channels)
    names, normalize = VOC_21 if categories is None else categories, channel_normalize(in_channels)
    return RefineNet(trunk, names, normalize, widths=(2 * width, width, width, width), dropout=0.1)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _renamed(name: str) -> str:
    for pattern, replacement in PORT:
        name = re.sub(pattern, replacement, name)
    if not name.startswith("paths."):
        return name
    # only the numbers of paths, units and links stand alone between dots
    return re.sub(r"(?<=\.)(\d)(?=\.)", lambda match: str(int(match[1]) - 1), name)
