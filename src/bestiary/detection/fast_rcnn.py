"""Fast R-CNN (Girshick, ICCV 2015): one pass of the convolutions a picture, then one small head a proposed region.

Where R-CNN runs the whole network on each region, here a region is a part of the picture's map, pooled to 7x7 by
RoIPool, and one network says its class and moves its box; the gradient of both losses reaches the convolutions.
Proposals come from outside: the system's `proposer` in prediction, `Target.proposals_xyxy` in training.

Faithful: RoIPool at stride 16, two fully connected layers with dropout, sibling outputs, the loss of both (lambda 1),
offsets divided by 0.1, 0.1, 0.2, 0.2, 64 regions of each of 2 pictures, a quarter objects (IoU from 0.5), background
with IoU from 0.1 up to 0.5, objects' own boxes among the candidates, shorter side 600 up to 1,000, NMS 0.3, truncated
SVD (section 3.1). Deviations: widths are differences of coordinates, without Caffe's + 1; RGB and ImageNet's mean and
spread for VGG-16, as torchvision's files want them; a picture without objects gives background from all its proposals;
a region that lies mostly on a crowd is neither object nor background.
Ours: regions that RoIPool rounds to the same part of the map are classified once in prediction, which changes nothing.

Background is a class inside only: index 0 of the predictor. Labels given and returned start at 0.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from bestiary.backbones.alexnet import CAFFENET_MEAN, pooled_before_norm, taps
from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Trunk
from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.box import BoxHead, BoxPredictor, RegionSettings, RoIHeads
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import VOC_20
from bestiary.heads.region_learning import (
    decode_regions,
    mean_of_regions,
    proposals_of,
    region_losses,
    sample_regions,
    weights_with_background,
)
from bestiary.heads.region_start import freeze_blocks, start_from_classifier
from bestiary.heads.truth import truths_of
from bestiary.layers.preprocess import BYTE_STD, Normalize, pad_batch
from bestiary.layers.truncated_svd import FactoredLinear, factor_state
from bestiary.ops import roi_pool
from bestiary.ops.roi_pool import rounded_edges
from bestiary.ops.rois import Boxes
from bestiary.predictions import Detections
from bestiary.proposals.chosen import chosen_proposer
from bestiary.proposals.proposer import Proposer
from bestiary.records import Losses, Target
from bestiary.system import Images

PUBLISHED = RegionSettings(per_image=64, nms_iou=0.3)
PAPER_SCALE = NetworkScale(600, 1000)
BACKGROUND_FROM = 0.1
REGIONS_AT_ONCE = 500
"""In prediction, so that thousands of regions need no more memory than these."""


class FastRCNN(Detector):
    """The system.

    Args:
        backbone: pictures to one map.
        head: pooled regions to vectors.
        categories: K names.
        proposer: finds the regions in prediction; ready, or fitted before the first prediction.
        proposal_count: regions a picture, the proposer's best.
        scale: the size at which the network sees pictures.
        regions: which regions learn what, and which boxes are answers.
        background_from: least IoU of background with some object.
        class_weights: K factors on the classification loss of each category's regions; the background's is 1, and the
            sum is still divided by the number of regions.
        normalize: of the pixels.

    Attributes:
        parts: seconds that predictions spent on "proposals", "features" and "heads" since `parts.clear()`.

    Raises:
        UsageError: no category, or weights or a number of proposals that cannot be.
    """

    head_names = ("roi_heads.box_predictor",)
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: Trunk,
        head: BoxHead,
        categories: Sequence[str],
        proposer: Proposer,
        *,
        proposal_count: int = 2000,
        scale: NetworkScale = PAPER_SCALE,
        regions: RegionSettings = PUBLISHED,
        background_from: int | float = BACKGROUND_FROM,
        class_weights: Sequence[float] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(categories, regions.max_detections)
        if proposal_count < 1:
            raise UsageError(f"got {proposal_count}, wanted 1 or more", where="proposal_count")
        if len(backbone.levels) != 1:
            raise UsageError(f"got a backbone of {len(backbone.levels)} maps, wanted one", where="FastRCNN(backbone)")
        self.backbone, self.stride = backbone, backbone.levels[0].stride
        self.roi_heads = RoIHeads(head, BoxPredictor(head.out_features, len(self.categories)))
        self.proposer, self.proposal_count = proposer, proposal_count
        self.normalize = normalize or Normalize()
        self.scale, self.regions, self.background_from = scale, regions, background_from
        self.register_buffer(
            "class_weights", weights_with_background(class_weights, len(self.categories)), persistent=False
        )
        self.parts = PartTimes()
        for part, std in (("cls_score", 0.01), ("bbox_pred", 0.001)):  # section 2.3
            layer = self.roi_heads.box_predictor.get_submodule(part)
            nn.init.normal_(layer.get_parameter("weight"), std=std)
            nn.init.zeros_(layer.get_parameter("bias"))

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C _h _w"]:
        """The map of normalised pixels."""
        return self.backbone(pixels)[0]

    def classify_regions(
        self, features: Float[Tensor, "B C H W"], boxes_xyxy: Boxes
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Logits (background first) and offsets of each picture's regions, one after the other."""
        pooled = roi_pool(features, boxes_xyxy, self.regions.bins, 1 / self.stride)
        logits, deltas = self.roi_heads(pooled)
        return logits.float(), deltas.float()

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "box_class" and "box_regression", both divided by the number of regions drawn.

        Raises:
            RecordError: a target without objects or proposals, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        proposals = proposals_of(targets)
        pixels = pad_batch([self.normalize(image) for image in images], self.stride)
        truths = [truth.to(pixels.device) for truth in truths]
        sampled = [
            sample_regions(boxes.to(pixels.device), truth, self.regions, self.background_from)
            for boxes, truth in zip(proposals, truths, strict=True)
        ]
        logits, deltas = self.classify_regions(self(pixels), [s.boxes_xyxy for s in sampled])
        losses = region_losses(logits, deltas, sampled, class_weights=self.class_weights)
        box_class, box_regression = mean_of_regions(losses)
        return Losses({"box_class": box_class, "box_regression": box_regression})

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures, boxes and proposals resized as `predict` resizes; of the truth only what `loss` reads."""
        return self.scale.bring(images, targets)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first.

        One picture after the other: the regions of one are a batch of their own.
        """
        return [self._detect(image, self.scale) for image in images]

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """With the network's size so many times as large; proposals are those of the picture as it is."""
        return [self._detect(image, self.scale.times(scale)) for image in images]

    def _detect(self, image: Shaped[Tensor, "C H W"], scale: NetworkScale) -> Detections:
        with self.parts.of("proposals"):
            proposals = self.proposer.propose(image).boxes_xyxy[: self.proposal_count].to(image.device)
        with self.parts.of("features", self):
            resized = scale.resize(self.normalize(image))
            features = self(pad_batch([resized], self.stride))
        with self.parts.of("heads", self):
            size, scaled = size_of(image), size_of(resized)
            regions = scale_boxes(proposals, size, scaled)
            logits, deltas = self.classify_once(features, regions)
            answers = logits, deltas, regions, scaled, self.regions
            boxes, labels, scores = decode_regions(
                *answers, suppression=self.suppression, max_detections=self.max_detections
            )
            original = clip_boxes(scale_boxes(boxes, scaled, size), size)
        return Detections(original, labels, scores, size_hw=size, categories=self.categories)

    def classify_once(
        self, features: Float[Tensor, "1 C H W"], regions_xyxy: Float[Tensor, "R 4"]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """`classify_regions` of one picture, in bounded memory, each part of the map that regions round to once."""
        first, index = distinct_parts(regions_xyxy, 1 / self.stride)
        answers = [self.classify_regions(features, [part]) for part in regions_xyxy[first].split(REGIONS_AT_ONCE)]
        if not answers:
            return self.classify_regions(features, [regions_xyxy])
        return torch.cat([a[0] for a in answers])[index], torch.cat([a[1] for a in answers])[index]

    # -- weights -------------------------------------------------------------------------------------------------------

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its convolutions and first two fully connected layers; and where this system's layers are
        factored, the truncated SVD of whole ones.
        """
        taken, note = start_from_classifier(state, self.state_dict())
        for name in ("fc6", "fc7"):
            layer = self.roi_heads.box_head.get_submodule(name)
            path = f"roi_heads.box_head.{name}"
            if isinstance(layer, FactoredLinear) and f"{path}.weight" in taken:
                factors = factor_state(taken, path, layer.rank)
                taken = {k: v for k, v in taken.items() if not k.startswith(path + ".")} | factors
                note = f"{note}; " if note else ""
                note += f"{name} factored to rank {layer.rank}"
        return taken, note


def distinct_parts(
    regions_xyxy: Float[Tensor, "R 4"], map_scale: float
) -> tuple[Int64[Tensor, " D"], Int64[Tensor, " R"]]:
    """Regions within a picture that RoIPool rounds to the same places of its map: the first of each kind, and the kind
    of each.
    """
    ends = [
        rounded_edges(low, high, map_scale, 1, 1 << 40, extra=1)[:, 0]
        for low, high in (regions_xyxy[:, 0::2].unbind(1), regions_xyxy[:, 1::2].unbind(1))
    ]
    kinds, index = torch.unique(torch.cat(ends, 1), dim=0, return_inverse=True)
    places = torch.arange(len(regions_xyxy), device=index.device)
    first = places.new_full((len(kinds),), len(regions_xyxy)).scatter_reduce(0, index, places, "amin")
    return first, index


def compress(system: FastRCNN, svd_ranks: Sequence[int]) -> FastRCNN:
    """A copy whose fc6 and fc7 are two thin layers each (section 3.1); it is saved and loaded like the original.

    Args:
        system: with whole layers.
        svd_ranks: of fc6 and fc7; the paper's 1,024 and 256.

    Raises:
        UsageError: it is compressed already, or a rank that a layer cannot have.
    """
    twin = copy.deepcopy(system)
    whole = twin.roi_heads.state_dict()
    factor_layers(twin.roi_heads.box_head, svd_ranks)
    for name, rank in zip(("fc6", "fc7"), svd_ranks, strict=True):
        twin.roi_heads.load_state_dict(factor_state(whole, f"box_head.{name}", rank), strict=False)
    twin.arguments = {**twin.arguments, "svd_ranks": tuple(svd_ranks)}
    return twin


def factor_layers(head: nn.Module, svd_ranks: Sequence[int]) -> None:
    """Put fresh factored layers in place of the head's fc6 and fc7; errors as in `compress`."""
    if len(svd_ranks) != 2:
        raise UsageError(f"got {tuple(svd_ranks)}, wanted two ranks, of fc6 and fc7", where="svd_ranks")
    for name, rank in zip(("fc6", "fc7"), svd_ranks, strict=True):
        layer = head.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise UsageError(f"{name} is factored already", where="svd_ranks")
        factored = FactoredLinear(layer.in_features, layer.out_features, rank)
        head.add_module(name, factored.to(layer.weight.device, layer.weight.dtype))


def _build(
    trunk: Trunk,
    head: BoxHead,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    proposals: tuple[str, Sequence[str], int],
    class_weights: Sequence[float] | None,
    svd_ranks: Sequence[int] | None,
    bins: int = 7,
    normalize: Normalize | None = None,
) -> FastRCNN:
    method, options, count = proposals
    if svd_ranks is not None:
        factor_layers(head, svd_ranks)
    return FastRCNN(
        trunk,
        head,
        VOC_20 if categories is None else categories,
        chosen_proposer(method, options),
        proposal_count=count,
        scale=NetworkScale(*sizes),
        regions=replace(PUBLISHED, bins=bins),
        class_weights=class_weights,
        normalize=normalize,
    )


def fast_rcnn_vgg16(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 2000,
    class_weights: Sequence[float] | None = None,
    svd_ranks: Sequence[int] | None = None,
    frozen_blocks: int = 0,
) -> FastRCNN:
    """The paper's model L, on VGG-16: 134,690,729 parameters with 20 categories.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        proposals: how regions are found; `bestiary proposals` lists the methods.
        proposal_options: of the method, each written `name=value`; of several values `name=value+value`.
        proposal_count: regions a picture, the best.
        class_weights: K factors on the classification loss of each category's regions; none for 1.
        svd_ranks: ranks of fc6 and fc7, which are then two thin layers each; the paper's are 1024,256. Weights of whole
            layers are factored as they are loaded.
        frozen_blocks: how many of the first blocks of convolutions stay as they are; the paper's 2 suit ImageNet's
            weights, none suits random ones.

    Raises:
        UsageError: a value that cannot be.
    """
    trunk = VGG(DEPTHS["vgg16"], maps=("C4",))
    freeze_blocks(trunk, frozen_blocks)
    head = BoxHead(trunk.channels, 7, 4096, dropout=0.5)
    chosen = proposals, proposal_options, proposal_count
    return _build(trunk, head, categories, (min_size, max_size), chosen, class_weights, svd_ranks)


def fast_rcnn_alexnet(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 2000,
    class_weights: Sequence[float] | None = None,
    svd_ranks: Sequence[int] | None = None,
    frozen_blocks: int = 0,
) -> FastRCNN:
    """The paper's model S, on CaffeNet, with 6x6 bins; blue, green, red pixels 0..255. Arguments as `fast_rcnn_vgg16`.

    The first convolution and the pools are padded, so that a place of the map lies over its own 16 pixels.
    """
    layers = pooled_before_norm()
    level = taps(layers)
    place = next(p for p, known in level.items() if known.stride == 16)
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            layer.padding = 1
    layers.get_submodule("0").padding = (5, 5)  # type: ignore[assignment]
    trunk = Chain(layers, {place: level[place]})
    freeze_blocks(trunk, frozen_blocks)
    head = BoxHead(level[place].channels, 6, 4096, dropout=0.5)
    chosen = proposals, proposal_options, proposal_count
    normalize = Normalize(CAFFENET_MEAN, BYTE_STD, "bgr")
    return _build(trunk, head, categories, (min_size, max_size), chosen, class_weights, svd_ranks, 6, normalize)


def fast_rcnn_small(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 320,
    max_size: int = 533,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 1000,
    class_weights: Sequence[float] | None = None,
    svd_ranks: Sequence[int] | None = None,
) -> FastRCNN:
    """For small machines: half of VGG-11 with trainable batch norm, fc6 and fc7 of 512 without dropout; it learns from
    random weights. Arguments as `fast_rcnn_vgg16`.
    """
    trunk = vgg11_bn_half()
    head = BoxHead(trunk.channels, 7, 512)
    chosen = proposals, proposal_options, proposal_count
    return _build(trunk, head, categories, (min_size, max_size), chosen, class_weights, svd_ranks)
