import multiprocessing
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
