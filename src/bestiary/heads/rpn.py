"""Region proposal network on one map or a pyramid: its heads, its anchors, and the ranking of what it proposes.

Ren et al.: Faster R-CNN, NIPS 2015, section 3.1; one scale a level and shared weights as in Lin et al.: FPN, CVPR
2017, section 4.1. The logit of an anchor is one number, as Detectron and torchvision have it, or the difference of the
paper's two: a softmax over two scores is the sigmoid of their difference, so that all that follows is the same. All
functions but `suppress_proposals` work on batched tensors whose sizes follow from the input's alone, so that their
graph can be exported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.assign.box_codec import BoxCodec
from bestiary.errors import UsageError
from bestiary.geometry.anchors import pyramid_anchors, strides_of
from bestiary.geometry.boxes import clip_boxes, large_enough
from bestiary.ops import batched_nms

Sides = tuple[float, ...]


@dataclass(frozen=True)
class ProposalSettings:
    """First stage: which anchors learn what, and which boxes go on.

    Attributes:
        positive_iou: at least this IoU with an object makes an anchor positive; so does being its best.
        negative_iou: below this IoU with every object it is negative; between the two it is ignored.
        per_image: anchors sampled for the loss.
        positive_share: at most this share of them positive.
        before_nms: boxes a level that enter NMS, in `loss` and in `predict`.
        after_nms: boxes that leave it, likewise.
        nms_iou: of the NMS within each level.
        min_side: smaller boxes are dropped, pixels at network scale.
        min_score: boxes whose probability is less are dropped.
        inside_only: anchors that cross the border of the picture learn nothing (the 2015 paper); in prediction they
            propose, clipped, as all others.
        box_weight: factor on the box loss. 1 with both losses divided by the number of sampled anchors, as in the
            authors' code; the paper's lambda of 10 with about 2,400 places comes to nearly the same.
    """

    positive_iou: int | float = 0.7
    negative_iou: int | float = 0.3
    per_image: int = 256
    positive_share: int | float = 0.5
    before_nms: tuple[int, int] = (2000, 1000)
    after_nms: tuple[int, int] = (2000, 1000)
    nms_iou: int | float = 0.7
    min_side: int | float = 1e-3
    min_score: int | float = 0.0
    inside_only: bool = False
    box_weight: int | float = 1.0


class RPNHead(nn.Module):
    """A 3x3 convolution with ReLU, then two 1x1: one objectness logit and four deltas an anchor, for all levels.

    Args:
        in_channels: of the pyramid.
        num_anchors: A, anchors a place.
        hidden: channels between; as many as `in_channels` if None.
        kernel: side of the first convolution.
        pairs: two scores an anchor instead of one, all of background and then all of objects, as in the paper; their
            difference is the logit.

    Attributes:
        reach: places to each side that are seen.
    """

    def __init__(
        self, in_channels: int, num_anchors: int, hidden: int | None = None, kernel: int = 3, pairs: bool = False
    ) -> None:
        super().__init__()
        width = in_channels if hidden is None else hidden
        # Nested for the sake of the public files' names, conv.0.0.weight.
        convolution = nn.Conv2d(in_channels, width, kernel, padding=kernel // 2)
        self.conv = nn.Sequential(nn.Sequential(convolution, nn.ReLU(True)))
        self.cls_logits = nn.Conv2d(width, 2 * num_anchors if pairs else num_anchors, 1)
        self.bbox_pred = nn.Conv2d(width, 4 * num_anchors, 1)
        self.pairs, self.reach = pairs, kernel // 2
        self.reset()

    def reset(self) -> None:
        """Fresh parameters: normal with 0.01 (section 3.1.3), biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, feature: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B A H W"], Float[Tensor, "B A4 H W"]]:
        """Objectness logits, and deltas with the four numbers of an anchor side by side."""
        hidden = self.conv(feature)
        scores = self.cls_logits(hidden)
        if self.pairs:
            background, foreground = scores.chunk(2, 1)
            scores = foreground - background
        return scores, self.bbox_pred(hidden)

    def at(self, patches: Float[Tensor, "S k k C"]) -> tuple[Float[Tensor, "S A"], Float[Tensor, "S A 4"]]:
        """What `forward` says at S places, of which only the surroundings are given (as large as the kernel, or larger
        all around): a loss on few anchors has no need of gradients everywhere.
        """
        convolution: nn.Conv2d = self.conv.get_submodule("0.0")  # type: ignore[assignment]
        kernel = convolution.kernel_size[0]
        first = (patches.shape[1] - kernel) // 2
        middle = patches[:, first : first + kernel, first : first + kernel]
        weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
        hidden = F.relu(F.linear(middle.flatten(1), weight, convolution.bias))
        scores = F.linear(hidden, self.cls_logits.weight.flatten(1), self.cls_logits.bias)
        if self.pairs:
            background, foreground = scores.chunk(2, 1)
            scores = foreground - background
        deltas = F.linear(hidden, self.bbox_pred.weight.flatten(1), self.bbox_pred.bias)
        return scores.float(), deltas.float().unflatten(1, (-1, 4))


