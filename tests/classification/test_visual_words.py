"""Bags of words and spatial pyramids on little textures, from pixels to a file and back."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import bestiary
from bestiary.classification.bag_of_words import bag_of_words_svm, bag_of_words_tfidf
from bestiary.classification.spatial_pyramid import spatial_pyramid, spatial_pyramid_linear
from bestiary.errors import UsageError
from bestiary.features import histogram_svm
from bestiary.features.visual_words import VisualWords
from bestiary.heads.fitted_classification import FittedClassifier
from bestiary.predictions import Classification
from bestiary.records import RecordError, Sample, Target
from bestiary.verbs.models import save

TEXTURES = ("waves", "slanted", "crossed")
GRID = {"words": 20, "shortest": 48}


def texture(kind: int, generator: torch.Generator, side: int = 48) -> torch.Tensor:
    """Waves at one or two angles, anywhere."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    total = torch.zeros(side, side)
    for angle in ((0.0,), (math.pi / 4,), (0.0, math.pi / 2))[kind]:
        phase = 2 * math.pi * torch.rand(1, generator=generator)
        total += torch.sin((x * math.cos(angle) + y * math.sin(angle)) * 0.9 + phase)
    return (0.5 + 0.2 * total + 0.05 * torch.randn(side, side, generator=generator)).clamp(0, 1).expand(3, -1, -1)


def textures(each: int, seed: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(texture(kind, generator), Target(label=kind), f"{kind}/{i}.png", (48, 48))
        for i in range(each)
        for kind in range(3)
    ]


