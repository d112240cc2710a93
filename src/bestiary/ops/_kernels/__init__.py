"""Numba fast paths, private to the ops: serial, without the interpreter lock, float32 or float64 arrays in and out.

None of them is a parallel kernel: `threads.in_threads` runs ranges of work in Python threads, so that nothing here
breaks in a forked data worker, and results never depend on the number of threads.
"""

from bestiary import kernel_cache as kernel_cache
