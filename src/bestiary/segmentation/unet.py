"""U-Net: Ronneberger, Fischer, Brox: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, and the
padded form.

`UNet` is the paper's: convolutions without padding, so that every output pixel has seen only pixels that exist;
pictures of any size by overlapping tiles; cross-entropy with a weight for every pixel. Not in the paper, thus ours:
pictures are scaled to -1..1; dropout is 0.5; the loss is the mean over the labelled pixels where equation 1 is their
sum. `UNetPadded` is what people call U-Net today: padded convolutions with batch norm, cross-entropy and Dice; its
state names are those of the most used public implementation (`inc`, `down1`-`down4`, `up1`-`up4`, `outc`).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.overlap_tile import InputGeometry, plan_tiles
from bestiary.layers.preprocess import Normalize
from bestiary.losses.pixel_objective import PixelObjective

CATEGORIES = ("background", "cell")
"""The paper's two classes."""


class UNet(WholePicture):
    """The paper's network: 23 convolutions without padding; 572 x 572 in, 388 x 388 out; 31,030,658 parameters for 1
    -> 2.

    The loss is equation 1, divided by the labelled pixels; `target.weight_map`, where there is one, weighs the pixels
    (`transforms.border_weights` makes it by equation 2).

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        width: channels of the first level; each deeper one has twice as many.
        dropout: probability at the end of the contracting path: after its last two levels.
        tile_output: largest side of a predicted tile, pixels. It bounds the memory and never changes a prediction.
    """

    geometry = InputGeometry(margin=92, grid=16, smallest=4)

    contracting: nn.ModuleList
    upward: nn.ModuleList
    expanding: nn.ModuleList
    classifier: nn.Conv2d

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        width: int = 64,
        dropout: float = 0.5,
        tile_output: int = 388,
    ) -> None:
        super().__init__(categories, normalize)
        plan_tiles(1, self.geometry, tile_output)  # refuses a size that cannot tile
        self.tile_output = tile_output
        widths = [width * 2**level for level in range(5)]
        inputs = [self.in_channels, *widths[:-1]]
        self.contracting = nn.ModuleList(_two_valid_convs(i, o) for i, o in zip(inputs, widths, strict=True))
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.upward = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.expanding = nn.ModuleList(_two_valid_convs(2 * w, w) for w in reversed(widths[:-1]))
        self.classifier = nn.Conv2d(width, len(categories), 1)
        self.apply(_he_init)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of the centre, 184 pixels smaller on both sides.

        Raises:
            RecordError: sides that a pooling would have to round; the message computes the nearest legal ones.
        """
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            self.geometry.require((int(pixels.shape[-2]), int(pixels.shape[-1])))
        skips: list[Tensor] = []
        features = pixels
        for level, convs in enumerate(self.contracting):
            features = convs(self.pool(features) if level else features)  # 568 280 136 64 28 for an input of 572
            if level >= 3:
                features = self.dropout(features)
            skips.append(features)
        skips.pop()
        for up, convs in zip(self.upward, self.expanding, strict=True):
            raised = up(features)  # 56 104 200 392
            features = convs(torch.cat([_centre(skips.pop(), raised), raised], dim=1))
        return PixelOutputs(self.classifier(features))

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """Tiles whose origins are multiples of 16: they equal the prediction of the whole picture at once."""
        height, width = int(images.shape[-2]), int(images.shape[-1])
        rows = plan_tiles(height, self.geometry, self.tile_output)
        columns = plan_tiles(width, self.geometry, self.tile_output)
        margin = self.geometry.margin
        size_hw = (rows.side + 2 * margin, columns.side + 2 * margin)
        for top in rows.origins:
            for left in columns.origins:
                logits = self(self.prepare(images, top - margin, left - margin, size_hw))
                yield top, left, logits[..., : height - top, : width - left]


class UNetPadded(WholePicture):
    """The padded form with batch norm: output as large as the input; 31,037,698 parameters for 3 -> 2, bilinear
    17,263,042.

    Pictures are mirrored at the right and bottom up to multiples of 16 (32 at least), for training as for predicting,
    and the output is cropped; `forward` itself takes any size from 16 on and pads the upsampled map to the skip's. The
    loss is the mean cross-entropy of the labelled pixels plus 1 - Dice over all classes and pictures of the batch.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        width: channels of the first level; each deeper one has twice as many.
        bilinear: upsample by interpolation (corners aligned) with half the channels below, instead of transposed
            convolution.
    """

    objective = PixelObjective(("cross_entropy", "dice"))
    # 32 at least: of 16 one value would be left at the bottom, of which batch norm cannot take a variance
    geometry = InputGeometry(grid=16, smallest=32)

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        width: int = 64,
        bilinear: bool = False,
    ) -> None:
        super().__init__(categories, normalize)
        w, share = width, 2 if bilinear else 1
        self.inc = DoubleConv(self.in_channels, w)
        self.down1 = Down(w, 2 * w)
        self.down2 = Down(2 * w, 4 * w)
        self.down3 = Down(4 * w, 8 * w)
        self.down4 = Down(8 * w, 16 * w // share)
        self.up1 = Up(16 * w, 8 * w // share, bilinear)
        self.up2 = Up(8 * w, 4 * w // share, bilinear)
        self.up3 = Up(4 * w, 2 * w // share, bilinear)
        self.up4 = Up(2 * w, w, bilinear)
        self.outc = OutConv(w, len(categories))

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel.

        Raises:
            RecordError: a side below 16, of which nothing is left after four poolings.
        """
        if min(pixels.shape[-2:]) < 16:
            size = f"{pixels.shape[-2]} x {pixels.shape[-1]}"
            raise RecordError(f"got an input of {size}, wanted at least 16 x 16", where="pixels")
        x1 = self.inc(pixels)
        x2 = self.down1(x1)  # stride 2
        x3 = self.down2(x2)  # stride 4
        x4 = self.down3(x3)  # stride 8
        x5 = self.down4(x4)  # stride 16
        features = self.up1(x5, x4)
        features = self.up2(features, x3)
        features = self.up3(features, x2)
        features = self.up4(features, x1)
        return PixelOutputs(self.outc(features))


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution with padding, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, between: int | None = None) -> None:
        super().__init__()
        between = between or out_channels
        layers: list[nn.Module] = []
        for inputs, outputs in ((in_channels, between), (between, out_channels)):
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """Features of the same size."""
        return self.double_conv(features)


