"""Suppression and overlaps of boxes."""

import numpy as np
import torch
from benchmarks.op_cases import Case, Peers

from bestiary.ops.overlaps import box_iou, complete_box_iou, generalized_box_iou
from bestiary.ops.rotated import rotated_box_iou
from bestiary.ops.rotated_suppression import rotated_nms
from bestiary.ops.soft_suppression import soft_nms
from bestiary.ops.suppression import batched_nms, nms


def clustered(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores in a picture of 1216 x 800, six about each object, as a detector's candidates lie."""
    rng = np.random.default_rng(seed)
    objects = max(1, count // 6)
    centre, side = rng.uniform((0, 0), (1216, 800), (objects, 2)), rng.uniform(20, 200, (objects, 2))
    which = rng.integers(0, objects, count)
    c = centre[which] + rng.normal(0, 8, (count, 2))
    s = side[which] * np.exp(rng.normal(0, 0.15, (count, 2)))
    xyxy = torch.from_numpy(np.concatenate([c - s / 2, c + s / 2], axis=1).astype(np.float32))
    return xyxy, torch.from_numpy(rng.random(count).astype(np.float32))


def scattered(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores anywhere in 1000 x 1000."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 1000, (count, 2)), rng.uniform(10, 200, (count, 2))
    xyxy = torch.from_numpy(np.concatenate([corner, corner + side], axis=1).astype(np.float32))
    return xyxy, torch.from_numpy(rng.random(count).astype(np.float32))


def rotated(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotated boxes and scores anywhere in 1000 x 1000."""
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(0, 1000, (count, 2)), rng.uniform(10, 100, (count, 2)), rng.uniform(-180, 180, (count, 1))]
    boxes = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    return boxes, torch.from_numpy(rng.random(count).astype(np.float32))


def cases(peers: Peers) -> list[Case]:
    """NMS at 1k, 5k and 20k, plain and in 80 groups; pairwise overlaps."""
    theirs = peers.vision.ops if peers.vision else None
    out = []
    for kind, make in (("clustered", clustered), ("scattered", scattered)):
        for count, target in ((1000, 10.0), (5000, 16.0), (20_000, 20.0)):
            b, s = make(count)
            i = torch.arange(count) % 80
            peer = (lambda b=b, s=s: theirs.nms(b, s, 0.5)) if theirs else None
            out.append(Case(f"nms {count} {kind}", lambda b=b, s=s: nms(b, s, 0.5), peer, target))
            peer = (lambda b=b, s=s, i=i: theirs.batched_nms(b, s, i, 0.5)) if theirs else None
            name = f"batched_nms {count} {kind}, 80 groups"
            out.append(Case(name, lambda b=b, s=s, i=i: batched_nms(b, s, i, 0.5), peer, 5.0))
    a, b = clustered(5000, 1)[0], clustered(5000, 2)[0]
    peer = (lambda: theirs.box_iou(a, b)) if theirs else None
    out.append(Case("box_iou 5000 x 5000", lambda: box_iou(a, b), peer, 7.0))
    c, d = a[:1000], b[:1000]
    peer = (lambda: theirs.generalized_box_iou(c, d)) if theirs else None
    out.append(Case("generalized_box_iou 1000 x 1000", lambda: generalized_box_iou(c, d), peer))
    peer = (lambda: theirs.complete_box_iou(c, d)) if theirs else None
    out.append(Case("complete_box_iou 1000 x 1000", lambda: complete_box_iou(c, d), peer))
    r, q, scores = rotated(500, 1)[0], rotated(500, 2)[0], clustered(1000)[1]
    peer = (lambda: theirs.box_iou(r, q, fmt="cxcywhr")) if theirs else None
    out.append(Case("rotated_box_iou 500 x 500", lambda: rotated_box_iou(r, q), peer))
    turned, turned_scores = rotated(2000)
    out.append(Case("rotated_nms 2000", lambda: rotated_nms(turned, turned_scores, 0.3)))
    out.append(Case("soft_nms 1000 gaussian", lambda: soft_nms(c, scores)))
    return out
