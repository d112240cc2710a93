import random

import numpy as np
import torch

from bestiary.training.seeding import TRAINING, VALIDATION, batch_seed, generators_kept, seed_generators

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_every_batch_has_its_own_number() -> None:
    numbers = {
        batch_seed(seed, stream, epoch, batch, rank)
        for seed in (0, 1, 2**40)
        for stream in (TRAINING, VALIDATION)
        for epoch in range(5)
        for batch in range(20)
        for rank in range(3)
    }
    assert len(numbers) == 3 * 2 * 5 * 20 * 3
    assert all(0 <= n < 2**63 for n in numbers)


def test_all_generators_are_seeded_whatever_came_before() -> None:
    seed_generators(batch_seed(0, TRAINING, 1, 2, 0), CPU)
    first = draw()
    draw()
    seed_generators(batch_seed(0, TRAINING, 1, 2, 0), CPU)
    assert draw() == first
    seed_generators(batch_seed(0, TRAINING, 1, 3, 0), CPU)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_generators_are_kept_also_through_errors() -> None:
    seed_generators(5, CPU)
    expected = draw()
    seed_generators(5, CPU)
    try:
        with generators_kept(CPU):
            seed_generators(6, CPU)
            draw()
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected
