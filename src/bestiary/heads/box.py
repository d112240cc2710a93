"""The heads of the two-stage detectors: pooled regions to class logits and per-class box deltas.

Girshick: Fast R-CNN, ICCV 2015, with two hidden layers of 4,096 (VGG) or 1,024 (Lin et al.: FPN, CVPR 2017, section
4.2); or with the last stage of a ResNet (He et al.: Deep Residual Learning, CVPR 2016, appendix A). State names are
torchvision's where it has them.
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

    positive_iou: int | float = 0.5
    per_image: int = 512
    positive_share: int | float = 0.25
    bins: int = 7
    min_score: int | float = 0.05
    nms_iou: int | float = 0.5
    max_detections: int = 100
    min_side: int | float = 1e-2


class BoxHead(nn.Module):
    """Two fully connected layers, each with ReLU.

    Args:
        in_channels: of the pyramid.
        bins: side of a pooled region.
        width: units of both layers.
        dropout: after each, while training; VGG's heads have 0.5.

    Attributes:
        out_features: numbers a region.
    """

    def __init__(self, in_channels: int, bins: int = 7, width: int = 1024, dropout: int | float = 0.0) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels * bins * bins, width)
        self.fc7 = nn.Linear(width, width)
        self.dropout, self.out_features = dropout, width

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> Float[Tensor, "R D"]:
        """One vector a region."""
        return self._drop(F.relu(self.fc7(self._drop(F.relu(self.fc6(pooled.flatten(1)))))))

    def _drop(self, hidden: Tensor) -> Tensor:
        """Draws from the random numbers only where something can be dropped."""
        return F.dropout(hidden, self.dropout) if self.training and self.dropout > 0 else hidden


class StageHead(nn.Module):
    """The last stage of a ResNet on each region: 14x14 bins of C4 become 7x7, which are averaged.

    Args:
        layer4: the stage; it strides once.
        channels: that it gives.

    Attributes:
        out_features: numbers a region.
    """

    def __init__(self, layer4: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer4, self.out_features = layer4, channels

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> Float[Tensor, "R D"]:
        """One vector a region."""
        # Convolutions of some precisions take no empty batch. Not by len(), which would fix the number in a graph.
        if pooled.shape[0] == 0:
            return pooled.new_zeros(0, self.out_features)
        return self.layer4(pooled).mean((2, 3))


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

    def __init__(self, box_head: BoxHead | StageHead, box_predictor: BoxPredictor) -> None:
        super().__init__()
        self.box_head, self.box_predictor = box_head, box_predictor

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Logits and deltas of each pooled region."""
        return self.box_predictor(self.box_head(pooled))
