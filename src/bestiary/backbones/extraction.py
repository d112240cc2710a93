"""The convolutions of YOLO (Redmon, Divvala, Girshick, Farhadi: You Only Look Once, CVPR 2016, section 2.1, figure 3),
and the classifier of their first twenty, on which it is pre-trained; Darknet calls that Extraction.

Faithful: the layers of figure 3, leaky ReLU of 0.1, padding that keeps the size; the classifier ends in a global mean
and one connected layer. Pixels are RGB 0..1 with nothing taken off. The paper's nets have no batch norm, Darknet's
public configurations have it after every convolution. Pools of odd sides round up, as Darknet's do.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.backbones.darknet import NO_MEAN, NO_STD, Convolution, initialise
from bestiary.backbones.levels import Level
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.published import imagenet_categories

Row = tuple[int, int, int]
"""Channels, side of the window, stride."""

POOL: Row = (0, 2, 2)
"""A 2x2 pool of stride 2."""

FIRST_20: tuple[Row, ...] = (
    *((64, 7, 2), POOL),
    *((192, 3, 1), POOL),
    *((128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), POOL),
    *(((256, 1, 1), (512, 3, 1)) * 4),
    *((512, 1, 1), (1024, 3, 1), POOL),
    *(((512, 1, 1), (1024, 3, 1)) * 2),
)
"""What is pre-trained for classification."""

ALL_24: tuple[Row, ...] = (*FIRST_20, (1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1))
"""Figure 3: stride 64."""

_SIX: tuple[Row, ...] = tuple(row for n in range(6) for row in ((16 * 2**n, 3, 1), POOL))

FAST_9: tuple[Row, ...] = (*_SIX, (1024, 3, 1), (1024, 3, 1), (1024, 3, 1))
"""Fast YOLO, whose table the paper leaves out: the nine convolutions of the authors' first `yolo-tiny.cfg`."""

TINY_8: tuple[Row, ...] = (*_SIX, (1024, 3, 1), (256, 3, 1))
"""Darknet's `yolov1-tiny.cfg`."""

SMALL_10: tuple[Row, ...] = (
    *((16, 3, 1), POOL, (32, 3, 1), POOL),
    *((64, 3, 1), (32, 1, 1), (64, 3, 1), POOL),
    *((128, 3, 1), (64, 1, 1), (128, 3, 1), POOL),
    *((256, 3, 1), (256, 3, 1)),
)
"""Stride 16, for small pictures and few of them."""


def narrowed(rows: Sequence[Row], by: int) -> tuple[Row, ...]:
    """The rows with `by` times fewer channels."""
    return tuple((wide // by, kernel, stride) for wide, kernel, stride in rows)


class PlainConvolution(nn.Module):
    """A convolution with bias that keeps the size at stride 1, and leaky ReLU of 0.1.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: odd side.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        self.activation = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolved, rectified."""
        return self.activation(self.conv(maps))


def extraction(rows: Sequence[Row] = FIRST_20, *, norm: bool = False, in_channels: int = 3) -> Chain:
    """A trunk of such rows, with one level: its last map.

    Args:
        rows: the layers, in order.
        norm: batch norm after every convolution, in place of its bias.
        in_channels: of the pictures.
    """
    unit = Convolution if norm else PlainConvolution
    layers: list[nn.Module] = []
    channels, stride = in_channels, 1
    for wide, kernel, step in rows:
        if wide:
            layers.append(unit(channels, wide, kernel, step))
            channels = wide
        else:
            layers.append(nn.MaxPool2d(kernel, step, ceil_mode=True))
        stride *= step
    last = Level(f"C{stride.bit_length() - 1}", channels, stride)
    trunk = Chain(nn.Sequential(*layers), {len(layers) - 1: last}, in_channels)
    initialise(trunk)
    return trunk


class ExtractionClassifier(Classifier):
    """A trunk, the mean over all places, and a connected layer.

    Args:
        trunk: of `extraction`; not usable on its own afterwards.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories.
    """

    features: nn.Sequential
    classifier: nn.Linear

    def __init__(
        self,
        trunk: Chain,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            categories, resize=resize, crop=crop, label_smoothing=label_smoothing, mean=NO_MEAN, std=NO_STD
        )
        self.features = trunk.features
        self.classifier = nn.Linear(trunk.levels[-1].channels, len(self.categories))
        self.layer_names = {trunk.levels[-1].name: f"features.{len(self.features) - 1}"}

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.classifier(self.features(pixels).mean((2, 3)))


def yolo_v1_classifier(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    norm: bool = False,
    narrower: int = 1,
    label_smoothing: float = 0.0,
) -> ExtractionClassifier:
    """The first twenty convolutions of YOLO as a classifier, from which the detector starts.

    Args:
        categories: K names; None gives ImageNet's 1,000, as published.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        norm: batch norm after every convolution, for `yolo_v1_darknet`; the paper has none.
        narrower: so many times fewer channels; 4 for `yolo_v2_ladder`.
        label_smoothing: share of the target spread over all categories.

    Raises:
        UsageError: nothing would be left of the first convolution's 64 channels.
    """
    if not 1 <= narrower <= 64:
        raise UsageError(f"got {narrower}, wanted 1 to 64", where="narrower")
    names = imagenet_categories() if categories is None else categories
    trunk = extraction(narrowed(FIRST_20, narrower), norm=norm)
    return ExtractionClassifier(trunk, names, resize=resize, crop=crop, label_smoothing=label_smoothing)
