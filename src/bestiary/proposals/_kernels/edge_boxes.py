"""Edges strung to groups, and boxes scored by the groups that lie wholly in them (EdgeBoxes, section 3)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from numba import njit

from bestiary.proposals.edge_graph import EdgeGraph

HALF_TURN = np.float32(np.pi)


class Visit(NamedTuple):
    """What the score of one box after the other is found in.

    Attributes:
        stamps: the box that last came to each group.
        nearness: largest product of affinities along a path from the box's outline.
        waits: whether the group stands in the queue.
        queue: groups that have come nearer since their neighbours were looked at; a ring.
    """

    stamps: Int64[np.ndarray, " G"]
    nearness: Float32[np.ndarray, " G"]
    waits: Bool[np.ndarray, " G"]
    queue: Int32[np.ndarray, " G"]


@njit(cache=True, nogil=True)
def _visit(groups: int) -> Visit:
    stamps = np.empty(groups, np.int64)
    for group in range(groups):
        stamps[group] = -1
    return Visit(stamps, np.empty(groups, np.float32), np.empty(groups, np.bool_), np.empty(groups, np.int32))


@njit(cache=True, nogil=True)
def _turn(one: Any, two: Any) -> Any:
    """Between two lines, 0 to a quarter of a turn; their angles are 0 to half a turn."""
    difference = np.abs(one - two)
    return np.minimum(difference, HALF_TURN - difference)


@njit(cache=True, nogil=True)
def string_edges(
    strength: Float32[np.ndarray, "H W"],
    tangents: Float32[np.ndarray, "H W"],
    least: float,
    most_turn: float,
    groups: Int32[np.ndarray, "H W"],
) -> int:
    """Groups of edge pixels stronger than `least`; the others get -1. Returns how many groups there are.

    From the first free pixel in reading order a group takes, of all free neighbours of its pixels, the one that turns
    least, until all turns together would be above `most_turn`.
    """
    height, width = strength.shape
    edges, found = 0, 0
    for y in range(height):
        for x in range(width):
            groups[y, x] = -2 if strength[y, x] > least else -1
            edges += strength[y, x] > least
    waiting, turns = np.empty(8 * edges, np.int32), np.empty(8 * edges, np.float32)
    for seed in range(height * width):
        if groups[seed // width, seed % width] != -2:
            continue
        pixel, count, turned = seed, 0, np.float32(0.0)
        while True:
            y, x = pixel // width, pixel % width
            groups[y, x] = found
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    if groups[v, u] == -2:
                        waiting[count], turns[count] = v * width + u, _turn(tangents[y, x], tangents[v, u])
                        count += 1
            best, i = -1, 0
            while i < count:
                if groups[waiting[i] // width, waiting[i] % width] != -2:
                    count -= 1
                    waiting[i], turns[i] = waiting[count], turns[count]
                    continue
                if best < 0 or turns[i] < turns[best]:
                    best = i
                i += 1
            if best < 0 or turned + turns[best] > most_turn:
                break
            turned += turns[best]
            pixel = np.int64(waiting[best])
        found += 1
    return found


@njit(cache=True, nogil=True)
def adopt_loose(
    groups: Int32[np.ndarray, "H W"], tangents: Float32[np.ndarray, "H W"], loose: Int32[np.ndarray, " L"]
) -> None:
    """Pixels of groups that were too light (-2 in `groups`) go to the group beside them that they turn least from.

    So do their own neighbours then; those with no group beside them get -1.
    """
    height, width = groups.shape
    left, changed = len(loose), True
    while left > 0 and changed:
        changed, kept = False, 0
        for i in range(left):
            y, x = loose[i] // width, loose[i] % width
            best, least = -1, HALF_TURN
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    turn = _turn(tangents[y, x], tangents[v, u])
                    if groups[v, u] >= 0 and turn < least:
                        best, least = groups[v, u], turn
            if best >= 0:
                groups[y, x], changed = best, True
            else:
                loose[kept] = loose[i]
                kept += 1
        left = kept
    for i in range(left):
        groups[loose[i] // width, loose[i] % width] = -1


@njit(cache=True, nogil=True)
def near_pairs(groups: Int32[np.ndarray, "H W"], total: int, reach: int, pairs: Int64[np.ndarray, " P"]) -> int:
    """Pairs a < b of groups, as a times `total` plus b, with pixels at most `reach` apart along both axes.

    Pairs come more than once. Returns how many there are; where `pairs` is too short, it is filled.
    """
    height, width = groups.shape
    count, last = 0, np.int64(-1)
    for y in range(height):
        for x in range(width):
            one = np.int64(groups[y, x])
            if one < 0:
                continue
            for v in range(y, min(height, y + reach + 1)):
                for u in range(x + 1 if v == y else max(0, x - reach), min(width, x + reach + 1)):
                    two = np.int64(groups[v, u])
                    if two < 0 or one == two:
                        continue
                    pair = min(one, two) * total + max(one, two)
                    if pair != last:
                        if count < len(pairs):
                            pairs[count] = pair
                        count += 1
                        last = pair
    return count


@njit(cache=True, nogil=True)
def _within(sums: Float64[np.ndarray, "_H1 _W1"], x1: int, y1: int, x2: int, y2: int) -> float:
    return sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]


@njit(cache=True, nogil=True)
def _cross(crossed: Int32[np.ndarray, " _list"], start: int, stop: int, serial: int, visit: Visit, count: int) -> int:
    """Queue the groups on one side of a box, each once."""
    for i in range(start, stop + 1):
        group = crossed[i]
        if group >= 0 and visit.stamps[group] != serial:
            visit.stamps[group], visit.nearness[group], visit.waits[group] = serial, 1.0, True
            visit.queue[count] = group
            count += 1
    return count


@njit(cache=True, nogil=True)
def _score(
    graph: EdgeGraph,
    box: tuple[int, int, int, int],
    least: float,
    serial: int,
    visit: Visit,
) -> float:
    """h_in of a box (equations 2 to 4), or 0 where it cannot be above `least`.

    `nearness` is the largest product of affinities along a path from a group that crosses the outline: 1 - w. Since no
    affinity is above 1, groups are visited again only when a better path to them was found.
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    share = graph.shares[width + height]
    across, down = width // 4, height // 4
    middle = _within(graph.pixel_sums, x1 + across, y1 + down, x2 - across, y2 - down)
    total = _within(graph.group_sums, x1, y1, x2, y2) - middle
    if total * share <= least:
        return 0.0
    rows, columns = graph.row_places, graph.column_places
    count = 0
    for y in (y1, y2 - 1):
        count = _cross(graph.row_groups, rows[y, x1], rows[y, x2 - 1], serial, visit, count)
    for x in (x1, x2 - 1):
        count = _cross(graph.column_groups, columns[x, y1], columns[x, y2 - 1], serial, visit, count)
    for i in range(count):
        group = visit.queue[i]
        x, y = graph.centres_xy[group, 0], graph.centres_xy[group, 1]
        if x1 <= x < x2 and y1 <= y < y2:
            total -= graph.mass[group]
    at, room = 0, len(visit.queue)
    while at < count and total * share > least:
        group = visit.queue[at % room]
        visit.waits[group] = False
        at += 1
        for i in range(graph.starts[group], graph.starts[group + 1]):
            other = graph.neighbours[i]
            near = visit.nearness[group] * graph.affinities[i]
            x, y = graph.centres_xy[other, 0], graph.centres_xy[other, 1]
            if x < x1 or x >= x2 or y < y1 or y >= y2:
                continue
            met = visit.stamps[other] == serial
            before = visit.nearness[other] if met else np.float32(0.0)
            if near <= before:
                continue
            total -= (near - before) * graph.mass[other]
            visit.nearness[other] = near
            if not met or not visit.waits[other]:
                visit.stamps[other], visit.waits[other] = serial, True
                visit.queue[count % room] = other
                count += 1
    return total * share if total * share > least else 0.0


