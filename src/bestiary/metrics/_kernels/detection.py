"""Matching of detections to truths, cell by cell: a cell is one category in one picture.

Every kernel is serial and free of the interpreter lock. Detections of one category are numbered by score, best first; a
cell lists numbers. Floating-point expressions keep the order of the reference tools, so that results are equal to the
bit.
"""

import numba
import numpy as np

FALSE_ALARM, HIT, IGNORED = 0, 1, 2
"""What became of a detection: it counts as wrong, as right, or not at all."""


@numba.njit(cache=True, nogil=True)
def group(keys: np.ndarray, order: np.ndarray, n_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Stable counting sort: `order` regrouped by `keys[order]`, and where each key's group starts (`n_keys + 1`)."""
    starts = np.zeros(n_keys + 1, np.int64)
    for i in range(order.size):
        starts[keys[order[i]] + 1] += 1
    for k in range(n_keys):
        starts[k + 1] += starts[k]
    grouped = np.empty(order.size, np.int64)
    place = starts[:-1].copy()
    for i in range(order.size):
        key = keys[order[i]]
        grouped[place[key]] = order[i]
        place[key] += 1
    return grouped, starts


@numba.njit(cache=True, nogil=True)
def form_cells(
    det_images: np.ndarray, gt_images: np.ndarray, n_images: int, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells of one category from the picture of each detection (in score order) and of each truth (in file order).

    Returns the numbers of detections and of truths grouped by picture, where each cell starts in both and in the flat
    list of its detection x truth pairs, and each detection's rank in its picture. Ranks from `limit` on are in no
    cell.
    """
    by_image, det_starts = group(det_images, np.arange(det_images.size), n_images)
    gts, gt_starts = group(gt_images, np.arange(gt_images.size), n_images)
    ranks = np.empty(det_images.size, np.int64)
    dets = np.empty(det_images.size, np.int64)
    cells = np.zeros((3, n_images + 1), np.int64)
    n_cells = 0
    for image in range(n_images):
        n_gts = gt_starts[image + 1] - gt_starts[image]
        n_dets = det_starts[image + 1] - det_starts[image]
        kept = min(n_dets, limit)
        first = cells[0, n_cells]
        for i in range(n_dets):
            ranks[by_image[det_starts[image] + i]] = i
            if i < kept:
                dets[first + i] = by_image[det_starts[image] + i]
        if kept > 0 or n_gts > 0:
            cells[0, n_cells + 1] = first + kept
            cells[1, n_cells + 1] = cells[1, n_cells] + n_gts
            cells[2, n_cells + 1] = cells[2, n_cells] + kept * n_gts
            n_cells += 1
    return dets[: cells[0, n_cells]], gts, cells[:, : n_cells + 1].copy(), ranks


@numba.njit(cache=True, nogil=True)
def box_overlaps(
    det_boxes: np.ndarray,
    gt_boxes: np.ndarray,
    gt_crowd: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
    margin: float,
) -> np.ndarray:
    """IoU of the pairs of every cell, flat; over the detection's own area where the truth is a crowd.

    Boxes are x, y, width, height; `margin` is added to both sides (1 for inclusive pixel numbers).
    """
    overlaps = np.zeros(cells[2, -1])
    for c in range(cells.shape[1] - 1):
        at = cells[2, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            x, y, w, h = det_boxes[dets[i]]
            det_area = (w + margin) * (h + margin)
            for j in range(cells[1, c], cells[1, c + 1]):
                gx, gy, gw, gh = gt_boxes[gts[j]]
                iw = min(w + x, gw + gx) - max(x, gx) + margin
                if iw > 0:
                    ih = min(h + y, gh + gy) - max(y, gy) + margin
                    if ih > 0:
                        both = iw * ih
                        gt_area = (gw + margin) * (gh + margin)
                        overlaps[at] = both / (det_area if gt_crowd[gts[j]] else det_area + gt_area - both)
                at += 1
    return overlaps


@numba.njit(cache=True, nogil=True)
def match_coco(
    overlaps: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
    gt_ignored: np.ndarray,
    gt_crowd: np.ndarray,
    det_outside: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's assignment of one category for A area ranges and T thresholds.

    Best score first, each detection takes the free truth of highest overlap (the later of equals), an ignored one
    only if no other is free; crowds are never used up. Unmatched detections outside the range are ignored.

    Args:
        gt_ignored: `[A, G]`. gt_crowd: `[G]`. det_outside: `[A, D]`.

    Returns:
        What became of each detection, uint8 `[A, T, D]`, and the number of its truth or -1, int32 `[A, T, D]`.
        Detections in no cell are ignored.
    """
    n_areas, n_dets = det_outside.shape
    outcome = np.full((n_areas, thresholds.size, n_dets), IGNORED, np.uint8)
    truth = np.full((n_areas, thresholds.size, n_dets), -1, np.int32)
    taken = np.zeros((n_areas, thresholds.size, gt_crowd.size), np.bool_)
    floors = np.minimum(thresholds, 1 - 1e-10)
    for c in range(cells.shape[1] - 1):
        n_gts = cells[1, c + 1] - cells[1, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            row = overlaps[cells[2, c] + (i - cells[0, c]) * n_gts :][:n_gts]
            number = dets[i]
            highest = -1.0
            for j in range(n_gts):
                highest = max(highest, row[j])
            for a in range(n_areas):
                for t in range(floors.size):
                    if highest < floors[t]:
                        outcome[a, t, number] = IGNORED if det_outside[a, number] else FALSE_ALARM
                        continue
                    best, found, ignored = floors[t], -1, False
                    for j in range(n_gts):
                        g = gts[cells[1, c] + j]
                        if not gt_ignored[a, g] and not taken[a, t, g] and row[j] >= best:
                            best, found = row[j], g
                    if found < 0:
                        for j in range(n_gts):
                            g = gts[cells[1, c] + j]
                            if gt_ignored[a, g] and (gt_crowd[g] or not taken[a, t, g]) and row[j] >= best:
                                best, found, ignored = row[j], g, True
                    if found < 0:
                        outcome[a, t, number] = IGNORED if det_outside[a, number] else FALSE_ALARM
                    else:
                        taken[a, t, found] = True
                        truth[a, t, number] = found
                        outcome[a, t, number] = IGNORED if ignored else HIT
    return outcome, truth


@numba.njit(cache=True, nogil=True)
def match_voc(
    overlaps: np.ndarray,
    dets: np.ndarray,
    gts: np.ndarray,
    cells: np.ndarray,
    gt_ignored: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The VOC devkit's assignment: each detection goes to its truth of highest overlap, free or not.

    Returns what became of each detection, uint8 `[D]`, and the number of its truth or -1, int32 `[D]`.
    """
    outcome = np.full(dets.size, FALSE_ALARM, np.uint8)
    truth = np.full(dets.size, -1, np.int32)
    taken = np.zeros(gts.size, np.bool_)
    for c in range(cells.shape[1] - 1):
        n_gts = cells[1, c + 1] - cells[1, c]
        for i in range(cells[0, c], cells[0, c + 1]):
            row = overlaps[cells[2, c] + (i - cells[0, c]) * n_gts :][:n_gts]
            best, found = threshold, -1
            for j in range(n_gts):
                if row[j] > best:
                    best, found = row[j], gts[cells[1, c] + j]
            if found < 0:
                continue
            if gt_ignored[found]:
                outcome[dets[i]], truth[dets[i]] = IGNORED, found
            elif not taken[found]:
                taken[found] = True
                outcome[dets[i]], truth[dets[i]] = HIT, found
    return outcome, truth


@numba.njit(cache=True, nogil=True)
def interpolate(
    outcome: np.ndarray,
    ranks: np.ndarray,
    scores: np.ndarray,
    limit: int | np.int64,
    n_truths: int | np.int64,
    recalls: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Precision at given recalls, monotone from the right, of one category's detections in score order.

    Args:
        outcome: `[D]`; ranks from `limit` on are left out. n_truths: those not ignored, at least one.

    Returns:
        Precision and score at each recall (0 where it is not reached), and the highest recall.
    """
    precision, score = np.zeros(recalls.size), np.zeros(recalls.size)
    capacity = min(outcome.size, n_truths)
    hit_precision, hit_score = np.empty(capacity), np.empty(capacity)
    hits, alarms, first = 0, 0, -1
    for i in range(outcome.size):
        if ranks[i] >= limit:
            continue
        if first < 0:
            first = i
        if outcome[i] == HIT:
            hit_score[hits] = scores[i]
            hits += 1
            hit_precision[hits - 1] = hits / (float(alarms) + float(hits) + 2.220446049250313e-16)
        elif outcome[i] == FALSE_ALARM:
            alarms += 1
    for i in range(hits - 1, 0, -1):
        hit_precision[i - 1] = max(hit_precision[i - 1], hit_precision[i])
    at = 0
    for r in range(recalls.size):
        if recalls[r] <= 0:
            # Recall 0 is reached by the first detection, whatever became of it.
            if first >= 0:
                precision[r] = hit_precision[0] if hits else 0.0
                score[r] = scores[first]
            continue
        while at < hits and (at + 1) / n_truths < recalls[r]:
            at += 1
        if at >= hits:
            break
        precision[r], score[r] = hit_precision[at], hit_score[at]
    return precision, score, hits / n_truths


@numba.njit(cache=True, nogil=True)
def interpolate_settings(
    outcome: np.ndarray,
    ranks: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    limits: np.ndarray,
    counted: np.ndarray,
    recalls: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`interpolate` of one category in S settings at T thresholds; NaN where a setting has no truth.

    Args:
        outcome: `[A, T, D]`. areas, limits: area range and most detections of each setting. counted: truths in each
            area range.

    Returns:
        Precision and score `[T, R, S]`, and the highest recall `[T, S]`.
    """
    shape = (outcome.shape[1], recalls.size, areas.size)
    precision, score = np.full(shape, np.nan), np.full(shape, np.nan)
    recall = np.full((outcome.shape[1], areas.size), np.nan)
    for s in range(areas.size):
        if counted[areas[s]] == 0:
            continue
        for t in range(outcome.shape[1]):
            truths = np.int64(counted[areas[s]])
            row = interpolate(outcome[areas[s], t], ranks, scores, limits[s], truths, recalls)
            precision[t, :, s], score[t, :, s], recall[t, s] = row
    return precision, score, recall
