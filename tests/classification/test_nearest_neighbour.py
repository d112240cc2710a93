"""Nearest neighbours among raw pixels."""

from pathlib import Path

import pytest
import torch

from bestiary.classification.nearest_neighbour import NearestNeighbour
from bestiary.data.dataset import load
from bestiary.errors import RecordError, UsageError
from bestiary.records import Sample, Target


def sample(image: torch.Tensor, label: int) -> Sample:
    return Sample(image, Target(label=label), f"{label}.png", (image.shape[-2], image.shape[-1]))


def noise(seed: int, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (3, side, side), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def fitted(samples: list[Sample], **options) -> NearestNeighbour:
    system = NearestNeighbour(["a", "b", "c"], **{"side": 8, **options})
    system.fit(samples)
    return system


def test_the_worked_example_is_456() -> None:
    # Stanford's CS231n, lecture 2: two 4x4 pictures whose differences add up to 456; some are below zero as bytes.
    test = torch.tensor([[56, 32, 10, 18], [90, 23, 128, 133], [24, 26, 178, 200], [2, 0, 255, 220]])
    train = torch.tensor([[10, 20, 24, 17], [8, 10, 89, 100], [12, 16, 178, 170], [4, 32, 233, 112]])
    system = fitted([sample(train.to(torch.uint8)[None], 1)], side=4, in_channels=1)
    assert system.neighbours([test.to(torch.uint8)[None]])[0].item() == 456


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_training_pictures_are_their_own_nearest(metric: str) -> None:
    samples = [sample(noise(i), i % 3) for i in range(30)]
    system = fitted(samples, metric=metric)
    assert [p.label for p in system.predict_images([s.image for s in samples])] == [i % 3 for i in range(30)]
    assert system.neighbours([samples[7].image])[0].item() == 0


def test_of_equal_distances_the_first_given_wins_and_of_equal_votes_the_lower_index() -> None:
    near, far = torch.full((3, 8, 8), 100, dtype=torch.uint8), torch.full((3, 8, 8), 200, dtype=torch.uint8)
    query = torch.full((3, 8, 8), 101, dtype=torch.uint8)
    assert fitted([sample(far, 0), sample(near, 2), sample(near, 1)]).predict_images([query])[0].label == 2
    system = fitted([sample(near, 2), sample(near, 1), sample(far, 0)], k=2)
    assert system.predict_images([query])[0].label == 1
    assert system.predict_images([query])[0].probs.tolist() == [0, 0.5, 0.5]


def test_fewer_pictures_than_neighbours_all_vote() -> None:
    system = fitted([sample(noise(0), 0), sample(noise(1), 2)], k=9)
    assert system.predict_images([noise(0)])[0].probs.tolist() == [0.5, 0, 0.5]


def test_shifted_darkened_and_covered_copies_are_far() -> None:
    picture = noise(3)
    system = fitted([sample(picture, 0)])
    covered = picture.clone()
    covered[:, :4, :4] = 0
    copies = [picture, picture.roll(1, 2), picture // 2, covered]
    distances = system.neighbours(copies)[0].flatten().tolist()
    assert distances[0] == 0
    assert min(distances[1:]) > 0.1 * float(picture.sum())


def test_pictures_of_any_size_type_and_channels_are_compared() -> None:
    coarse = noise(4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)  # 32 x 32
    system = fitted([sample(coarse, 0), sample(255 - coarse, 1)])
    wide = torch.cat([coarse, coarse], 2)
    assert system.predict_images([coarse.float() / 255])[0].label == 0
    assert system.row_of(wide).shape == (3 * 8 * 8,)
    assert torch.equal(system.row_of(coarse[:1]), system.row_of(coarse[:1].expand(3, -1, -1)))
    with pytest.raises(RecordError, match="4"):
        system.row_of(torch.zeros(4, 9, 9, dtype=torch.uint8))


@pytest.mark.parametrize("options", [{"k": 0}, {"side": 0}, {"in_channels": 2}])
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        NearestNeighbour(["a"], **options)


def test_on_part_of_cifar10_it_beats_chance(real_data: Path) -> None:
    train, test = load(real_data / "cifar10", "train"), load(real_data / "cifar10", "test")
    system = NearestNeighbour(train.categories)
    system.fit([train[i] for i in range(0, len(train), 5)])
    samples = [test[i] for i in range(0, len(test), 5)]
    found = system.predict_images([s.image for s in samples])
    right = sum(p.label == s.target.label for p, s in zip(found, samples, strict=True))
    assert 0.2 < right / len(samples) < 0.4
