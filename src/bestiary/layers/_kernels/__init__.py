"""Kernels of the layers that are fitted."""
