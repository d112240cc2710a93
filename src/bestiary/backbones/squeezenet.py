"""SqueezeNet (Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet: AlexNet-level accuracy with 50x fewer
parameters and < 0.5 MB model size, 2016), versions 1.0 and 1.1, and the bypass forms of its section 6.

Faithful: fire modules, their widths, pooling late and with ceil, no linear layer, a ReLU between the last convolution
and the average (so that no logit is negative). Names of the state are torchvision's, so its files load as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories

Bypass = Literal["none", "simple", "complex"]
FIRES = (
    (16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256),
)  # fmt: skip
"""Squeezed channels, and channels of each of the two expansions, of fire 2 .. fire 9 (table 1)."""


@dataclass(frozen=True)
class Variant:
    """What differs between the versions.

    Attributes:
        stem: channels, kernel, stride and padding of the first convolution.
        pools: numbers of the layers (1 is the first convolution, then fires) after which 3x3/2 max pooling stands.
        bypass: "simple" adds the input of fires 3, 5, 7 and 9 to their output; "complex" also does so for the others,
            through a 1x1 convolution.
    """

    stem: tuple[int, int, int, int]
    pools: tuple[int, ...]
    bypass: Bypass = "none"


V1_0 = Variant((96, 7, 2, 0), (1, 4, 8))
V1_0_SIMPLE = Variant((96, 7, 2, 0), (1, 4, 8), "simple")
V1_0_COMPLEX = Variant((96, 7, 2, 0), (1, 4, 8), "complex")
V1_1 = Variant((64, 3, 2, 0), (1, 3, 5))
CIFAR = Variant((64, 3, 1, 1), (3, 5))


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 convolutions of these side by side (figure 1), the 1x1's output first.

    Args:
        in_channels: of the input.
        squeezed: channels between.
        expanded: of each of the two expansions.
        bypass: as `Variant` says; an identity is left out where the width changes.
    """

    squeeze: nn.Conv2d
    expand1x1: nn.Conv2d
    expand3x3: nn.Conv2d
    bypass: nn.Module | None

    def __init__(self, in_channels: int, squeezed: int, expanded: int, bypass: Bypass = "none") -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        fits = in_channels == 2 * expanded
        self.bypass = None
        if bypass != "none" and fits:
            self.bypass = nn.Identity()
        elif bypass == "complex":
            self.bypass = nn.Conv2d(in_channels, 2 * expanded, 1)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """[relu(1x1), relu(3x3)] of the squeezed map, plus the bypass where there is one."""
        squeezed = F.relu(self.squeeze(features), inplace=True)
        expanded = F.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1), inplace=True)
        return expanded if self.bypass is None else expanded + self.bypass(features)


class SqueezeNet(Chain):
    """The trunk: pictures to C1 .. C4 (C1 .. C3 of the form for small pictures): it ends at stride 16.

    Args:
        variant: `V1_0`, `V1_1`, `V1_0_SIMPLE`, `V1_0_COMPLEX`, `CIFAR`, or your own.
        in_channels: of the pictures.

    Attributes:
        layer_names: "conv1", "fire2" .. "fire9", the levels, and the parts that end there.
    """

    layer_names: Mapping[str, str]

    def __init__(self, variant: Variant, *, in_channels: int = 3) -> None:
        channels, kernel, stride, padding = variant.stem
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, kernel, stride, padding), nn.ReLU(True)]
        ends, names = {1: Level("C1", channels, stride)}, {"conv1": "features.1"}
        for number, (squeezed, expanded) in enumerate(FIRES, 2):
            if number - 1 in variant.pools:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                stride *= 2
            layers.append(Fire(channels, squeezed, expanded, variant.bypass))
            channels = 2 * expanded
            ends[len(layers) - 1] = Level(f"C{_level(variant, number)}", channels, stride)
            names[f"fire{number}"] = f"features.{len(layers) - 1}"
        last = {level.name: place for place, level in ends.items()}
        super().__init__(nn.Sequential(*layers), {place: ends[place] for place in last.values()}, in_channels)
        self.layer_names = names | {name: f"features.{place}" for name, place in last.items()}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al., uniform, fan-in, as torchvision
                nn.init.kaiming_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _level(variant: Variant, number: int) -> int:
    """Which level fire `number` belongs to: one more than the poolings before it."""
    return 1 + sum(pool < number for pool in variant.pools)


class SqueezeNetClassifier(Classifier):
    """A trunk, dropout, a 1x1 convolution to the categories, ReLU and global average pooling.

    Args:
        trunk: the trunk, whose `features` become the classifier's.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        dropout: chance that a value of the last map is dropped.
        label_smoothing: share of the target spread over all categories.
    """

    min_side: ClassVar[int] = 21
    layer_names: Mapping[str, str]
    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(
        self,
        trunk: SqueezeNet,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        dropout: float = 0.5,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            categories, resize=resize, crop=crop, label_smoothing=label_smoothing, in_channels=trunk.in_channels
        )
        self.features = trunk.features
        self.layer_names = {**trunk.layer_names, "conv10": "classifier.2"}
        last = nn.Conv2d(trunk.levels[-1].channels, len(self.categories), 1)
        nn.init.normal_(last.weight, 0, 0.01)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.classifier = nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(True))

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits, none of them negative."""
        return self.classifier(self.features(pixels)).mean((2, 3))


def _classifier(
    variant: Variant,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    dropout: float,
    label_smoothing: float,
) -> SqueezeNetClassifier:
    names = imagenet_categories() if categories is None else categories
    return SqueezeNetClassifier(
        SqueezeNet(variant), names, resize=sizes[0], crop=sizes[1], dropout=dropout, label_smoothing=label_smoothing
    )


def squeezenet1_0(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SqueezeNetClassifier:
    """SqueezeNet 1.0: 1,248,424 parameters with 1,000 categories. Pictures of at least 21x21.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        dropout: chance that a value of the last map is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier(V1_0, categories, (resize, crop), dropout, label_smoothing)


def squeezenet1_1(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SqueezeNetClassifier:
    """SqueezeNet 1.1: 1,235,496 parameters, 2.4 times less work. Arguments as `squeezenet1_0`."""
    return _classifier(V1_1, categories, (resize, crop), dropout, label_smoothing)


def squeezenet1_0_simple_bypass(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SqueezeNetClassifier:
    """SqueezeNet 1.0 with identities around fires 3, 5, 7 and 9 (figure 2, middle): 1,248,424 parameters.

    Arguments as `squeezenet1_0`.
    """
    return _classifier(V1_0_SIMPLE, categories, (resize, crop), dropout, label_smoothing)


def squeezenet1_0_complex_bypass(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SqueezeNetClassifier:
    """SqueezeNet 1.0 with a way around every fire, a 1x1 convolution where the width changes (figure 2, right):
    1,589,672 parameters. Arguments as `squeezenet1_0`.
    """
    return _classifier(V1_0_COMPLEX, categories, (resize, crop), dropout, label_smoothing)


def squeezenet_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SqueezeNetClassifier:
    """SqueezeNet 1.1 with a stride-1 stem and no pooling after it: the last map has 8x8 pixels.

    For 32x32 pictures. Arguments as `squeezenet1_0`.
    """
    return _classifier(CIFAR, categories, (resize, crop), dropout, label_smoothing)
