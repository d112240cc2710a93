"""GoogLeNet (Szegedy et al.: Going Deeper with Convolutions, CVPR 2015).

`googlenet_2014` is the paper's: convolutions with biases and no batch norm, 5x5 convolutions, response normalisation,
pools of 3x3/2, auxiliary classifiers behind inception 4a and 4d. Not told by the paper, so those of its replication
for Caffe: initialisation, the numbers of the normalisation, and pixels 0..255 minus a mean.
`googlenet` is torchvision's, with its names of the state: batch norm (eps 1e-3), no response normalisation, 3x3 in the
place of the 5x5 convolutions, a fourth pool of 2x2/2, auxiliary classifiers on an average of 4x4, dropout 0.2.

The auxiliary losses are part of the objective in training and in evaluation mode: `loss` means one thing. `forward` and
prediction do not compute them.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.inception import PAPER, SMALL, TORCHVISION, Auxiliary, Design, Inception
from bestiary.backbones.levels import Level
from bestiary.heads.classification import Classifier, labels_of
from bestiary.heads.published import imagenet_categories
from bestiary.layers.preprocess import BYTE_STD, IMAGENET_MEAN, IMAGENET_STD
from bestiary.layers.scaling import stack_equal
from bestiary.records import Losses, Target
from bestiary.system import Images

MODULES: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection."""

LEVEL_ENDS = ("conv1", "norm2", "inception3b", "inception4e", "inception5b")
"""The parts after which a level stands. The small form has none after the first."""

AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary loss (section 5)."""


class Maps(NamedTuple):
    """What the convolutions give on their way."""

    conv1: Tensor
    norm2: Tensor
    inception3b: Tensor
    inception4a: Tensor
    inception4d: Tensor
    inception4e: Tensor
    inception5b: Tensor


class Stages(nn.Module):
    """The parts that trunk and classifier have in common, and their order."""

    conv1: nn.Module
    maxpool1: nn.Module
    norm1: nn.Module
    conv2: nn.Module
    conv3: nn.Module
    norm2: nn.Module
    maxpool2: nn.Module
    inception3a: nn.Module
    inception3b: nn.Module
    maxpool3: nn.Module
    inception4a: nn.Module
    inception4b: nn.Module
    inception4c: nn.Module
    inception4d: nn.Module
    inception4e: nn.Module
    maxpool4: nn.Module
    inception5a: nn.Module
    inception5b: nn.Module

    def maps(self, pixels: Float[Tensor, "B C H W"]) -> Maps:
        """All that a level or a classifier stands on."""
        conv1 = self.conv1(pixels)  # stride 2
        features = self.conv2(self.norm1(self.maxpool1(conv1)))  # stride 4
        norm2 = self.norm2(self.conv3(features))
        inception3b = self.inception3b(self.inception3a(self.maxpool2(norm2)))  # stride 8
        inception4a = self.inception4a(self.maxpool3(inception3b))  # stride 16
        inception4d = self.inception4d(self.inception4c(self.inception4b(inception4a)))
        inception4e = self.inception4e(inception4d)
        inception5b = self.inception5b(self.inception5a(self.maxpool4(inception4e)))  # stride 32
        return Maps(conv1, norm2, inception3b, inception4a, inception4d, inception4e, inception5b)


class GoogLeNet(Stages):
    """The trunk: pictures to C1 .. C5 (C0 .. C3 of the small form, whose stem does not stride).

    Args:
        design: `TORCHVISION`, `PAPER`, `SMALL`, or your own.
        in_channels: of the pictures.

    Attributes:
        levels: conv1, conv3 (normalised, where the form does that), inception 3b, 4e and 5b.
    """

    levels: tuple[Level, ...]

    def __init__(self, design: Design = TORCHVISION, *, in_channels: int = 3) -> None:
        super().__init__()
        self.design, self.in_channels = design, in_channels
        unit, (kernel, stride) = design.unit, design.stem
        first, second = design.scaled(64), design.scaled(192)
        self.conv1 = unit(in_channels, first, kernel, stride)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True) if stride > 1 else nn.Identity()
        self.norm1 = design.norm()
        self.conv2 = unit(first, first)
        self.conv3 = unit(first, second, 3)
        self.norm2 = design.norm()
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        channels, reach = second, stride * 2 if stride > 1 else 1
        found = [(first, stride), (second, reach)] if stride > 1 else [(second, reach)]
        for name, row in MODULES.items():
            if name == "4a":
                self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
            elif name == "5a":
                self.maxpool4 = nn.MaxPool2d(design.last_pool, 2, ceil_mode=True)
            widths = [design.scaled(width) for width in row]
            self.add_module(f"inception{name}", Inception(channels, widths, design))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
            if name in ("3b", "4e", "5b"):
                reach *= 2
                found.append((channels, reach))
        self.levels = tuple(Level(f"C{reach.bit_length() - 1}", channels, reach) for channels, reach in found)
        design.start(self)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """One map a level."""
        maps = self.maps(pixels)
        return tuple(getattr(maps, name) for name in LEVEL_ENDS[-len(self.levels) :])


class GoogLeNetClassifier(Stages, Classifier):
    """A trunk, global average pooling, dropout and one linear layer; two auxiliary classifiers for training.

    The trunk's children become its own: state names are flat.

    Args:
        trunk: the trunk; not usable on its own afterwards.
        categories: K names.
        auxiliary: with auxiliary classifiers.
        transform_input: pixels normalised by ImageNet's mean and deviation are first brought to -1..1.
        dropout: chance that an average is dropped in training.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
        std: of the pixels; the mean is ImageNet's.

    Attributes:
        layer_names: the parts after which the levels stand.
    """

    min_side: ClassVar[int] = 15
    layer_names: Mapping[str, str]
    fc: nn.Linear

    def __init__(
        self,
        trunk: GoogLeNet,
        categories: Sequence[str],
        *,
        auxiliary: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(
            categories,
            resize=resize,
            crop=crop,
            label_smoothing=label_smoothing,
            std=std,
            in_channels=trunk.in_channels,
        )
        self.transform_input, outputs = transform_input, len(self.categories)
        for name, part in trunk.named_children():
            self.add_module(name, part)
        names = [level.name for level in trunk.levels]
        self.layer_names = dict(zip(names, LEVEL_ENDS[-len(names) :], strict=True))
        self.aux1 = self.aux2 = None
        if auxiliary:
            widths = [trunk.get_submodule(f"inception{name}") for name in ("4b", "4e")]
            first, second = (next(part.parameters()).shape[1] for part in widths)
            self.aux1 = Auxiliary(first, outputs, trunk.design, crop)
            self.aux2 = Auxiliary(second, outputs, trunk.design, crop)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(trunk.levels[-1].channels, outputs)
        trunk.design.start(self.fc)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits of the main classifier."""
        return self.logits(self.maps(self.transformed(pixels)).inception5b)

    def logits(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Of the last map."""
        return self.fc(self.dropout(features.mean((2, 3))))

    def transformed(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """(x - 0.5) / 0.5 of pixels that come as (x - mean) / std, where `transform_input` says so."""
        if not self.transform_input:
            return pixels
        mean, std = (pixels.new_tensor(v).view(-1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return pixels * (std / 0.5) + (mean - 0.5) / 0.5

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Cross entropy of the main classifier, "cross_entropy", and 0.3 times that of each auxiliary one,
        "auxiliary_4a" and "auxiliary_4d"; means over the batch.

        Raises:
            RecordError: pictures of different sizes, a target without label, or a label that is no category.
            UsageError: pictures of another size than the auxiliary classifiers were made for.
        """
        pixels = self.normalize(stack_equal(images))
        labels = labels_of(targets, len(pixels), len(self.categories)).to(pixels.device)
        maps = self.maps(self.transformed(pixels))
        logits = {"cross_entropy": (self.logits(maps.inception5b), 1.0)}
        if self.aux1 is not None and self.aux2 is not None:
            logits["auxiliary_4a"] = (self.aux1(maps.inception4a), AUXILIARY_WEIGHT)
            logits["auxiliary_4d"] = (self.aux2(maps.inception4d), AUXILIARY_WEIGHT)
        return Losses(
            {
                name: weight * F.cross_entropy(found, labels, label_smoothing=self.label_smoothing)
                for name, (found, weight) in logits.items()
            }
        )


class GoogLeNet2014Classifier(GoogLeNetClassifier):
    """The paper's, whose last pool needs two places."""

    min_side: ClassVar[int] = 31


def _names(categories: Sequence[str] | None) -> Sequence[str]:
    return imagenet_categories() if categories is None else categories


def googlenet(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    auxiliary: bool = True,
    transform_input: bool = False,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> GoogLeNetClassifier:
    """torchvision's GoogLeNet: 6,624,904 parameters with 1,000 categories, 13,004,888 with the auxiliary classifiers.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        auxiliary: with the two auxiliary classifiers, which only the loss sees; the published file has them.
        transform_input: normalised pixels are first brought to -1..1, as the published file wants them.
        dropout: chance that a value before the last layer is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    return GoogLeNetClassifier(
        GoogLeNet(TORCHVISION),
        _names(categories),
        auxiliary=auxiliary,
        transform_input=transform_input,
        dropout=dropout,
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )


def googlenet_2014(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    auxiliary: bool = True,
    dropout: float = 0.4,
    label_smoothing: float = 0.0,
) -> GoogLeNet2014Classifier:
    """The paper's GoogLeNet: 6,998,552 parameters with 1,000 categories, 13,378,280 with the auxiliary classifiers.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes, at least 31, and 79 with auxiliary classifiers, whose hidden layer
            is sized by it. `forward` takes pictures of any size.
        auxiliary: with the two auxiliary classifiers, which only the loss sees.
        dropout: chance that a value before the last layer is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    return GoogLeNet2014Classifier(
        GoogLeNet(PAPER),
        _names(categories),
        auxiliary=auxiliary,
        dropout=dropout,
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
        std=BYTE_STD,
    )


def googlenet_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    auxiliary: bool = False,
    dropout: float = 0.2,
    label_smoothing: float = 0.0,
) -> GoogLeNetClassifier:
    """GoogLeNet with batch norm for 32x32 pictures: a 3x3 stem with stride 1 and no pool behind it, half the widths.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        auxiliary: with the two auxiliary classifiers, which only the loss sees.
        dropout: chance that a value before the last layer is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    return GoogLeNetClassifier(
        GoogLeNet(SMALL),
        _names(categories),
        auxiliary=auxiliary,
        dropout=dropout,
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )
