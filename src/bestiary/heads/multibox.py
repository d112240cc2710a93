"""Classes and offsets of default boxes: the layers, what they learn, and their answers (Liu et al., SSD, ECCV 2016).

Pure functions around two stacks of convolutions; which maps and which boxes are the system's. Background is class 0 of
the logits; category k has class k + 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bestiary.assign.bipartite import give_each_its_best
from bestiary.assign.box_codec import BoxCodec
from bestiary.assign.matcher import Assignment, ThresholdMatcher
from bestiary.backbones.separable import depthwise, initialise
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes
from bestiary.heads.suppression import HARD, Suppression
from bestiary.heads.truth import Truth, assign
from bestiary.layers.activation import ReLU6
from bestiary.layers.lone_norm import LoneBatchNorm2d
from bestiary.losses.classification import cross_entropy_loss
from bestiary.losses.regression import smooth_l1_loss

MULTIBOX_CODEC = BoxCodec((10.0, 10.0, 5.0, 5.0))
"""Offsets divided by the authors' variances 0.1, 0.1, 0.2, 0.2."""

Predictor = Callable[[int, int], nn.Module]
"""Makes the layer that reads a map: from its channels to as many numbers a cell."""


@dataclass(frozen=True)
class MultiBoxSettings:
    """Who learns, and what is an answer.

    Attributes:
        positive_iou: least overlap of a default box with an object that it learns; below it is background.
        negatives: so many background boxes learn for each that learns an object.
        box_weight: of the regression beside the classification; the paper's alpha.
        min_score: answers have a higher probability.
        candidates: boxes of each category that suppression looks at, the best.
        nms_iou: overlap above which the worse of two boxes of a category goes.
        max_detections: answers a picture.
    """

    positive_iou: int | float = 0.5
    negatives: int | float = 3
    box_weight: int | float = 1.0
    min_score: int | float = 0.01
    candidates: int = 400
    nms_iou: int | float = 0.45
    max_detections: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.positive_iou <= 1 or not 0 <= self.nms_iou <= 1:
            raise UsageError(
                f"got overlaps {self.positive_iou}, {self.nms_iou}, wanted 0 to 1", where="MultiBoxSettings"
            )
        if self.negatives < 0 or self.candidates < 1:
            got = f"{self.negatives} negatives, {self.candidates} candidates"
            raise UsageError(f"got {got}, wanted at least 0 and 1", where="MultiBoxSettings")


class RawBoxes(NamedTuple):
    """What the network says of its default boxes, map by map.

    Attributes:
        logits: `[B, A (K + 1), h, w]` each, a box's classes side by side, background first.
        deltas: `[B, 4 A, h, w]` each, a box's four numbers side by side.
    """

    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]


def convolution(in_channels: int, numbers: int) -> nn.Conv2d:
    """SSD's predictor: one 3x3 convolution, started as Glorot and Bengio, biases 0."""
    layer = nn.Conv2d(in_channels, numbers, 3, padding=1)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def separable(in_channels: int, numbers: int) -> nn.Sequential:
    """SSDLite's: a 3x3 filter a channel with batch norm and ReLU6, then a 1x1 convolution."""
    last = nn.Conv2d(in_channels, numbers, 1)
    nn.init.xavier_uniform_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    first = depthwise(in_channels, 3, LoneBatchNorm2d, ReLU6)
    initialise(first, "fan_in")
    return nn.Sequential(first, last)


class MapPredictors(nn.Module):
    """A layer a map, which reads it at every cell.

    Args:
        in_channels: of each map.
        numbers: that each layer gives a cell.
        predictor: makes a layer.
    """

    def __init__(self, in_channels: Sequence[int], numbers: Sequence[int], predictor: Predictor) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(predictor(c, n) for c, n in zip(in_channels, numbers, strict=True))

    def forward(self, maps: Sequence[Float[Tensor, "B _c _h _w"]]) -> tuple[Float[Tensor, "B _n _h2 _w2"], ...]:
        """Of each map its numbers."""
        return tuple(layer(features) for layer, features in zip(self.module_list, maps, strict=True))


class MultiBoxHead(nn.Module):
    """Both stacks, by torchvision's names.

    Args:
        in_channels: of each map.
        counts: default boxes of a cell of each map.
        num_categories: K.
        predictor: makes the layer of a map.
    """

    def __init__(
        self, in_channels: Sequence[int], counts: Sequence[int], num_categories: int, predictor: Predictor = convolution
    ) -> None:
        super().__init__()
        numbers = [count * (num_categories + 1) for count in counts]
        self.classification_head = MapPredictors(in_channels, numbers, predictor)
        self.regression_head = MapPredictors(in_channels, [4 * count for count in counts], predictor)

    def forward(self, maps: Sequence[Float[Tensor, "B _c _h _w"]]) -> RawBoxes:
        """Logits and offsets of every map."""
        return RawBoxes(self.classification_head(maps), self.regression_head(maps))


def flat_boxes(maps: Sequence[Float[Tensor, "B _n _h _w"]], numbers: int) -> Float[Tensor, "B N K"]:
    """The numbers of each box in a row: map by map, cells row by row, and within a cell in the boxes' order; in at
    least float32.
    """
    rows = [values.unflatten(1, (-1, numbers)).permute(0, 3, 4, 1, 2).flatten(1, 3) for values in maps]
    joined = torch.cat(rows, 1)
    return joined if joined.dtype == torch.float64 else joined.float()