class FilterPyramidHead(nn.Module):
    """A head for each anchor size, whose filter grows with it: the pyramid of filters of figure 1(b) in Ren et al.

    Args:
        in_channels: of the map.
        num_ratios: shapes of each size.
        kernels: side of the first convolution for each size, small to large.
        hidden: channels of each after it; as many as `in_channels` if None.

    Attributes:
        reach: places to each side that the largest sees.
    """

    def __init__(
        self, in_channels: int, num_ratios: int, kernels: Sequence[int] = (3, 5, 7), hidden: int | None = None
    ) -> None:
        super().__init__()
        heads = [RPNHead(in_channels, num_ratios, hidden, kernel) for kernel in kernels]
        self.of_size, self.reach = nn.ModuleList(heads), max(head.reach for head in heads)

    def reset(self) -> None:
        """Fresh parameters, as `RPNHead.reset`."""
        for head in self.of_size:
            head.reset()  # type: ignore[operator]

    def forward(self, feature: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B A H W"], Float[Tensor, "B A4 H W"]]:
        """As `RPNHead`: anchors ratio by ratio, and within a ratio size by size."""
        outputs = [head(feature) for head in self.of_size]
        objectness = torch.stack([o[0] for o in outputs], 2).flatten(1, 2)
        deltas = torch.stack([o[1].unflatten(1, (-1, 4)) for o in outputs], 2)
        return objectness, deltas.flatten(1, 3)

    def at(self, patches: Float[Tensor, "S k k C"]) -> tuple[Float[Tensor, "S A"], Float[Tensor, "S A 4"]]:
        """As `RPNHead.at`."""
        outputs = [head.at(patches) for head in self.of_size]  # type: ignore[operator]
        objectness, deltas = (torch.stack(parts, 2) for parts in zip(*outputs, strict=True))
        return objectness.flatten(1, 2), deltas.flatten(1, 2)


class RPN(nn.Module):
    """The head and the anchors it is read with.

    Args:
        in_channels: of the pyramid.
        sizes: for each level the sides of its square anchors, pixels.
        ratios: heights over widths; areas stay.
        head: an `RPNHead` that fits if None.

    Raises:
        UsageError: levels with different numbers of anchors cannot share a head.
    """

    def __init__(
        self,
        in_channels: int,
        sizes: Sequence[Sides] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
        ratios: Sides = (0.5, 1.0, 2.0),
        head: RPNHead | FilterPyramidHead | None = None,
    ) -> None:
        super().__init__()
        counts = {len(s) * len(ratios) for s in sizes}
        if len(counts) != 1:
            raise UsageError(
                f"got {sorted(counts)} anchors a place, wanted one number for all levels", where="RPN(sizes)"
            )
        self.sizes = tuple(tuple(float(side) for side in of_level) for of_level in sizes)
        self.ratios = tuple(ratios)
        self.head = head or RPNHead(in_channels, counts.pop())

    def forward(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]]
    ) -> tuple[tuple[Float[Tensor, "B A _h _w"], ...], tuple[Float[Tensor, "B A4 _h _w"], ...]]:
        """Objectness logits and deltas of each level."""
        if len(pyramid) != len(self.sizes):
            raise UsageError(f"got {len(pyramid)} levels, wanted {len(self.sizes)}, one a set of sizes", where="RPN")
        outputs = [self.head(feature) for feature in pyramid]
        return tuple(o[0] for o in outputs), tuple(o[1] for o in outputs)

    def at(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]], rows: Int64[Tensor, " S"]
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S 4"]]:
        """Logits and deltas of single anchors, `picture * anchors a picture + anchor` in the order of `flat`; equal to
        the whole maps' but for rounding, with gradients.
        """
        num_anchors = len(self.sizes[0]) * len(self.ratios)
        counts = [feature.shape[2] * feature.shape[3] * num_anchors for feature in pyramid]
        picture, place = rows // sum(counts), rows % sum(counts)
        patches, order, first = [], [], 0
        for feature, count in zip(pyramid, counts, strict=True):
            here = ((place >= first) & (place < first + count)).nonzero()[:, 0]
            cell = (place[here] - first) // num_anchors
            patches.append(_surroundings(feature, picture[here], cell, self.head.reach))
            order.append(here)
            first += count
        objectness, deltas = self.head.at(torch.cat(patches))
        back = torch.argsort(torch.cat(order))
        anchor = place % num_anchors  # each level has a multiple of them
        return objectness[back, anchor], deltas[back, anchor]

    def anchors(
        self, maps_hw: Sequence[tuple[int, int]], pixels_hw: tuple[int, int], device: torch.device
    ) -> tuple[Float[Tensor, "_a 4"], ...]:
        """Anchors of each level, pixels of the padded batch, in the order of `flat`: row, column, size, ratio.

        The step is floor(padded side / map side), as in torchvision: on the coarsest level, whose map is rounded up, it
        is less than the level's stride. Published weights were trained with that.
        """
        strides = [(float(down), float(across)) for down, across in strides_of(pixels_hw, maps_hw)]
        return tuple(pyramid_anchors(self.sizes, self.ratios, maps_hw, strides, device))


