"""What every classifier does around its network."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.heads.classification import Classifier
from bestiary.predictions import Classification
from bestiary.records import Target

CATEGORIES = ["ant", "bee", "crab"]


class MeanColour(Classifier):
    """Logits are the mean of each normalised channel."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3))


def build(**settings: object) -> MeanColour:
    arguments = {"resize": 8, "crop": 6, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), **settings}
    return MeanColour(CATEGORIES, **arguments)  # type: ignore[arg-type]


def plain(*colours: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colours).view(-1, 3, 1, 1).expand(-1, 3, 6, 6).contiguous()


def test_cross_entropy_by_hand() -> None:
    loss = build().loss(plain((1, 0, 0), (0, 0, 1)), [Target(label=0), Target(label=0)])
    log_sum = math.log(math.e + 2)
    assert list(loss.terms) == ["cross_entropy"]
    assert float(loss.total) == pytest.approx(((log_sum - 1) + log_sum) / 2)


def test_label_smoothing_is_a_mixture_with_the_uniform_target() -> None:
    images, targets = plain((1, 0, 0)), [Target(label=0)]
    hard = float(build().loss(images, targets).total)
    uniform = -float(torch.log_softmax(torch.tensor([1.0, 0, 0]), 0).mean())
    assert float(build(label_smoothing=0.3).loss(images, targets).total) == pytest.approx(0.7 * hard + 0.3 * uniform)


def test_bytes_and_shares_and_lists_and_batches_are_the_same_pictures() -> None:
    batch = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    targets = [Target(label=1), Target(label=2)]
    wanted = build().loss(batch.float() / 255, targets).total
    assert float(build().loss(batch, targets).total) == pytest.approx(float(wanted))
    assert float(build().loss(list(batch), targets).total) == pytest.approx(float(wanted))


def test_normalisation_is_part_of_the_system() -> None:
    system = build(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    loss = system.loss(plain((0.6, 0.2, 0.3)), [Target(label=0)])
    assert float(loss.total) == pytest.approx(float(F.cross_entropy(torch.tensor([[1.0, 0, 0]]), torch.tensor([0]))))
    assert not any("normalize" in name for name in system.state_dict())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([Target(label=0), Target()], r"targets\[1\].label: got None"),
        ([Target(label=3), Target(label=0)], r"targets\[0\].label: got 3, wanted 0 to 2"),
        ([Target(label=0), Target(label=-1)], r"targets\[1\].label: got -1"),
        ([Target(label=0)], "targets: got 1, wanted one a picture, 2"),
    ],
)
def test_a_target_that_does_not_fit_is_named(targets: list[Target], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        build().loss(plain((1, 0, 0), (0, 1, 0)), targets)


def test_pictures_of_unequal_sizes_are_refused() -> None:
    with pytest.raises(RecordError, match=r"images: got pictures of shapes \(3, 4, 4\), \(3, 6, 6\)"):
        build().loss([torch.zeros(3, 6, 6), torch.zeros(3, 4, 4)], [Target(label=0)] * 2)


def test_pictures_of_the_wrong_channels_are_refused() -> None:
    with pytest.raises(RecordError, match="3 channels"):
        build().loss(torch.zeros(1, 4, 6, 6), [Target(label=0)])


@pytest.mark.parametrize("settings", [{"crop": 9}, {"crop": 0}, {"label_smoothing": 1.0}, {"label_smoothing": -0.1}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        build(**settings)


def test_no_category_is_refused() -> None:
    with pytest.raises(UsageError, match="no category"):
        MeanColour([])


def test_prediction_scales_crops_and_is_a_probability() -> None:
    # Red in the middle, blue outside what the crop keeps.
    image = torch.zeros(3, 16, 40, dtype=torch.uint8)
    image[2] = 255
    image[:, :, 10:30] = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    (found,) = build(std=(0.1, 0.1, 0.1)).predict(image)
    assert isinstance(found, Classification)
    assert found.size_hw == (16, 40)
    assert found.label == 0
    assert float(found.probs.sum()) == pytest.approx(1)
    assert found.top(1)[0][0] == "ant"
    assert float(found.probs[0]) == pytest.approx(1 / (1 + 2 * math.exp(-10)), rel=1e-5)


def test_a_batch_of_many_sizes_predicts_as_one_by_one() -> None:
    torch.manual_seed(0)
    images = [torch.rand(3, *size) for size in ((8, 8), (30, 9), (5, 41))]
    system = build()
    together = system.predict_images(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = system.predict_images([image])
        assert isinstance(found, Classification)
        assert isinstance(alone, Classification)
        torch.testing.assert_close(found.probs, alone.probs)
    assert system.predict_images([]) == []


def test_validation_sees_what_prediction_sees() -> None:
    images = [torch.rand(3, 20, 30), torch.rand(3, 9, 14)]
    system, targets = build(), [Target(label=0), Target(label=2)]
    found = [p for p in system.predict_images(images) if isinstance(p, Classification)]
    probs = torch.stack([p.probs for p in found])
    wanted = -(probs[0, 0].log() + probs[1, 2].log()) / 2
    assert float(system.validation_loss(images, targets).total) == pytest.approx(float(wanted), rel=1e-5)


def test_other_channels_take_the_mean_of_the_colours_statistics() -> None:
    class Sum(Classifier):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.sum((2, 3))[:, :3]

    system = Sum(CATEGORIES, resize=6, crop=6, in_channels=4)
    assert system.normalize.mean.flatten().tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * 4)
    assert isinstance(system, nn.Module)
    assert system.loss(torch.rand(2, 4, 6, 6), [Target(label=0), Target(label=1)]).total.isfinite()


def test_a_grey_picture_is_that_grey_in_three_channels() -> None:
    system = build().eval()
    grey = torch.rand(1, 40, 33)
    with torch.inference_mode():
        alone, repeated = system.predict_images([grey, grey.expand(3, -1, -1)])
    assert torch.equal(alone.probs, repeated.probs)
