"""Regions: RoIAlign on one map and on a pyramid, RoIPool and the position-sensitive forms."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from benchmarks.op_cases import Case, Peers

from bestiary.ops.position_sensitive import ps_roi_align, ps_roi_pool
from bestiary.ops.regions import multiscale_roi_align, roi_align
from bestiary.ops.roi_pool import roi_pool

Op = Callable[..., torch.Tensor]
STRIDES = (4, 8, 16, 32, 64)


def regions(count: int) -> list[torch.Tensor]:
    """Boxes of 20 to 200 pixels a side in a picture of 1216 x 800."""
    rng = np.random.default_rng(3)
    centre, side = rng.uniform((0, 0), (1216, 800), (count, 2)), rng.uniform(20, 200, (count, 2))
    return [torch.from_numpy(np.concatenate([centre - side / 2, centre + side / 2], axis=1).astype(np.float32))]


def forward_and_backward(
    name: str,
    ours: Op,
    peer: Op | None,
    leaves: Sequence[torch.Tensor],
    targets: tuple[float | None, float | None] = (None, None),
) -> list[Case]:
    """Two cases of an operator on the same tensors: without gradients, and the gradient of all of them."""
    plain = [leaf.detach() for leaf in leaves]

    def backward(op: Op) -> Callable[[], object]:
        out = op(*leaves)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
        grad = grad.contiguous(memory_format=torch.contiguous_format if out.is_contiguous() else torch.channels_last)
        return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)

    return [
        Case(f"{name} forward", lambda: ours(*plain), (lambda: peer(*plain)) if peer else None, targets[0]),
        Case(f"{name} backward", backward(ours), backward(peer) if peer else None, targets[1]),
    ]


def cases(peers: Peers) -> list[Case]:
    """1,000 regions of one map of 256 channels, stride 16, and of a pyramid of five."""
    g, boxes, rows = torch.Generator().manual_seed(0), regions(1000), []
    vision = peers.vision.ops if peers.vision else None
    for suffix, layout in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        x = torch.randn(1, 256, 50, 76, generator=g).contiguous(memory_format=layout).requires_grad_()
        peer = (lambda f: vision.roi_align(f, boxes, 7, 1 / 16, 2)) if vision else None
        name = f"roi_align 1000 x 256 x 7 x 7{suffix}"
        rows += forward_and_backward(name, lambda f: roi_align(f, boxes, 7, 1 / 16, 2), peer, [x], (8, 30))
        peer = (lambda f: vision.roi_pool(f, boxes, 7, 1 / 16)) if vision else None
        name = f"roi_pool 1000 x 256 x 7 x 7{suffix}"
        rows += forward_and_backward(name, lambda f: roi_pool(f, boxes, 7, 1 / 16), peer, [x], (8, 2))
    scores = torch.randn(1, 21 * 49, 50, 76, generator=g, requires_grad=True)
    peer = (lambda f: vision.ps_roi_align(f, boxes, 7, 1 / 16, 2)) if vision else None
    rows += forward_and_backward(
        "ps_roi_align 1000 x 21 x 7 x 7", lambda f: ps_roi_align(f, boxes, 7, 1 / 16, 2), peer, [scores]
    )
    peer = (lambda f: vision.ps_roi_pool(f, boxes, 7, 1 / 16)) if vision else None
    rows += forward_and_backward(
        "ps_roi_pool 1000 x 21 x 7 x 7", lambda f: ps_roi_pool(f, boxes, 7, 1 / 16), peer, [scores]
    )
    maps = [torch.randn(1, 256, 800 // s, 1216 // s, generator=g, requires_grad=True) for s in STRIDES]
    peer = None
    if vision:
        pooler, names = vision.MultiScaleRoIAlign(list("abcde"), 7, 2), "abcde"
        peer = lambda *f: pooler(dict(zip(names, f, strict=True)), boxes, [(800, 1216)])  # noqa: E731
    rows += forward_and_backward(
        "multiscale_roi_align 1000 x 256 x 7 x 7, 5 levels",
        lambda *f: multiscale_roi_align(f, STRIDES, boxes, 7),
        peer,
        maps,
        (6, 20),
    )
    return rows
