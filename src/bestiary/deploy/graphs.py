"""What is exported: for each task a module from pictures 0..1 to answers, with everything inside that a graph can hold.

Normalisation, channel conversion, padding, softmax and suppression are inside. Bringing a picture to network scale is
outside, as runtimes resize each in its own way: `Graph.preparation` says how it is done, the sidecar repeats it, and
`bestiary.deploy.runtimes` does it with the functions that the systems use.

The modules run in torch, too, and there give exactly what the system's `predict_images` gives at network scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import ExportError
from bestiary.heads.classification import Classifier
from bestiary.heads.detection import Detector
from bestiary.heads.pixel_views import ONE_LOOK
from bestiary.heads.segmentation import PixelSystem
from bestiary.heads.views import CENTRE
from bestiary.heads.whole_picture import WholePicture
from bestiary.layers.channels import match_channels
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.proposals.proposer import Proposer
from bestiary.segmentation.deconv_net import DeconvNet
from bestiary.segmentation.farabet import Farabet
from bestiary.segmentation.pixel_windows import PixelWindows
from bestiary.segmentation.unet import UNet
from bestiary.system import FittedSystem, System

Placement = Literal["inside", "outside"]
"""Where a detector's suppression is: a part of the graph, or left to the runner."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: in the graph.
        type: "float32" or "int64".
        shape: numbers, and letters for what may be of any length.
        meaning: for the reader of the sidecar.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]
    meaning: str


class Graph(nn.Module):
    """Base: a system in evaluation mode behind a pure `forward(*inputs)`.

    Attributes:
        outputs: what `forward` returns, in order.
        preparation: how a picture is brought to network scale, plain JSON; "kind" names the rule.
        sizes_hw: two sizes of input that suit the network: what it is traced with and checked at. Two equal ones for a
            network that takes no other.
        notes: what the user must know that the graph does not do as the model does.
        decoding: what is left for the runner to do with the outputs, plain JSON; None for nothing.
        proposer: finds the regions that the graph takes beside the pictures, where `preparation` cannot name it.
    """

    outputs: tuple[Port, ...]
    preparation: Mapping[str, Any]
    sizes_hw: tuple[tuple[int, int], tuple[int, int]]
    notes: tuple[str, ...] = ()
    decoding: Mapping[str, Any] | None = None
    proposer: Proposer | None

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system.eval()
        self.proposer = None

    @property
    def inputs(self) -> tuple[Port, ...]:
        """All of them, `images` first."""
        return (self.images,)

    def others(self, images: Float[Tensor, "B C H W"]) -> tuple[Tensor, ...]:
        """Stand-ins for the inputs beside `images` that suit these: what it is traced with and checked with."""
        return ()

    @property
    def images(self) -> Port:
        """The pictures; most graphs have no other input."""
        system = self.system
        # Systems that name pixels turn colour into grey themselves; the others take what they were built for.
        channels = 3 if isinstance(system, PixelSystem) and system.in_channels == 1 else system.in_channels
        order = "RGB" if channels == 3 else f"{channels} channels"
        return Port("images", "float32", ("B", channels, "H", "W"), f"{order}, 0..1, not normalised")


