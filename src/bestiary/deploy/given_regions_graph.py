"""Fast R-CNN as one graph: pictures and the regions that something proposed for them, to boxes.

Proposing stays outside: no method is a network. The sidecar names the method and its options and holds what it has
learned, and `bestiary.deploy.runtimes` proposes as the model does.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.deploy.box_graph import (
    DROPPED,
    KEPT,
    BoxGraph,
    between_sizes,
    clip_to,
    keep_only,
    large,
    limits_of,
    picked,
)
from bestiary.deploy.graphs import Port
from bestiary.deploy.onnx_operators import suppress
from bestiary.detection.fast_rcnn import FastRCNN
from bestiary.heads.region_learning import REGION_CODEC
from bestiary.ops import roi_pool
from bestiary.proposals.described import describe

REGIONS_A_PICTURE = 40
"""Of the stand-ins that the check draws."""


class GivenRegionsGraph(BoxGraph):
    """The whole of Fast R-CNN behind its proposals."""

    def __init__(self, system: FastRCNN) -> None:
        super().__init__(system, system.regions.min_score)
        self.network = system
        preparation, self.sizes_hw = between_sizes(system.scale)
        proposals = describe(system.proposer)
        self.preparation = {**preparation, "proposals": {**proposals, "count": system.proposal_count}}
        if proposals["method"] is None:
            self.notes += ("the model's method of proposals is your own: give it to open_graph as `proposer`",)
            self.proposer = system.proposer

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Pictures, and regions in their pixels."""
        meaning = "picture of the batch, x1, y1, x2, y2 in pixels of the input; from 1 on"
        return (self.images, Port("regions", "float32", ("R", 5), meaning))

    def others(self, images: Float[Tensor, "B C H W"]) -> tuple[Tensor, ...]:
        """Boxes drawn at random, the same for pictures of one size."""
        draw = torch.Generator().manual_seed(len(images))
        height, width = images.shape[-2:]
        corners = torch.rand(len(images) * REGIONS_A_PICTURE, 2, 2, generator=draw).sort(1).values.flatten(1)
        boxes = corners * torch.tensor([width, height, width, height]) * 0.8
        boxes[:, 2:] += 0.2 * torch.tensor([width, height])
        picture = torch.arange(len(images)).repeat_interleave(REGIONS_A_PICTURE)
        return (torch.cat([picture[:, None], boxes], 1),)

    def forward(
        self, images: Float[Tensor, "B C H W"], regions: Float[Tensor, "R 5"]
    ) -> tuple[Float[Tensor, "N 4"], Float[Tensor, " N"], Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Boxes, scores, labels, and the picture each belongs to."""
        system, classes, count = self.network, len(self.network.categories), regions.shape[0]
        (height, width), step = images.shape[-2:], system.stride
        right, bottom = ((side + step - 1) // step * step - side for side in (width, height))
        features = system(F.pad(system.normalize(images), [0, right, 0, bottom]))
        logits, deltas = system.roi_heads(roi_pool(features, regions, system.regions.bins, 1 / step))
        references = regions[:, None, 1:].expand(-1, classes, 4).reshape(-1, 4)
        offsets = deltas[:, 1:].expand(-1, classes, 4).reshape(-1, 4)
        boxes = clip_to(REGION_CODEC.decode(offsets, references), limits_of(images)).view(count, classes, 4)
        probs = logits.softmax(1)[:, 1:]
        probs = torch.where(large(boxes, system.regions.min_side) & (probs > self.min_score), probs, DROPPED)
        # The suppression's "pictures" are the categories, whose boxes differ, and its groups are the pictures.
        batch = torch.arange(images.shape[0], device=regions.device).to(regions)
        at_home = batch[:, None] == regions[:, 0]
        rows = suppress(
            boxes.transpose(0, 1),
            torch.where(at_home, probs.t()[:, None], DROPPED),
            self.overlap(system.regions.nms_iou),
            KEPT,
        )
        place = (rows[:, 1] * count + rows[:, 2]) * classes + rows[:, 0]
        everywhere = torch.where(at_home[..., None], probs, DROPPED).reshape(images.shape[0], -1)
        scores, chosen, of_picture = picked(keep_only(everywhere, place), self.max_detections)
        return boxes.reshape(-1, 4)[chosen], scores, chosen % classes, of_picture
