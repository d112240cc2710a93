"""R-CNN (Girshick, Donahue, Darrell, Malik: Rich feature hierarchies for accurate object detection and semantic
segmentation, CVPR 2014).

Every proposed region is stretched to the network's input with 16 pixels of context and goes through the whole network;
a linear SVM for each category judges the last hidden layer, a ridge regression on the last pooled map moves the region,
and answers are suppressed within their category. Thresholds and solvers are the authors' code's
(`heads.region_stages`, `region_rules`, `region_svm`, `ridge_boxes`, `warped_regions`).

Deviations: the windows of a step of fine-tuning come from the pictures of its batch, not from all windows of all
pictures, which would decode a picture a window. Scores are probabilities: margins through a sigmoid fitted for each
category. Corners of windows are not rounded to whole pixels. Box regressors learn from proposals alone, not from the
objects' own boxes too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.backbones.alexnet import CAFFENET_MEAN, AlexNet, map_side, pooled_before_norm
from bestiary.backbones.levels import Trunk
from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.heads.box import BoxHead
from bestiary.heads.published import VOC_20
from bestiary.heads.region_stages import PAPER_RULES, RegionRules, StagedRegions
from bestiary.heads.region_start import start_from_classifier
from bestiary.heads.warped_regions import warp_regions
from bestiary.layers.channels import match_channels
from bestiary.layers.preprocess import BYTE_STD, Normalize
from bestiary.proposals.chosen import chosen_proposer
from bestiary.proposals.proposer import Proposer


class RCNN(StagedRegions):
    """The system.

    Args:
        backbone: windows to maps, of which the last is pooled already (pool5).
        box_head: of that map.
        categories: K names.
        proposer: finds the regions.
        normalize: pixels as the backbone wants them.
        window: side of the network's input.
        context: pixels of it on every side that show what is around the region.
        rules: which regions the stages learn from, and which are answers.
        box_examples: regions of a category that its box regressor learns from; None for all.
        class_weights: factors on the loss of each category in fine-tuning; the background has 1.

    Raises:
        UsageError: context that leaves no room for the region, or as `StagedRegions`.
    """

    pooling_part: ClassVar[str] = "features"

    def __init__(
        self,
        backbone: Trunk,
        box_head: BoxHead,
        categories: Sequence[str],
        *,
        proposer: Proposer,
        normalize: Normalize,
        window: int = 227,
        context: int = 16,
        rules: RegionRules = PAPER_RULES,
        box_examples: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            backbone,
            box_head,
            categories,
            proposer=proposer,
            normalize=normalize,
            rules=rules,
            box_examples=box_examples,
            class_weights=class_weights,
        )
        if not 0 <= 2 * context < window:
            raise UsageError(f"got context={context}, window={window}, wanted 0 <= 2 context < window")
        self.window, self.context = window, context

    def forward(self, pixels: Float[Tensor, "R C S S"]) -> Float[Tensor, "R K1"]:
        """Logits of normalised windows, the background's first."""
        return self.roi_heads(self.backbone(pixels)[-1])

    def look(self, image: Shaped[Tensor, "C H W"]) -> Float[Tensor, "C2 H W"]:
        """Normalised pixels."""
        return self.normalize(match_channels(image, len(self.normalize.mean)))

    def pooled(
        self, looks: Sequence[Float[Tensor, "C _h _w"]], regions_xyxy: Sequence[Float[Tensor, "_r 4"]]
    ) -> Float[Tensor, "R P S S"]:
        """The last map of each region's window; all windows are one batch."""
        pairs = zip(looks, regions_xyxy, strict=True)
        windows = [warp_regions(pixels, regions, self.window, self.context) for pixels, regions in pairs]
        return self.backbone(torch.cat(windows))[-1]

    def settings(self) -> Mapping[str, Any]:
        """What of it decides the features beside what was learned."""
        return {"system": "rcnn", "window": self.window, "context": self.context}

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its convolutions and first two fully connected layers."""
        return start_from_classifier(state, self.state_dict())


def _build(
    backbone: Trunk,
    box_head: BoxHead,
    categories: Sequence[str] | None,
    proposals: tuple[str, Sequence[str], int],
    window: tuple[int, int],
    class_weights: Sequence[float] | None,
    normalize: Normalize | None = None,
    box_examples: int | None = None,
) -> RCNN:
    method, options, count = proposals
    if count < 1:
        raise UsageError(f"got {count}, wanted 1 or more", where="proposal_count")
    return RCNN(
        backbone,
        box_head,
        VOC_20 if categories is None else categories,
        proposer=chosen_proposer(method, options),
        normalize=normalize or Normalize(),
        window=window[0],
        context=window[1],
        rules=replace(PAPER_RULES, max_proposals=count),
        box_examples=box_examples,
        class_weights=class_weights,
    )


def rcnn_alexnet(
    categories: Sequence[str] | None = None,
    *,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 2000,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> RCNN:
    """The paper's, on CaffeNet (blue, green, red pixels 0..255): 56,954,261 parameters with 20 categories.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        proposals: how regions are found; `bestiary proposals` lists the methods.
        proposal_options: of the method, each written `name=value`.
        proposal_count: regions a picture, the best.
        class_weights: K factors on the loss of each category's windows in fine-tuning; none for 1.
        dropout: after fc6 and fc7, in fine-tuning.

    Raises:
        UsageError: a value that cannot be.
    """
    layers = pooled_before_norm()
    head = BoxHead(256, map_side(layers, 227), 4096, dropout=dropout)
    chosen, normalize = (proposals, proposal_options, proposal_count), Normalize(CAFFENET_MEAN, BYTE_STD, "bgr")
    return _build(AlexNet(layers), head, categories, chosen, (227, 16), class_weights, normalize)


def rcnn_vgg16(
    categories: Sequence[str] | None = None,
    *,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 2000,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> RCNN:
    """On VGG-16 with windows of 224, the paper's "O-Net": 134,346,581 parameters with 20 categories.

    Arguments as `rcnn_alexnet`.
    """
    trunk = VGG(DEPTHS["vgg16"], maps=("C5",))
    head = BoxHead(trunk.channels, 7, 4096, dropout=dropout)
    chosen = proposals, proposal_options, proposal_count
    return _build(trunk, head, categories, chosen, (224, 16), class_weights)


def rcnn_small(
    categories: Sequence[str] | None = None,
    *,
    window: Literal[64, 96, 112, 128] = 64,
    proposals: str = "selective_search_fast",
    proposal_options: Sequence[str] = (),
    proposal_count: int = 1000,
    class_weights: Sequence[float] | None = None,
    dropout: float = 0.0,
) -> RCNN:
    """For small machines: half of VGG-11 with batch norm, fc6 and fc7 of 512; it learns from random weights.

    Arguments as `rcnn_alexnet`.

    Args:
        window: side of the network's input, of which a fourteenth on every side is context, as 16 are of 227.
    """
    trunk = vgg11_bn_half(maps=("C5",))
    head = BoxHead(trunk.channels, window // 32, 512, dropout=dropout)
    chosen = proposals, proposal_options, proposal_count
    return _build(trunk, head, categories, chosen, (window, round(window / 14)), class_weights, box_examples=5000)
