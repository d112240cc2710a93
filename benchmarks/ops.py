"""Times the operators, beside torchvision's where that is installed, and writes benchmarks/results/ops.json.

    OMP_NUM_THREADS=2 OMP_PROC_BIND=true GOMP_SPINCOUNT=10000 python benchmarks/ops.py [--threads 2] [--rounds 15]

Each number is the median over rounds, in milliseconds; operators and peers take turns within a round, so that a slow
moment hits both. `cpu_per_wall` near the number of threads means that both threads really ran.
"""

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch

from bestiary import ops
from bestiary.assign import ThresholdMatcher
from bestiary.geometry.anchors import pyramid_anchors, strides_of
from bestiary.geometry.masks import encode_rle, polygons_to_rle

Case = tuple[str, Callable[[], object], Callable[[], object] | None]
RESULTS = Path(__file__).parent / "results" / "ops.json"


def boxes(count: int, seed: int = 0, clusters: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores in a picture of 1216 x 800; in clusters, as a detector's candidates lie."""
    rng = np.random.default_rng(seed)
    clusters = clusters or count
    centre, side = rng.uniform((0, 0), (1216, 800), (clusters, 2)), rng.uniform(20, 200, (clusters, 2))
    which = rng.integers(0, clusters, count)
    c = centre[which] + rng.normal(0, 8, (count, 2))
    s = side[which] * np.exp(rng.normal(0, 0.15, (count, 2)))
    xyxy = torch.from_numpy(np.concatenate([c - s / 2, c + s / 2], axis=1).astype(np.float32))
    return xyxy, torch.from_numpy(rng.random(count).astype(np.float32))


def suppression_cases(peer: object) -> list[Case]:
    cases: list[Case] = []
    for count in (1000, 5000, 20_000):
        b, s = boxes(count, clusters=count // 6)
        other = (lambda b=b, s=s: peer.nms(b, s, 0.5)) if peer else None
        cases.append((f"nms {count}", lambda b=b, s=s: ops.nms(b, s, 0.5), other))
        idxs = torch.arange(count) % 80
        other = (lambda b=b, s=s, i=idxs: peer.batched_nms(b, s, i, 0.5)) if peer else None
        cases.append((f"batched_nms {count}, 80 groups", lambda b=b, s=s, i=idxs: ops.batched_nms(b, s, i, 0.5), other))
    a, _ = boxes(5000, 1)
    b, _ = boxes(5000, 2)
    cases.append(("box_iou 5000 x 5000", lambda: ops.box_iou(a, b), (lambda: peer.box_iou(a, b)) if peer else None))
    return cases


def region_cases(peer: object) -> list[Case]:
    g = torch.Generator().manual_seed(0)
    rois, _ = boxes(1000, 3)
    cases: list[Case] = []
    for name, layout in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        x = torch.randn(1, 256, 50, 76, generator=g).contiguous(memory_format=layout).requires_grad_()
        args = ([rois], 7, 1 / 16, 2)
        y = ops.roi_align(x, *args)
        grad = torch.randn(y.shape, generator=g).contiguous(memory_format=layout)
        z = peer.roi_align(x, *args) if peer else None
        cases.append(
            (
                f"roi_align forward 1000 x 256 x 7 x 7{name}",
                lambda x=x, a=args: ops.roi_align(x.detach(), *a),
                (lambda x=x, a=args: peer.roi_align(x.detach(), *a)) if peer else None,
            )
        )
        cases.append(
            (
                f"roi_align backward 1000 x 256 x 7 x 7{name}",
                lambda x=x, y=y, g=grad: torch.autograd.grad(y, x, g, retain_graph=True),
                (lambda x=x, z=z, g=grad: torch.autograd.grad(z, x, g, retain_graph=True)) if peer else None,
            )
        )
    strides = (4, 8, 16, 32)
    maps = [torch.randn(1, 256, 800 // s, 1216 // s, generator=g, requires_grad=True) for s in strides]
    cases.append(
        (
            "multiscale_roi_align forward and backward, 4 levels",
            lambda: torch.autograd.grad(ops.multiscale_roi_align(maps, strides, [rois], 7).sum(), maps),
            None,
        )
    )
    return cases


def other_cases() -> list[Case]:
    grids = [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)]
    sizes = [(32,), (64,), (128,), (256,), (512,)]
    anchors = torch.cat(pyramid_anchors(sizes, [0.5, 1, 2], grids, strides_of((800, 1344), grids)))
    objects, _ = boxes(13, 4)
    matcher = ThresholdMatcher(0.7, 0.3, keep_best_for_each_object=True)
    turn = np.linspace(0, 2 * np.pi, 60)
    polygon = np.stack([320 + 200 * np.cos(turn), 240 + 150 * np.sin(turn)], axis=1).reshape(-1)
    mask = polygons_to_rle([polygon], (480, 640)).decode()
    rle = encode_rle(mask)
    try:
        from pycocotools import mask as coco

        fortran = np.asfortranarray(mask.numpy().astype(np.uint8))
        theirs = coco.encode(fortran)
        peers = [
            lambda: coco.frPyObjects([polygon.tolist()], 480, 640),
            lambda: coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8))),
            lambda: coco.decode(theirs),
        ]
    except ImportError:
        peers = [None, None, None]
    return [
        ("match_boxes 13 x 268569", lambda: matcher.match_boxes(objects, anchors), None),
        ("polygons_to_rle 60 points", lambda: polygons_to_rle([polygon], (480, 640)), peers[0]),
        ("encode_rle 480 x 640", lambda: encode_rle(mask), peers[1]),
        ("Rle.decode 480 x 640", rle.decode, peers[2]),
    ]


def measure(cases: list[Case], rounds: int) -> list[dict[str, object]]:
    rows = []
    for name, ours, peer in cases:
        start = time.perf_counter()
        ours()
        first = time.perf_counter() - start
        if peer:
            peer()
        times: list[float] = []
        peer_times: list[float] = []
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            start = time.perf_counter()
            ours()
            times.append(time.perf_counter() - start)
            if peer:
                start = time.perf_counter()
                peer()
                peer_times.append(time.perf_counter() - start)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        row: dict[str, object] = {
            "op": name,
            "ms": round(statistics.median(times) * 1e3, 3),
            "best_ms": round(min(times) * 1e3, 3),
            "first_call_ms": round(first * 1e3, 1),
            "cpu_per_wall": round(share, 2),
        }
        if peer_times:
            row["peer_ms"] = round(statistics.median(peer_times) * 1e3, 3)
            row["peer_over_ours"] = round(statistics.median(peer_times) / statistics.median(times), 2)
        print(json.dumps(row))
        rows.append(row)
    return rows


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    versions = {"torch": torch.__version__, "numba": numba.__version__, "numpy": np.__version__}
    try:
        import torchvision

        peer, versions["torchvision"] = torchvision.ops, torchvision.__version__
    except (ImportError, RuntimeError):
        peer = None
    rows = measure(suppression_cases(peer) + region_cases(peer) + other_cases(), arguments.rounds)
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": f"{platform.processor() or platform.machine()}, {platform.system()}, {arguments.threads} threads",
        "python": platform.python_version(),
        "versions": versions,
        "results": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
