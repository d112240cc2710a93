"""What the methods that learn take from annotated pictures."""

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.truth import Truth
from bestiary.records import Sample

OVERLAP = 0.5
"""IoU from which on a window shows an object."""


def truth_of(sample: Sample) -> Float32[Tensor, "G 4"]:
    """The boxes of a picture's objects, crowds left out; none where nobody annotated any."""
    return torch.zeros(0, 4) if sample.target.objects is None else Truth.of(sample.target.objects).boxes_xyxy


def shows_object(boxes_xyxy: Float32[np.ndarray, "N 4"], truth_xyxy: Float32[Tensor, "G 4"]) -> Bool[np.ndarray, " N"]:
    """Which windows overlap an object by at least `OVERLAP`."""
    if not len(truth_xyxy) or not len(boxes_xyxy):
        return np.zeros(len(boxes_xyxy), bool)
    return (pairwise_iou(torch.from_numpy(boxes_xyxy), truth_xyxy).amax(1) >= OVERLAP).numpy()
