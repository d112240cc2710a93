"""Connected components of masks, and what can be said of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from torch import Tensor

from bestiary.records import require


@dataclass(frozen=True, eq=False)
class Components:
    """The N connected parts of a mask.

    Convention: parts are numbered from 1 in the order in which their first pixels come when the mask is read row by row
    (slice by slice); 0 is outside the mask. Row i of the other fields is part i + 1.

    Attributes:
        label_map: number of each pixel's part.
        areas: pixels (voxels).
        boxes_xyxy: outer edges; of a volume x1, y1, z1, x2, y2, z2.
        centroids: mean x, y (z) of the pixels' centres: a part of the top-left pixel alone is at (0.5, 0.5).
    """

    label_map: Int32[Tensor, "*D"]
    areas: Int64[Tensor, " N"]
    boxes_xyxy: Float32[Tensor, "N _s"]
    centroids: Float64[Tensor, "N _d"]

    def __len__(self) -> int:
        return len(self.areas)


def connected_components(mask: Bool[Tensor, "*D"], connectivity: int = 8) -> Components:
    """Parts of a picture's or a volume's mask.

    Convention: numbered from 1 in the order of their first pixels, row by row; 0 is outside. Boxes are outer edges,
    centroids the mean of pixel centres.

    Args:
        mask: [H, W] or [D, H, W]; on any device, computed on the CPU.
        connectivity: neighbours of a pixel: 4 or 8 in a picture, 6, 18 or 26 in a volume.

    Raises:
        RecordError: other axes or neighbours.
    """
    require(mask.ndim in (2, 3), "connected_components(mask)", f"shape {tuple(mask.shape)}", "(H, W) or (D, H, W)")
    choices = {2: (4, 8), 3: (6, 18, 26)}[mask.ndim]
    require(connectivity in choices, "connected_components(connectivity)", connectivity, f"one of {choices}")
    pixels = mask.detach().cpu().contiguous().numpy()
    if not pixels.size:
        return _described(np.zeros(pixels.shape, np.int32), 0, mask.device)
    if mask.ndim == 3:
        from scipy import ndimage

        structure = ndimage.generate_binary_structure(3, choices.index(connectivity) + 1)
        labels = np.zeros(pixels.shape, np.int32)
        return _described(labels, int(ndimage.label(pixels, structure, output=labels)), mask.device)  # type: ignore[arg-type]
    import cv2

    # Of OpenCV's algorithms this one numbers by the first pixel.
    count, labels, stats, centres = cv2.connectedComponentsWithStatsWithAlgorithm(
        pixels.view(np.uint8), connectivity, cv2.CV_32S, cv2.CCL_WU
    )
    x, y, w, h, areas = stats[1:].astype(np.int64).T
    boxes = np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)
    fields = (labels, areas.copy(), boxes, centres[1:count] + 0.5)
    return Components(*(torch.from_numpy(np.ascontiguousarray(f)).to(mask.device) for f in fields))


def _described(labels: Int32[np.ndarray, "*D"], count: int, device: torch.device) -> Components:
    """Areas, boxes and centroids of numbered parts of any number of axes."""
    from scipy import ndimage

    axes = labels.ndim
    boxes, centres = np.zeros((count, 2 * axes), np.float32), np.zeros((count, axes))
    flat = labels.reshape(-1)
    areas = np.bincount(flat, minlength=count + 1)[1:].astype(np.int64)
    slices: Any = ndimage.find_objects(labels, count) if count else []
    for i, found in enumerate(slices):
        extents = found[::-1]
        boxes[i] = [*(s.start for s in extents), *(s.stop for s in extents)]
    for axis in range(axes):
        place = np.arange(labels.shape[axis]).reshape([-1 if k == axis else 1 for k in range(axes)]) + 0.5
        sums = np.bincount(flat, np.broadcast_to(place, labels.shape).reshape(-1), minlength=count + 1)[1:]
        centres[:, axes - 1 - axis] = sums / np.maximum(areas, 1)
    return Components(*(torch.from_numpy(f).to(device) for f in (labels, areas, boxes, centres)))