class ClassifierGraph(Graph):
    """Pictures of any size (or of the crop's, where the network has fully connected layers) to probabilities; the
    evaluation protocol resizes and crops first.
    """

    outputs = (Port("probs", "float32", ("B", "K"), "softmax over the categories"),)

    def __init__(self, system: Classifier) -> None:
        super().__init__(system)
        self.network, self.normalize = system, system.normalize
        self.preparation = {
            "kind": "resize_and_crop",
            "resize": system.resize,
            "crop": system.crop,
            "rule": "shorter side to `resize`, the longer to floor(longer * resize / shorter); bilinear, antialiased; "
            "then the middle crop x crop pixels",
        }
        other = (32, 64) if system.any_size else (0, 0)
        self.sizes_hw = ((system.crop, system.crop), (system.crop + other[0], system.crop + other[1]))
        if system.views != CENTRE:
            self.notes = (f"the graph sees the centre crop, not the model's {system.views.kind} views at test time",)
            system.views = CENTRE  # of the copy that is exported, with which the graph is compared

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Probabilities."""
        return self.network(self.normalize(images)).softmax(1)


class PixelGraph(Graph):
    """Pictures of any size to logits of every pixel; the margin up to a size that suits the network is inside."""

    outputs = (
        Port(
            "logits",
            "float32",
            ("B", "K", "H", "W"),
            "the class of a pixel is the largest one's index; where `mask_threshold` is a number, it belongs to every "
            "class whose sigmoid is above it",
        ),
    )

    def __init__(self, system: WholePicture) -> None:
        super().__init__(system)
        self.network, self.normalize, self.in_channels = system, system.normalize, system.in_channels
        self.geometry, self.padding = system.geometry, system.padding
        self.notes = _look_once(system)
        self.preparation = {
            "kind": "whole",
            **_answering(system),
            "rule": "if `predict_size` is a number: shorter side to that, the longer to round(longer * predict_size / "
            "shorter), bilinear, antialiased, and the logits back, bilinear; else the picture as it is",
        }
        # not the smallest size: a map of one place anywhere would be traced as if it were always one
        least = self.geometry.covering(max(64, self.geometry.smallest + 1))
        self.sizes_hw = ((least, least + 16), (least + 11, least + 37))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits at the pictures' size."""
        if self.padding == "mirror":
            pixels = self.normalize(match_channels(_mirrored(images, self.geometry), self.in_channels))
        else:
            pixels = _filled(self.normalize(match_channels(images, self.in_channels)), self.geometry)
        return self.network(pixels)[..., : images.shape[-2], : images.shape[-1]]


class TileGraph(Graph):
    """The paper's U-Net on one tile: pixels with their surroundings in, logits of the middle out."""

    outputs = (Port("logits", "float32", ("B", "K", "H2", "W2"), "of the input without its margins"),)

    def __init__(self, system: UNet) -> None:
        super().__init__(system)
        self.network, self.normalize, self.in_channels = system, system.normalize, system.in_channels
        geometry = system.geometry
        self.notes = _look_once(system)
        self.preparation = {
            "kind": "overlap_tile",
            **_answering(system),
            "margin": geometry.margin,
            "grid": geometry.grid,
            "smallest": geometry.smallest,
            "tile_output": system.tile_output,
            "rule": "legal sides are 2 * margin + smallest + grid * n; a tile's origin is a multiple of `grid`; what "
            "lies outside the picture is mirrored at the centre of its border pixels",
        }
        least = 2 * geometry.margin + geometry.smallest
        self.sizes_hw = ((least, least + geometry.grid), (least + 2 * geometry.grid, least))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H2 W2"]:
        """Logits of the middle."""
        return self.network(self.normalize(match_channels(images, self.in_channels)))


def _answering(system: PixelSystem) -> dict[str, Any]:
    """How pictures are scaled for a dense labeller, and what is made of its logits."""
    return {
        "predict_size": system.predict_size,
        "keep_probs": system.keep_probs,
        "mask_threshold": system.mask_threshold if system.multi_label else None,
    }


def _look_once(system: PixelSystem) -> tuple[str, ...]:
    """Take from the copy that is exported what a graph has not, and say so."""
    notes = []
    if not system.test_views.is_plain:
        notes.append("the graph looks once, without the model's mirror images, scales and windows at test time")
    if system.crf is not None:
        notes.append("the graph's answers are not refined by the model's dense CRF")
    if isinstance(system, DeconvNet) and system.rules.proposals:
        notes.append("the graph looks at the whole picture at once, without the model's proposals")
        system.rules = replace(system.rules, proposals=0)
    if isinstance(system, Farabet) and system.superpixels:
        notes.append("the graph's answers are not averaged over the model's superpixels")
        system.superpixels = False
    if isinstance(system, PixelWindows):
        system.evaluation = "dense"  # the same answers
    system.test_views, system.crf = ONE_LOOK, None
    return tuple(notes)


