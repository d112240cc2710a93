import numpy as np
import pytest
import torch
from scipy import ndimage
from transform_scenes import blank

from bestiary.errors import UsageError
from bestiary.records import Sample, Target
from bestiary.transforms import GaussianBlur, GaussianNoise, OneOf, RandomErasing, Resize, Sometimes, Transform


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_blur_equals_scipy(channels: int) -> None:
    image = torch.rand(channels, 20, 30)
    got = GaussianBlur((1.3, 1.3), 1.0)(Sample(image, Target(), "b", (20, 30)), rng()).image
    want = np.stack([ndimage.gaussian_filter(c, 1.3, mode="mirror", truncate=6 / 1.3) for c in image.numpy()])
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


def test_no_blur_is_no_change() -> None:
    sample = blank()
    assert GaussianBlur((0.0, 0.0), 1.0)(sample, rng()) is sample
    assert GaussianBlur(p=0.0)(sample, rng()) is sample


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_noise_has_its_spread_and_no_bias(dtype: torch.dtype) -> None:
    top = 255 if dtype == torch.uint8 else 1
    image = torch.full((3, 80, 80), 0.5 * top).to(dtype)
    noisy = GaussianNoise((8.0, 8.0), 1.0)(Sample(image, Target(), "n", (80, 80)), rng()).image
    change = (noisy.double() - image.double()).numpy() * 255 / top
    assert noisy.dtype == dtype
    assert abs(change.mean()) < 0.25  # 4 standard deviations of the mean
    assert abs(change.std() - 8) < 0.25
    assert abs(np.corrcoef(change[0].ravel(), change[1].ravel())[0, 1]) < 0.06, "channels are independent"
    white = Sample(torch.full_like(image, top), Target(), "w", (80, 80))
    assert GaussianNoise((8.0, 8.0), 1.0)(white, rng()).image.max() == top
    assert GaussianNoise(p=0.0)(white, rng()) is white


def test_erasing_makes_one_rectangle_of_the_drawn_area() -> None:
    sample = Sample(torch.zeros(3, 60, 80, dtype=torch.uint8), Target(), "e", (60, 80))
    for seed in range(30):
        out = RandomErasing(1.0, area=(0.1, 0.2), aspect=(0.5, 2.0), fill=200.0)(sample, rng(seed)).image
        ys, xs = (out[0] == 200).nonzero(as_tuple=True)
        height, width = int(ys.max() - ys.min()) + 1, int(xs.max() - xs.min()) + 1
        assert len(ys) == height * width, "a full rectangle"
        assert 0.09 < len(ys) / 4800 < 0.21
        assert 0.45 < width / height < 2.2
    assert (sample.image == 0).all()
    assert RandomErasing(0.0)(sample, rng()) is sample
    holes = RandomErasing(1.0, 5, (0.001, 0.001), (1.0, 1.0), 9.0)(sample, rng()).image
    assert 5 < int((holes[0] == 9).sum()) <= 5 * 4


def test_erasing_more_than_the_picture_erases_it() -> None:
    sample = Sample(torch.zeros(1, 4, 40, dtype=torch.uint8), Target(), "e", (4, 40))
    out = RandomErasing(1.0, area=(1.0, 1.0), aspect=(0.01, 0.01), fill=9.0)(sample, rng()).image
    assert (out[0] == 9).all(0).any(), "a rectangle taller than the picture is cut"


def test_sometimes_and_one_of() -> None:
    sample = blank()
    sizes = [Sometimes(Resize((4, 4)), 0.25)(sample, rng(s)).size_hw for s in range(400)]
    assert 65 < sizes.count((4, 4)) < 135
    choice = OneOf((Resize((4, 4)), Resize((5, 5)), Resize((6, 6))))
    seen = [choice(sample, rng(s)).size_hw[0] for s in range(300)]
    assert set(seen) == {4, 5, 6}
    assert min(seen.count(n) for n in (4, 5, 6)) > 65
    assert repr(Sometimes(Resize((4, 4)))) == "Sometimes(Resize((4, 4)))"


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianBlur((2.0, 1.0)),
        lambda: GaussianBlur(p=1.1),
        lambda: GaussianNoise((-1.0, 1.0)),
        lambda: RandomErasing(count=0),
        lambda: RandomErasing(area=(0.5, 0.1)),
        lambda: Sometimes(Resize((4, 4)), -1.0),
        lambda: OneOf(()),
    ],
)
def test_impossible_arguments_are_refused(make: type[Transform]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        make()
