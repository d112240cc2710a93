"""Recognition by colour alone."""

import pytest
import torch

from bestiary.classification.colour_histogram import ColourHistogram
from bestiary.errors import UsageError
from bestiary.features.colour_histogram import intersection
from bestiary.records import Sample, Target


def coloured(channel: int, seed: int, side: int = 12) -> torch.Tensor:
    image = torch.randint(0, 80, (3, side, side), generator=torch.Generator().manual_seed(seed))
    image[channel] += 150
    return image.to(torch.uint8)


def fitted(**options) -> ColourHistogram:
    system = ColourHistogram(["red", "green", "blue"], **options)
    system.fit([Sample(coloured(i % 3, i), Target(label=i % 3), f"{i}.png", (12, 12)) for i in range(12)])
    return system


@pytest.mark.parametrize("space", ["rgb", "hsv"])
def test_colours_are_told_apart_wherever_they_stand(space: str) -> None:
    system = fitted(space=space)
    for channel in range(3):
        image = coloured(channel, 50 + channel, side=20)
        moved = image.flatten(1)[:, torch.randperm(400, generator=torch.Generator().manual_seed(0))].view(3, 40, 10)
        here, there = system.predict_images([image, moved])
        assert here.label == there.label == channel
    assert torch.equal(*(system.neighbours([i])[0] for i in (image, moved)))


def test_neighbours_are_those_of_greatest_intersection() -> None:
    system = fitted(k=12)
    common, indices = system.neighbours([coloured(1, 99)])
    wanted = intersection(system.histogram_of(coloured(1, 99)).expand(12, -1), system.histograms.T)
    torch.testing.assert_close(common[0].float(), wanted[indices[0]])
    assert (common[0].diff() <= 0).all()
    assert sorted(indices[0].tolist()) == list(range(12))


def test_grey_and_float_pictures_have_their_histogram() -> None:
    system, grey = fitted(), torch.arange(256).to(torch.uint8).view(1, 16, 16)
    assert torch.equal(system.histogram_of(grey), system.histogram_of(grey.expand(3, -1, -1).float() / 255))
    assert torch.count_nonzero(system.histogram_of(grey)) == 8


@pytest.mark.parametrize("options", [{"bins": (8, 8)}, {"bins": (8, 8, 0)}, {"bins": (8, 8, 300)}, {"k": 0}])
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ColourHistogram(["a"], **options)
