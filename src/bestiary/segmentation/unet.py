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
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.heads.segmentation import PixelSystem, extend, of_equal_size, require_label_maps, stack_weights
from bestiary.layers.overlap_tile import ValidGeometry, plan_tiles
from bestiary.layers.preprocess import Normalize
from bestiary.losses.segmentation import count_labelled, dice_loss, pixel_cross_entropy, pixel_cross_entropy_loss
from bestiary.records import IGNORE_LABEL, Losses, Target
from bestiary.system import Images

CATEGORIES = ("background", "cell")
"""The paper's two classes."""


class UNet(PixelSystem):
    """The paper's network: 23 convolutions without padding; 572 x 572 in, 388 x 388 out; 31,030,658 parameters for 1
    -> 2.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        width: channels of the first level; each deeper one has twice as many.
        dropout: probability at the end of the contracting path: after its last two levels.
        tile_output: largest side of a predicted tile, pixels. It bounds the memory and never changes a prediction.
        class_weights: as in `PixelSystem`.
        predict_size: as in `PixelSystem`.
        keep_probs: as in `PixelSystem`.
    """

    geometry: ClassVar[ValidGeometry] = ValidGeometry(margin=92, grid=16, smallest=4)

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
        class_weights: Sequence[float] | None = None,
        predict_size: int | None = None,
        keep_probs: bool = False,
    ) -> None:
        super().__init__(categories, normalize, class_weights, predict_size, keep_probs)
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

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H2 W2"]:
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
        return self.classifier(features)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Equation 1 over the pictures, mirrored as far as the output needs to cover them, divided by the labelled
        pixels.

        `target.weight_map`, where there is one, weighs the pixels (`transforms.border_weights` makes it by equation 2);
        pictures of different sizes are run one size after another.

        Raises:
            RecordError: a target without label map, of another size than its picture, or with a label that is no
            category.
        """
        pictures = list(images)
        truth = require_label_maps(pictures, targets)
        total = next(self.parameters()).new_zeros(())
        for indices in of_equal_size(pictures):
            height, width = truth[indices[0]].shape
            side_h, side_w = (self.geometry.covering(side) + 2 * self.geometry.margin for side in (height, width))
            corner = -self.geometry.margin
            pixels = self.prepare(torch.stack([pictures[i] for i in indices]), corner, corner, (side_h, side_w))
            logits = self(pixels)[..., :height, :width]
            label_maps = torch.stack([truth[i] for i in indices])
            weights = stack_weights([targets[i] for i in indices], [truth[i] for i in indices], (height, width))
            total = total + pixel_cross_entropy(logits, label_maps, self.class_weights, weights).sum()
        labelled = sum(int(count_labelled(label_map)) for label_map in truth)
        return Losses({"cross_entropy": total / max(1, labelled)})

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


class UNetPadded(PixelSystem):
    """The padded form with batch norm: output as large as the input; 31,037,698 parameters for 3 -> 2, bilinear
    17,263,042.

    Pictures are mirrored at the right and bottom up to multiples of 16 (32 at least), for training as for predicting,
    and the output is cropped; `forward` itself takes any size from 16 on and pads the upsampled map to the skip's.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        width: channels of the first level; each deeper one has twice as many.
        bilinear: upsample by interpolation (corners aligned) with half the channels below, instead of transposed
            convolution.
        class_weights: as in `PixelSystem`.
        predict_size: as in `PixelSystem`.
        keep_probs: as in `PixelSystem`.
    """

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        width: int = 64,
        bilinear: bool = False,
        class_weights: Sequence[float] | None = None,
        predict_size: int | None = None,
        keep_probs: bool = False,
    ) -> None:
        super().__init__(categories, normalize, class_weights, predict_size, keep_probs)
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

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
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
        return self.outc(features)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Mean cross-entropy of the labelled pixels, and 1 - Dice over all classes and pictures of the batch.

        Pictures of different sizes become one batch of the largest's size: what is added is mirrored and ignored.

        Raises:
            RecordError: a target without label map, of another size than its picture, or with a label that is no
            category.
        """
        pictures = list(images)
        truth = require_label_maps(pictures, targets)
        side_h, side_w = (_padded_side(max(m.shape[axis] for m in truth)) for axis in (0, 1))
        logits = self(torch.cat([self.prepare(picture[None], 0, 0, (side_h, side_w)) for picture in pictures]))
        label_maps = torch.stack([extend(m, (side_h, side_w), IGNORE_LABEL) for m in truth])
        weight_maps = stack_weights(targets, truth, (side_h, side_w))
        labelled = count_labelled(label_maps)
        cross_entropy = pixel_cross_entropy_loss(logits, label_maps, labelled, self.class_weights, weight_maps)
        return Losses({"cross_entropy": cross_entropy, "dice": dice_loss(logits, label_maps)})

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """The whole pictures at once."""
        height, width = int(images.shape[-2]), int(images.shape[-1])
        pixels = self.prepare(images, 0, 0, (_padded_side(height), _padded_side(width)))
        yield 0, 0, self(pixels)[..., :height, :width]


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
    class_weights: Sequence[float] | None = None,
    tile_output: int = 388,
    predict_size: int | None = None,
    keep_probs: bool = False,
) -> UNet:
    """`UNet` for grey pictures; `categories=None` gives background and cell.

    Args:
        tile_output: side of the output of the tiles that prediction works in.

    Other arguments as `unet_padded`.
    """
    normalize = Normalize([0.5] * in_channels, [0.5] * in_channels)
    return UNet(
        categories or CATEGORIES,
        normalize,
        width,
        tile_output=tile_output,
        class_weights=class_weights,
        predict_size=predict_size,
        keep_probs=keep_probs,
    )


def unet_padded(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 64,
    class_weights: Sequence[float] | None = None,
    predict_size: int | None = None,
    keep_probs: bool = False,
) -> UNetPadded:
    """Padded, batch norm, transposed convolutions, pictures as 0..1: the public implementation's default layout.

    Args:
        categories: K names; None gives the paper's two.
        in_channels: channels of a picture.
        width: channels of the first level; each level below doubles them.
        class_weights: K factors on the cross entropy of each class.
        predict_size: shorter side that pictures are brought to before prediction; None leaves them as they are.
        keep_probs: predictions also hold the probability of every class.
    """
    normalize = Normalize([0.0] * in_channels, [1.0] * in_channels)
    return UNetPadded(categories or CATEGORIES, normalize, width, False, class_weights, predict_size, keep_probs)


def unet_padded_bilinear(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 64,
    class_weights: Sequence[float] | None = None,
    predict_size: int | None = None,
    keep_probs: bool = False,
) -> UNetPadded:
    """`unet_padded` with bilinear upsampling: 17.3 instead of 31.0 million parameters.

    Arguments as `unet_padded`.
    """
    normalize = Normalize([0.0] * in_channels, [1.0] * in_channels)
    return UNetPadded(categories or CATEGORIES, normalize, width, True, class_weights, predict_size, keep_probs)


def unet_padded_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    width: int = 16,
    class_weights: Sequence[float] | None = None,
    predict_size: int | None = None,
    keep_probs: bool = False,
) -> UNetPadded:
    """`unet_padded` a quarter as wide, which trains on a laptop: 1.9 million parameters for two categories.

    Arguments as `unet_padded`.
    """
    return unet_padded(categories, in_channels, width, class_weights, predict_size, keep_probs)


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


def _padded_side(side: int) -> int:
    # 32 at least: of 16 one value would be left at the bottom, of which batch norm cannot take a variance
    return max(32, -(-side // 16) * 16)
