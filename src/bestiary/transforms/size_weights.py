"""Pixel weights by which a small thing counts as much as a large one."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.ops.components import connected_components
from bestiary.records import IGNORE_LABEL, Sample, Target
from bestiary.transforms.transform import Described, require_argument


@dataclass(frozen=True, repr=False)
class SizeWeights(Described):
    """Transform that multiplies `target.weight_map` (1 where there is none) by one over the area of the region that a
    pixel belongs to; put it after those that move pixels.

    Regions are the 8-connected parts of each class; where there is no label map, the objects' masks, and what belongs
    to none is one more. A pixel of several takes the largest weight. `w = n / (R area)` with n known pixels and R
    regions, so that its mean is 1 before the limit; the formula is ours.

    Attributes:
        limit: largest weight, so that a speck of a pixel, which is often a mistake of the truth, does not drown all.
    """

    limit: int | float = 10.0

    def __post_init__(self) -> None:
        require_argument(self.limit > 0, "SizeWeights(limit)", self.limit, "more than 0")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with its weight map; nothing is random.

        Raises:
            RecordError: the sample has neither a label map nor masks.
        """
        target = sample.target
        areas, regions, pixels = _areas(target, sample.name)
        shares = pixels / (max(1, regions) * areas.clamp(min=1).float())
        weights = torch.where(areas > 0, shares.clamp(max=self.limit), torch.ones(()))
        before = target.weight_map
        return replace(sample, target=replace(target, weight_map=weights if before is None else weights * before))


def _areas(target: Target, name: str) -> tuple[Int64[Tensor, "H W"], int, int]:
    """The area of each pixel's region, 0 where it has none; how many regions there are; their areas together."""
    if target.label_map is not None:
        areas, regions = torch.zeros(target.label_map.shape, dtype=torch.int64), 0
        for label in target.label_map.unique().tolist():
            if label != IGNORE_LABEL:
                parts = connected_components(target.label_map == label)
                areas += torch.cat([parts.areas.new_zeros(1), parts.areas])[parts.label_map.long()]
                regions += len(parts)
        return areas, regions, int((target.label_map != IGNORE_LABEL).sum())
    masks = target.objects.masks if target.objects is not None else None
    if masks is None:
        raise RecordError("got neither a label map nor masks, wanted one of them", where=f"{name}: target")
    found = [mask for mask in (*masks, ~masks.any(0)) if mask.any()]
    sizes = [int(mask.sum()) for mask in found]
    areas = torch.zeros(masks.shape[-2:], dtype=torch.int64)
    for size, mask in sorted(zip(sizes, found, strict=True), key=lambda pair: -pair[0]):
        areas[mask] = size  # the smallest of several regions is the last
    return areas, len(found), sum(sizes)
