"""Masks as bits, column by column: 64 pixels a word, for what many masks have in common."""

import numpy as np
from jaxtyping import Int32, Int64, UInt64
from numba import njit

from bestiary.geometry._kernels.instructions import popcount, trailing_zeros

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def span(counts: Int32[np.ndarray, " K"]) -> tuple[int, int]:
    """Positions of the first pixel of a mask and behind its last; (0, 0) for an empty mask."""
    first, end, at = -1, 0, 0
    for k in range(counts.size):
        if k % 2 and counts[k]:
            first = at if first < 0 else first
            end = at + counts[k]
        at += counts[k]
    return max(first, 0), end


@njit(cache=True, nogil=True)
def set_runs(
    counts: Int32[np.ndarray, " K"], parity: int, low: int, high: int, words: UInt64[np.ndarray, " W"]
) -> None:
    """Set the bits of the runs of ones (parity 1) or of zeros (parity 0), as far as they lie in `low` to `high`.

    Bit 0 of the first word is position `low` rounded down to a multiple of 64.
    """
    origin, at = low // 64 * 64, np.int64(0)
    for k in range(counts.size):
        begin, end = max(at, low), min(at + counts[k], high)
        at += counts[k]
        if k % 2 != parity or begin >= end:
            continue
        first, last = (begin - origin) >> 6, (end - 1 - origin) >> 6
        head = _ALL << np.uint64((begin - origin) & 63)
        tail = _ALL >> np.uint64(63 - ((end - 1 - origin) & 63))
        if first == last:
            words[first] |= head & tail
        else:
            words[first] |= head
            for i in range(first + 1, last):
                words[i] = _ALL
            words[last] |= tail


@njit(cache=True, nogil=True)
def common_bits(first: UInt64[np.ndarray, " A"], second: UInt64[np.ndarray, " B"], i: int, j: int, count: int) -> int:
    """Ones that words `i` on of one have in common with words `j` on of another."""
    total = np.uint64(0)
    one, other = first[i : i + count], second[j : j + count]
    for k in range(count):
        total += popcount(one[k] & other[k])
    return int(total)


@njit(cache=True, nogil=True)
def merge(
    counts: Int32[np.ndarray, " K"], starts: Int64[np.ndarray, " N1"], intersect: bool
) -> Int32[np.ndarray, " U"]:
    """Counts, canonical, of the union or the intersection of N > 0 masks of one size.

    Args:
        counts: of all masks, one after the other.
        starts: [N + 1] where each mask's begin.
        intersect: the pixels of all masks, not of any.
    """
    low, high = span(counts[: starts[1]])
    for n in range(1, starts.size - 1):
        begin, end = span(counts[starts[n] : starts[n + 1]])
        if intersect:
            low, high = max(low, begin), min(high, end)
        elif begin < end:
            low, high = (min(low, begin), max(high, end)) if low < high else (begin, end)
    total = counts[: starts[1]].sum()
    if low >= high:
        return np.full(1, total, np.int32)
    words = np.zeros((high - low // 64 * 64 + 63) // 64, np.uint64)
    for n in range(starts.size - 1):
        set_runs(counts[starts[n] : starts[n + 1]], 0 if intersect else 1, low, high, words)
    if intersect:
        # What was set is what some mask lacks.
        for i in range(words.size):
            words[i] = ~words[i]
        words[0] &= _ALL << np.uint64(low % 64)
        words[-1] &= _ALL >> np.uint64(63 - (high - 1) % 64)
    return _to_counts(words, low // 64 * 64, total)


@njit(cache=True, nogil=True)
def _to_counts(words: UInt64[np.ndarray, " W"], origin: int, pixels: int) -> Int32[np.ndarray, " K"]:
    changes, before = 2, np.uint64(0)
    for word in words:
        changes += np.int64(popcount(word ^ (word << _ONE | before)))
        before = word >> np.uint64(63)
    counts = np.empty(changes, np.int32)
    used, at, before = 0, np.int64(0), np.uint64(0)
    for i in range(words.size):
        found = words[i] ^ (words[i] << _ONE | before)
        before = words[i] >> np.uint64(63)
        while found:
            here = origin + 64 * i + np.int64(trailing_zeros(found))
            counts[used] = here - at
            used += 1
            at = here
            found &= found - _ONE
    if before:
        end = origin + 64 * words.size
        counts[used] = end - at
        used += 1
        at = end
    if at < pixels or used == 0:
        counts[used] = pixels - at
        used += 1
    return counts[:used].copy()
