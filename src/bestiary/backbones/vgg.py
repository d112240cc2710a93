"""VGG (Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015).

Faithful: configurations A, B, D and E of table 1, dense evaluation (section 3.2), and the start of deep nets from net A
(section 3.1.1). Names of the state are torchvision's, so its files load as they are. Not the paper's: batch norm
after each convolution in the `_bn` forms, and initialisation, which is torchvision's. `vgg16_caffe` and `vgg19_caffe`
are for the files that the authors published: the same networks on blue, green, red pixels 0..255.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.chain import Chain
from bestiary.backbones.vgg_table import DEPTHS, WIDTHS, Depths, layer_names, start_from_net_a, taps
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories
from bestiary.heads.views import class_map
from bestiary.layers.preprocess import (
    BYTE_STD,
    CAFFE_VGG_MEAN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ChannelOrder,
)


class VGG(Chain):
    """The trunk: pictures to C1 .. C5, the last map of each stride: conv2, conv3, conv4, conv5 (each the block's last,
    rectified) and pool5.

    Args:
        depths: a row of `DEPTHS`, or your own.
        batch_norm: after each convolution.
        output_stride: 16: pool5 is 3x3 with stride 1; 8: pool4 too, and conv5 is dilated by 2 (Chen et al., DeepLab).
            C4 and C5 then have that stride.
        maps: which levels it gives, fine to coarse; layers after the last are left out. "C0", conv1 at full size, is
            one more.
        width: factor on all channels.
        in_channels: of the pictures.

    Attributes:
        levels: of `maps`.

    Raises:
        UsageError: a level that there is not.
    """

    def __init__(
        self,
        depths: Depths,
        *,
        batch_norm: bool = False,
        output_stride: Literal[8, 16, 32] = 32,
        maps: Sequence[str] = ("C1", "C2", "C3", "C4", "C5"),
        width: int | float = 1.0,
        in_channels: int = 3,
    ) -> None:
        widths = [round(wide * width) for wide in WIDTHS]
        known = taps(depths, widths, batch_norm, output_stride)
        strange = [name for name in maps if name not in known]
        if strange or not maps:
            raise UsageError(f"got {', '.join(maps) or 'none'}, wanted some of {', '.join(known)}", where="maps")
        chosen = {place: level for name, (place, level) in known.items() if name in maps}
        layers = convolutions(depths, widths, batch_norm, output_stride, in_channels)
        super().__init__(layers, chosen, in_channels)
        self.depths, self.batch_norm, self.channels = depths, batch_norm, widths[-1]
        initialise(self)


def convolutions(
    depths: Depths, widths: Sequence[int], batch_norm: bool, output_stride: int, in_channels: int
) -> nn.Sequential:
    """The five blocks: 3x3 convolutions, each with its ReLU, and a 2x2 pool at each end."""
    layers: list[nn.Module] = []
    channels, stride = in_channels, 1
    for block, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        dilation = 2**block // stride
        for _ in range(depth):
            layers.append(nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = width
        shrinks = stride < output_stride
        layers.append(nn.MaxPool2d(2, 2) if shrinks else nn.MaxPool2d(3, 1, 1))
        stride = stride * 2 if shrinks else stride
    return nn.Sequential(*layers)


def fully_connected(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.5) -> nn.Sequential:
    """fc6, fc7 ... with ReLU and dropout, and a last linear layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def initialise(network: nn.Module) -> None:
    """Convolutions as He et al., ICCV 2015, fan-out form; linear layers normal with 0.01; biases 0: torchvision's."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class VGGClassifier(Classifier):
    """A trunk and fully connected layers. The trunk's children become its own: state names are flat.

    Pictures need at least 32 pixels a side. Where they are not 32 times `grid`, the last map is averaged (or repeated)
    to `grid x grid` places, as torchvision does; dense views (`dense_logits`) run the layers over a larger map instead.

    Args:
        trunk: the trunk with all its layers; not usable on its own afterwards.
        categories: K names.
        hidden: widths of the layers before the last.
        grid: side of the map that they read.
        dropout: after each of them.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
        mean: as in `Classifier`.
        std: likewise.
        channel_order: likewise.

    Attributes:
        layer_names: the paper's names of layers, and the parts whose outputs they are.
    """

    min_side: ClassVar[int] = 32
    any_size: ClassVar[bool] = False
    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential
    layer_names: Mapping[str, str]

    def __init__(
        self,
        trunk: VGG,
        categories: Sequence[str],
        *,
        hidden: Sequence[int] = (4096, 4096),
        grid: int = 7,
        dropout: float = 0.5,
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
        self.avgpool = nn.AdaptiveAvgPool2d((grid, grid))
        self.classifier = fully_connected(grid * grid * trunk.channels, hidden, len(self.categories), dropout)
        initialise(self.classifier)
        self.grid, self.depths, self.batch_norm = grid, trunk.depths, trunk.batch_norm
        known = layer_names(trunk.depths, trunk.batch_norm)
        usual = len(hidden) == 2
        self.layer_names = {name: part for name, part in known.items() if usual or not name.startswith("fc")}

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.classifier(self.avgpool(self.features(pixels)).flatten(1))

    def class_map(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K _h _w"]:
        """Logits at every place: 1x1 at 224, 2x2 at 256, 6x6 at 384. A map that is too small is first brought to the
        grid as `forward` does it.
        """
        maps = self.features(pixels)
        enough = max(maps.shape[-2], self.grid), max(maps.shape[-1], self.grid)
        return class_map(F.adaptive_avg_pool2d(maps, enough), self.classifier, self.grid)

    def dense_logits(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """`class_map`, averaged."""
        return self.class_map(pixels).mean((2, 3))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of net A, for a deeper net: its first four convolutions and the fully connected layers (section 3.1.1)."""
        return start_from_net_a(state, self.depths, self.batch_norm)


