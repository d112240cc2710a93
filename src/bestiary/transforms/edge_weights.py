"""Pixel weights that make a network learn where one class ends and the next begins.

The band is the morphological gradient of the label map: where the largest and the smallest label around a pixel
differ. That it is added to the weight of 1, and how wide it is, is ours.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.records import IGNORE_LABEL, Sample, Target
from bestiary.transforms.transform import Described, require_argument


@dataclass(frozen=True, repr=False)
class EdgeWeights(Described):
    """Transform that adds to `target.weight_map` (1 where there is none) near borders of classes; put it after those
    that move pixels.

    Where classes may overlap, the borders are those of the objects' masks. A border with the unknown is none.

    Attributes:
        weight: what is added there.
        width: pixels on either side of a border, diagonals counting as one.
    """

    weight: int | float = 5.0
    width: int = 2

    def __post_init__(self) -> None:
        require_argument(self.weight >= 0, "EdgeWeights(weight)", self.weight, "0 or more")
        require_argument(self.width >= 1, "EdgeWeights(width)", self.width, "at least 1 pixel")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with its weight map; nothing is random.

        Raises:
            RecordError: the sample has neither a label map nor masks.
        """
        target = sample.target
        before = target.weight_map
        plain = torch.ones(sample.size_hw) if before is None else before
        weight_map = plain + self.weight * torch.from_numpy(_band(target, self.width, sample.name))
        return replace(sample, target=replace(target, weight_map=weight_map.float()))


def _band(target: Target, width: int, name: str) -> Bool[np.ndarray, "H W"]:
    if target.label_map is not None:
        return label_edges(target.label_map, width).numpy()
    masks = target.objects.masks if target.objects is not None else None
    if masks is None:
        raise RecordError("got neither a label map nor masks, wanted one of them", where=f"{name}: target")
    band = np.zeros(masks.shape[-2:], bool)
    for mask in masks:
        band |= label_edges(mask.to(torch.uint8), width).numpy()
    return band


def label_edges(label_map: UInt8[Tensor, "H W"], width: int) -> Bool[Tensor, "H W"]:
    """Known pixels with another known label at most `width` rows and `width` columns away."""
    import cv2

    labels = label_map.cpu().numpy()
    known = labels != IGNORE_LABEL
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # what is unknown is the least of a maximum and the most of a minimum; the picture's border is no label at all
    most = cv2.dilate(np.where(known, labels, 0).astype(np.uint8), square, borderType=cv2.BORDER_REPLICATE)
    least = cv2.erode(labels, square, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy((most != least) & known)