@torch.no_grad()
def match_default_boxes(boxes_xyxy: Float[Tensor, "N 4"], truth: Truth, positive_iou: int | float = 0.5) -> Assignment:
    """Every object its own best box; then every box the object that it overlaps most, if by at least `positive_iou`.
    The others are background, but for those that lie mostly on a crowd: they learn nothing.
    """
    assignment = assign(boxes_xyxy, truth, ThresholdMatcher(positive_iou, positive_iou))
    return give_each_its_best(assignment, truth.boxes_xyxy, boxes_xyxy)


@torch.no_grad()
def hardest_negatives(
    losses: Float[Tensor, "B N"], positive: Bool[Tensor, "B N"], negative: Bool[Tensor, "B N"], ratio: int | float
) -> Bool[Tensor, "B N"]:
    """Of each picture the negatives of the largest losses, `ratio` times as many as it has positives; all of them
    where there are fewer. Equal losses by their order.

    A picture without positives has none: as in the authors' code it teaches nothing.
    """
    ranked = losses.float().masked_fill(~negative, -torch.inf)
    order = torch.sort(ranked, dim=1, descending=True, stable=True).indices
    wanted = (positive.sum(1, keepdim=True) * ratio).floor()
    places = torch.arange(losses.shape[1], device=losses.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return negative & (rank < wanted)


def multibox_losses(
    logits: Float[Tensor, "B N K1"],
    deltas: Float[Tensor, "B N 4"],
    boxes_xyxy: Float[Tensor, "N 4"],
    truths: Sequence[Truth],
    settings: MultiBoxSettings,
    class_weights: Float[Tensor, " K1"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Equations 1 to 3: cross entropy of the positives and the hardest negatives, and the smooth L1 of the positives'
    offsets times `box_weight`, both divided by the positives of all pictures together, at least 1.

    Args:
        logits: background first.
        deltas: offsets of the default boxes.
        boxes_xyxy: the default boxes, pixels of the network's input.
        truths: of each picture, likewise.
        settings: overlap, negatives and weight.
        class_weights: factors on the first loss, the background's first; they do not choose the negatives.
    """
    assigned = [match_default_boxes(boxes_xyxy, truth, settings.positive_iou) for truth in truths]
    positive = torch.stack([a.positive for a in assigned])
    negative = torch.stack([a.negative for a in assigned])
    classes, wanted = torch.zeros_like(positive, dtype=torch.int64), []
    for row, (found, truth) in enumerate(zip(assigned, truths, strict=True)):
        mine = found.positive
        owners = found.object[mine]
        classes[row, mine] = truth.labels[owners] + 1
        wanted.append(MULTIBOX_CODEC.encode(truth.boxes_xyxy[owners], boxes_xyxy[mine]))
    losses = cross_entropy_loss(logits.transpose(1, 2), classes)
    chosen = positive | hardest_negatives(losses.detach(), positive, negative, settings.negatives)
    if class_weights is not None:
        losses = losses * class_weights[classes]
    divisor = positive.sum().clamp(min=1)
    box = smooth_l1_loss(deltas[positive], torch.cat(wanted)).sum()
    return losses[chosen].sum() / divisor, settings.box_weight * box / divisor


def decode_boxes(deltas: Float[Tensor, "B N 4"], boxes_xyxy: Float[Tensor, "N 4"]) -> Float[Tensor, "B N 4"]:
    """Where the offsets move the default boxes, not clipped."""
    moved = MULTIBOX_CODEC.decode(deltas.flatten(0, 1), boxes_xyxy.repeat(deltas.shape[0], 1))
    return moved.unflatten(0, (deltas.shape[0], -1))


def multibox_answers(
    boxes_xyxy: Float[Tensor, "N 4"],
    probs: Float[Tensor, "N K"],
    size_hw: tuple[int, int],
    settings: MultiBoxSettings,
    suppression: Suppression = HARD,
    max_detections: int | None = None,
) -> tuple[Float[Tensor, "M 4"], Int64[Tensor, " M"], Float[Tensor, " M"]]:
    """One picture's answers in the boxes' pixels: boxes, labels, scores, best first.

    Of each category the best `candidates` above `min_score`, clipped, suppressed within the category.

    Args:
        boxes_xyxy: of all default boxes, moved.
        probs: of each category.
        size_hw: of the picture; answers are clipped to it.
        settings: least score, candidates, overlap, number of answers.
        suppression: how overlapping answers make room.
        max_detections: in place of the settings'.
    """
    most = min(settings.candidates, len(probs))
    best, places = _best_of_each(probs, most)
    label, rank = (best > settings.min_score).nonzero(as_tuple=True)
    scores, chosen = best[label, rank], clip_boxes(boxes_xyxy[places[label, rank]], size_hw)
    keep, scores = suppression(chosen, scores, label, settings.nms_iou)
    keep = keep[: max_detections or settings.max_detections]
    return chosen[keep], label[keep], scores[: len(keep)]


def _best_of_each(probs: Float[Tensor, "N K"], most: int) -> tuple[Float[Tensor, "K M"], Int64[Tensor, "K M"]]:
    """The largest of each column, and their rows."""
    best = probs.t().contiguous().topk(most, dim=1)
    return best.values, best.indices
