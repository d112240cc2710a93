"""SegNet and SegNet-Basic: Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture
for Image Segmentation, PAMI 2017 (arXiv 1511.00561).

A decoder puts each value back where the encoder's pooling found its maximum, and convolutions fill the gaps: no
upsampling is learned and no map of the encoder is kept. Faithful to the paper and the authors' files: layers, widths,
poolings that round up, a 3x3 or 1x1 last layer without norm, the decoder of Basic without ReLU, its normalised input,
He's start, norms that start with shift 0.001.

Ours: `segnet` sees RGB with ImageNet's mean and spread, as the published VGG-16 wants it, where the authors' net sees
blue, green, red bytes without a mean (its first norm takes both off, but at the picture's border); batch norm adds 1e-5
to the variance.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.vgg_start import start_named
from bestiary.backbones.vgg_table import DEPTHS, WIDTHS
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.preprocess import BYTE_STD, Normalize, channel_normalize
from bestiary.layers.response_norm import caffe_response_norm
from bestiary.layers.switched import SwitchedEncoder, UnpoolingDecoder, mirrored_rows, start_by_inputs

CAMVID_11 = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""The paper's eleven classes of CamVid, in the order of the authors' label maps."""

HALF_WIDTHS = (32, 64, 128, 256, 256)
"""Of `backbones.vgg.vgg11_bn_half`."""


class SegNet(WholePicture):
    """VGG's convolutions and their mirror image: 29,449,355 parameters with VGG-16 and 11 categories.

    Pictures of any size; the output has the input's.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        depths: convolutions of each of the encoder's blocks.
        widths: their channels.
    """

    head_names = ("classifier",)
    encoder: SwitchedEncoder
    decoder: UnpoolingDecoder
    classifier: nn.Conv2d

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        depths: Sequence[int] = DEPTHS["vgg16"],
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__(categories, normalize)
        self.depths = depths
        self.encoder = SwitchedEncoder(self.in_channels, depths, widths)
        *coarser, finest = mirrored_rows(depths, widths)
        self.decoder = UnpoolingDecoder(widths[-1], (*coarser, finest[:-1]))
        self.classifier = nn.Conv2d(widths[0], len(self.categories), 3, padding=1)
        start_by_inputs(self)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel."""
        features, switches = self.encoder(pixels)
        return PixelOutputs(self.classifier(self.decoder(features, switches)))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG classifier as deep, with batch norm or without, its convolutions and norms."""
        return start_named(state, self.state_dict(), self.depths, {"conv": "encoder."})


class SegNetBasic(WholePicture):
    """Four blocks of one 7x7 convolution with 64 channels, and four back, which are not rectified: 1,416,587 parameters
    with 11 categories.

    The input is normalised over its channels, on the scale 0..255, before the first convolution.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        width: channels of every block.
    """

    head_names = ("classifier",)
    encoder: SwitchedEncoder
    decoder: UnpoolingDecoder
    classifier: nn.Conv2d

    def __init__(self, categories: Sequence[str], normalize: Normalize, width: int = 64) -> None:
        super().__init__(categories, normalize)
        widths = (width,) * 4
        self.norm = caffe_response_norm()
        self.encoder = SwitchedEncoder(self.in_channels, (1, 1, 1, 1), widths, kernel_size=7)
        self.decoder = UnpoolingDecoder(width, [(width,)] * 4, kernel_size=7, rectified=False)
        self.classifier = nn.Conv2d(width, len(self.categories), 1)
        start_by_inputs(self)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel."""
        features, switches = self.encoder(self.norm(pixels))
        return PixelOutputs(self.classifier(self.decoder(features, switches)))


def segnet(categories: Sequence[str] | None = None, in_channels: int = 3) -> SegNet:
    """The paper's, on VGG-16's 13 convolutions. `--weights vgg16_bn` starts the encoder from ImageNet.

    Args:
        categories: K names; None gives the paper's eleven of CamVid.
        in_channels: channels of a picture.
    """
    return SegNet(categories or CAMVID_11, channel_normalize(in_channels))


def segnet_small(categories: Sequence[str] | None = None, in_channels: int = 3) -> SegNet:
    """On VGG-11 with half the channels, which learns from random weights on two cores: 4.6 million parameters.

    Arguments as `segnet`.
    """
    return SegNet(categories or CAMVID_11, channel_normalize(in_channels), DEPTHS["vgg11"], HALF_WIDTHS)


def segnet_basic(categories: Sequence[str] | None = None, in_channels: int = 3, width: int = 64) -> SegNetBasic:
    """The paper's small form, on pixels 0..255.

    Args:
        categories: K names; None gives the paper's eleven of CamVid.
        in_channels: channels of a picture.
        width: channels of every block.
    """
    normalize = Normalize([0.0] * in_channels, [BYTE_STD[0]] * in_channels)
    return SegNetBasic(categories or CAMVID_11, normalize, width)


def segnet_basic_small(categories: Sequence[str] | None = None, in_channels: int = 3, width: int = 24) -> SegNetBasic:
    """`segnet_basic` with 24 channels, a seventh of its work: 201,947 parameters.

    Arguments as `segnet_basic`.
    """
    return segnet_basic(categories, in_channels, width)
