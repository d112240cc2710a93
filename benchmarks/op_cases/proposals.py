"""Selective Search and EdgeBoxes on a photograph-like picture, beside OpenCV-contrib's where its modules are installed.

OpenCV's Selective Search is that of its own settings (k 150 and 300), of fewer and larger segments than the paper's.
"""

from typing import Any

import cv2
import numpy as np
import torch
from benchmarks.op_cases import Case, Peers

from bestiary.features.soft_edges import soft_edges
from bestiary.features.superpixels import felzenszwalb_segments
from bestiary.proposals.edge_boxes import EdgeBoxes
from bestiary.proposals.selective_search import SelectiveSearchFast, SelectiveSearchQuality


def _street(height: int, width: int) -> np.ndarray:
    """Shapes of all sizes and colours, each with a texture of its own, under a camera's blur and noise."""
    rng = np.random.default_rng(0)
    canvas = np.full((height, width, 3), 128, np.float32)
    for size in np.geomspace(160, 8, 120):
        mask = np.zeros((height, width), np.uint8)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (max(2, int(size * rng.uniform(0.3, 1))), max(2, int(size * rng.uniform(0.3, 1))))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        grain = cv2.GaussianBlur(rng.normal(0, 60, (height, width)).astype(np.float32), (0, 0), rng.uniform(1, 4))
        canvas[mask > 0] = (rng.uniform(20, 235, 3) + grain[..., None])[mask > 0]
    noisy = cv2.GaussianBlur(canvas, (0, 0), 0.8) + rng.normal(0, 3, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def cases(peers: Peers) -> list[Case]:
    """The whole methods at their defaults, and their first parts."""
    threads = torch.get_num_threads()
    cv2.setNumThreads(threads)
    contrib: Any = getattr(cv2, "ximgproc", None)
    small, large = _street(375, 500), _street(480, 640)
    image, wide = (torch.from_numpy(p).permute(2, 0, 1).contiguous() for p in (small, large))
    fast, quality, boxes = SelectiveSearchFast(), SelectiveSearchQuality(), EdgeBoxes()
    edges = soft_edges(wide)

    def theirs(kind: str) -> object:
        search = contrib.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(small[..., ::-1].copy())
        getattr(search, f"switchToSelectiveSearch{kind}")()
        return search.process()

    def their_boxes() -> object:
        search = contrib.createEdgeBoxes()
        search.setMaxBoxes(10_000)
        return search.getBoundingBoxes(edges.strength.numpy(), edges.tangent.numpy())

    found = len(fast.find(image))
    return [
        Case(
            f"selective_search_fast 500 x 375, {found} boxes",
            lambda: fast.find(image),
            (lambda: theirs("Fast")) if contrib else None,
            1.0,
            "opencv-contrib",
        ),
        Case(
            "selective_search_quality 500 x 375",
            lambda: quality.find(image),
            (lambda: theirs("Quality")) if contrib else None,
            1.0,
            "opencv-contrib",
        ),
        Case(
            f"edge_boxes from an edge map 640 x 480, {len(boxes.find_in(edges))} boxes",
            lambda: boxes.find_in(edges),
            their_boxes if contrib else None,
            None,
            "opencv-contrib",
        ),
        Case("edge_boxes 640 x 480, at most 0.5 s", lambda: boxes.find(wide)),
        Case("soft_edges 640 x 480", lambda: soft_edges(wide)),
        Case("felzenszwalb_segments 640 x 480", lambda: felzenszwalb_segments(wide.float())),
    ]
