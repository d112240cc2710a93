"""Warping one picture of two colours towards another without changing its topology."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def warp(labels: np.ndarray, goal: np.ndarray, priority: np.ndarray, simple: np.ndarray) -> int:
    """Flip, in place, simple pixels of `labels` that differ from `goal`, until none is left.

    A pixel waits in the queue of its priority (0 first), first come first served, starting in reading order. Flipping a
    pixel changes nobody's simplicity but its neighbours', who are asked again.

    Args:
        labels, goal: uint8 0 or 1, with a border of one pixel that is equal in both, so that it never moves.
        priority: uint8, of every pixel.
        simple: whether a pixel may flip, by the bits of its eight neighbours (from the north clockwise).

    Returns:
        How many pixels were flipped.
    """
    height, width = labels.shape
    dy = np.array([-1, -1, 0, 1, 1, 1, 0, -1])
    dx = np.array([0, 1, 1, 1, 0, -1, -1, -1])
    after = np.full(height * width, -1, np.int64)
    waiting = np.zeros((height, width), np.bool_)
    heads, tails = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if labels[y, x] != goal[y, x]:
                _enqueue(y * width + x, np.int64(priority[y, x]), heads, tails, after)
                waiting[y, x] = True
    flips, level = 0, 0
    while level < 256:
        at = heads[level]
        if at < 0:
            level += 1
            continue
        heads[level] = after[at]
        if heads[level] < 0:
            tails[level] = -1
        after[at] = -1
        y, x = at // width, at % width
        waiting[y, x] = False
        around = 0
        for n in range(8):
            around |= np.int64(labels[y + dy[n], x + dx[n]]) << n
        if not simple[around]:
            continue
        labels[y, x] = goal[y, x]
        flips += 1
        for n in range(8):
            v, u = y + dy[n], x + dx[n]
            if labels[v, u] != goal[v, u] and not waiting[v, u]:
                _enqueue(v * width + u, np.int64(priority[v, u]), heads, tails, after)
                waiting[v, u] = True
                level = min(level, np.int64(priority[v, u]))
    return flips


@numba.njit(cache=True, nogil=True)
def _enqueue(at: int, level: np.int64, heads: np.ndarray, tails: np.ndarray, after: np.ndarray) -> None:
    if tails[level] < 0:
        heads[level] = at
    else:
        after[tails[level]] = at
    tails[level] = at