def graph_of(system: System, nms: Placement = "inside") -> Graph:
    """The module that is exported for a system.

    Args:
        system: any.
        nms: whether the suppression of a one-stage detector is part of the graph, or left to the runner.

    Raises:
        ExportError: there is none for this kind of system, or its suppression cannot be left out.
    """
    graph = _detector_graph(system, nms) if isinstance(system, Detector) else None
    if graph is not None:
        return graph
    if nms != "inside":
        mend = "Leave --nms out"
        raise ExportError("only one-stage detectors can leave the suppression outside", where="nms", mend=mend)
    if isinstance(system, Classifier):
        return ClassifierGraph(system)
    if isinstance(system, UNet):
        return TileGraph(system)
    if isinstance(system, WholePicture):
        return PixelGraph(system)
    if isinstance(system, FittedSystem):
        mend = "Use the checkpoint: bestiary.load, or `bestiary predict`"
        raise ExportError(
            f"{system.model_name or 'it'} is no network: there is no graph of it", where="export", mend=mend
        )
    kinds = "classifiers, Fast and Faster R-CNN, R-FCN, the one-stage detectors, and the labellers of pixels"
    raise ExportError(f"got a {type(system).__name__}, wanted one of: {kinds}", where="export")


def _detector_graph(system: Detector, nms: Placement) -> Graph | None:
    from bestiary.deploy.given_regions_graph import GivenRegionsGraph
    from bestiary.deploy.one_stage_graphs import dense_graph_of
    from bestiary.deploy.region_graph import PositionGraph, RegionGraph
    from bestiary.detection.fast_rcnn import FastRCNN
    from bestiary.detection.faster_rcnn import FasterRCNN
    from bestiary.detection.r_fcn import RFCN

    if nms == "inside" and isinstance(system, FasterRCNN):
        return RegionGraph(system)
    if nms == "inside" and isinstance(system, RFCN):
        return PositionGraph(system)
    if nms == "inside" and isinstance(system, FastRCNN):
        return GivenRegionsGraph(system)
    return dense_graph_of(system, nms)


def _mirrored(images: Tensor, geometry: InputGeometry) -> Tensor:
    """Mirrored at all borders, by the margin and at the right and bottom up to sides that suit: `PixelSystem.prepare`
    with symbolic sizes.

    A side of one pixel has period 1, in which every position is pixel 0.
    """
    if geometry == InputGeometry():
        return images
    for axis in (-2, -1):
        side = images.shape[axis]
        margin = geometry.margin
        positions = torch.arange(-margin, _covering(side, geometry) + margin, device=images.device)
        # A tensor, as the exporter knows no remainder by a symbolic number.
        period = torch.scalar_tensor(torch.sym_max(1, 2 * (side - 1)), dtype=torch.int64, device=images.device)
        folded = positions.remainder(period)
        images = images.index_select(axis, torch.minimum(folded, period - folded))
    return images


def _filled(pixels: Tensor, geometry: InputGeometry) -> Tensor:
    """Zeros, which are the mean colour, where `_mirrored` puts mirror images."""
    if geometry == InputGeometry():
        return pixels
    height, width = pixels.shape[-2:]
    margin = geometry.margin
    right, bottom = _covering(width, geometry) - width + margin, _covering(height, geometry) - height + margin
    return F.pad(pixels, [margin, right, margin, bottom])


def _covering(side: int, geometry: InputGeometry) -> int:
    """`InputGeometry.covering` of a symbolic side."""
    steps = (side - geometry.smallest + geometry.grid - 1) // geometry.grid
    covered: Any = torch.sym_max(geometry.smallest, geometry.smallest + steps * geometry.grid)
    return covered
