"""One pass over the samples, errors that name the picture, probabilities for each."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import bestiary.heads.fitted_classification as module
from bestiary.errors import RecordError, UsageError
from bestiary.heads.fitted_classification import FittedClassifier, describe_all, to_bytes
from bestiary.records import Sample, Target


def sample(label: int | None, name: str = "a.png", channels: int = 3) -> Sample:
    return Sample(torch.full((channels, 4, 6), 7, dtype=torch.uint8), Target(label=label), name, (4, 6))


class Counted(Sequence):
    """Samples that know how often each was asked for."""

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels, self.asked = labels, [0] * len(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index):
        self.asked[index] += 1
        return sample(self.labels[index], f"{index}.png")


class Prior(FittedClassifier):
    """Says how frequent each category was."""

    def __init__(self, categories: Sequence[str]) -> None:
        super().__init__(categories)
        self.declare("shares")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        _, labels = describe_all(samples, lambda image: None, len(self.categories), say)
        self.learn("shares", torch.bincount(labels, minlength=len(self.categories)) / len(labels))

    def probs_of(self, images: Sequence[Tensor]) -> Tensor:
        return self.shares.expand(len(images), -1)


def test_each_picture_is_decoded_once_and_the_pass_says_how_far_it_is(monkeypatch, unchecked: None) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    samples, lines = Counted([0, 1, 1, 0, 1, 0, 0, 1, 0, 1]), []
    found, labels = describe_all(samples, lambda image: tuple(image.shape), 2, lines.append)
    assert samples.asked == [1] * 10
    assert found == [(3, 4, 6)] * 10
    assert labels.tolist() == samples.labels
    assert lines == ["2 of 10 pictures described", "5 of 10 pictures described"]  # after 5 s, and 10 s later


def test_predictions_carry_sizes_and_categories() -> None:
    system = Prior(["cat", "dog"])
    system.fit(Counted([0, 1, 1, 1]))
    first, second = system.predict_images([torch.zeros(3, 4, 6), torch.zeros(3, 2, 2)])
    assert (first.size_hw, second.size_hw) == ((4, 6), (2, 2))
    assert first.top(1) == [("dog", 0.75)]


def test_bad_samples_are_named() -> None:
    for bad, message in ((sample(None, "x/7.png"), "None"), (sample(2, "x/7.png"), "0 to 1")):
        with pytest.raises(RecordError, match=rf"x/7\.png.*{message}"):
            describe_all([sample(0), bad], lambda image: None, 2)
    empty = Sample(torch.zeros(3, 0, 5, dtype=torch.uint8), Target(label=0), "void.png", (0, 5))
    with pytest.raises(RecordError, match=r"void\.png"):
        describe_all([empty], lambda image: None, 2)
    with pytest.raises(UsageError, match="no picture"):
        describe_all([], lambda image: None, 2)


def test_no_category_is_refused() -> None:
    with pytest.raises(UsageError, match="no category"):
        Prior([])


def test_bytes_are_rounded_and_clipped() -> None:
    image = torch.tensor([-0.2, 0.0, 0.4999, 1.0, 3.0]).view(1, 1, 5)
    assert to_bytes(image).tolist() == [[[0, 0, 127, 255, 255]]] * 3
    whole = torch.arange(256).to(torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(to_bytes(whole.float() / 255), whole)