def _classifier(
    name: str,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    dropout: float,
    label_smoothing: float,
    batch_norm: bool = False,
    caffe: bool = False,
) -> VGGClassifier:
    return VGGClassifier(
        VGG(DEPTHS[name], batch_norm=batch_norm),
        imagenet_categories() if categories is None else categories,
        dropout=dropout,
        resize=sizes[0],
        crop=sizes[1],
        label_smoothing=label_smoothing,
        mean=CAFFE_VGG_MEAN if caffe else IMAGENET_MEAN,
        std=BYTE_STD if caffe else IMAGENET_STD,
        channel_order="bgr" if caffe else "rgb",
    )


def vgg11(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration A: 132,863,336 parameters with 1,000 categories.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes, at least 32.
        dropout: after fc6 and fc7.
        label_smoothing: share of the target spread over all categories.
    """
    return _classifier("vgg11", categories, (resize, crop), dropout, label_smoothing)


def vgg13(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration B: 133,047,848 parameters. Arguments as `vgg11`."""
    return _classifier("vgg13", categories, (resize, crop), dropout, label_smoothing)


def vgg16(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration D: 138,357,544 parameters. Arguments as `vgg11`."""
    return _classifier("vgg16", categories, (resize, crop), dropout, label_smoothing)


def vgg19(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration E: 143,667,240 parameters. Arguments as `vgg11`."""
    return _classifier("vgg19", categories, (resize, crop), dropout, label_smoothing)


def vgg11_bn(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration A with batch norm: 132,868,840 parameters. Arguments as `vgg11`."""
    return _classifier("vgg11", categories, (resize, crop), dropout, label_smoothing, batch_norm=True)


def vgg13_bn(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration B with batch norm: 133,053,736 parameters. Arguments as `vgg11`."""
    return _classifier("vgg13", categories, (resize, crop), dropout, label_smoothing, batch_norm=True)


def vgg16_bn(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration D with batch norm: 138,365,992 parameters. Arguments as `vgg11`."""
    return _classifier("vgg16", categories, (resize, crop), dropout, label_smoothing, batch_norm=True)


def vgg19_bn(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration E with batch norm: 143,678,248 parameters. Arguments as `vgg11`."""
    return _classifier("vgg19", categories, (resize, crop), dropout, label_smoothing, batch_norm=True)


def vgg16_caffe(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration D on blue, green, red pixels 0..255 minus (103.939, 116.779, 123.68), for the authors' files.

    Arguments as `vgg11`.
    """
    return _classifier("vgg16", categories, (resize, crop), dropout, label_smoothing, caffe=True)


def vgg19_caffe(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration E on the pixels of `vgg16_caffe`. Arguments as `vgg11`."""
    return _classifier("vgg19", categories, (resize, crop), dropout, label_smoothing, caffe=True)


def vgg11_bn_cifar(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 32,
    crop: int = 32,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """Configuration A with batch norm for 32x32 pictures: the last map is one place, before a single hidden layer of
    512.

    9,493,770 parameters with 10 categories. Arguments as `vgg11`.
    """
    names = imagenet_categories() if categories is None else categories
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True)
    return VGGClassifier(
        trunk,
        names,
        hidden=(512,),
        grid=1,
        dropout=dropout,
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )


def vgg11_bn_half_classifier(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> VGGClassifier:
    """`vgg11_bn_half` with two hidden layers of 128: what the detectors and dense labellers on that trunk can start
    from. 4,060,264 parameters with 1,000 categories. Arguments as `vgg11`.
    """
    return VGGClassifier(
        vgg11_bn_half(maps=("C5",)),
        imagenet_categories() if categories is None else categories,
        hidden=(128, 128),
        dropout=dropout,
        resize=resize,
        crop=crop,
        label_smoothing=label_smoothing,
    )


def vgg11_bn_half(
    *, maps: Sequence[str] = ("C4",), output_stride: Literal[8, 16, 32] = 32, in_channels: int = 3
) -> VGG:
    """A trunk for detectors on small machines: configuration A with batch norm and half the channels (32, 64, 128, 256,
    256), 2,308,992 parameters, which learns from random weights. Ours, so that systems can be compared on one trunk.

    Args:
        maps: which levels it gives; by itself conv5 at stride 16, without the last pool.
        output_stride: as in `VGG`.
        in_channels: of the pictures.
    """
    return VGG(
        DEPTHS["vgg11"], batch_norm=True, output_stride=output_stride, maps=maps, width=0.5, in_channels=in_channels
    )
