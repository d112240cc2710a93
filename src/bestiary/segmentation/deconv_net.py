"""DeconvNet: Noh, Hong, Han: Learning Deconvolution Network for Semantic Segmentation, ICCV 2015.

A VGG-16 down to a single vector, and its mirror image of unpoolings and transposed convolutions back up, applied to one
proposed window after the other; the pixelwise maximum of their scores is the picture's (equation 1). Faithful to the
paper and the authors' files: layers, widths and batch norm; windows of 224 x 224 around boxes 1.2 times as large; first
learned on single objects, everything else called background, then on proposals with all that is in them; crops of
224/250 of a window; the best 50 EdgeBoxes with both sides of 112 pixels at least; scores below 0 count as 0; black
beyond the picture. `heads.pixel_ensemble` joins it with a fully convolutional network, as the paper's best form does.

Ours: an object is a connected part of one class, as label maps tell no more; where the categories have no background,
the first stage keeps all labels of a window; proposals are learned from if one object has an IoU of 0.5 with them; the
whole picture is always one of the windows, in training and in prediction, so that every pixel is judged; RGB with
ImageNet's mean and spread, as the published VGG-16 wants it. With `predict_proposals=0` the network sees the picture at
once: fc6 is a 7x7 convolution without padding, so that any side of 224 + 32 n pixels will do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn

from bestiary.backbones.vgg_start import start_named
from bestiary.backbones.vgg_table import DEPTHS, WIDTHS
from bestiary.errors import UsageError
from bestiary.heads.label_windows import (
    LabelledObjects,
    Window,
    cut_window,
    objects_of,
    put_maximum,
    whole_pixels,
    widened,
    window_warp,
)
from bestiary.heads.published import VOC_21
from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.channels import match_channels
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize
from bestiary.layers.switched import SwitchedEncoder, UnpoolingDecoder, fresh_norm, mirrored_rows, start_by_inputs
from bestiary.ops.overlaps import box_iou
from bestiary.proposals.chosen import chosen_proposer
from bestiary.proposals.proposer import Proposer
from bestiary.records import IGNORE_LABEL, Losses, Target
from bestiary.system import Images
from bestiary.transforms.moving import move_target

STAGES = ("objects", "proposals")

CROP = 224 / 250
"""Side of the part of a window that training sees."""

AT_ONCE = 8
"""Windows of one forward pass in prediction."""


@dataclass(frozen=True)
class WindowRules:
    """Which windows of a picture are learned from and which are looked at.

    Attributes:
        crops: windows a picture in training.
        context: how many times as wide and high as its box a window is.
        least_iou: of a proposal with some object, to be learned from.
        proposals: looked at in prediction, the best; 0 for the whole picture at once.
        least_side: of a proposal's shorter side, pixels, to be looked at.

    Raises:
        UsageError: a number out of range.
    """

    crops: int = 4
    context: int | float = 1.2
    least_iou: int | float = 0.5
    proposals: int = 50
    least_side: int | float = 112

    def __post_init__(self) -> None:
        fits = self.crops >= 1 and self.proposals >= 0 and self.context > 0 and self.least_side >= 0
        if not fits or not 0 <= self.least_iou <= 1:
            raise UsageError(f"got {self}, wanted a crop at least and no number below 0", where="DeconvNet")


class DeconvNet(WholePicture):
    """The system: 251,805,653 parameters with VGG-16, fc6 and fc7 of 4,096 and 21 categories.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        proposer: finds the windows.
        depths: convolutions of each of the encoder's blocks, five in the paper.
        widths: their channels.
        hidden: channels of fc6 and fc7.
        cells: side of the map that fc6 reads: of five blocks a 32nd of a window's.
        rules: which windows.
        proposal_count: proposals that training chooses among, the best of each picture.

    Attributes:
        side: of a window as the network sees it.

    Raises:
        UsageError: a number of proposals that cannot be.
    """

    padding: ClassVar[Padding] = "mean"
    head_names = ("classifier",)
    encoder: SwitchedEncoder
    decoder: UnpoolingDecoder
    classifier: nn.Conv2d

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        proposer: Proposer,
        *,
        depths: Sequence[int] = DEPTHS["vgg16"],
        widths: Sequence[int] = WIDTHS,
        hidden: int = 4096,
        cells: int = 7,
        rules: WindowRules | None = None,
        proposal_count: int = 2000,
    ) -> None:
        super().__init__(categories, normalize)
        if proposal_count < 1:
            raise UsageError(f"got {proposal_count}, wanted 1 or more", where="proposal_count")
        stride = 2 ** len(depths)
        self.depths, self.side = depths, stride * cells
        self.geometry = InputGeometry(grid=stride, smallest=self.side)
        self.proposer, self.proposal_count, self.rules = proposer, proposal_count, rules or WindowRules()
        self.stage = "proposals"
        self.encoder = SwitchedEncoder(self.in_channels, depths, widths)
        self.fc6, self.fc6_bn = nn.Conv2d(widths[-1], hidden, cells), fresh_norm(hidden)
        self.fc7, self.fc7_bn = nn.Conv2d(hidden, hidden, 1), fresh_norm(hidden)
        self.fc6_deconv, self.fc6_deconv_bn = nn.ConvTranspose2d(hidden, widths[-1], cells), fresh_norm(widths[-1])
        self.decoder = UnpoolingDecoder(widths[-1], mirrored_rows(depths, widths), transposed=True)
        self.classifier = nn.Conv2d(widths[0], len(self.categories), 1)
        start_by_inputs(self)
        for part in (self.fc6_deconv, self.decoder, self.classifier):
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(module.weight, std=0.01)

    # -- the network ---------------------------------------------------------------------------------------------------

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel of a window, or of a picture of a larger legal size."""
        features, switches = self.encoder(pixels)  # 7 x 7 of 224
        features = self.fc6_bn(self.fc6(features)).relu()  # 1 x 1
        features = self.fc7_bn(self.fc7(features)).relu()
        features = self.fc6_deconv_bn(self.fc6_deconv(features)).relu()  # 7 x 7
        return PixelOutputs(self.classifier(self.decoder(features, switches)))

    # -- training ------------------------------------------------------------------------------------------------------

    def begin_stage(self, name: str) -> None:
        """objects: windows around one object each. proposals: windows around proposals."""
        if name not in STAGES:
            raise UsageError(f"got {name!r}, wanted one of {', '.join(STAGES)}", where="DeconvNet")
        self.stage = name

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The objective on `rules.crops` windows of every picture.

        Raises:
            RecordError: a target without label map, of another size than its picture, or with a label that is no
            category.
        """
        pictures = list(images)
        self.truth_of(pictures, targets)  # refuses what is no truth, in the pictures' own terms
        windows: list[Tensor] = []
        truths: list[Target] = []
        for picture, target in zip(pictures, targets, strict=True):
            objects = self._objects(picture, target)
            known = Target(
                label_map=target.label_map,
                weight_map=target.weight_map,
                objects=target.objects if self.multi_label else None,
            ).to("cpu")
            for _ in range(self.rules.crops):
                box, single = self.draw_box(objects, target)
                window = whole_pixels(cropped_at_random(widened(box, self.rules.context)))
                warp = window_warp((int(picture.shape[-2]), int(picture.shape[-1])), window, self.side)
                seen = known if single is None else self._single_object(known, objects, single)
                windows.append(cut_window(picture, window, self.side))
                truths.append(move_target(seen, warp).to(picture.device))
        return super().loss(windows, truths)

    @property
    def background(self) -> int | None:
        """The label that is no object: the first category, if it is called so."""
        return 0 if self.categories[0] == "background" else None

    def draw_box(self, objects: LabelledObjects, target: Target) -> tuple[Float32[Tensor, "4"], int | None]:
        """A box to learn from, and in the first stage which object it is of.

        Objects are drawn class by class, so that a picture's rare classes are seen as often as its frequent ones.
        """
        height, width = objects.numbers.shape
        whole = torch.tensor([0.0, 0.0, float(width), float(height)])
        if self.stage == "objects" or target.proposals_xyxy is None:
            if not len(objects.labels):
                return whole, None
            present = objects.labels.unique()
            label = present[torch.randint(len(present), ())]
            own = (objects.labels == label).nonzero()[:, 0]
            chosen = int(own[torch.randint(len(own), ())])
            return objects.boxes_xyxy[chosen], chosen if self.stage == "objects" else None
        proposals = target.proposals_xyxy.cpu()
        near = box_iou(proposals, objects.boxes_xyxy) >= self.rules.least_iou
        candidates = torch.cat([proposals[near.any(1)], whole[None]])
        return candidates[torch.randint(len(candidates), ())], None

    def _objects(self, picture: Shaped[Tensor, "C H W"], target: Target) -> LabelledObjects:
        """What windows are drawn around: parts of the label map; of classes that may overlap the annotated objects."""
        if target.label_map is not None and not self.multi_label:
            return objects_of(target.label_map.cpu(), self.background)
        numbers = torch.zeros(picture.shape[-2:], dtype=torch.int32)
        if target.objects is None:
            return LabelledObjects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), numbers)
        return LabelledObjects(target.objects.boxes_xyxy.cpu(), target.objects.labels.cpu(), numbers)

    def _single_object(self, known: Target, objects: LabelledObjects, chosen: int) -> Target:
        """The truth with everything but one object called background, where there is such a category."""
        if self.background is None or known.label_map is None or self.multi_label:
            return known
        other = (objects.numbers != chosen + 1) & (known.label_map != IGNORE_LABEL)
        return replace(known, label_map=known.label_map.masked_fill(other, self.background))

    # -- prediction ----------------------------------------------------------------------------------------------------

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """The pictures' aggregated scores; with `rules.proposals` 0, logits of the whole pictures at once."""
        if not self.rules.proposals:
            yield from super().logit_windows(images)
            return
        yield 0, 0, torch.stack([self.aggregate(image, self.windows_of(image)) for image in images])

    def windows_of(self, image: Shaped[Tensor, "C H W"]) -> list[Window]:
        """What prediction looks at: the whole picture, and windows around the best proposals that are large enough."""
        boxes = self.proposer.propose(image).boxes_xyxy.cpu()
        sides = boxes[:, 2:] - boxes[:, :2]
        large = boxes[sides.amin(1) >= self.rules.least_side][: self.rules.proposals]
        whole = (0, 0, int(image.shape[-1]), int(image.shape[-2]))
        return [whole, *(whole_pixels(widened(box, self.rules.context)) for box in large)]

    def aggregate(self, image: Shaped[Tensor, "C H W"], windows: Sequence[Window]) -> Float[Tensor, "K H W"]:
        """Pixelwise maximum of the windows' scores, and of 0."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        canvas = self.classifier.weight.new_zeros(len(self.categories), height, width)
        for start in range(0, len(windows), AT_ONCE):
            some = windows[start : start + AT_ONCE]
            scores = self(torch.stack([self._window_pixels(image, window) for window in some]))
            for window, score in zip(some, scores, strict=True):
                put_maximum(canvas, score, window)
        return canvas

    def _window_pixels(self, image: Shaped[Tensor, "C H W"], window: Window) -> Float[Tensor, "C2 S S"]:
        return self.normalize(match_channels(cut_window(image, window, self.side)[None], self.in_channels))[0]

    # -- weights -------------------------------------------------------------------------------------------------------

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG classifier as deep, its convolutions and norms, fc6 and fc7."""
        return start_named(state, self.state_dict(), self.depths, {"conv": "encoder.", "fc": ""})