def islands(each: int, seed: int) -> list[Sample]:
    """A textured square in grey, on the left and, the very same one, on the right: the side is the class."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(each):
        square = texture(i % 3, generator)[:, :24, :24]
        for side in (0, 1):
            image = torch.full((3, 48, 96), 0.5)
            image[:, 12:36, 12 + 48 * side : 36 + 48 * side] = square
            found.append(Sample(image, Target(label=side), f"{i}_{side}.png", (48, 96)))
    return found


def accuracy(system: FittedClassifier, samples: Sequence[Sample]) -> float:
    right = 0
    for sample in samples:
        prediction = system.predict_images([sample.image])[0]
        assert isinstance(prediction, Classification)
        right += prediction.label == sample.target.label
    return right / len(samples)


@pytest.mark.parametrize("build", [bag_of_words_tfidf, bag_of_words_svm, spatial_pyramid])
def test_textures_are_told_apart_wherever_they_begin(build: type) -> None:
    training, unseen = textures(15, 0), textures(10, 1)
    pixels = torch.stack([s.image.flatten() for s in training])
    nearest = [training[int((pixels - s.image.flatten()).abs().sum(1).argmin())].target.label for s in unseen]
    raw = sum(a == s.target.label for a, s in zip(nearest, unseen, strict=True)) / len(unseen)
    system = build(TEXTURES, **GRID)
    system.fit(training)
    assert accuracy(system, unseen) > max(0.9, raw)


def test_a_pyramid_sees_where_words_stand() -> None:
    training, unseen = islands(12, 0), islands(10, 1)
    scores = {}
    for levels in (0, 2):
        system = spatial_pyramid(("left", "right"), levels=levels, **GRID)
        system.fit(training)
        scores[levels] = accuracy(system, unseen)
    assert scores[0] == 0.5  # both have the same words
    assert scores[2] > 0.95


@pytest.mark.parametrize("kernel", ["intersection", "mapped", "linear"])
def test_kernels_agree_where_it_is_easy(kernel: str) -> None:
    system = bag_of_words_svm(TEXTURES, kernel=kernel, **GRID)
    system.fit(textures(12, 0))
    assert accuracy(system, textures(5, 1)) > 0.9


def test_the_linear_pyramid_learns_too() -> None:
    system = spatial_pyramid_linear(TEXTURES, words=20, sides=(16,), step=8)
    system.fit(textures(12, 0))
    assert accuracy(system, textures(5, 1)) > 0.9


def test_the_same_seed_gives_the_same_model() -> None:
    states = []
    for seed in (0, 0, 1):
        system = spatial_pyramid(TEXTURES, **GRID)
        system.fit(textures(6, 0), seed)
        states.append(system.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not torch.equal(states[0]["words.centres"], states[2]["words.centres"])


@pytest.mark.parametrize(
    "name", ["bag_of_words_tfidf", "bag_of_words_svm", "spatial_pyramid", "spatial_pyramid_linear"]
)
def test_a_file_gives_the_same_predictions(name: str, tmp_path: Path) -> None:
    system = bestiary.create(name, TEXTURES, arguments={"words": 15, "shortest": 48, "sides": (16,), "step": 8})
    assert isinstance(system, FittedClassifier)
    system.fit(textures(5, 0))
    images = [s.image for s in textures(2, 1)]
    again = bestiary.load(save(system, tmp_path / "model.safetensors"))
    for before, after in zip(system.predict_images(images), again.predict_images(images), strict=True):
        assert isinstance(before, Classification)
        assert isinstance(after, Classification)
        assert torch.equal(before.probs, after.probs)
        assert float(before.probs.sum()) == pytest.approx(1, abs=1e-5)


def test_pictures_of_any_size_and_colour_are_taken() -> None:
    system = spatial_pyramid(TEXTURES, **GRID)
    system.fit(textures(5, 0))
    images = [
        torch.randint(256, (3, 32, 32), dtype=torch.uint8), torch.rand(1, 700, 40), torch.rand(3, 1, 1),
        torch.zeros(3, 2, 900),
    ]  # fmt: skip
    for image in images:
        prediction = system.predict_images([image])[0]
        assert isinstance(prediction, Classification)
        assert torch.isfinite(prediction.probs).all()


def test_a_picture_without_words_gets_no_favourite_among_neighbours() -> None:
    system = bag_of_words_tfidf(TEXTURES, **GRID)
    system.fit(textures(5, 0))
    prediction = system.predict_images([torch.zeros(3, 2, 900)])[0]
    assert isinstance(prediction, Classification)
    torch.testing.assert_close(prediction.probs, torch.full((3,), 1 / 3))


def test_only_support_vectors_are_kept() -> None:
    system = spatial_pyramid(TEXTURES, **GRID)
    system.fit(textures(15, 0))
    assert len(system.svm.vectors) == len(system.svm.svm.support) < 45


def test_errors_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="levels"):
        spatial_pyramid(TEXTURES, levels=7)
    with pytest.raises(UsageError, match="sides"):
        VisualWords(10, (15,))
    with pytest.raises(UsageError, match="words"):
        bag_of_words_svm(TEXTURES, words=0)
    with pytest.raises(UsageError, match="neighbours"):
        bag_of_words_tfidf(TEXTURES, neighbours=0)
    with pytest.raises(UsageError, match="not been fitted"):
        spatial_pyramid(TEXTURES).predict_images([torch.rand(3, 32, 32)])
    with pytest.raises(UsageError, match="fewer words"):
        spatial_pyramid(TEXTURES, words=5000).fit(textures(2, 0))
    with pytest.raises(RecordError, match="label"):
        spatial_pyramid(TEXTURES, words=5).fit([Sample(torch.rand(3, 32, 32), Target(), "x", (32, 32))])
    with pytest.raises(RecordError, match="pixels"):
        spatial_pyramid(TEXTURES, words=5).fit(
            [*textures(2, 0), Sample(torch.rand(3, 0, 9), Target(label=0), "x", (0, 9))]
        )
    with pytest.raises(UsageError, match="no picture"):
        spatial_pyramid(TEXTURES).fit([])
    monkeypatch.setattr(histogram_svm, "MOST_PICTURES", 5)
    with pytest.raises(UsageError, match="linear form"):
        spatial_pyramid(TEXTURES, **GRID).fit(textures(2, 0))


def test_scenes_are_told_apart(real_data: Path) -> None:
    """Six of the fifteen scenes, a few pictures each."""
    from bestiary.data.dataset import load

    parts = []
    for split, each in (("train", 15), ("test", 10)):
        dataset = load(real_data / "scene15", split=split, fields={"label"})
        of_class: dict[int, list[int]] = {}
        for i, labels in enumerate(dataset.labels_per_picture()):
            of_class.setdefault(next(iter(labels)), []).append(i)
        parts.append([dataset[i] for k in range(6) for i in of_class[k][:each]])
    system = spatial_pyramid(dataset.categories, words=50)
    system.fit(parts[0])
    assert accuracy(system, parts[1]) > 0.6
