"""Ranges of work over Python threads.

The kernels release the interpreter lock, so plain threads scale as OpenMP would; unlike numba's parallel kernels they
survive `fork` (a new process makes its own pool) and compile in half the time.
"""

import contextlib
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(workers: int) -> ThreadPoolExecutor:
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="bestiary-kernel", initializer=_unbind)
    return _pools[key]


def _unbind() -> None:
    """Let a worker run on any processor where OpenMP was told to bind its threads.

    OpenMP then binds the thread that loads it to one processor, and all threads made by that one would share it.
    """
    bound = {os.environ.get(name, "false").lower() for name in ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY")} != {"false"}
    if bound and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))  # of this thread alone


def in_threads(work: Callable[[int, int], None], total: int, threads: int, grain: int = 1) -> None:
    """Call `work(start, stop)` for consecutive ranges that cover `range(total)`.

    Ranges are handed out as threads become free; the caller is one of them. With one thread, or too little work, `work`
    is called once and no thread is made. `work` must write to places that depend on its range only.

    Args:
        work: releases the interpreter lock for most of its time.
        total: number of units.
        threads: how many run at once, the caller included.
        grain: least number of units in a range.
    """
    threads = min(threads, -(-total // grain))
    if threads <= 1:
        if total:
            work(0, total)
        return
    # Four ranges a thread: uneven work evens out, and a range still pays for its call.
    step = max(grain, -(-total // (4 * threads)))
    starts = itertools.count(0, step)

    def run() -> None:
        # next() of a count is atomic: each range goes to one thread.
        for start in starts:
            if start >= total:
                return
            work(start, min(start + step, total))

    futures = [_pool(threads - 1).submit(run) for _ in range(threads - 1)]
    run()
    for future in futures:
        future.result()