def cropped_at_random(box_xyxy: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
    """A part of the box, 224 of 250 of each side, at a random place."""
    size = box_xyxy[2:] - box_xyxy[:2]
    corner = box_xyxy[:2] + torch.rand(2, device=size.device) * (1 - CROP) * size
    return torch.cat([corner, corner + CROP * size])


def deconv_net(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    *,
    proposals: str = "edge_boxes",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 2000,
    predict_proposals: int = 50,
    least_side: int = 112,
    crops: int = 4,
) -> DeconvNet:
    """The paper's, on VGG-16. `--weights vgg16` or `vgg16_bn` starts from ImageNet.

    Args:
        categories: K names; None gives PASCAL VOC's 20 and background.
        in_channels: channels of a picture.
        proposals: how windows are found; `bestiary proposals` lists the methods.
        proposal_options: of the method, each written `name=value`.
        proposal_count: proposals that training chooses among.
        predict_proposals: windows that prediction looks at, beside the whole picture; 0 for the picture at once.
        least_side: pixels; proposals with a shorter side are not looked at.
        crops: windows a picture and step.

    Raises:
        UsageError: a value that cannot be.
    """
    rules = WindowRules(crops, proposals=predict_proposals, least_side=least_side)
    return DeconvNet(
        VOC_21 if categories is None else categories,
        channel_normalize(in_channels),
        chosen_proposer(proposals, proposal_options),
        rules=rules,
        proposal_count=proposal_count,
    )


def deconv_net_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    *,
    proposals: str = "edge_boxes",
    proposal_options: Sequence[str] = ("max_boxes=200",),
    proposal_count: int = 200,
    predict_proposals: int = 4,
    least_side: int = 48,
    crops: int = 2,
) -> DeconvNet:
    """On VGG-11 with half the channels, windows of 96 x 96, fc6 of 3x3 cells and fc7 of 256 channels, which learns from
    random weights on two cores: 5.9 million parameters.

    Arguments as `deconv_net`.
    """
    rules = WindowRules(crops, proposals=predict_proposals, least_side=least_side)
    return DeconvNet(
        VOC_21 if categories is None else categories,
        channel_normalize(in_channels),
        chosen_proposer(proposals, proposal_options),
        depths=DEPTHS["vgg11"],
        widths=tuple(width // 2 for width in WIDTHS),
        hidden=256,
        cells=3,
        rules=rules,
        proposal_count=proposal_count,
    )
