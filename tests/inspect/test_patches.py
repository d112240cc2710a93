"""Patches that units like best, and features of a data set on a plane."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.inspect.feature_space import gather_features, mosaic, to_plane
from bestiary.inspect.fields import field_box, layer_field
from bestiary.inspect.layers import activations
from bestiary.inspect.patches import top_patches
from bestiary.inspect.views import preparation
from bestiary.records import Sample, Target
from bestiary.system import System
from bestiary.zoo import build


def pictures(count: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(8)
    made = []
    for i in range(count):
        image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)
        image = (image.float() * (0.2 + 0.8 * i / count)).to(torch.uint8)
        made.append(Sample(image, Target(label=i % 3), f"{i}.png", (32, 32)))
    return made


@pytest.fixture(scope="module")
def system() -> System:
    torch.manual_seed(6)
    return build("alexnet_cifar", list("abc")).eval()


def test_patches_are_sorted_and_are_the_strongest_of_all(system: System) -> None:
    data, layer = pictures(20), "features.1"
    found = top_patches(system, data, layer, [1, 4], count=5, batch=7)
    prepare = preparation(system)
    for unit, patches in found.items():
        values = [patch.activation for patch in patches]
        assert values == sorted(values, reverse=True)
        peaks = [float(activations(system, prepare(s.image), [layer])[layer].detach()[0, unit].max()) for s in data]
        assert values == pytest.approx(sorted(peaks, reverse=True)[:5], rel=1e-4)
        assert [data[peaks.index(max(peaks))].name] == [patches[0].name]


def test_a_patch_is_what_the_unit_sees(system: System) -> None:
    data = pictures(6)
    patch = top_patches(system, data, "features.1", [2], count=1)[2][0]
    field = layer_field(system, (1, 3, 32, 32), "features.1")
    x1, y1, x2, y2 = patch.box_xyxy
    assert patch.box_xyxy == field_box(field, patch.position)
    image = next(s.image for s in data if s.name == patch.name)
    scale = patch.picture.shape[1] // (y2 - y1)
    assert torch.equal(patch.picture[:, ::scale, ::scale], image[:, y1:y2, x1:x2])
    assert patch.signal.shape == patch.picture.shape


def test_of_equal_activations_the_earlier_picture_comes_first(system: System) -> None:
    data = [Sample(torch.zeros(3, 32, 32, dtype=torch.uint8), Target(), f"{i}.png", (32, 32)) for i in range(4)]
    found = top_patches(system, data, "features.1", [0], count=2)[0]
    assert [patch.name for patch in found] == ["0.png", "1.png"]
    with pytest.raises(UsageError):
        top_patches(system, [], "features.1", [0])


def test_features_are_means_of_maps(system: System) -> None:
    data = pictures(9)
    features = gather_features(system, data, "features.1", batch=4)
    assert features.labels.tolist() == [i % 3 for i in range(9)]
    assert features.names[4] == "4.png"
    maps = activations(system, preparation(system)(data[4].image), ["features.1"])["features.1"].detach()
    torch.testing.assert_close(features.values[4], maps[0].mean((1, 2)))
    assert gather_features(system, data, "", most=5).values.shape == (5, 3)
    with pytest.raises(UsageError):
        gather_features(system, data[:1], "")


def test_the_plane_keeps_groups_apart_and_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(60, 8, generator=generator) + 20 * torch.arange(3).repeat_interleave(20)[:, None]
    for method in ("pca", "tsne"):
        plane = to_plane(values, method, seed=3)  # type: ignore[arg-type]
        assert plane.shape == (60, 2)
        assert torch.equal(plane, to_plane(values, method, seed=3))  # type: ignore[arg-type]
        groups = plane.view(3, 20, 2)
        spread = (groups - groups.mean(1, keepdim=True)).norm(dim=2).max()
        assert torch.pdist(groups.mean(1)).min() > spread
    variance = torch.linalg.svdvals((values - values.mean(0)).double())[:2]
    torch.testing.assert_close(to_plane(values, "pca").double().norm(dim=0), variance, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="two"):
        to_plane(values[:1])


def test_the_mosaic_lays_pictures_out_by_the_plane(system: System) -> None:
    features = gather_features(system, pictures(4), "", thumbnail=8)
    sheet = mosaic(features, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), side=60)
    # Upwards is up: the first lies in the lower left corner.
    assert torch.equal(sheet[:, 51:59, 1:9], features.thumbnails[0])
    assert torch.equal(sheet[:, 1:9, 51:59], features.thumbnails[3])
    assert bool((sheet[:, 20:40, 20:40] == 255).all())
