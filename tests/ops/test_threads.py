import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
import torch

from bestiary import ops
from bestiary.ops._kernels.threads import in_threads


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(("total", "grain"), [(0, 1), (1, 1), (7, 3), (100, 1), (101, 16)])
def test_ranges_cover_all_once(threads: int, total: int, grain: int) -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def work(start: int, stop: int) -> None:
        with lock:
            seen.extend(range(start, stop))

    in_threads(work, total, threads, grain)
    assert sorted(seen) == list(range(total))


def test_an_error_in_any_range_comes_out() -> None:
    def work(start: int, stop: int) -> None:
        if start > 0:
            raise ValueError(f"range {start}")

    with pytest.raises(ValueError, match="range"):
        in_threads(work, 100, 3)


def _pool(answers: "multiprocessing.Queue[float]") -> None:
    torch.set_num_threads(2)
    answers.put(float(ops.roi_align(torch.ones(1, 8, 9, 9), [torch.tensor([[0.0, 0, 8, 8]] * 64)], 3).sum()))


def test_a_forked_process_can_pool_after_its_parent_did() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parent = float(ops.roi_align(torch.ones(1, 8, 9, 9), [torch.tensor([[0.0, 0, 8, 8]] * 64)], 3).sum())
    finally:
        torch.set_num_threads(before)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_pool, args=(answers,))
    child.start()
    assert answers.get(timeout=60) == parent == 64 * 8 * 9
    child.join(timeout=60)
    assert child.exitcode == 0


PROCESSORS = """
import os
os.sched_setaffinity(0, {allowed})
import torch
from bestiary.ops._kernels import threads
seen = []
threads.in_threads(lambda start, stop: seen.append(os.sched_getaffinity(0)), 8, 2)
pool = threads._pool(1)
print(sorted(pool.submit(os.sched_getaffinity, 0).result()))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
@pytest.mark.parametrize("share", ["all", "one"])
def test_threads_have_the_processors_of_the_process_where_openmp_is_bound(share: str) -> None:
    mine = sorted(os.sched_getaffinity(0))
    allowed = mine if share == "all" else mine[-1:]
    environment = {**os.environ, "OMP_PROC_BIND": "true", "OMP_NUM_THREADS": str(len(mine))}
    script = PROCESSORS.replace("{allowed}", str(set(allowed)))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == str(allowed)
