"""What every fitted classifier of the zoo keeps."""

from pathlib import Path

import pytest
import torch

import bestiary
from bestiary import zoo
from bestiary.errors import UsageError
from bestiary.records import Sample, Target
from bestiary.system import FittedSystem
from bestiary.training.fitting import FitSettings
from bestiary.verbs.models import save

FITTED = [name for name in zoo.list_models("classification") if isinstance(zoo.recipe_of(name).settings, FitSettings)]
SMALL = {
    "bag_of_words_svm": {"words": 40},
    "bag_of_words_tfidf": {"words": 40},
    "constellation": {"parts": 3, "regions": 8},
    "image_search": {"words": 40},
    "spatial_pyramid": {"words": 40},
    "spatial_pyramid_linear": {"words": 40},
}
"""Arguments that make a fit quick, and fit for few pictures."""

SIZES = [(64, 64), (56, 72), (80, 60)]


def picture(label: int, seed: int) -> torch.Tensor:
    """A class is a pattern of marks in its own colour; places and sizes vary."""
    generator = torch.Generator().manual_seed(100 * label + seed)
    height, width = SIZES[seed % 3]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    wave = torch.sin(x / (2 + 2 * label)) * torch.sin(y / (5 - 2 * label))
    image = 110 + 50 * wave.repeat(3, 1, 1) + 12 * torch.randn(3, height, width, generator=generator)
    for _ in range(6):
        left, top = (int(torch.randint(4, limit - 14, (), generator=generator)) for limit in (width, height))
        image[:, top : top + 9, left : left + 7 + 3 * label] = 235.0 - 200 * label
    image[2 * label] += 40
    return image.clamp(0, 255).to(torch.uint8)


def samples() -> list[Sample]:
    found = []
    for i in range(16):
        image = picture(i % 2, i)
        found.append(Sample(image, Target(label=i % 2), f"{i}.png", (image.shape[-2], image.shape[-1])))
    return found


def fitted(name: str, seed: int = 0) -> FittedSystem:
    system = bestiary.create(name, categories=["even", "odd"], arguments=SMALL.get(name))
    assert isinstance(system, FittedSystem)
    system.fit(samples(), seed)
    return system


@pytest.fixture(scope="module", params=FITTED)
def system(request: pytest.FixtureRequest) -> FittedSystem:
    return fitted(request.param)


def new_pictures() -> list[torch.Tensor]:
    return [picture(0, 50), picture(1, 51), picture(0, 53).float() / 255]


def test_probabilities_sum_to_one_and_know_the_training_pictures(system: FittedSystem) -> None:
    found = system.predict(new_pictures(), batch=3)
    assert [f.size_hw for f in found] == [tuple(i.shape[-2:]) for i in new_pictures()]
    for f in found:
        assert float(f.probs.sum()) == pytest.approx(1, abs=1e-5)
        assert (f.probs >= 0).all()
        assert f.categories == ("even", "odd")
    own = [f.label for f in system.predict([s.image for s in samples()], batch=16)]
    assert sum(a == i % 2 for i, a in enumerate(own)) >= 12


def test_a_grey_picture_of_one_channel_is_known_too(system: FittedSystem) -> None:
    (one,) = system.predict(picture(1, 52)[:1])
    (three,) = system.predict(picture(1, 52)[:1].expand(3, -1, -1))
    torch.testing.assert_close(one.probs, three.probs, atol=1e-4, rtol=0)


def test_a_batch_says_what_single_pictures_say(system: FittedSystem) -> None:
    together, alone = system.predict(new_pictures(), batch=3), system.predict(new_pictures(), batch=1)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.probs, b.probs, atol=1e-5, rtol=0)


def test_a_checkpoint_holds_all_that_was_learned(system: FittedSystem, tmp_path: Path) -> None:
    again = bestiary.load(save(system, tmp_path / "model.safetensors"))
    assert isinstance(again, FittedSystem)
    here, there = system.state_dict(), again.state_dict()
    assert list(here) == list(there)
    assert all(torch.equal(here[k], there[k]) and here[k].dtype == there[k].dtype for k in here)
    for a, b in zip(system.predict(new_pictures()), again.predict(new_pictures()), strict=True):
        assert torch.equal(a.probs, b.probs)


def test_the_seed_decides_everything_and_a_second_fit_forgets_the_first(system: FittedSystem) -> None:
    again = fitted(system.model_name)
    again.fit(samples(), seed=0)
    for (name, a), b in zip(system.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_no_pictures_give_no_predictions(system: FittedSystem) -> None:
    assert system.predict_images([]) == []


@pytest.mark.parametrize("name", FITTED)
def test_before_fitting_it_says_so(name: str) -> None:
    system = bestiary.create(name, categories=["even", "odd"])
    with pytest.raises(UsageError, match="has not been fitted"):
        system.predict(new_pictures())
    with pytest.raises(UsageError, match="has no loss"):
        system.loss(torch.zeros(1, 3, 8, 8), [Target(label=0)])


@pytest.mark.parametrize("name", FITTED)
def test_it_has_no_parameters_for_gradients(name: str) -> None:
    assert not [n for n, p in bestiary.create(name, categories=["a", "b"]).named_parameters() if p.requires_grad]
