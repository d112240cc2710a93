"""What part models are learned from: how a mixture is to be learned, where positives may lie, what is background."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.dpm_hog import CELL, feature_pyramid, level_scale
from bestiary.features.part_models import Hits, Scores, Templates
from bestiary.geometry.boxes import box_area, pairwise_intersection, pairwise_iou
from bestiary.records import Record

POSITIVE_LEVELS = 5
"""Levels an octave in which positives are placed, as in the release."""

NEUTRAL_OVERLAP = 0.3
"""Placements whose root overlaps an object of the category by this much or more are no negatives."""

CROWDED = 0.5
"""Nor are those with more than this share of their root on one crowd."""


@dataclass(frozen=True, eq=False)
class Picture(Record):
    """A picture as one category sees it.

    Attributes:
        image: RGB bytes.
        boxes_xyxy: its objects.
        crowds_xyxy: boxes that are neither objects nor background.
    """

    image: UInt8[Tensor, "3 H W"]
    boxes_xyxy: Float32[Tensor, "N 4"]
    crowds_xyxy: Float32[Tensor, "M 4"]


@dataclass(frozen=True)
class PartSettings:
    """How a mixture is learned.

    Attributes:
        components: of the mixture, by aspect; each counts twice, with its mirror image.
        parts: of each component.
        cost: C.
        overlap: of a positive's root with its box, at least.
        areas: least and largest area of a root in square pixels.
        finest: scale of the finest level; 2 for small objects.
        root_rounds: alternations of the mixture of roots.
        rounds: alternations with parts.
        passes: over the pictures for hard negatives, in each alternation, at most.
        cache_mb: memory of the examples, in megabytes.
    """

    components: int = 3
    parts: int = 8
    cost: float = 0.001
    overlap: float = 0.7
    areas: tuple[float, float] = (3000.0, 5000.0)
    finest: int = 1
    root_rounds: int = 1
    rounds: int = 8
    passes: int = 10
    cache_mb: int = 1000

    def __post_init__(self) -> None:
        least = {"components": 1, "parts": 0, "root_rounds": 0, "rounds": 0, "passes": 1, "cache_mb": 1}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise UsageError(f"got {getattr(self, name)}, wanted {limit} or more", where=name)
        if not self.cost > 0:
            raise UsageError(f"got {self.cost}, wanted more than 0", where="cost")
        if not 0 < self.areas[0] <= self.areas[1]:
            raise UsageError(f"got {self.areas}, wanted two rising numbers above 0", where="least_area")
        if self.finest not in (1, 2):
            raise UsageError(f"got {self.finest}, wanted 1 or 2", where="finest")
        if not 0 < self.overlap < 1:
            raise UsageError(f"got {self.overlap}, wanted a share between 0 and 1", where="overlap")


def best_placement(
    image: UInt8[Tensor, "3 H W"], box_xyxy: Float32[Tensor, " 4"], templates: Templates, settings: PartSettings
) -> tuple[Hits, Float32[Tensor, "1 D"]] | None:
    """The best placement whose root, as far as it is inside the picture, overlaps a box enough; and its features.

    Only the surroundings of the box are looked at, at the scales at which a root can overlap it so.
    """
    height, width = int(image.shape[1]), int(image.shape[2])
    x1, y1, x2, y2 = box_xyxy.tolist()
    margin = 0.5 * max(x2 - x1, y2 - y1) + 2 * CELL
    left, top = max(0, math.floor(x1 - margin)), max(0, math.floor(y1 - margin))
    right, bottom = min(width, math.ceil(x2 + margin)), min(height, math.ceil(y2 + margin))
    wanted = _levels_for(box_xyxy, (height, width), templates, settings)
    if not wanted or right - left < 3 or bottom - top < 3:
        return None
    crop, shift = image[:, top:bottom, left:right], torch.tensor([left, top, left, top]).float()
    best: tuple[Scores, Hits] | None = None
    for pair in feature_pyramid(crop, POSITIVE_LEVELS, settings.finest, wanted):
        scores = templates.score(pair)
        boxes = scores.root_boxes((bottom - top, right - left))
        overlaps = pairwise_iou(boxes.view(-1, 4), (box_xyxy - shift)[None]).view(boxes.shape[:-1])
        hits = scores.best_where(overlaps >= settings.overlap)
        if len(hits) and (best is None or hits.margins > best[1].margins):
            best = scores, hits
    if best is None:
        return None
    scores, hits = best
    moved = Hits(
        hits.margins, hits.templates, hits.levels, hits.roots_xy, hits.places_xy,
        hits.boxes_xyxy + shift, hits.parts_xyxy + shift,
    )  # fmt: skip
    return moved, scores.vectors(hits)


def _levels_for(
    box_xyxy: Float32[Tensor, " 4"], size_hw: tuple[int, int], templates: Templates, settings: PartSettings
) -> list[int]:
    """Indices of levels at which some root can overlap a box enough."""
    area = float(box_area(box_xyxy[None])[0])
    x1, y1, x2, y2 = box_xyxy.tolist()
    cut = min(x1, y1, size_hw[1] - x2, size_hw[0] - y2) < 2
    # Where the picture cuts the box off, the root may be larger by what lies outside.
    least, most = settings.overlap * (0.5 if cut else 1), 1 / settings.overlap
    found = []
    coarsest = math.ceil(POSITIVE_LEVELS * math.log2(max(2.0, settings.finest * max(size_hw) / CELL)))
    for level in range(coarsest + 1):
        cell = CELL / level_scale(level, POSITIVE_LEVELS, settings.finest)
        # Two per cent for rounding: sizes of levels are whole pixels.
        ratios = [area / (tall * wide * cell * cell) for tall, wide in templates.sizes_hw.tolist()]
        if any(least * 0.98 <= ratio <= most * 1.02 for ratio in ratios):
            found.append(level)
    return found


def is_background(boxes_xyxy: Float32[Tensor, "N 4"], picture: Picture) -> Bool[Tensor, " N"]:
    """Whether each box may be a negative: away from the category's objects, and not on a crowd."""
    fine = torch.ones(len(boxes_xyxy), dtype=torch.bool)
    if len(picture.boxes_xyxy) and len(boxes_xyxy):
        fine &= pairwise_iou(boxes_xyxy, picture.boxes_xyxy).amax(1) < NEUTRAL_OVERLAP
    if len(picture.crowds_xyxy) and len(boxes_xyxy):
        inside = pairwise_intersection(boxes_xyxy, picture.crowds_xyxy).amax(1)
        fine &= inside <= CROWDED * box_area(boxes_xyxy)
    return fine
