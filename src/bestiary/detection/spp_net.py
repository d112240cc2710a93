"""SPP-net as a detector (He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual
Recognition, ECCV 2014, section 4).

The convolutions run once over the whole picture, at several scales; a region takes what lies under it from the map of
the scale that brings it nearest to 224 x 224 pixels, in 6x6, 3x3, 2x2 and 1x1 bins. As in R-CNN, SVMs judge the last
hidden layer and ridge regressions on the pooled features move the regions (`heads.region_stages`).

Faithful: five scales, 50 bins, only the fully connected layers are fine-tuned (the convolutions, frozen when the system
is built, keep another network's weights and their norms' statistics), negatives with overlap from 0.1 to 0.5 there as
in the authors' code, below 0.3 for the SVMs. As in that code, it is the maps that are kept on disk while training:
pooled features of 2,000 regions take six times the room. Deviations: those of R-CNN's; fine-tuning always pools from
the nearest scale, where the authors' code draws one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.array_cache import ArrayCache, key_of
from bestiary.backbones.alexnet import taps
from bestiary.backbones.chain import Chain
from bestiary.backbones.levels import Trunk
from bestiary.backbones.vgg import vgg11_bn_half
from bestiary.backbones.zfnet import convolutions
from bestiary.errors import UsageError
from bestiary.geometry.boxes import box_area, scale_boxes
from bestiary.heads.box import BoxHead
from bestiary.heads.kept_features import StateHash, kept
from bestiary.heads.published import VOC_20
from bestiary.heads.region_stages import RegionRules, StagedRegions
from bestiary.heads.region_start import start_from_classifier
from bestiary.layers.channels import match_channels
from bestiary.layers.preprocess import BYTE_STD, Normalize
from bestiary.ops.pyramid_pooling import spatial_pyramid_pool_regions
from bestiary.ops.receptive_fields import receptive_field
from bestiary.proposals.chosen import chosen_proposer
from bestiary.proposals.proposer import Proposer

PAPER_SCALES = (480, 576, 688, 864, 1200)
"""Shorter sides (section 4.1). The authors' code has 874 in place of 864."""

PAPER_RULES = RegionRules(background_from=0.1)
BINS = (6, 3, 2, 1)
HEAD = ("roi_heads.box_head.fc6.weight", "roi_heads.cls_score.weight")
PLENTY = 512
"""Side of a picture in which a map's pixels see no border."""


class Maps(NamedTuple):
    """A picture's convolutions.

    Attributes:
        size_hw: of the picture.
        maps: of each scale.
    """

    size_hw: tuple[int, int]
    maps: list[Float[Tensor, "1 C _h _w"]]


