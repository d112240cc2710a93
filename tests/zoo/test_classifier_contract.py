"""What every classifier of the zoo that is trained by gradients keeps.

In numbers run the nets of at most `LIGHT` parameters, on pictures of about 64 pixels; where all nets of a kind (a
class, with batch norm or without) are heavier, the lightest one stands for them. The others run on the meta device,
where shapes are true and nothing is computed. Files are asked of the lightest net of each class.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from bestiary import zoo
from bestiary.backbones.cutting import cut
from bestiary.deploy.onnx_graph import exported_module, write_graph
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.views import Views
from bestiary.predictions import Classification
from bestiary.records import Target
from bestiary.training.settings import Settings
from bestiary.verbs.models import load, save

NAMES = [name for name in zoo.list_models("classification") if isinstance(zoo.recipe_of(name).settings, Settings)]
SMALL_FORMS = [name for name in NAMES if name.endswith("_cifar")]
CATEGORIES = ("ant", "bee", "crab", "deer", "eel")
LIGHT = 30_000_000

HEAVY = {
    *("resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("vgg13", "vgg16", "vgg19", "vgg16_caffe", "vgg19_caffe", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
}
COMPUTED = [name for name in NAMES if name not in HEAVY]
FILED = {
    *("alexnet_cifar", "alexnet_2012", "zfnet", "vgg11_bn_half", "googlenet_cifar", "googlenet_2014"),
    *("resnet18_cifar", "darknet19_cifar", "squeezenet1_1", "squeezenext23_grouped", "mobilenet_v1_x0_25"),
    *("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v1_g4", "shufflenet_v2_x0_5", "yolo_v1_classifier"),
}
"""By the rules above; `test_lists_are_those_of_the_rules` weighs the nets."""

PADDED = ("resnet", "resnext", "wide_resnet", "darknet", "mobilenet", "shufflenet")
"""Families whose every window is padded, or pools with ceil: their maps have ceil(size / stride) places."""

LOST = 3
"""Places that maps of the other families lose at most, to wide first convolutions and to the rests of pools."""


def build(name: str, arguments: dict[str, Any] | None = None) -> tuple[Classifier, Any]:
    """The classifier and the trunk that it was made of, with which it shares its parts."""
    parents: dict[int, nn.Module] = {}
    hook = register_module_module_registration_hook(lambda parent, *_: parents.update({id(parent): parent}))
    try:
        system = zoo.build(name, CATEGORIES, arguments)
    finally:
        hook.remove()
    assert isinstance(system, Classifier)
    (trunk,) = [part for part in parents.values() if isinstance(getattr(part, "levels", None), tuple)]
    return system, trunk.eval()


def sizes(side: int) -> dict[str, int]:
    return {"resize": side + 8, "crop": side}


@functools.cache
def on_meta(name: str) -> tuple[Classifier, Any]:
    """For pictures of the published crop; where it is above 64, of the least multiple of 16 from there on that the net
    can be built for.
    """
    with torch.device("meta"):
        for side in range(64, zoo.recipe_of(name).pictures.crop, 16):
            try:
                return build(name, sizes(side))
            except UsageError:
                continue
        return build(name)


def small(name: str) -> tuple[Classifier, Any]:
    """As `on_meta`, with numbers, in evaluation mode."""
    torch.manual_seed(0)
    system, trunk = build(name, sizes(on_meta(name)[0].crop))
    return system.eval(), trunk


def noise(count: int, height: int, width: int) -> Tensor:
    """Pictures of coarse and fine grain that do not look alike."""
    draw = torch.Generator().manual_seed(height)
    coarse = torch.rand(count, 3, 3, 3, generator=draw)
    grain = torch.rand(count, 3, height, width, generator=draw)
    return 0.8 * nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.2 * grain


def labels(count: int) -> list[Target]:
    return [Target(label=i % len(CATEGORIES)) for i in range(count)]


def set_mode(system: nn.Module, kinds: tuple[type, ...], training: bool) -> None:
    for module in system.modules():
        if isinstance(module, kinds):
            module.train(training)


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def settle(system: Classifier) -> None:
    """Let batch norms see a batch, so that answers in evaluation mode tell pictures apart, and wake those that start at
    zero, behind which a whole branch gets no gradient until they have moved.
    """
    norms = [module for module in system.modules() if isinstance(module, NORMS)]
    for norm in norms:
        if not norm.weight.any():
            norm.weight.fill_(0.5)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    system.train()(system.normalize(noise(4, system.crop, system.crop)))
    system.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@pytest.fixture(scope="module", params=COMPUTED)
def net(request: pytest.FixtureRequest) -> tuple[Classifier, Any]:
    system, trunk = small(request.param)
    settle(system)
    return system, trunk


def test_lists_are_those_of_the_rules() -> None:
    classes: dict[Any, list[tuple[int, str]]] = {}
    kinds: dict[Any, list[tuple[int, str]]] = {}
    for name in NAMES:
        system, _ = on_meta(name)
        weighed = (sum(p.numel() for p in system.parameters()), name)
        normed = any(isinstance(module, NORMS) for module in system.modules())
        kinds.setdefault((type(system), normed), []).append(weighed)
        classes.setdefault(type(system), []).append(weighed)
    heavy = {name for nets in kinds.values() for weight, name in nets if weight > LIGHT}
    assert heavy - {min(nets)[1] for nets in kinds.values()} == HEAVY
    assert {min(nets)[1] for nets in classes.values()} - heavy == FILED


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_channels_and_strides_that_the_levels_promise(name: str) -> None:
    _, trunk = on_meta(name)
    height, width, step = 225, 272, trunk.levels[-1].stride
    with torch.no_grad():
        maps, taller = (trunk(torch.empty(2, 3, side, width, device="meta")) for side in (height, height + step))
    assert len(maps) == len(trunk.levels)
    assert [level.stride for level in trunk.levels] == sorted(level.stride for level in trunk.levels)
    for level, features, more in zip(trunk.levels, maps, taller, strict=True):
        assert features.shape[:2] == (2, level.channels)
        for places, side in zip(features.shape[2:], (height, width), strict=True):
            most = -(-side // level.stride)
            assert most - (0 if name.startswith(PADDED) else LOST) <= places <= most, level
        assert more.shape[2] - features.shape[2] == step // level.stride, level


@pytest.mark.usefixtures("unchecked")  # a traced forward gets proxies, which no shape check lets through
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_a_heavy_net_can_be_cut_at_its_levels(name: str) -> None:
    system, trunk = on_meta(name)
    pixels = torch.empty(2, 3, 64, 80, device="meta")
    found = cut(system, [level.name for level in trunk.levels])(pixels)
    assert [maps.shape for maps in found.values()] == [maps.shape for maps in trunk(pixels)]


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_the_loss_of_a_heavy_net_reaches_all_its_parameters(name: str) -> None:
    system, _ = on_meta(name)
    system.train().loss(noise(2, system.crop, system.crop).to("meta"), labels(2)).total.backward()
    assert [n for n, p in system.named_parameters() if p.grad is None] == []


def test_every_parameter_gets_a_gradient(net: tuple[Classifier, Any]) -> None:
    system, _ = net
    system.train()
    losses = system.loss(noise(2, system.crop, system.crop), labels(2))
    losses.total.backward()
    gradients = {name: p.grad for name, p in system.named_parameters() if p.requires_grad}
    system.zero_grad(set_to_none=True)
    system.eval()
    assert all(term.isfinite() for term in losses.terms.values())
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []
    assert [name for name, g in gradients.items() if g is not None and not g.any()] == []


@torch.no_grad()
def test_only_dropout_and_batch_norm_make_the_loss_of_training_another(net: tuple[Classifier, Any]) -> None:
    system, _ = net
    images, targets = noise(2, system.crop, system.crop), labels(2)
    evaluated = system.loss(images, targets)
    system.train()
    set_mode(system, (*DROPOUTS, *NORMS), training=False)
    trained = system.loss(images, targets)
    system.eval()
    assert evaluated.total.isfinite()
    assert list(trained.terms) == list(evaluated.terms)
    for name, term in evaluated.terms.items():
        assert torch.equal(trained.terms[name], term), name


def test_a_batch_of_odd_pictures_predicts_as_one_by_one(net: tuple[Classifier, Any]) -> None:
    system, _ = net
    side = system.crop
    grey = (255 * noise(1, side + 13, side + 8)[0, 0]).byte()
    pictures: list[Tensor | np.ndarray] = [
        noise(1, side + 1, side + 31)[0],
        (255 * noise(1, 2 * side + 3, side - 5)[0]).byte(),
        grey.numpy(),
    ]
    system.double()  # deep nets with fresh norms blow rounding up; what is left must come from mixing pictures
    together = system.predict([*pictures, grey.expand(3, -1, -1)], batch=4)
    alone = system.predict(pictures, batch=1)
    system.float()
    found = torch.stack([p.probs for p in together if isinstance(p, Classification)])
    singles = torch.stack([p.probs for p in alone if isinstance(p, Classification)])
    assert [p.size_hw for p in alone if isinstance(p, Classification)] == [tuple(p.shape[-2:]) for p in pictures]
    torch.testing.assert_close(found.sum(1), torch.ones(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:3], singles, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[3], found[2], atol=1e-6, rtol=0)
    differences = float((singles[0] - singles[1]).abs().max())
    assert float((found[:3] - singles).abs().max()) < 0.02 * differences, "the answers hardly depend on the picture"


@torch.no_grad()
def test_sizes_beside_the_crop_are_taken_or_refused_in_words(net: tuple[Classifier, Any]) -> None:
    system, _ = net
    pixels = system.normalize(noise(2, system.crop + 1, system.crop + 34))
    try:
        logits = system(pixels)
    except UsageError:
        assert not system.any_size
    else:
        assert logits.shape == (2, len(CATEGORIES))
        assert logits.isfinite().all()


@pytest.mark.usefixtures("unchecked")
@torch.no_grad()
def test_a_cut_at_a_level_gives_the_map_of_the_trunk(net: tuple[Classifier, Any]) -> None:
    system, trunk = net
    pixels = system.normalize(noise(2, system.crop, system.crop))
    names = [level.name for level in trunk.levels]
    found = cut(system, names)(pixels)
    for name, features in zip(names, trunk(pixels), strict=True):
        assert torch.equal(found[name], features), name


@pytest.mark.parametrize("name", sorted(FILED))
def test_a_file_keeps_every_bit_every_argument_and_the_views(name: str, tmp_path: Path) -> None:
    side = on_meta(name)[0].crop
    looks = {"views": "ten_crop", "view_sides": (side + 8, side + 16), "view_flip": True}
    system, _ = build(name, {**sizes(side), **looks, "label_smoothing": 0.125})
    with torch.no_grad():
        for value in system.state_dict().values():
            value.add_(torch.rand(value.shape)) if value.is_floating_point() else value.add_(7)
    again = load(save(system, tmp_path / "net.safetensors"))
    assert isinstance(again, Classifier)
    here, there = system.state_dict(), again.state_dict()
    assert list(here) == list(there)
    assert [k for k in here if here[k].dtype != there[k].dtype or not torch.equal(here[k], there[k])] == []
    assert json.dumps(again.arguments) == json.dumps(system.arguments)
    assert again.views == Views("ten_crop", (side + 8, side + 16), flip=True)
    assert (again.resize, again.crop, again.label_smoothing) == (side + 8, side, 0.125)
    assert (again.model_name, again.categories, again.training) == (name, CATEGORIES, False)


@pytest.mark.parametrize("name", SMALL_FORMS)
def test_a_small_step_lowers_the_loss_as_its_gradient_foretells(name: str) -> None:
    system, _ = small(name)
    system.train()
    set_mode(system, DROPOUTS, training=False)
    images, targets = noise(8, system.crop, system.crop), labels(8)
    before = system.loss(images, targets).total
    before.backward()
    steepness = sum(float(p.grad.double().square().sum()) for p in system.parameters() if p.grad is not None)
    fall = 0.001 * float(before.detach())
    torch.optim.SGD(system.parameters(), lr=fall / steepness).step()
    with torch.no_grad():
        after = system.loss(images, targets).total
    assert float(before.detach() - after) == pytest.approx(fall, rel=0.15)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["alexnet_cifar", "squeezenet_cifar", "shufflenet_v2_cifar"])
def test_a_graph_says_what_the_net_says(name: str, tmp_path: Path) -> None:
    """A net of one size, one whose pools leave rests, and one that shuffles."""
    import onnxruntime

    system, _ = small(name)
    graph = exported_module(system)
    write_graph(graph, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    height, width = (32, 32) if not system.any_size else (45, 39)
    images = noise(3, height, width)
    (found,) = session.run(None, {graph.images.name: images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), graph(images), atol=1e-5, rtol=1e-4)
