"""Values back to where their maxima were, plane by plane, or pixel by pixel in channels-last memory."""

import numpy as np
from jaxtyping import Float, Int64
from numba import njit


@njit(cache=True, nogil=True)
def unpool_planes(
    values: Float[np.ndarray, "planes pooled"],
    indices: Int64[np.ndarray, "planes pooled"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "planes pixels"],
) -> bool:
    """Fill planes start..stop of `out`; False if an index lies outside (that value is left out)."""
    pixels = np.uint64(out.shape[1])
    inside = True
    for plane in range(start, stop):
        row = out[plane]
        row[:] = 0
        for i in range(values.shape[1]):
            at = np.uint64(indices[plane, i])
            if at < pixels:  # a negative index is huge when unsigned
                row[at] += values[plane, i]
            else:
                inside = False
    return inside


@njit(cache=True, nogil=True)
def unpool_pixels(
    values: Float[np.ndarray, "batch pooled channels"],
    indices: Int64[np.ndarray, "batch pooled channels"],
    start: int,
    stop: int,
    out: Float[np.ndarray, "batch pixels channels"],
) -> bool:
    """As `unpool_planes` for pictures start..stop."""
    pixels = np.uint64(out.shape[1])
    inside = True
    for picture in range(start, stop):
        plane = out[picture]
        plane[:] = 0
        for i in range(values.shape[1]):
            for channel in range(values.shape[2]):
                at = np.uint64(indices[picture, i, channel])
                if at < pixels:
                    plane[at, channel] += values[picture, i, channel]
                else:
                    inside = False
    return inside