class SPPNet(StagedRegions):
    """The system.

    Args:
        backbone: pictures to one map; frozen here.
        hidden: units of fc6 and fc7.
        categories: K names.
        proposer: finds the regions.
        normalize: pixels as the backbone wants them.
        scales: shorter sides that the picture is seen at.
        region_side: regions are taken from the scale at which they have nearest this many pixels squared.
        bins: a side of each grid of the pyramid.
        dropout: after fc6 and fc7, in fine-tuning.
        rules: which regions the stages learn from, and which are answers.
        box_examples: regions of a category that its box regressor learns from; None for all.
        class_weights: factors on the loss of each category in fine-tuning; the background has 1.

    Raises:
        UsageError: no scale, or one that is not positive; or as `StagedRegions`.
    """

    def __init__(
        self,
        backbone: Trunk,
        hidden: int,
        categories: Sequence[str],
        *,
        proposer: Proposer,
        normalize: Normalize,
        scales: Sequence[int] = PAPER_SCALES,
        region_side: int = 224,
        bins: Sequence[int] = BINS,
        dropout: float = 0.5,
        rules: RegionRules = PAPER_RULES,
        box_examples: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        width = backbone.levels[-1].channels * sum(n * n for n in bins)
        super().__init__(
            backbone,
            BoxHead(width, 1, hidden, dropout=dropout),
            categories,
            proposer=proposer,
            normalize=normalize,
            rules=rules,
            box_examples=box_examples,
            class_weights=class_weights,
        )
        if not scales or min(scales) < 1 or region_side < 1:
            raise UsageError(f"got {tuple(scales)} and {region_side}, wanted positive numbers", where="scales")
        self.scales, self.region_side, self.bins = tuple(scales), region_side, tuple(bins)
        with torch.device("cpu"):  # it computes with places, which a device without values cannot
            field = receptive_field(backbone, (1, backbone.in_channels, PLENTY, PLENTY))[-1].axes[0].field
        self.stride, self.first_centre = float(field.stride), float(field.offset)
        self._convolutions = StateHash()
        backbone.requires_grad_(False)
        backbone.eval()

    def train(self, mode: bool = True) -> "SPPNet":
        """The convolutions stay in evaluation mode: their norms keep the statistics that they came with."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """The map of normalised pixels."""
        return self.backbone(pixels)[-1]

    @torch.no_grad()
    def look(self, image: Shaped[Tensor, "C H W"]) -> Maps:
        """The maps of all scales."""
        pixels = self.normalize(match_channels(image, len(self.normalize.mean)))
        # The region kernels read maps with channels innermost as they are.
        return Maps((int(image.shape[-2]), int(image.shape[-1])), [self(self._resized(pixels, s)) for s in self.scales])

    def kept_look(self, image: Shaped[Tensor, "C H W"], cache: ArrayCache | None) -> Maps:
        """The maps, from the cache: as long as the convolutions stay, a picture passes through them once."""
        if cache is None:
            return self.look(image)
        learned = self._convolutions.of([self.backbone])
        key = key_of("maps", {**self.settings(), "bins": 0}, learned, image)
        found = kept(cache, key, lambda: {str(i): m for i, m in enumerate(self.look(image).maps)})
        maps = [found[str(i)].to(image.device) for i in range(len(self.scales))]
        return Maps((int(image.shape[-2]), int(image.shape[-1])), maps)

    def pooled(self, looks: Sequence[Maps], regions_xyxy: Sequence[Float[Tensor, "_r 4"]]) -> Float[Tensor, "R P 1 1"]:
        """The pyramid of each region: levels in the order of `bins`, in each the channels, of each its bins."""
        parts = []
        for look, regions in zip(looks, regions_xyxy, strict=True):
            nearest = self.nearest_scale(look.size_hw, regions)
            pooled = regions.new_zeros(len(regions), self.roi_heads.box_head.fc6.in_features)
            for i, side in enumerate(self.scales):
                rows = (nearest == i).nonzero()[:, 0]
                if len(rows):
                    scaled = scale_boxes(regions[rows], look.size_hw, self._size_at(look.size_hw, side))
                    features = spatial_pyramid_pool_regions(
                        look.maps[i].float(), [scaled], self.stride, self.bins, first_centre=self.first_centre
                    )
                    pooled = pooled.index_copy(0, rows, features)
            parts.append(pooled)
        return torch.cat(parts)[:, :, None, None]

    def nearest_scale(self, size_hw: tuple[int, int], regions_xyxy: Float[Tensor, "R 4"]) -> Int64[Tensor, " R"]:
        """Index of the scale at which each region's area is nearest to `region_side` squared, the first on a tie."""
        factors = regions_xyxy.new_tensor([side / min(size_hw) for side in self.scales])
        areas = box_area(regions_xyxy)[:, None] * factors.square()
        return (areas - self.region_side**2).abs().argmin(1)

    def _resized(self, pixels: Float[Tensor, "C H W"], side: int) -> Float[Tensor, "1 C H2 W2"]:
        size_hw = self._size_at((int(pixels.shape[-2]), int(pixels.shape[-1])), side)
        resized = F.interpolate(pixels[None], size=size_hw, mode="bilinear", align_corners=False)
        return resized.contiguous(memory_format=torch.channels_last)

    def _size_at(self, size_hw: tuple[int, int], side: int) -> tuple[int, int]:
        height, width = (max(1, round(length * side / min(size_hw))) for length in size_hw)
        return height, width

    def settings(self) -> Mapping[str, Any]:
        """What of it decides the features beside what was learned."""
        return {"system": "spp_net", "scales": self.scales, "bins": self.bins, "region_side": self.region_side}

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its convolutions and as many fully connected layers as fit; of another detector on the same
        backbone, its convolutions.
        """
        own = self.state_dict()
        is_own = set(own) <= set(state) and all(state[name].shape == own[name].shape for name in HEAD)
        convolutions = {n: v for n, v in state.items() if n.startswith("backbone.") and n in own}
        if is_own or not convolutions:
            return start_from_classifier(state, own)
        return convolutions, "starts from another detector: its convolutions"


def _build(
    backbone: Trunk,
    hidden: int,
    categories: Sequence[str] | None,
    proposals: tuple[str, Sequence[str], int],
    scales: Sequence[int],
    region_side: int,
    class_weights: Sequence[float] | None,
    dropout: float,
    normalize: Normalize | None = None,
    box_examples: int | None = None,
) -> SPPNet:
    method, options, count = proposals
    if count < 1:
        raise UsageError(f"got {count}, wanted 1 or more", where="proposal_count")
    return SPPNet(
        backbone,
        hidden,
        VOC_20 if categories is None else categories,
        proposer=chosen_proposer(method, options),
        normalize=normalize or Normalize(),
        scales=scales,
        region_side=region_side,
        dropout=dropout,
        rules=replace(PAPER_RULES, max_proposals=count),
        box_examples=box_examples,
        class_weights=class_weights,
    )


def spp_net_zf(
    categories: Sequence[str] | None = None,
    *,
    scales: Sequence[int] = PAPER_SCALES,
    region_side: int = 224,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 2000,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> SPPNet:
    """The paper's, on ZFNet's five convolutions (ZF-5).

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        scales: shorter sides that a picture is seen at.
        region_side: a region is taken from the scale at which its area is nearest to this side squared.
        proposals: how regions are found; `bestiary proposals` lists the methods.
        proposal_options: of the method, each written `name=value`.
        proposal_count: regions a picture, the best.
        class_weights: K factors on the loss of each category's regions in fine-tuning; none for 1.
        dropout: after fc6 and fc7, in fine-tuning.

    Raises:
        UsageError: a value that cannot be.
    """
    layers = convolutions(radius=None)
    place, level = next((p, level) for p, level in taps(layers).items() if level.stride == 16)
    chosen, normalize = (proposals, proposal_options, proposal_count), Normalize(std=BYTE_STD)
    return _build(
        Chain(layers, {place: level}),
        4096,
        categories,
        chosen,
        scales,
        region_side,
        class_weights,
        dropout,
        normalize,
    )


def spp_net_small(
    categories: Sequence[str] | None = None,
    *,
    scales: Sequence[int] = (480, 688),
    region_side: int = 224,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 1000,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.0,
) -> SPPNet:
    """For small machines: half of VGG-11 with batch norm, two scales, fc6 and fc7 of 512. Its convolutions come from
    another system on the same trunk, such as a trained `rcnn_small`. Arguments as `spp_net_zf`.
    """
    chosen = proposals, proposal_options, proposal_count
    backbone = vgg11_bn_half()
    return _build(backbone, 512, categories, chosen, scales, region_side, class_weights, dropout, box_examples=5000)