def _surroundings(
    feature: Float[Tensor, "B C H W"], picture: Int64[Tensor, " S"], cell: Int64[Tensor, " S"], reach: int
) -> Float[Tensor, "S k k C"]:
    """What a map holds up to `reach` places around cells (row by row), zeros outside it."""
    _, channels, height, width = feature.shape
    offsets = torch.arange(-reach, reach + 1, device=cell.device)
    y = (cell // width)[:, None, None] + offsets[:, None]
    x = (cell % width)[:, None, None] + offsets
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = (picture[:, None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
    rows = feature.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, at.flatten())
    return rows.view(*at.shape, channels) * inside[..., None]


def flat(
    objectness: Float[Tensor, "B A H W"], deltas: Float[Tensor, "B A4 H W"]
) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N 4"]]:
    """One level's outputs with one row an anchor: row, column, anchor."""
    batch = objectness.shape[0]
    logits = objectness.float().permute(0, 2, 3, 1).reshape(batch, -1)
    return logits, deltas.float().permute(0, 2, 3, 1).reshape(batch, -1, 4)


def rank(
    levels: Sequence[tuple[Float[Tensor, "B _n"], Float[Tensor, "B _n 4"]]],
    anchors: Sequence[Float[Tensor, "_n 4"]],
    codec: BoxCodec,
    keep: int,
) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P"], Int64[Tensor, " P"]]:
    """The `keep` likeliest anchors of each level, moved by their deltas.

    Args:
        levels: `flat` outputs.
        anchors: of each level.
        codec: decodes the deltas.
        keep: at most so many a level; P is the sum over the levels.

    Returns:
        boxes `xyxy` (not clipped), objectness logits, and the level each came from; within a level best first.
    """
    boxes, logits, origin = [], [], []
    for i, ((objectness, deltas), of_level) in enumerate(zip(levels, anchors, strict=True)):
        best, index = objectness.topk(min(keep, objectness.shape[1]), dim=1)
        chosen = torch.gather(deltas, 1, index[..., None].expand(-1, -1, 4))
        boxes.append(codec.decode(chosen.flatten(0, 1), of_level[index].flatten(0, 1)).view_as(chosen))
        logits.append(best)
        origin.append(torch.full_like(index[0], i))
    return torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(origin)


@torch.no_grad()
def suppress_proposals(
    ranked: tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P"], Int64[Tensor, " P"]],
    sizes_hw: Sequence[tuple[int, int]],
    settings: ProposalSettings,
    most: int,
) -> tuple[list[Float[Tensor, "_r 4"]], list[Float[Tensor, " _r"]]]:
    """Of the boxes of `rank` those that go on: clipped, large, likely and not suppressed within their level.

    Args:
        ranked: boxes, logits, levels.
        sizes_hw: of each picture within the batch.
        settings: what is large, likely, suppressed.
        most: boxes a picture.

    Returns:
        proposals of each picture and their probabilities, best first.
    """
    boxes, logits, levels = ranked
    kept_boxes, kept_probs = [], []
    for of_picture, probs, size_hw in zip(boxes, logits.sigmoid(), sizes_hw, strict=True):
        clipped = clip_boxes(of_picture, size_hw)
        fits = large_enough(clipped, settings.min_side)
        if settings.min_score > 0:
            fits = fits[probs[fits] >= settings.min_score]
        clipped, probs, origin = clipped[fits], probs[fits], levels[fits]
        keep = batched_nms(clipped, probs, origin, settings.nms_iou)[:most]
        kept_boxes.append(clipped[keep])
        kept_probs.append(probs[keep])
    return kept_boxes, kept_probs
