"""When a kernel may take tensors as they lie in memory, and how a large pairwise result is made piece by piece."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # type: ignore[import-not-found]

_PAIRS_ON_CPU, _PAIRS_ELSEWHERE = 1 << 17, 1 << 23
"""Pairs at once. With 32 numbers of 4 bytes a pair: 16 MiB and 1 GiB."""


def runs_eagerly(*tensors: Tensor) -> bool:
    """Whether these are plain tensors in CPU memory and nothing is being compiled, traced or transformed."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return all(type(t) is Tensor and t.is_cpu and not is_functorch_wrapped_tensor(t) for t in tensors)


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether autograd is to remember what is done with these."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def in_row_chunks(
    measure: Callable[[Tensor, Tensor], Tensor], set1: Shaped[Tensor, "*B N _k"], set2: Shaped[Tensor, "*B M _k"]
) -> Float[Tensor, "*B N M"]:
    """`measure` of all pairs, some rows of the first set at a time, so that its temporaries stay small.

    In one piece where a gradient is asked for (autograd keeps them anyway) and in a graph (a compiler makes none).
    """
    rows, columns = set1.shape[-2], set2.shape[-2]
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or wants_gradient(set1, set2):
        return measure(set1, set2)
    batch = set1.shape[:-2].numel()
    step = max(1, (_PAIRS_ON_CPU if set1.is_cpu else _PAIRS_ELSEWHERE) // max(1, columns * batch))
    if step >= rows:
        return measure(set1, set2)
    first = measure(set1[..., :step, :], set2)
    out = first.new_empty(*first.shape[:-2], rows, columns)
    out[..., :step, :] = first
    for start in range(step, rows, step):
        out[..., start : start + step, :] = measure(set1[..., start : start + step, :], set2)
    return out


def in_row_threads(
    kernel: Callable[..., None], set1: Float[Tensor, "*B N _k"], set2: Float[Tensor, "*B M _k"], least_pairs: int
) -> Float[Tensor, "*B N M"]:
    """All pairs by a kernel `(rows [N, k], columns [k, M], start, stop, out [N, M])`, in torch's number of threads.

    Args:
        kernel: fills the rows `start:stop` of `out`.
        set1: plain tensors in CPU memory, see `runs_eagerly`.
        set2: of the same type and batch axes.
        least_pairs: fewer are not worth another thread.
    """
    from bestiary.ops._kernels.threads import in_threads

    count, columns = set1.shape[-2], set2.shape[-2]
    out = set1.new_empty(*set1.shape[:-1], columns)
    if out.numel() == 0:
        return out
    rows = set1.detach().reshape(-1, *set1.shape[-2:]).contiguous().numpy()
    others = set2.detach().reshape(-1, *set2.shape[-2:]).transpose(1, 2).contiguous().numpy()
    results = out.view(-1, count, columns).numpy()
    for picture in range(len(rows)):
        arrays: tuple[Any, ...] = rows[picture], others[picture], results[picture]

        def work(start: int, stop: int, arrays: tuple[Any, ...] = arrays) -> None:
            kernel(arrays[0], arrays[1], start, stop, arrays[2])

        in_threads(work, count, torch.get_num_threads(), max(1, least_pairs // columns))
    return out
