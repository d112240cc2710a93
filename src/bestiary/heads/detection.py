"""What every box detector does around its method: tiles, test-time views, and a limit of answers.

A subclass writes `detect_images`, calls `suppress` where overlapping boxes of a category make room, and keeps at most
`max_detections`. A subclass that brings pictures to a size of its own writes `detect_scaled` too: a picture that was
enlarged beforehand would only be brought back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.network_scale import size_of
from bestiary.heads.suppression import HARD, Suppression
from bestiary.heads.test_time import ONE_VIEW, DetectionViews, best_first, joined, mirrored
from bestiary.heads.tiling import NO_TILES, Tiling, merge_over_seams
from bestiary.layers.scaling import as_float
from bestiary.predictions import Detections, Prediction
from bestiary.records import Losses, Target
from bestiary.system import System
from bestiary.transforms.tiling import Window, cut_to_window


class Detector(System):
    """Base of the box detectors.

    Args:
        categories: K names.
        max_detections: answers a picture, the best.

    Attributes:
        tiling: how pictures are cut; whole, unless `take` is told otherwise.
        test_views: what of a picture, or of each tile, is looked at; once, as it is.
        suppression: how overlapping boxes make room; hard NMS. Exported graphs keep that.

    Raises:
        UsageError: no category, or no answer wanted.
    """

    task = "detection"
    further_arguments: ClassVar[frozenset[str]] = frozenset(
        {
            "max_detections",
            "merge",
            "merge_iou",
            "suppression",
            "suppression_iou",
            "suppression_sigma",
            "test_flip",
            "test_scales",
            "tile",
            "tile_overlap",
            "tile_whole",
        }
    )
    tiling: Tiling = NO_TILES
    test_views: DetectionViews = ONE_VIEW
    suppression: Suppression = HARD

    def __init__(self, categories: Sequence[str], max_detections: int = 100) -> None:
        super().__init__(categories)
        if not self.categories:
            raise UsageError("got no category, wanted at least one", where="categories")
        self.max_detections = _at_least_one(max_detections)

    def take(self, arguments: Mapping[str, Any]) -> None:
        """Look at pictures in another way, by the names of `further_arguments`: `Tiling` has the three of tiles,
        `DetectionViews` those of views and merging, `Suppression` its own three.

        Raises:
            UsageError: a value that cannot be.
        """
        tiling, views, rule = self.tiling, self.test_views, self.suppression
        self.tiling = Tiling(
            arguments.get("tile", tiling.tile),
            arguments.get("tile_overlap", tiling.overlap),
            arguments.get("tile_whole", tiling.whole),
        )
        self.test_views = DetectionViews(
            tuple(arguments.get("test_scales", views.scales)),
            arguments.get("test_flip", views.flip),
            arguments.get("merge", views.merge),
            arguments.get("merge_iou", views.iou),
        )
        self.suppression = Suppression(
            arguments.get("suppression", rule.kind),
            arguments.get("suppression_iou", rule.iou),
            arguments.get("suppression_sigma", rule.sigma),
            rule.min_score,
        )
        self.max_detections = _at_least_one(arguments.get("max_detections", self.max_detections))

    def suppress(
        self,
        boxes_xyxy: Float[Tensor, "N 4"],
        scores: Float[Tensor, " N"],
        labels: Int[Tensor, " N"],
        iou: int | float,
    ) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
        """Indices of the boxes that stay and their scores, best first: NMS within each category at `iou`, or as
        `suppression` says.
        """
        return self.suppression(boxes_xyxy, scores, labels, iou)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """What is found in each picture, in its own pixels, clipped, best first, at most `max_detections`."""
        raise NotImplementedError

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """`detect_images` of pictures that are seen `scale` times as large, still in the pixels they have.

        Here they are resized beforehand (bilinear, antialiased).
        """
        if scale == 1:
            return self.detect_images(images)
        sizes_hw = [size_of(image) for image in images]
        resized = [_resized(image, scale) for image in images]
        answers = []
        for size_hw, found in zip(sizes_hw, self.detect_images(resized), strict=True):
            boxes = clip_boxes(scale_boxes(found.boxes_xyxy, found.size_hw, size_hw), size_hw)
            answers.append(replace(found, boxes_xyxy=boxes, size_hw=size_hw))
        return answers

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """`detect_images`, tile by tile and view by view where that is asked for.

        As many tiles share a call as pictures were given, so that tiles need no more memory than pictures of that size.
        """
        if not self.tiling.tile and self.test_views.each == ONE_VIEW.each:
            return list(self.detect_images(images))
        answers: list[Prediction] = []
        for image in images:
            views = [self._view(image, scale, flip, len(images)) for scale, flip in self.test_views.each]
            answers.append(best_first(self.test_views.merged(views), self.max_detections))
        return answers

    def _view(self, image: Shaped[Tensor, "C H W"], scale: float, flip: bool, batch: int) -> Detections:
        """What is found in one picture at one scale, mirrored or not, over all tiles."""
        seen = image.flip(-1) if flip else image
        size_hw = size_of(image)
        tiles = self.tiling.windows(size_hw)
        windows = [*tiles, (0, 0, size_hw[1], size_hw[0])] if self.tiling.looks_whole(size_hw) else tiles
        parts = list(self._look(seen, windows, lambda part: self.detect_scaled(part, scale), batch))
        if len(parts) == 1:
            found = parts[0]
        else:
            places = torch.repeat_interleave(
                torch.tensor(windows, dtype=torch.float32), torch.tensor([len(part) for part in parts]), 0
            )
            found = merge_over_seams(joined(parts), places, torch.tensor(tiles, dtype=torch.float32))
        return mirrored(found) if flip else found

    def _look(
        self,
        image: Shaped[Tensor, "C H W"],
        windows: Sequence[Window],
        detect: Callable[[list[Tensor]], list[Detections]],
        batch: int,
    ) -> Iterator[Detections]:
        """What `detect` finds in each window, in pixels of the picture."""
        size_hw = size_of(image)
        for first in range(0, len(windows), batch):
            some = windows[first : first + batch]
            found = detect([image[:, y1:y2, x1:x2].contiguous() for x1, y1, x2, y2 in some])
            for (x, y, _, _), part in zip(some, found, strict=True):
                moved = part.boxes_xyxy + part.boxes_xyxy.new_tensor([x, y, x, y])
                yield replace(part, boxes_xyxy=moved, size_hw=size_hw)

    def validation_loss(self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]) -> Losses:
        """The loss at the scale that `predict` works at; of tiled pictures the mean over their tiles."""
        if not self.tiling.tile:
            return super().validation_loss(images, targets)
        parts, truths = [], []
        for image, target in zip(images, targets, strict=True):
            size_hw = size_of(image)
            known = target.to("cpu")
            for x1, y1, x2, y2 in self.tiling.windows(size_hw):
                parts.append(image[:, y1:y2, x1:x2])
                truths.append(cut_to_window(known, size_hw, (x1, y1, x2, y2)).to(image.device))
        sums: dict[str, Tensor] = {}
        for first in range(0, len(parts), len(images)):
            rows = slice(first, first + len(images))
            losses = super().validation_loss(parts[rows], truths[rows])
            for name, value in losses.terms.items():
                sums[name] = sums.get(name, value.new_zeros(())) + value * len(parts[rows])
        return Losses({name: value / len(parts) for name, value in sums.items()})


def _at_least_one(max_detections: int) -> int:
    if max_detections < 1:
        raise UsageError(f"got {max_detections}, wanted at least 1", where="max_detections")
    return max_detections


def _resized(image: Shaped[Tensor, "C H W"], scale: float) -> Float[Tensor, "C H2 W2"]:
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(as_float(image)[None], size=size, mode="bilinear", antialias=True)[0]