@njit(cache=True, nogil=True)
def score_boxes(
    graph: EdgeGraph,
    boxes_xyxy: Int64[np.ndarray, "N 4"],
    start: int,
    stop: int,
    least: float,
    scores: Float32[np.ndarray, " N"],
) -> None:
    """Scores of the boxes from `start` to `stop`; 0 where not above `least`."""
    visit = _visit(len(graph.mass))
    for i in range(start, stop):
        x1, y1, x2, y2 = boxes_xyxy[i, 0], boxes_xyxy[i, 1], boxes_xyxy[i, 2], boxes_xyxy[i, 3]
        scores[i] = _score(graph, (x1, y1, x2, y2), least, i, visit)


@njit(cache=True, nogil=True)
def refine_boxes(
    graph: EdgeGraph,
    boxes_xyxy: Int64[np.ndarray, "N 4"],
    start: int,
    stop: int,
    step_share: float,
    scores: Float32[np.ndarray, " N"],
) -> None:
    """Move the sides of each box while that raises its score, by steps that halve until they are below two pixels."""
    height, width = graph.row_places.shape
    visit, serial = _visit(len(graph.mass)), 0
    for i in range(start, stop):
        x1, y1, x2, y2 = boxes_xyxy[i, 0], boxes_xyxy[i, 1], boxes_xyxy[i, 2], boxes_xyxy[i, 3]
        across, down = step_share * (x2 - x1) / 2, step_share * (y2 - y1) / 2
        while across >= 2 or down >= 2:
            for side in range(4):
                step = max(1, round(across if side % 2 == 0 else down))
                for sign in (-1, 1):
                    u1 = x1 + sign * step if side == 0 else x1
                    v1 = y1 + sign * step if side == 1 else y1
                    u2 = x2 + sign * step if side == 2 else x2
                    v2 = y2 + sign * step if side == 3 else y2
                    if u1 < 0 or v1 < 0 or u2 > width or v2 > height or u2 - u1 < 4 or v2 - v1 < 4:
                        continue
                    serial += 1
                    score = _score(graph, (u1, v1, u2, v2), np.float64(scores[i]), serial, visit)
                    if score > scores[i]:
                        scores[i] = score
                        x1, y1, x2, y2 = u1, v1, u2, v2
                        break
            across, down = across / 2, down / 2
        boxes_xyxy[i, 0], boxes_xyxy[i, 1], boxes_xyxy[i, 2], boxes_xyxy[i, 3] = x1, y1, x2, y2


@njit(cache=True, nogil=True)
def suppress_adaptively(
    boxes_xyxy: Float32[np.ndarray, "N 4"],
    order: Int64[np.ndarray, " N"],
    beta: float,
    eta: float,
    least_beta: float,
    most: int,
) -> Int64[np.ndarray, " K"]:
    """Greedy suppression whose threshold is multiplied with `eta` for each box that stays, until below `least_beta`."""
    kept, count = np.empty(min(most, len(order)), np.int64), 0
    for i in range(len(order)):
        if count == len(kept):
            break
        one = boxes_xyxy[order[i]]
        area = (one[2] - one[0]) * (one[3] - one[1])
        stays = True
        for j in range(count):
            two = boxes_xyxy[kept[j]]
            across = min(one[2], two[2]) - max(one[0], two[0])
            down = min(one[3], two[3]) - max(one[1], two[1])
            if across > 0 and down > 0:
                common = across * down
                if common > beta * (area + (two[2] - two[0]) * (two[3] - two[1]) - common):
                    stays = False
                    break
        if stays:
            kept[count] = order[i]
            count += 1
            if beta > least_beta:
                beta *= eta
    return kept[:count]
