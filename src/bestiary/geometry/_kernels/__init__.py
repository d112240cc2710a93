"""Numba loops over run lengths and polygons, private to `geometry.masks`; serial, so fit for data workers."""
