"""Nearest rows of bytes, and nearest histograms, beside torch's distances and top k."""

import torch
from benchmarks.op_cases import Case, Peers

from bestiary.features.neighbours import nearest_histograms, nearest_rows


def cases(peers: Peers) -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(0, 256, (500, 3072), generator=generator).to(torch.uint8)
    store = torch.randint(0, 256, (10_000, 3072), generator=generator).to(torch.uint8)
    bins = torch.rand(512, 10_000, generator=generator)
    bins = bins * (bins > 0.8)  # most colours are missing from most pictures
    sparse, columns, histograms = bins[:, :500].T.contiguous(), bins.contiguous(), bins.T.contiguous()
    wide, stored = queries.float(), store.float()
    return [
        Case(
            "nearest rows, 500 x 10,000 x 3,072 bytes, L1",
            lambda: nearest_rows(queries, store, 1, "l1"),
            lambda: torch.cdist(wide, stored, p=1).topk(1, largest=False),
            target=3.0,
            peer_name="torch",
        ),
        Case(
            "nearest rows, 500 x 10,000 x 3,072 bytes, L2",
            lambda: nearest_rows(queries, store, 1, "l2"),
            lambda: torch.cdist(wide, stored, compute_mode="donot_use_mm_for_euclid_dist").topk(1, largest=False),
            target=3.0,
            peer_name="torch, exact",
        ),
        Case(
            "nearest histograms, 500 x 10,000 x 512, a fifth of the cells filled",
            lambda: nearest_histograms(sparse, columns, 1),
            lambda: torch.cdist(sparse, histograms, p=1).topk(1, largest=False),
            target=2.0,
            peer_name="torch",
        ),
    ]
