"""Kernels of the layers that are fitted."""

from bestiary import kernel_cache as kernel_cache