class Down(nn.Module):
    """2x2 max pooling, then `DoubleConv`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Features of half the size, rounded down."""
        return self.maxpool_conv(features)


class Up(nn.Module):
    """Doubles the size, pads what a pooling had rounded away, joins the skip, then `DoubleConv`."""

    up: nn.Module
    conv: DoubleConv

    def __init__(self, in_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        half = in_channels // 2
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, between=half)
        else:
            self.up = nn.ConvTranspose2d(in_channels, half, 2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(
        self, features: Float[Tensor, "B C H W"], skip: Float[Tensor, "B C2 H2 W2"]
    ) -> Float[Tensor, "B C3 H2 W2"]:
        """Features of the skip's size; the order is [skip, raised]."""
        raised = self.up(features)
        if raised.shape[-2:] != skip.shape[-2:]:
            rows, columns = skip.shape[-2] - raised.shape[-2], skip.shape[-1] - raised.shape[-1]
            raised = F.pad(raised, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(torch.cat([skip, raised], dim=1))


class OutConv(nn.Module):
    """1x1 convolution to the classes."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits."""
        return self.conv(features)


def unet(
    categories: Sequence[str] | None = None,
    in_channels: int = 1,
    width: int = 64,
    tile_output: int = 388,
) -> UNet:
    """`UNet` for grey pictures; `categories=None` gives background and cell.

    Args:
        tile_output: side of the output of the tiles that prediction works in.

    Other arguments as `unet_padded`.
    """
    normalize = Normalize([0.5] * in_channels, [0.5] * in_channels)
    return UNet(categories or CATEGORIES, normalize, width, tile_output=tile_output)


def unet_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 1,
    width: int = 16,
    tile_output: int = 388,
) -> UNet:
    """`unet` a quarter as wide, which trains on a laptop: 1.9 million parameters.

    Arguments as `unet`.
    """
    return unet(categories, in_channels, width, tile_output)


def unet_padded(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 64,
) -> UNetPadded:
    """Padded, batch norm, transposed convolutions, pictures as 0..1: the public implementation's default layout.

    Args:
        categories: K names; None gives the paper's two.
        in_channels: channels of a picture.
        width: channels of the first level; each level below doubles them.
    """
    normalize = Normalize([0.0] * in_channels, [1.0] * in_channels)
    return UNetPadded(categories or CATEGORIES, normalize, width, False)


def unet_padded_bilinear(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 64,
) -> UNetPadded:
    """`unet_padded` with bilinear upsampling: 17.3 instead of 31.0 million parameters.

    Arguments as `unet_padded`.
    """
    normalize = Normalize([0.0] * in_channels, [1.0] * in_channels)
    return UNetPadded(categories or CATEGORIES, normalize, width, True)


def unet_padded_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 16,
) -> UNetPadded:
    """`unet_padded` a quarter as wide, which trains on a laptop: 1.9 million parameters for two categories.

    Arguments as `unet_padded`.
    """
    return unet_padded(categories, in_channels, width)


def _two_valid_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    convs = nn.Conv2d(in_channels, out_channels, 3), nn.Conv2d(out_channels, out_channels, 3)
    return nn.Sequential(convs[0], nn.ReLU(inplace=True), convs[1], nn.ReLU(inplace=True))


def _centre(skip: Float[Tensor, "B C H W"], like: Float[Tensor, "B C2 H2 W2"]) -> Float[Tensor, "B C H2 W2"]:
    top, left = (skip.shape[-2] - like.shape[-2]) // 2, (skip.shape[-1] - like.shape[-1]) // 2
    return skip[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _he_init(module: nn.Module) -> None:
    """Gaussian of deviation sqrt(2 / N), N the inputs that one output value has (section 3); biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # of a 2x2 transposed convolution with stride 2 one tap alone meets each output pixel
        taps = 1 if isinstance(module, nn.ConvTranspose2d) else module.kernel_size[0] * module.kernel_size[1]
        nn.init.normal_(module.weight, std=math.sqrt(2 / (module.in_channels * taps)))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
