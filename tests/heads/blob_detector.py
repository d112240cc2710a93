"""A detector whose answers are known: each connected bright blob is an object, its box exact."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bestiary.heads.detection import Detector
from bestiary.predictions import Detections


class BlobDetector(Detector):
    """Boxes of the visible part of every blob; grey below 0.8 is category 0, brighter is 1; the score is the share of
    grey in the brightest pixel.
    """

    def __init__(self, max_detections: int = 100) -> None:
        super().__init__(("dim", "bright"), max_detections)
        self.calls: list[list[tuple[int, int]]] = []

    def detect_images(self, images: Sequence[Tensor]) -> list[Detections]:
        self.calls.append([(int(i.shape[-2]), int(i.shape[-1])) for i in images])
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> Detections:
        grey = image[0].numpy()
        parts, count = ndimage.label(grey > 0.05, np.ones((3, 3)))  # type: ignore[misc]
        found = []
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts, count), 1):
            top = float(grey[rows, columns][parts[rows, columns] == part].max())
            found.append((float(columns.start), float(rows.start), float(columns.stop), float(rows.stop), top))
        table = torch.tensor(sorted(found, key=lambda row: -row[4]), dtype=torch.float32).view(-1, 5)
        table = table[: self.max_detections]
        labels = (table[:, 4] >= 0.8).long()
        size_hw = (int(image.shape[-2]), int(image.shape[-1]))
        return Detections(table[:, :4], labels, table[:, 4], size_hw=size_hw, categories=self.categories)


def picture(size_hw: tuple[int, int], *blobs: tuple[int, int, int, int, float]) -> Tensor:
    """Black, with rectangles x1, y1, x2, y2 of a grey."""
    image = torch.zeros(3, *size_hw)
    for x1, y1, x2, y2, grey in blobs:
        image[:, y1:y2, x1:x2] = grey
    return image


def rows_of(found: object) -> list[tuple[float, ...]]:
    """Boxes, labels and scores, best first, as plain numbers."""
    assert isinstance(found, Detections)
    parts = [found.boxes_xyxy, found.labels[:, None].float(), found.scores[:, None]]
    return [tuple(round(v, 4) for v in row) for row in torch.cat(parts, 1).tolist()]
