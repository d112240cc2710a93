"""Where the learning of part models starts: shapes and filters of roots, and parts over a root's strongest places.

Felzenszwalb, Girshick, McAllester, Ramanan, TPAMI 2010, section 5.2, phases 1 and 3, with the release's sides (left or
right) found without labels.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.features.dpm_hog import CELL, dpm_features, mirrored_features, resized
from bestiary.features.part_models import DEFORMATION, PART, Component
from bestiary.records import require

LEAST_ROOT = PART // 2
"""Cells along a root's side, so that a part of twice the resolution fits."""

ASPECT_SPREAD = 0.14
"""Standard deviation with which logarithms of aspects are smoothed before their mode is taken."""

START_NORM = 0.1
"""Length of a new part's filter."""

START_COST = 0.1
"""What a new part pays for the square of a displacement."""

RETRIES, RELAXATIONS = 10, 200
"""Random improvements of where parts stand."""


def split_by_aspect(boxes_xyxy: Float32[Tensor, "N 4"], count: int) -> list[Int64[Tensor, " _n"]]:
    """Indices of boxes in `count` groups of equal size (fewer where there are fewer boxes), from wide to tall."""
    width, height = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).unbind(1)
    order = torch.sort(height / width, stable=True).indices
    return [part for part in order.tensor_split(min(count, max(1, len(order)))) if len(part)]


def root_size(boxes_xyxy: Float32[Tensor, "N 4"], areas: tuple[float | int, float | int]) -> tuple[int, int]:
    """Cells (height, width) of a root for these boxes: their commonest aspect, and an area that four fifths of them
    exceed.

    Args:
        boxes_xyxy: at least one.
        areas: least and largest area in square pixels.
    """
    width, height = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).double().unbind(1)
    logs = (height / width).log()
    votes = torch.exp(-0.5 * ((logs[:, None] - logs[None]) / ASPECT_SPREAD) ** 2).sum(1)
    aspect = float(logs[int(votes.argmax())].exp())
    ordered = (width * height).sort().values
    area = min(max(float(ordered[int(len(ordered) * 0.2)]), areas[0]), areas[1])
    across = (area / aspect) ** 0.5
    return max(LEAST_ROOT, round(across * aspect / CELL)), max(LEAST_ROOT, round(across / CELL))


def warped(
    image: Shaped[Tensor, "3 H W"], box_xyxy: Float32[Tensor, " 4"], size_hw: tuple[int, int]
) -> Float32[Tensor, "32 h w"]:
    """Features of what a box shows, brought to the size of a root whatever its aspect.

    A cell's width around the box is seen too; beyond the picture its last pixels are repeated.
    """
    x1, y1, x2, y2 = box_xyxy.double().tolist()
    tall, wide = size_hw
    down, across = (y2 - y1) / tall, (x2 - x1) / wide
    left, top, right, bottom = round(x1 - across), round(y1 - down), round(x2 + across), round(y2 + down)
    rows = torch.arange(top, max(bottom, top + 1)).clamp(0, image.shape[1] - 1)
    columns = torch.arange(left, max(right, left + 1)).clamp(0, image.shape[2] - 1)
    seen = image[:, rows][:, :, columns].float()
    return dpm_features(resized(seen, ((tall + 2) * CELL, (wide + 2) * CELL)))


def face_alike(features: Float32[Tensor, "N 32 h w"], rng: np.random.Generator) -> Bool[Tensor, " N"]:
    """Which of them to mirror so that all look alike: two mirrored clusters that fit the examples best.

    From several random starts, each example goes to the nearer of a mean and its mirror image until none changes.
    """
    plain = F.normalize(features.flatten(1), dim=1)
    turned = F.normalize(mirrored_features(features).flatten(1), dim=1)
    best, most = torch.zeros(len(plain), dtype=torch.bool), -1.0
    for _ in range(RETRIES):
        start = int(rng.integers(len(plain)))
        mean, flipped = plain[start], torch.zeros(len(plain), dtype=torch.bool)
        for _ in range(100):
            now = turned @ mean > plain @ mean
            mean = torch.where(now[:, None], turned, plain).mean(0)
            if torch.equal(now, flipped):
                break
            flipped = now
        if float(mean.norm()) > most:
            best, most = flipped, float(mean.norm())
    return best


def with_parts(component: Component, count: int, rng: np.random.Generator) -> Component:
    """`component` with `count` parts that cover most of the energy of its root's positive weights.

    The root is seen at twice its resolution. Parts are placed greedily; then, from there and several times over, single
    parts are taken up at random and put to their best place.

    Args:
        component: its own parts are forgotten.
        count: 0 for none.
        rng: of the improvements.
    """
    if count == 0:
        return Component.of_root(component.root, float(component.bias))
    tall, wide = component.size_hw
    require(min(tall, wide) >= LEAST_ROOT, "with_parts(component)", f"{tall} x {wide} cells", f"sides of {LEAST_ROOT}")
    double = F.interpolate(component.root[None], scale_factor=2, mode="bicubic", align_corners=False)[0]
    energy = (double.clamp(min=0) ** 2).sum(0).double().numpy()
    places = _cover(energy, count, rng)
    filters = []
    for x, y in places:
        seen = double[:, y : y + PART, x : x + PART]
        filters.append(START_NORM * seen / (seen.norm() + 1e-12))
    deformations = torch.zeros(count, DEFORMATION)
    deformations[:, 2:] = START_COST
    return Component(component.root, torch.stack(filters), torch.tensor(places), deformations, component.bias)


def _cover(energy: Float64[np.ndarray, "h w"], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Places (x, y) of `count` squares that together hold the most energy found."""
    greedy: list[tuple[int, int]] = []
    for _ in range(count):
        greedy.append(_best_place(energy, greedy))
    best, most = greedy, _covered(energy, greedy)
    for _ in range(RETRIES):
        places, stuck = list(greedy), set()
        for _ in range(RELAXATIONS):
            if len(stuck) == count:
                break
            taken = int(rng.integers(count))
            place = _best_place(energy, places[:taken] + places[taken + 1 :])
            if place == places[taken]:
                stuck.add(taken)
            else:
                places[taken], stuck = place, set()
        if _covered(energy, places) > most:
            best, most = places, _covered(energy, places)
    return best


def _left_over(energy: Float64[np.ndarray, "h w"], places: list[tuple[int, int]]) -> Float64[np.ndarray, "h w"]:
    left = energy.copy()
    for x, y in places:
        left[y : y + PART, x : x + PART] = 0
    return left


def _covered(energy: Float64[np.ndarray, "h w"], places: list[tuple[int, int]]) -> float:
    return float(energy.sum() - _left_over(energy, places).sum())


def _best_place(energy: Float64[np.ndarray, "h w"], others: list[tuple[int, int]]) -> tuple[int, int]:
    """Where a square holds most of the energy that the others leave."""
    windows = np.lib.stride_tricks.sliding_window_view(_left_over(energy, others), (PART, PART)).sum((2, 3))
    y, x = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(x), int(y)
