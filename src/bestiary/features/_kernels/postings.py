"""Sums over the posting lists of an inverted file."""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64
from numba import njit


@njit(cache=True, nogil=True)
def add_products(
    query_offsets: Int64[np.ndarray, " Q1"],
    query_columns: Int64[np.ndarray, " M"],
    query_values: Float32[np.ndarray, " M"],
    offsets: Int64[np.ndarray, " W1"],
    rows: Int32[np.ndarray, " P"],
    values: Float32[np.ndarray, " P"],
    start: int,
    stop: int,
    out: Float64[np.ndarray, "Q N"],
) -> None:
    """Scalar products of queries `start:stop` with all stored rows: only postings of the query's columns are read."""
    for q in range(start, stop):
        found = out[q]
        for m in range(query_offsets[q], query_offsets[q + 1]):
            value, column = np.float64(query_values[m]), query_columns[m]
            for p in range(offsets[column], offsets[column + 1]):
                found[rows[p]] += value * values[p]


@njit(cache=True, nogil=True)
def add_minima(
    query_offsets: Int64[np.ndarray, " Q1"],
    query_columns: Int64[np.ndarray, " M"],
    query_values: Float32[np.ndarray, " M"],
    offsets: Int64[np.ndarray, " W1"],
    rows: Int32[np.ndarray, " P"],
    values: Float32[np.ndarray, " P"],
    start: int,
    stop: int,
    out: Float64[np.ndarray, "Q N"],
) -> None:
    """Histogram intersections of queries `start:stop` with all stored rows."""
    for q in range(start, stop):
        found = out[q]
        for m in range(query_offsets[q], query_offsets[q + 1]):
            value, column = query_values[m], query_columns[m]
            for p in range(offsets[column], offsets[column + 1]):
                found[rows[p]] += np.float64(min(value, values[p]))
