"""Fully convolutional networks: Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR
2015, in the form of the code that the authors published (also PAMI 2017).

A classifier's layers, run over the whole picture, score the classes at every 32nd pixel (32s); scores of pool4 and of
pool3, which see less but stand closer together, are added (16s, 8s); transposed convolutions that start as bilinear
interpolation bring them to the picture's size, and crops align what pads have shifted. Faithful: VGG-16 with the first
convolution padded by 100, pools that round up, all kernels, crops and parameters; scores that start at zero; the summed
cross-entropy; BGR 0..255; each net started from the one before. The at-once form scales pool4 by 0.01 and pool3 by
0.0001, as published, and needs no other net.

Three systems and not one with three stages: each is published on its own, with its own parameters, and none carries
layers that it does not use. `--weights` of the net before is the paper's staging.

The small forms are ours: batch norm, thinner layers, RGB, both paddings so that maps have the picture's size over their
stride, the mean of the cross-entropy.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.fcn_vgg import SAME_SIZE, ConvolutionalVGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.heads.published import VOC_21
from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.bilinear_upsampling import BilinearUpsampling
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import BYTE_STD, Normalize, channel_normalize
from bestiary.losses.pixel_objective import PixelObjective
from bestiary.ops.upsampling import bilinear_filler

Stride = Literal[8, 16, 32]
Upsampling = Literal["fixed", "learned", "intermediate"]
"""Which transposed convolutions learn: none, as in the published code; all; or all but the last one."""

PixelRange = Literal["caffe", "imagenet"]
"""caffe: BGR 0..255 less a mean, as the paper's nets; imagenet: as torchvision's classifiers, RGB."""

CAFFE_MEAN = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255)
"""Red, green, blue."""

SKIPS: Mapping[Stride, tuple[str, ...]] = {32: (), 16: ("pool4",), 8: ("pool4", "pool3")}
AT_ONCE = {"pool4": 0.01, "pool3": 0.0001}


class FCN(WholePicture):
    """The system.

    Args:
        trunk: its maps are the skips' layers, fine to coarse, and fc7.
        categories: K names.
        stride: of the last map that is scored: 32, 16 or 8.
        upsampling: which transposed convolutions learn.
        skip_scales: factor on each skip's features before they are scored; 1 if none is given.
        normalize: of the pixels.
    """

    padding: ClassVar[Padding] = "mean"
    objective: PixelObjective = PixelObjective(("cross_entropy_sum",))

    def __init__(
        self,
        trunk: ConvolutionalVGG,
        categories: Sequence[str],
        *,
        stride: Stride,
        upsampling: Upsampling = "fixed",
        skip_scales: Mapping[str, float] | None = None,
        normalize: Normalize,
    ) -> None:
        super().__init__(categories, normalize)
        self.backbone, self.stride = trunk, stride
        self.skip_scales = {name: (skip_scales or {}).get(name, 1.0) for name in SKIPS[stride]}
        channels = {level.name: level.channels for level in trunk.levels}
        classes = len(categories)
        # In the order of the published files: score_fr, upscore2, score_pool4, upscore_pool4, score_pool3, upscore8.
        self.score_fr = _score(channels["fc7"], classes)
        self._steps: list[tuple[str, str, int]] = []
        raised, centre, coarse = "upscore2", trunk.centres["fc7"], 32
        for name in SKIPS[stride]:
            coarse //= 2
            self.add_module(raised, BilinearUpsampling(classes, 2, learns=upsampling != "fixed"))
            self.add_module(f"score_{name}", _score(channels[name], classes))
            offset = round((_raised(centre, coarse, 2) - trunk.centres[name]) / coarse)
            self._steps.append((raised, name, offset))
            centre = trunk.centres[name] + coarse * max(0, offset)
            raised = f"upscore_{name}"
        self._last = f"upscore{'' if stride == 32 else stride}"
        self.add_module(self._last, BilinearUpsampling(classes, stride, learns=upsampling == "learned"))
        self._crop = -round(_raised(centre, 1, stride))
        self.head_names = tuple(name for name, _ in self.named_children() if name.startswith("score_"))

    @property
    def crops(self) -> tuple[int, ...]:
        """Where each skip's scores (negative: where instead the raised scores), and last the output, are cropped."""
        return (*(offset for _, _, offset in self._steps), self._crop)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel."""
        maps = dict(zip((level.name for level in self.backbone.levels), self.backbone(pixels), strict=True))
        return PixelOutputs(self.upsampled(maps, (pixels.shape[-2], pixels.shape[-1])))

    def upsampled(
        self, maps: Mapping[str, Float[Tensor, "B _c _h _w"]], size_hw: tuple[int, int]
    ) -> Float[Tensor, "B K H W"]:
        """The trunk's maps, by name, to logits of a picture of `size_hw`."""
        scores = self.score_fr(maps["fc7"])
        for raise_by, name, offset in self._steps:
            scores = self.get_submodule(raise_by)(scores)
            features = maps[name] if self.skip_scales[name] == 1 else maps[name] * self.skip_scales[name]
            skip = self.get_submodule(f"score_{name}")(features)
            if offset < 0:
                scores = _window(scores, -offset, (skip.shape[-2], skip.shape[-1])) + skip
            else:
                scores = scores + _window(skip, offset, (scores.shape[-2], scores.shape[-1]))
        return _window(self.get_submodule(self._last)(scores), self._crop, size_hw)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG classifier, its convolutions, and fc6 and fc7 as convolutions; of another FCN all that both have;
        with other categories than these, the layers that score them start fresh. Caffe's names of layers are known.
        """
        own = self.state_dict()
        scores = {name: value for name, value in state.items() if self._fits(name, value, own)}
        if state.keys() == own.keys() and scores.keys() == self._of_classes():
            return state, ""
        taken = {name: value for name, value in state.items() if name.startswith("backbone.") and name in own}
        taken |= {f"backbone.{name}": value for name, value in self.backbone.own_names(state).items()}
        if not taken:
            return state, ""
        found = "an FCN" if "score_fr.weight" in state else "a classifier"
        taken |= {name: value.reshape(own[name].shape) for name, value in scores.items()}
        layers = {name.removeprefix("backbone.").rsplit(".", 1)[0] for name in taken}
        named = sorted(layer for layer in layers if not layer.startswith("features."))
        return taken, f"starts from {found}: {', '.join(['its convolutions', *named])}"

    def _fits(self, name: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
        """Whether it scores these categories, or upsamples as this system does: fixed kernels are interpolation."""
        if name not in self._of_classes() or value.squeeze().shape != own[name].squeeze().shape:
            return False
        layer = self.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, BilinearUpsampling) or layer.learns:
            return True
        kernels = bilinear_filler(2 * layer.factor, len(self.categories), dtype=value.dtype)
        return torch.allclose(value.reshape(kernels.shape).cpu(), kernels, atol=1e-3)

    def _of_classes(self) -> set[str]:
        """Names of the state whose shapes follow from the number of categories."""
        return {name for name in self.state_dict() if not name.startswith("backbone.")}


def _score(in_channels: int, classes: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero."""
    layer = nn.Conv2d(in_channels, classes, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _raised(centre: float, stride: int, factor: int) -> float:
    """Middle of the first cell, pixels, after a transposed convolution without padding to cells `stride` apart."""
    return centre - (factor - 0.5) * stride


def _window(maps: Float[Tensor, "B K H W"], first: int, size_hw: tuple[int, int]) -> Float[Tensor, "B K H2 W2"]:
    return maps[..., first : first + size_hw[0], first : first + size_hw[1]]


def _published(
    stride: Stride,
    categories: Sequence[str] | None,
    in_channels: int,
    upsampling: Upsampling,
    pixels: PixelRange,
    skip_scales: Mapping[str, float] | None = None,
) -> FCN:
    trunk = ConvolutionalVGG(maps=tuple(reversed(SKIPS[stride])), in_channels=in_channels)
    caffe = channel_normalize(in_channels, CAFFE_MEAN, BYTE_STD, "bgr")
    normalize = caffe if pixels == "caffe" else channel_normalize(in_channels)
    names = VOC_21 if categories is None else categories
    return FCN(trunk, names, stride=stride, upsampling=upsampling, skip_scales=skip_scales, normalize=normalize)


def fcn32s(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    upsampling: Upsampling = "fixed",
    pixels: PixelRange = "caffe",
) -> FCN:
    """FCN-32s on VGG-16: 136,152,917 parameters for VOC's 21 classes.

    Args:
        categories: K names; None gives PASCAL VOC's 21, the background among them.
        in_channels: channels of a picture.
        upsampling: which transposed convolutions learn: fixed, none, as in the published code; learned, all;
            intermediate, all but the last.
        pixels: caffe, as the paper's nets and VGG's published Caffe files have them; imagenet, to start from any other
            VGG-16.
    """
    return _published(32, categories, in_channels, upsampling, pixels)


def fcn16s(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    upsampling: Upsampling = "fixed",
    pixels: PixelRange = "caffe",
) -> FCN:
    """FCN-16s: 134,815,994 parameters; starts from an FCN-32s. Arguments as `fcn32s`."""
    return _published(16, categories, in_channels, upsampling, pixels)


def fcn8s(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    upsampling: Upsampling = "fixed",
    pixels: PixelRange = "caffe",
) -> FCN:
    """FCN-8s: 134,489,759 parameters; starts from an FCN-16s. Arguments as `fcn32s`."""
    return _published(8, categories, in_channels, upsampling, pixels)


def fcn8s_at_once(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    upsampling: Upsampling = "fixed",
    pixels: PixelRange = "caffe",
) -> FCN:
    """FCN-8s with scaled skips, which learns in one go from a classifier. Arguments as `fcn32s`."""
    return _published(8, categories, in_channels, upsampling, pixels, AT_ONCE)


def _small(stride: Stride, categories: Sequence[str] | None, in_channels: int, upsampling: Upsampling) -> FCN:
    trunk = ConvolutionalVGG(
        DEPTHS["vgg11"],
        maps=tuple(reversed(SKIPS[stride])),
        batch_norm=True,
        width=0.5,
        fc_width=128,
        paddings=SAME_SIZE,
        in_channels=in_channels,
    )
    names = VOC_21 if categories is None else categories
    system = FCN(trunk, names, stride=stride, upsampling=upsampling, normalize=channel_normalize(in_channels))
    system.objective = PixelObjective(("cross_entropy",))
    # conv5's maps have cells 16 pixels apart: one alone has no spread, which batch norm divides by.
    system.geometry = InputGeometry(smallest=32)
    return system


def fcn32s_small(
    categories: Sequence[str] | None = None, in_channels: int = 3, upsampling: Upsampling = "fixed"
) -> FCN:
    """FCN-32s on half of VGG-11 with batch norm, fc6 and fc7 of 128 channels, which learns from random weights, or from
    `vgg11_bn_half`: 3.9 million parameters with fixed upsampling.

    Arguments as `fcn32s`.
    """
    return _small(32, categories, in_channels, upsampling)


def fcn16s_small(
    categories: Sequence[str] | None = None, in_channels: int = 3, upsampling: Upsampling = "fixed"
) -> FCN:
    """FCN-16s likewise. Arguments as `fcn32s`."""
    return _small(16, categories, in_channels, upsampling)


def fcn8s_small(categories: Sequence[str] | None = None, in_channels: int = 3, upsampling: Upsampling = "fixed") -> FCN:
    """FCN-8s likewise. Arguments as `fcn32s`."""
    return _small(8, categories, in_channels, upsampling)
