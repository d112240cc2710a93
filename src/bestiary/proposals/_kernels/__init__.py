"""numba kernels of the features, serial: threads come from `ops._kernels.threads`."""
