"""AlexNet (Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012).

`alexnet_2012` is the paper's: two columns, which are groups of the second, fourth and fifth convolution; response
normalisation before overlapping pools, with alpha on the plain sum; its initialisation; pixels 0..255 minus a mean.
Effective crops are 227: the paper's 224 does not give its maps of 55. Not the paper's: one mean a channel, not a pixel.
`caffenet` is Caffe's reference network: it pools before it normalises, and sees blue, green, red.
`alexnet` is torchvision's: the single tower of Krizhevsky's "One weird trick" (2014) without normalisation, an adaptive
average to 6x6, and dropout before instead of behind fc6 and fc7. Its names of the state are torchvision's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Level
from bestiary.backbones.vgg import fully_connected
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories
from bestiary.heads.views import class_map
from bestiary.layers.fixed_map import FixedMap
from bestiary.layers.preprocess import BYTE_STD, IMAGENET_MEAN, IMAGENET_STD, ChannelOrder
from bestiary.layers.response_norm import LocalResponseNorm, caffe_response_norm
from bestiary.ops import convolution_output_size, pooling_output_size

CAFFENET_MEAN = (123 / 255, 117 / 255, 104 / 255)
"""Red, green, blue: the mean colour that stands for Caffe's mean picture of ImageNet."""


def one_tower(in_channels: int = 3) -> nn.Sequential:
    """torchvision's five convolutions."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


def two_columns(in_channels: int = 3) -> nn.Sequential:
    """The paper's five convolutions: only the third connects the halves."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, 4), nn.ReLU(True), LocalResponseNorm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(True), LocalResponseNorm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


def pooled_before_norm(in_channels: int = 3) -> nn.Sequential:
    """CaffeNet's five convolutions."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, 4), nn.ReLU(True), nn.MaxPool2d(3, 2), caffe_response_norm(),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2), caffe_response_norm(),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


def small_tower(in_channels: int = 3) -> nn.Sequential:
    """For pictures of about 32x32: three quarters of the single tower's widths, a first convolution of 5x5/1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 48, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(48, 144, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(144, 288, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(288, 192, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


class AlexNet(Chain):
    """The trunk: five convolutions, of which the last map at each stride is a level: C2 .. C5 (pool5).

    Args:
        features: `one_tower()`, `two_columns()`, `pooled_before_norm()`, `small_tower()` or your own.
    """

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__(features, taps(features), features.get_parameter("0.weight").shape[1])


def taps(features: nn.Sequential) -> dict[int, Level]:
    """Position -> C_k, the last map of stride 2^k."""
    found, stride, channels = {}, 1, 0
    for place, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            stride, channels = stride * layer.stride[0], layer.out_channels
        elif isinstance(layer, nn.MaxPool2d):
            stride *= _side(layer.stride)
        found[stride] = (place, Level(f"C{stride.bit_length() - 1}", channels, stride))
    return dict(found.values())


def layer_names(features: nn.Sequential, classifier: nn.Sequential) -> dict[str, str]:
    """The papers' names (conv1, norm1, pool1 .. fc8, C2 .. C5) and the parts whose outputs they are.

    A convolution or fully connected layer counts with its rectification; `fc8` are the logits.
    """
    found, number = {}, 0
    kinds = {nn.ReLU: "conv", LocalResponseNorm: "norm", nn.MaxPool2d: "pool"}
    for place, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            number += 1
        else:
            found[f"{kinds[type(layer)]}{number}"] = f"features.{place}"
    rectified = [place for place, layer in enumerate(classifier) if isinstance(layer, nn.ReLU)]
    for after, place in enumerate([*rectified, len(classifier) - 1], 1):
        found[f"fc{number + after}"] = f"classifier.{place}"
    return found | {level.name: f"features.{place}" for place, level in taps(features).items()}


def map_side(features: nn.Sequential, side: int) -> int:
    """Side of the last map for pictures of `side` pixels a side.

    Raises:
        RecordError: a picture too small for one of the windows.
    """
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            side = convolution_output_size(side, layer.kernel_size[0], layer.stride[0], int(layer.padding[0]))
        elif isinstance(layer, nn.MaxPool2d):
            kernel, stride, padding = (_side(n) for n in (layer.kernel_size, layer.stride, layer.padding))
            side = pooling_output_size(side, kernel, stride, padding)
    return side


def _side(length: int | tuple[int, ...]) -> int:
    """torch keeps what it was given: a number, or one an axis."""
    return length if isinstance(length, int) else length[0]


@dataclass(frozen=True)
class Head:
    """The fully connected layers.

    Attributes:
        grid: maps of any size are first averaged to so many places a side, and dropout stands before fc6 and fc7, as
            torchvision has it; None: fc6 reads the map as it is at the crop, and no other, and dropout stands behind.
        hidden: outputs of fc6 and fc7.
        dropout: chance that a value is dropped in training.
    """

    grid: int | None = 6
    hidden: int = 4096
    dropout: float = 0.5


