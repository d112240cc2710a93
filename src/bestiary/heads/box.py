"""The box head of the two-stage detectors: pooled regions to class logits and per-class box deltas.

Girshick: Fast R-CNN, ICCV 2015, with two hidden layers of 1,024 as in Lin et al.: FPN, CVPR 2017, section 4.2.
State names are torchvision's.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class RegionSettings:
    """Second stage: which regions learn what, and which boxes are answers.

    Attributes:
        positive_iou: at least this IoU with an object makes a region positive, below it negative.
        per_image: regions sampled for the loss.
        positive_share: at most this share of them positive.
        bins: side of the pooled grid; each bin averages 2x2 samples.
        min_score: only probabilities above this are answers.
        nms_iou: of the NMS within each category.
        max_detections: at most so many a picture.
        min_side: smaller answers are dropped, pixels at network scale.
    """

    positive_iou: float = 0.5
    per_image: int = 512
    positive_share: float = 0.25
    bins: int = 7
    min_score: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    min_side: float = 1e-2


class BoxHead(nn.Module):
    """Two fully connected layers, each with ReLU.

    Args:
        in_channels: of the pyramid.
        bins: side of a pooled region.
        width: units of both layers.
    """

    def __init__(self, in_channels: int, bins: int = 7, width: int = 1024) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels * bins * bins, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> Float[Tensor, "R D"]:
        """One vector a region."""
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


class BoxPredictor(nn.Module):
    """K + 1 logits, the first of them the background's, and four deltas for each.

    Args:
        width: of the box head.
        num_categories: K.
    """

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, num_categories + 1)
        self.bbox_pred = nn.Linear(width, 4 * (num_categories + 1))

    def forward(self, vectors: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Logits and deltas; those of the background are never trained nor read."""
        logits = self.cls_score(vectors)
        return logits, self.bbox_pred(vectors).view(-1, logits.shape[1], 4)


class RoIHeads(nn.Module):
    """Head and predictor under the names of the public files."""

    def __init__(self, box_head: BoxHead, box_predictor: BoxPredictor) -> None:
        super().__init__()
        self.box_head, self.box_predictor = box_head, box_predictor

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Logits and deltas of each pooled region."""
        return self.box_predictor(self.box_head(pooled))
