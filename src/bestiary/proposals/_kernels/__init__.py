"""numba kernels of the features, serial: threads come from `ops._kernels.threads`."""

from bestiary import kernel_cache as kernel_cache
