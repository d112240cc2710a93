"""Numba loops over run lengths and polygons, private to `geometry`; serial, so fit for data workers."""

from bestiary import kernel_cache as kernel_cache
