"""Haar-like features of many windows, and cascades of them over all windows of a picture."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from numba import njit


@njit(cache=True, nogil=True)
def corner_sums(
    integrals: Float32[np.ndarray, "A N"],
    offsets: Int64[np.ndarray, "F 9"],
    weights: Float32[np.ndarray, "F 9"],
    start: int,
    stop: int,
    out: Float32[np.ndarray, "F N"],
) -> None:
    """Weighted sums of the corners of some features, for all windows: windows lie along rows, so they run at once."""
    for f in range(start, stop):
        row = out[f]
        row[:] = 0
        for c in range(offsets.shape[1]):
            weight = weights[f, c]
            if weight != 0:
                corner = integrals[offsets[f, c]]
                for n in range(len(row)):
                    row[n] += weight * corner[n]


@njit(cache=True, nogil=True)
def scan_rows(
    sums: Float64[np.ndarray, "H1 W1"],
    squares: Float64[np.ndarray, "H1 W1"],
    size_hw: tuple[int, int],
    step: int,
    cascade: Any,
    least_stages: int,
    least_deviation: float,
    first_row: int,
    last_row: int,
    margins: Float32[np.ndarray, "Y X"],
    evidence: Float32[np.ndarray, "Y X"],
    work: Int64[np.ndarray, " Y"],
) -> None:
    """A cascade over the windows of some rows of a grid.

    Args:
        cascade: named tuple: offsets and shares of corners [F, 9], thresholds, polarities and alphas [F], stage_ends
            and stage_thresholds [S].
        margins: number of stages passed plus the share by which the next or last vote exceeds or misses its threshold,
            -1 where fewer than `least_stages` were passed.
        evidence: by how much the votes of all stages that were asked exceed their thresholds, together.
        work: features looked at in each row.
    """
    width = sums.shape[1]
    flat = sums.ravel()
    window_h, window_w = size_hw
    area = window_h * window_w
    offsets, weights, alphas = cascade.offsets, cascade.shares, cascade.alphas
    thresholds, polarities = cascade.thresholds, cascade.polarities
    stage_ends, stage_thresholds = cascade.stage_ends, cascade.stage_thresholds
    stages = len(stage_ends)
    for row in range(first_row, last_row):
        y = row * step
        looked = 0
        for column in range(margins.shape[1]):
            x = column * step
            base = y * width + x
            total = sums[y + window_h, x + window_w] - sums[y, x + window_w] - sums[y + window_h, x] + sums[y, x]
            square = squares[y + window_h, x + window_w] - squares[y, x + window_w]
            square += squares[y, x] - squares[y + window_h, x]
            variance = (square - total * total / area) / area
            deviation = max(math.sqrt(max(variance, 0.0)), least_deviation)
            first, passed, vote, reach, surplus = 0, 0, 0.0, 0.0, 0.0
            for stage in range(stages):
                vote, reach = 0.0, 0.0
                for f in range(first, stage_ends[stage]):
                    value = 0.0
                    for c in range(offsets.shape[1]):
                        weight = weights[f, c]
                        if weight == 0:
                            break
                        value += weight * flat[base + offsets[f, c]]
                    reach += alphas[f]
                    if (value <= thresholds[f] * deviation) == (polarities[f] > 0):
                        vote += alphas[f]
                looked += stage_ends[stage] - first
                first = stage_ends[stage]
                surplus += vote - stage_thresholds[stage]
                if vote < stage_thresholds[stage]:
                    break
                passed += 1
            evidence[row, column] = surplus
            if passed >= least_stages:
                excess = 0.0
                if reach > 0:
                    excess = (vote - stage_thresholds[min(passed, stages - 1)]) / reach
                margins[row, column] = passed + excess
            else:
                margins[row, column] = -1
        work[row] = looked


@njit(cache=True, nogil=True)
def bin_values(
    values: Float32[np.ndarray, "F N"],
    edges: Float32[np.ndarray, "F E"],
    start: int,
    stop: int,
    codes: UInt8[np.ndarray, "F N"],
) -> None:
    """The number of a feature's edges that each of its values is above: bytes."""
    most = edges.shape[1]
    for f in range(start, stop):
        edge = edges[f]
        for n in range(values.shape[1]):
            value = values[f, n]
            low, high = 0, most
            while low < high:
                middle = (low + high) // 2
                if edge[middle] < value:
                    low = middle + 1
                else:
                    high = middle
            codes[f, n] = low


@njit(cache=True, nogil=True)
def best_splits(
    codes: UInt8[np.ndarray, "F N"],
    signed: Float64[np.ndarray, " N"],
    positive: float,
    negative: float,
    start: int,
    stop: int,
    errors: Float64[np.ndarray, " F"],
    splits: Int32[np.ndarray, " F"],
    polarities: Int32[np.ndarray, " F"],
) -> None:
    """For each feature the split of its codes with the least weighted error.

    Polarity 1 takes codes up to the split for objects, -1 those above it.

    Args:
        signed: weights, those of negatives below 0.
        positive: sum of the weights of positives, and
        negative: of negatives.
    """
    histogram = np.zeros(256)
    for f in range(start, stop):
        histogram[:] = 0
        row = codes[f]
        for n in range(len(row)):
            histogram[row[n]] += signed[n]
        below = 0.0
        errors[f] = np.inf
        for split in range(255):
            below += histogram[split]
            if positive - below < errors[f]:
                errors[f], splits[f], polarities[f] = positive - below, split, 1
            if negative + below < errors[f]:
                errors[f], splits[f], polarities[f] = negative + below, split, -1
