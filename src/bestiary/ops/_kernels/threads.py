"""Ranges of work over Python threads.

The kernels release the interpreter lock, so plain threads scale as OpenMP would; unlike numba's parallel kernels they
survive `fork` (a new process makes its own pool) and compile in half the time.
"""

import itertools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(workers: int) -> ThreadPoolExecutor:
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, "bestiary-kernel", _run_on, (_processors(),))
    return _pools[key]


def _processors() -> set[int]:
    """Those that the process may use; empty if no thread need be told.

    Where OpenMP was told to bind its threads, the one that uses it first has one processor only, and so would all
    threads made by it. What the process has are the processors of OpenMP's threads together: not all of the machine's,
    since it may have been given fewer.
    """
    if os.environ.get("OMP_PROC_BIND", "false").lower() == "false" and "GOMP_CPU_AFFINITY" not in os.environ:
        return set()
    if not hasattr(os, "sched_getaffinity") or not os.path.isdir("/proc/self/task"):
        return set()
    import torch

    if multiprocessing.parent_process() is None:  # OpenMP does not survive a fork
        torch.ones(1 << 18).add_(1)  # large enough for OpenMP to make its threads
    return set().union(*(os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")))


def _run_on(processors: set[int]) -> None:
    """Let the calling thread use these processors, if there are any."""
    if processors:
        os.sched_setaffinity(0, processors)


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
