"""Masks packed to bits, 64 pixels a word, their common pixels, and the boxes around them."""

import numpy as np
from jaxtyping import Int64, UInt8, UInt64
from numba import njit

from bestiary.geometry._kernels.bits import common_bits
from bestiary.geometry._kernels.instructions import differing_bytes, trailing_zeros

_WORDS = 512
"""Words of a mask at a time: those of a hundred masks stay in the second cache while they are compared."""


@njit(cache=True, nogil=True)
def pack(pixels: UInt8[np.ndarray, "N P"], start: int, stop: int, words: UInt64[np.ndarray, "N W"]) -> None:
    """Bits of masks `start:stop`, ceil(P / 64) words each; what is left of the last word is 0."""
    blank = np.zeros(64, np.uint8)
    for n in range(start, stop):
        row = pixels[n]
        full = row.size // 64
        for i in range(full):
            words[n, i] = differing_bytes(row, 64 * i, blank, 0)
        if full < words.shape[1]:
            last = np.uint64(0)
            for p in range(64 * full, row.size):
                last |= np.uint64(row[p] != 0) << np.uint64(p - 64 * full)
            words[n, full] = last


@njit(cache=True, nogil=True)
def count_pixels(words: UInt64[np.ndarray, "N W"]) -> Int64[np.ndarray, " N"]:
    """Pixels of each mask."""
    counts = np.empty(words.shape[0], np.int64)
    for n in range(words.shape[0]):
        counts[n] = common_bits(words[n], words[n], 0, 0, words.shape[1])
    return counts


@njit(cache=True, nogil=True)
def common_pixels(
    first: UInt64[np.ndarray, "N W"],
    second: UInt64[np.ndarray, "M W"],
    start: int,
    stop: int,
    shared: Int64[np.ndarray, "N M"],
) -> None:
    """Pixels that masks `start:stop` of one list share with each of another."""
    shared[start:stop] = 0
    for low in range(0, first.shape[1], _WORDS):
        count = min(_WORDS, first.shape[1] - low)
        for n in range(start, stop):
            if common_bits(first[n], first[n], low, low, count) == 0:
                continue
            for m in range(second.shape[0]):
                shared[n, m] += common_bits(first[n], second[m], low, low, count)


@njit(cache=True, nogil=True)
def bounds(pixels: UInt8[np.ndarray, "N H W"], start: int, stop: int, boxes: Int64[np.ndarray, "N 4"]) -> None:
    """First column, first row, last column and last row of the pixels that are not 0; -1 each if there is none."""
    height, width = pixels.shape[1], pixels.shape[2]
    blank = np.zeros(64, np.uint8)
    columns = np.empty((width + 63) // 64, np.uint64)
    for n in range(start, stop):
        flat = pixels[n].reshape(height * width)
        columns[:] = 0
        top, bottom = -1, -1
        for y in range(height):
            some = np.uint64(0)
            for i in range(columns.size):
                x = 64 * i
                if x + 64 <= width:
                    found = differing_bytes(flat, y * width + x, blank, 0)
                else:
                    found = np.uint64(0)
                    for p in range(x, width):
                        found |= np.uint64(flat[y * width + p] != 0) << np.uint64(p - x)
                columns[i] |= found
                some |= found
            if some:
                top = y if top < 0 else top
                bottom = y
        left, right = -1, -1
        for i in range(columns.size):
            word = columns[i]
            while word:
                x = 64 * i + np.int64(trailing_zeros(word))
                left = x if left < 0 else left
                right = x
                word &= word - np.uint64(1)
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = left, top, right, bottom
