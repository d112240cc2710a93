"""Region proposal network on a pyramid: its head, its anchors, and the ranking of what it proposes.

Ren et al.: Faster R-CNN, NIPS 2015, section 3.1; one scale a level and shared weights as in Lin et al.: FPN, CVPR
2017, section 4.1. One sigmoid an anchor instead of a two-way softmax, as Detectron and torchvision have it. All
functions work on batched tensors whose sizes follow from the input's alone, so that their graph can be exported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bestiary.assign.box_codec import BoxCodec
from bestiary.errors import UsageError
from bestiary.geometry.anchors import pyramid_anchors, strides_of

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
    """

    positive_iou: float = 0.7
    negative_iou: float = 0.3
    per_image: int = 256
    positive_share: float = 0.5
    before_nms: tuple[int, int] = (2000, 1000)
    after_nms: tuple[int, int] = (2000, 1000)
    nms_iou: float = 0.7
    min_side: float = 1e-3


class RPNHead(nn.Module):
    """A 3x3 convolution with ReLU, then two 1x1: one objectness logit and four deltas an anchor, for all levels.

    Args:
        in_channels: of the pyramid.
        num_anchors: A, anchors a place.
    """

    def __init__(self, in_channels: int, num_anchors: int) -> None:
        super().__init__()
        # Nested for the sake of the public files' names, conv.0.0.weight.
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.ReLU(True)))
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, feature: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B A H W"], Float[Tensor, "B A4 H W"]]:
        """Objectness logits, and deltas with the four numbers of an anchor side by side."""
        hidden = self.conv(feature)
        return self.cls_logits(hidden), self.bbox_pred(hidden)


class RPN(nn.Module):
    """The head and the anchors it is read with.

    Args:
        in_channels: of the pyramid.
        sizes: for each level the sides of its square anchors, pixels.
        ratios: heights over widths; areas stay.

    Raises:
        UsageError: levels with different numbers of anchors cannot share a head.
    """

    def __init__(
        self,
        in_channels: int,
        sizes: Sequence[Sides] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
        ratios: Sides = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__()
        counts = {len(s) * len(ratios) for s in sizes}
        if len(counts) != 1:
            raise UsageError(
                f"got {sorted(counts)} anchors a place, wanted one number for all levels", where="RPN(sizes)"
            )
        self.sizes = tuple(tuple(float(side) for side in of_level) for of_level in sizes)
        self.ratios = tuple(ratios)
        self.head = RPNHead(in_channels, counts.pop())

    def forward(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]]
    ) -> tuple[tuple[Float[Tensor, "B A _h _w"], ...], tuple[Float[Tensor, "B A4 _h _w"], ...]]:
        """Objectness logits and deltas of each level."""
        if len(pyramid) != len(self.sizes):
            raise UsageError(f"got {len(pyramid)} levels, wanted {len(self.sizes)}, one a set of sizes", where="RPN")
        outputs = [self.head(feature) for feature in pyramid]
        return tuple(o[0] for o in outputs), tuple(o[1] for o in outputs)

    def anchors(
        self, maps_hw: Sequence[tuple[int, int]], pixels_hw: tuple[int, int], device: torch.device
    ) -> tuple[Float[Tensor, "_a 4"], ...]:
        """Anchors of each level, pixels of the padded batch, in the order of `flat`: row, column, size, ratio.

        The step is floor(padded side / map side), as in torchvision: on the coarsest level, whose map is rounded up, it
        is less than the level's stride. Published weights were trained with that.
        """
        strides = [(float(down), float(across)) for down, across in strides_of(pixels_hw, maps_hw)]
        return tuple(pyramid_anchors(self.sizes, self.ratios, maps_hw, strides, device))


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
