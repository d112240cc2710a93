"""EdgeBoxes: Zitnick, Dollár, Edge Boxes: Locating Object Proposals from Edges, ECCV 2014.

A box is likely to hold an object if many contours lie wholly in it: a contour that crosses the box's outline counts
against all that it leads on to.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.soft_edges import SoftEdges, soft_edges
from bestiary.heads.fitted_classification import to_bytes
from bestiary.ops._kernels.threads import in_threads
from bestiary.ops.suppression import nms
from bestiary.proposals.edge_graph import EdgeGraph, edge_graph, edge_groups
from bestiary.proposals.proposer import Proposals, Proposer

LEAST_ETA_BETA = 0.5
"""The adaptive suppression's threshold does not fall below this."""


class EdgeBoxes(Proposer):
    """Windows of all places, sizes and shapes, scored by the contours that they hold, refined, and thinned out.

    Args:
        alpha: IoU of neighbouring windows.
        beta: a box goes if its IoU with a better one is above this.
        eta: `beta` is multiplied with this for each box that stays, down to 0.5; 1 is the paper's. For recall at high
            IoU with 1,000 boxes: beta 0.9, eta 0.9996 (Hosang et al., TPAMI 2016).
        min_score: windows at or below this are dropped.
        max_boxes: at most so many, best first.
        edge_min_strength: pixels at or below this are no edges.
        edge_merge_turn: sum of the turns within an edge group at most, in half turns: the paper's pi / 2 is 0.5.
        cluster_min_mass: edge groups at or below this go to their neighbours.
        max_aspect: width to height at most, and height to width.
        min_box_area: of the smallest windows, square pixels.
        gamma: power of the affinities.
        kappa: power of the outline's length that a score is divided by.

    Raises:
        UsageError: a number out of range.
    """

    name: ClassVar[str] = "edge_boxes"

    def __init__(
        self,
        alpha: int | float = 0.65,
        beta: int | float = 0.75,
        eta: int | float = 1.0,
        min_score: int | float = 0.01,
        max_boxes: int = 10_000,
        *,
        edge_min_strength: int | float = 0.1,
        edge_merge_turn: int | float = 0.5,
        cluster_min_mass: int | float = 0.5,
        max_aspect: int | float = 3.0,
        min_box_area: int | float = 1000.0,
        gamma: int | float = 2.0,
        kappa: int | float = 1.5,
    ) -> None:
        super().__init__()
        ranges: dict[str, tuple[int | float, float, float]] = {
            "alpha": (alpha, 0.1, 0.95),
            "beta": (beta, 0, 1),
            "eta": (eta, 0.5, 1),
            "min_score": (min_score, 0, math.inf),
            "max_boxes": (max_boxes, 1, math.inf),
            "edge_min_strength": (edge_min_strength, 0, 1),
            "edge_merge_turn": (edge_merge_turn, 0, math.inf),
            "cluster_min_mass": (cluster_min_mass, 0, math.inf),
            "max_aspect": (max_aspect, 1, math.inf),
            "min_box_area": (min_box_area, 16, math.inf),
            "gamma": (gamma, 0, math.inf),
            "kappa": (kappa, 0, math.inf),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise UsageError(f"got {value}, wanted {low} to {high}", where=name)
        self._settings = {name: value for name, (value, _, _) in ranges.items()}

    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments."""
        return dict(self._settings)

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The boxes of a picture; a score is the paper's h_in.

        Raises:
            RecordError: a picture without pixels, or of other channels than one or three.
        """
        return self.find_in(soft_edges(to_bytes(image.detach().cpu())))

    def find_in(self, edges: SoftEdges) -> Proposals:
        """The boxes of an edge map, from whatever detector."""
        s = self._settings
        groups = edge_groups(edges, s["edge_min_strength"], s["edge_merge_turn"] * math.pi, s["cluster_min_mass"])
        graph = edge_graph(edges, groups, s["gamma"], s["kappa"])
        height, width = edges.strength.shape
        boxes = windows((height, width), s["alpha"], s["min_box_area"], s["max_aspect"])
        scores = score_windows(graph, boxes, s["min_score"])
        kept = scores > 0
        boxes, scores = refine_windows(graph, boxes[kept], scores[kept], s["alpha"])
        found, values = torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(scores)
        rows = _suppress(found, values, s["beta"], s["eta"], int(s["max_boxes"]))
        return Proposals(found[rows], values[rows])


def windows(
    size_hw: tuple[int, int], alpha: int | float = 0.65, min_area: int | float = 1000.0, max_aspect: int | float = 3.0
) -> Int64[np.ndarray, "N 4"]:
    """Windows `xyxy` of all places, sizes and shapes, so that one step of any kind leaves an IoU of `alpha`.

    Sizes grow by 1 / alpha in area. Moved by s of its width, a window keeps (1 - s) / (1 + s); widened by r and lowered
    by r, 1 / (2 r - 1): hence the steps.
    """
    height, width = size_hw
    found = []
    shapes = math.floor(math.log(max_aspect) / (2 * math.log((1 + alpha) / (2 * alpha))) + 1e-9)
    for size in range(math.floor(math.log(max(1.0, height * width / min_area)) / -math.log(alpha)) + 1):
        side = math.sqrt(min_area * alpha**-size)
        for shape in range(-shapes, shapes + 1):
            stretch = ((1 + alpha) / (2 * alpha)) ** shape
            wide, high = round(side * stretch), round(side / stretch)
            if 4 <= wide <= width and 4 <= high <= height:
                x, y = _places(width, wide, alpha), _places(height, high, alpha)
                left, top = (a.ravel() for a in np.meshgrid(x, y))
                found.append(np.stack([left, top, left + wide, top + high], 1))
    return np.concatenate(found) if found else np.zeros((0, 4), np.int64)


def _places(length: int, side: int, alpha: int | float) -> Shaped[np.ndarray, " n"]:
    """Evenly spread starts of a window, the first and the last at the picture's ends."""
    steps = math.ceil((length - side) / max(1.0, side * (1 - alpha) / (1 + alpha)))
    return np.rint(np.linspace(0, length - side, steps + 1)).astype(np.int64)


def score_windows(
    graph: EdgeGraph, boxes_xyxy: Int64[np.ndarray, "N 4"], least: int | float = 0.0
) -> Float32[np.ndarray, " N"]:
    """h_in of each box (equation 4); 0 where not above `least`."""
    from bestiary.proposals._kernels.edge_boxes import score_boxes

    scores = np.empty(len(boxes_xyxy), np.float32)

    def work(start: int, stop: int) -> None:
        score_boxes(graph, boxes_xyxy, start, stop, float(least), scores)

    in_threads(work, len(boxes_xyxy), torch.get_num_threads(), grain=1024)
    return scores


def refine_windows(
    graph: EdgeGraph, boxes_xyxy: Int64[np.ndarray, "N 4"], scores: Float32[np.ndarray, " N"], alpha: int | float
) -> tuple[Int64[np.ndarray, "N 4"], Float32[np.ndarray, " N"]]:
    """Boxes moved to where their score is higher, from half a window's step down to less than two pixels."""
    from bestiary.proposals._kernels.edge_boxes import refine_boxes

    boxes_xyxy, scores = boxes_xyxy.copy(), scores.copy()
    step = (1 - alpha) / (1 + alpha)

    def work(start: int, stop: int) -> None:
        refine_boxes(graph, boxes_xyxy, start, stop, step, scores)

    in_threads(work, len(boxes_xyxy), torch.get_num_threads(), grain=64)
    return boxes_xyxy, scores


def _suppress(
    boxes_xyxy: Float32[Tensor, "N 4"], scores: Float32[Tensor, " N"], beta: float, eta: float, most: int
) -> Shaped[Tensor, " K"]:
    """Rows that stay, best first."""
    from bestiary.proposals._kernels.edge_boxes import suppress_adaptively

    if eta == 1:
        return nms(boxes_xyxy, scores, beta)[:most]
    order = torch.argsort(scores, descending=True, stable=True).numpy()
    return torch.from_numpy(suppress_adaptively(boxes_xyxy.numpy(), order, beta, eta, LEAST_ETA_BETA, most))