class AlexNetClassifier(Classifier):
    """A trunk and three fully connected layers.

    Args:
        trunk: the trunk, whose `features` become the classifier's.
        categories: K names.
        head: the fully connected layers.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
        mean: of the pixels, RGB, 0..1.
        std: likewise.
        channel_order: "bgr" for Caffe's files.

    Attributes:
        layer_names: the papers' names of layers, by which the network can be cut.
    """

    min_side: ClassVar[int] = 63
    any_size: ClassVar[bool] = False
    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential
    layer_names: Mapping[str, str]

    def __init__(
        self,
        trunk: AlexNet,
        categories: Sequence[str],
        *,
        head: Head = Head(),
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        super().__init__(
            categories,
            resize=resize,
            crop=crop,
            label_smoothing=label_smoothing,
            mean=mean,
            std=std,
            in_channels=trunk.in_channels,
            channel_order=channel_order,
        )
        self.features = trunk.features
        self.grid = head.grid or map_side(self.features, crop)
        inputs, outputs = trunk.levels[-1].channels * self.grid**2, len(self.categories)
        if head.grid is None:
            self.avgpool = FixedMap(self.grid, crop)
            self.classifier = fully_connected(inputs, (head.hidden, head.hidden), outputs, head.dropout)
        else:
            self.avgpool = nn.AdaptiveAvgPool2d(self.grid)
            self.classifier = nn.Sequential(
                nn.Dropout(head.dropout), nn.Linear(inputs, head.hidden), nn.ReLU(True),
                nn.Dropout(head.dropout), nn.Linear(head.hidden, head.hidden), nn.ReLU(True),
                nn.Linear(head.hidden, outputs),
            )  # fmt: skip
        self.layer_names = layer_names(self.features, self.classifier)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits.

        Raises:
            UsageError: a head without `grid` got pictures that do not give the map it was made for.
        """
        return self.classifier(self.avgpool(self.features(pixels)).flatten(1))

    def dense_logits(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits averaged over all places where the fully connected layers find room.

        Raises:
            UsageError: a map smaller than their grid.
        """
        return class_map(self.features(pixels), self.classifier, self.grid).mean((2, 3))


class AlexNet2012Classifier(AlexNetClassifier):
    """The paper's, whose first convolution has no padding."""

    min_side: ClassVar[int] = 67


class SmallAlexNetClassifier(AlexNetClassifier):
    """For pictures of about 32x32. It starts as He et al., ICCV 2015 (but for the last layer, normal with 0.001):
    there is no batch norm, and from torch's own start it takes many more epochs. Arguments as `AlexNetClassifier`.
    """

    min_side: ClassVar[int] = 15

    def __init__(
        self,
        trunk: AlexNet,
        categories: Sequence[str],
        *,
        head: Head,
        resize: int = 32,
        crop: int = 32,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(trunk, categories, head=head, resize=resize, crop=crop, label_smoothing=label_smoothing)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.get_parameter(f"{len(self.classifier) - 1}.weight"), 0, 0.001)


def initialise(network: AlexNetClassifier, bias: int | float, hidden_std: float = 0.01) -> None:
    """Section 5: weights normal with 0.01; biases `bias` in the second, fourth and fifth convolution and the hidden
    layers, 0 elsewhere.

    Args:
        network: of eight layers.
        bias: the paper's 1.
        hidden_std: of the weights of fc6 and fc7.
    """
    layers = [m for m in (*network.features, *network.classifier) if isinstance(m, nn.Conv2d | nn.Linear)]
    for number, layer in enumerate(layers, 1):
        nn.init.normal_(layer.weight, 0, hidden_std if number in (6, 7) else 0.01)
        nn.init.constant_(layer.bias, bias if number in (2, 4, 5, 6, 7) else 0)  # type: ignore[arg-type]


def alexnet(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> AlexNetClassifier:
    """torchvision's AlexNet, a single tower: 61,100,840 parameters with 1,000 categories.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes, at least 63.
        dropout: chance that an input of fc6 and fc7 is dropped in training.
        label_smoothing: share of the target spread over all categories.
    """
    names = imagenet_categories() if categories is None else categories
    return AlexNetClassifier(
        AlexNet(one_tower()),
        names,
        head=Head(dropout=dropout),
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )


def alexnet_2012(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 227,
    dropout: float = 0.5,
    bias: float = 1.0,
    label_smoothing: float = 0.0,
) -> AlexNet2012Classifier:
    """The paper's AlexNet: 60,965,224 parameters with 1,000 categories at its own crop.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes, at least 67. The size of fc6 follows from it: 9,216 inputs at 227
            to 258, 1,024 at 128. Pictures of other sizes are refused.
        dropout: chance that an output of fc6 and fc7 is dropped in training.
        bias: what the biases of the second, fourth and fifth convolution and of fc6 and fc7 start from.
        label_smoothing: share of the target spread over all categories.
    """
    network = AlexNet2012Classifier(
        AlexNet(two_columns()),
        imagenet_categories() if categories is None else categories,
        head=Head(None, dropout=dropout),
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
        std=BYTE_STD,
    )
    initialise(network, bias)
    return network


def caffenet(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 227,
    dropout: float = 0.5,
    bias: float = 1.0,
    label_smoothing: float = 0.0,
) -> AlexNet2012Classifier:
    """Caffe's reference network, on blue, green, red pixels 0..255 minus (104, 117, 123): 60,965,224 parameters.

    Arguments as `alexnet_2012`.
    """
    network = AlexNet2012Classifier(
        AlexNet(pooled_before_norm()),
        imagenet_categories() if categories is None else categories,
        head=Head(None, dropout=dropout),
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
        mean=CAFFENET_MEAN,
        std=BYTE_STD,
        channel_order="bgr",
    )
    initialise(network, bias, hidden_std=0.005)
    return network


def alexnet_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> SmallAlexNetClassifier:
    """AlexNet for 32x32 pictures: a 5x5 stem with stride 1, three quarters of the widths, hidden layers of 1,024.

    Arguments as `alexnet`.
    """
    names = imagenet_categories() if categories is None else categories
    return SmallAlexNetClassifier(
        AlexNet(small_tower()),
        names,
        head=Head(3, 1024, dropout),
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )
