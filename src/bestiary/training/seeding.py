"""Randomness of the loop: every batch seeds the global generators from what it is, not from what came before.

Dropout and random sampling read torch's global generators. Seeding them anew from (seed, epoch, batch, rank) makes the
random numbers of a batch independent of evaluation, of the loader's worker processes, of callbacks and of how often
the run was killed and resumed, and a single batch can be played again alone.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

TRAINING, VALIDATION, RECOMPUTING = 0, 1, 2
"""Streams: what a batch is drawn for."""


def batch_seed(seed: int, stream: int, epoch: int, batch: int, rank: int) -> int:
    """A 63-bit number of its own for each batch of a run."""
    words = np.random.SeedSequence([seed, stream, epoch, batch, rank]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def seed_generators(number: int, device: torch.device) -> None:
    """Seed python's, numpy's and torch's global generators, those of the CPU and of `device`."""
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    # torch.manual_seed would queue a call, with its traceback, for every GPU that is not in use: far slower than this.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[
            torch.cuda.current_device() if device.index is None else device.index
        ].manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """After the block the global generators are as they were before it."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
