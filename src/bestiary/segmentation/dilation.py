"""Yu, Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016: a front end and a context module.

The front end is VGG-16 without its last two poolings: what follows them is dilated by 2 and 4, so that the map has an
8th of the picture's side. No convolution pads; the picture is mirrored around by as many pixels as they eat, 186.
The context module looks at ever larger surroundings of the class scores and starts as the identity. Faithful to the
paper and the authors' files: layers, dilations and widths of the basic and the large module, the module of ten layers
for large pictures, whose padding comes all at once before the first layer (the large one, on VOC) or layer by layer
(on CamVid and Cityscapes), both ways of starting (equations 4 and 5), the last layer's N(0, 0.001), scores brought back
to full size by a fixed bilinear transposed convolution, the three stages of training.

Ours: the loss is taken at full size, as the authors' code does when told `--up`, not at every 8th pixel; what the
paper leaves open of equation 5, the noise, has a hundredth of the deviation C / c; RGB with ImageNet's mean and spread,
as the published VGG-16 wants it. `dilation_small` has batch norm, fc6 of 3x3 and zero padding in every layer: mirrored
margins would be most of what it sees of a small picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.vgg import initialise
from bestiary.backbones.vgg_start import start_named
from bestiary.backbones.vgg_table import DEPTHS, WIDTHS, Depths
from bestiary.errors import UsageError
from bestiary.heads.published import VOC_21
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.lone_norm import LoneBatchNorm2d
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.ops.upsampling import upsample_bilinear_transposed

ContextKind = Literal["basic", "large", "ten", "none"]
Pads = Literal["first", "each"]

STAGES = ("front_end", "context", "joint")

STRIDE = 8
DILATIONS = (1, 1, 1, 1, 2, 4)
"""Of the five blocks and fc6."""

SMALL_NOISE = 0.01
"""Deviation of the large module's noise, as a share of the weights that make it the identity."""


class FrontEnd(nn.Sequential):
    """VGG's convolutions with three poolings, fc6, fc7 and the class scores, at an 8th of the picture's side.

    Args:
        in_channels: of the pictures.
        num_classes: C.
        depths: convolutions of the five blocks.
        widths: their channels.
        hidden: channels of fc6 and fc7.
        fc_size: side of fc6's kernel.
        padded: each layer keeps the size; else all layers together eat `margin` pixels on every side.
        batch_norm: after each convolution but the last.
        dropout: after fc6 and fc7.

    Attributes:
        margin: pixels that the scores, brought to full size, lack on every side.
    """

    final: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depths: Depths = DEPTHS["vgg16"],
        widths: Sequence[int] = WIDTHS,
        hidden: int = 4096,
        fc_size: int = 7,
        padded: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, stride, eaten = in_channels, 1, 0

        def layer(name: str, width: int, kernel: int, dilation: int) -> None:
            nonlocal channels, eaten
            reach = dilation * (kernel // 2)
            conv = nn.Conv2d(channels, width, kernel, padding=reach if padded else 0, dilation=dilation)
            self.add_module(name, conv)
            if batch_norm:
                self.add_module(f"{name}_bn", LoneBatchNorm2d(width))
            self.add_module(f"{name}_relu", nn.ReLU(inplace=True))
            channels, eaten = width, eaten + reach * stride

        for block, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
            for i in range(1, depth + 1):
                layer(f"conv{block}_{i}", width, 3, DILATIONS[block - 1])
            if stride < STRIDE:
                self.add_module(f"pool{block}", nn.MaxPool2d(2, 2))
                stride *= 2
        layer("fc6", hidden, fc_size, DILATIONS[5])
        self.add_module("drop6", nn.Dropout(dropout))
        layer("fc7", hidden, 1, 1)
        self.add_module("drop7", nn.Dropout(dropout))
        self.add_module("final", nn.Conv2d(hidden, num_classes, 1))
        self.margin = 0 if padded else eaten
        initialise(self)
        nn.init.normal_(self.final.weight, std=0.001)


@dataclass(frozen=True)
class ContextPlan:
    """The 3x3 layers of a context module.

    Attributes:
        dilations: of each.
        multipliers: channels of each, as multiples of the classes.
        pads: "first": zeros all around before the first layer, as many as all of them eat; "each": layer by layer.
    """

    dilations: tuple[int, ...] = (1, 1, 2, 4, 8, 16, 1)
    multipliers: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1)
    pads: Pads = "each"


CONTEXTS: Mapping[ContextKind, ContextPlan | None] = {
    "basic": ContextPlan(),
    "large": ContextPlan(multipliers=(2, 2, 4, 8, 16, 32, 32), pads="first"),
    "ten": ContextPlan((1, 1, 2, 4, 8, 16, 32, 64, 1), (1,) * 9),
    "none": None,
}
"""Table 1 and appendix A.3. Receptive fields of 67, 67 and 259 places."""


class ContextModule(nn.Sequential):
    """C maps to C maps of the same size, each layer but the last rectified.

    Args:
        num_classes: C.
        plan: the 3x3 layers, after which comes one of 1x1.
    """

    def __init__(self, num_classes: int, plan: ContextPlan) -> None:
        super().__init__()
        widths = [num_classes * times for times in plan.multipliers]
        around = sum(plan.dilations) if plan.pads == "first" else 0
        channels = num_classes
        for i, (width, dilation) in enumerate(zip(widths, plan.dilations, strict=True), 1):
            padding = dilation if plan.pads == "each" else around if i == 1 else 0
            self.add_module(f"conv{i}", nn.Conv2d(channels, width, 3, padding=padding, dilation=dilation))
            self.add_module(f"relu{i}", nn.ReLU())
            channels = width
        self.add_module("final", nn.Conv2d(channels, num_classes, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                start_as_identity(layer, num_classes)


@torch.no_grad()
def start_as_identity(conv: nn.Conv2d, num_classes: int) -> None:
    """Equation 5, of which equation 4 is the case of C channels in and out.

    A layer of c channels has c / C of them for each class. The middle tap between channels of the same class is C / c
    (c: channels out), everything else noise; a chain of such layers that begins and ends with C channels passes what is
    positive on as it is. Where in and out are C, there are no ties to break, and no noise.
    """
    outputs, inputs = conv.out_channels, conv.in_channels
    share = num_classes / outputs
    noise = 0.0 if outputs == inputs == num_classes else SMALL_NOISE * share
    nn.init.normal_(conv.weight, std=noise) if noise else nn.init.zeros_(conv.weight)
    of_output = torch.arange(outputs, device=conv.weight.device) * num_classes // outputs
    of_input = torch.arange(inputs, device=conv.weight.device) * num_classes // inputs
    same = of_output[:, None] == of_input
    middle = conv.weight[..., conv.kernel_size[0] // 2, conv.kernel_size[1] // 2]
    middle.copy_(torch.where(same, torch.full_like(middle, share), middle))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class Dilation(WholePicture):
    """The system.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        front_end: pictures to class scores.
        context: scores to better ones; None for the front end alone.

    Attributes:
        head_names: the last layer.
    """

    def __init__(
        self, categories: Sequence[str], normalize: Normalize, front_end: FrontEnd, context: ContextModule | None
    ) -> None:
        super().__init__(categories, normalize)
        self.front_end, self.context = front_end, context
        self.head_names = ("front_end.final",) if context is None else ("context.final",)
        self.geometry = InputGeometry(margin=front_end.margin, grid=STRIDE, smallest=STRIDE)
        self.stage = "joint"

    def begin_stage(self, name: str) -> None:
        """front_end: the scores go past the context module. context and joint: through it."""
        if name not in STAGES:
            raise UsageError(f"got {name!r}, wanted one of {', '.join(STAGES)}", where="Dilation")
        self.stage = name

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of the centre, which lacks the margin on every side."""
        scores = self.front_end(pixels)  # 66 x 66 of 900
        if self.context is not None and self.stage != "front_end":
            scores = self.context(scores)
        return PixelOutputs(upsample_bilinear_transposed(scores, STRIDE))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG-16 classifier its convolutions, fc6 and fc7. Where there is a context module: of a front end alone,
        and of a system with other categories, the front end, as far as it fits.
        """
        own = self.state_dict()
        if set(state) == set(own) and all(value.shape == own[name].shape for name, value in state.items()):
            return state, ""
        kept = {n: v for n, v in state.items() if n.startswith("front_end.") and n in own and v.shape == own[n].shape}
        if self.context is None or not kept:
            return start_named(state, own, DEPTHS["vgg16"], {"conv": "front_end.", "fc": "front_end."})
        scores = "" if "front_end.final.weight" in kept else "; the class scores start anew"
        return kept, f"starts from a front end; the context module starts as the identity{scores}"


def _context(kind: ContextKind, num_classes: int) -> ContextModule | None:
    if kind not in CONTEXTS:
        raise UsageError(f"got {kind!r}, wanted one of {', '.join(CONTEXTS)}", where="context")
    plan = CONTEXTS[kind]
    return None if plan is None else ContextModule(num_classes, plan)


def dilation(
    categories: Sequence[str] | None = None, in_channels: int = 3, context: ContextKind = "basic", dropout: float = 0.5
) -> Dilation:
    """The paper's front end on VGG-16 with a context module. `--weights vgg16` starts it from ImageNet.

    Args:
        categories: K names; None gives PASCAL VOC's 20 and background.
        in_channels: channels of a picture.
        context: basic: K channels in each of eight layers. large: up to 32 K channels, as published for VOC. ten: basic
            with two layers more, for pictures of 1,000 pixels and more (Dilation10). none: the front end alone.
        dropout: after fc6 and fc7.

    Raises:
        UsageError: no such context module.
    """
    names = VOC_21 if categories is None else categories
    front_end = FrontEnd(in_channels, len(names), dropout=dropout)
    return Dilation(names, channel_normalize(in_channels), front_end, _context(context, len(names)))


def dilation_front_end(categories: Sequence[str] | None = None, in_channels: int = 3, dropout: float = 0.5) -> Dilation:
    """The front end alone. Arguments as `dilation`."""
    return dilation(categories, in_channels, "none", dropout)


def dilation_large(categories: Sequence[str] | None = None, in_channels: int = 3, dropout: float = 0.5) -> Dilation:
    """With the large context module, as the authors published it for VOC. Arguments as `dilation`."""
    return dilation(categories, in_channels, "large", dropout)


def dilation10(categories: Sequence[str] | None = None, in_channels: int = 3, dropout: float = 0.5) -> Dilation:
    """With the context module of ten layers, as the authors published it for Cityscapes. Arguments as `dilation`."""
    return dilation(categories, in_channels, "ten", dropout)


def dilation_small(
    categories: Sequence[str] | None = None, in_channels: int = 3, context: ContextKind = "basic", dropout: float = 0.1
) -> Dilation:
    """On VGG-11 with half the channels and batch norm, fc6 of 3x3 and 256 channels, every layer padded with zeros. It
    learns from random weights on two cores: 3.0 million parameters.

    Arguments as `dilation`.
    """
    names = VOC_21 if categories is None else categories
    front_end = FrontEnd(
        in_channels,
        len(names),
        depths=DEPTHS["vgg11"],
        widths=tuple(width // 2 for width in WIDTHS),
        hidden=256,
        fc_size=3,
        padded=True,
        batch_norm=True,
        dropout=dropout,
    )
    return Dilation(names, channel_normalize(in_channels), front_end, _context(context, len(names)))
