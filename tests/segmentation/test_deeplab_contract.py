"""What every DeepLab keeps: any size, any number of channels, finite losses, a gradient for every parameter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bestiary import zoo
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import VARIANTS, Variant
from bestiary.heads.last_layer import head_names
from bestiary.heads.whole_picture import WholePicture
from bestiary.predictions import Segmentation
from bestiary.records import IGNORE_LABEL, Target

NAMES = ("sky", "road", "car")
THIN = Variant(BasicBlock, (1, 1, 1, 2), width=8)
"""In place of ResNet-18, as deep as the factors of its multi-grid say."""
CASES = {
    "deeplab_v1_small": {},
    "deeplab_v2_small": {},
    "deeplab_v2_small at three scales": {"scales": (0.75, 0.5)},
    "deeplab_v3_resnet18": {},
    "deeplab_v3_resnet18 predicting at 8": {"predict_stride": 8},
    "deeplab_v3_plus_resnet18": {},
    "deeplabv3_mobilenet_v3_large": {},
}
Built = Callable[..., WholePicture]


@pytest.fixture(params=list(CASES))
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Built:
    monkeypatch.setitem(VARIANTS, "resnet18", THIN)
    case = request.param

    def made(**arguments: object) -> WholePicture:
        torch.manual_seed(1)
        system = zoo.build(case.split(" ")[0], NAMES, {**CASES[case], **arguments})
        assert isinstance(system, WholePicture)
        return system

    return made


def picture(*size_hw: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(channels, *size_hw, generator=torch.Generator().manual_seed(seed))


def truth(*size_hw: int, seed: int = 0) -> Target:
    return Target(
        label_map=torch.randint(0, 3, size_hw, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    )


def label_map(system: WholePicture, image: Tensor) -> Tensor:
    (found,) = system.eval().predict_images([image])
    assert isinstance(found, Segmentation)
    return found.label_map


def test_any_size_and_a_batch_equals_its_pictures(build: Built) -> None:
    system = build().eval()
    images = [picture(1, 1), picture(17, 31), picture(64, 50), picture(17, 31, seed=1)]
    with torch.inference_mode():
        found = system.predict_images(images)
        for image, segmentation in zip(images, found, strict=True):
            assert isinstance(segmentation, Segmentation)
            assert segmentation.label_map.shape == image.shape[-2:]
            logits = system.predict_logits(image[None])
            together = system.predict_logits(torch.stack([image, image.flip(-1)]))
            torch.testing.assert_close(together[:1], logits, rtol=1e-4, atol=1e-5)
        assert (system.predict_logits(picture(64, 50)[None]).std((2, 3)) > 0).all()


@pytest.mark.parametrize("channels", [1, 5])
def test_pictures_of_other_channels(build: Built, channels: int) -> None:
    system = build(in_channels=channels)
    image = picture(20, 30, channels=channels)
    assert label_map(system, image).shape == (20, 30)
    assert system.train().loss([image], [truth(20, 30)]).total.isfinite()


def test_losses_of_pictures_of_different_sizes_and_of_one_alone_are_finite(build: Built) -> None:
    system = build().train()
    for sizes in ([(33, 40), (50, 20)], [(1, 1)], [(17, 31)]):
        images = [picture(*size) for size in sizes]
        assert system.loss(images, [truth(*size) for size in sizes]).total.isfinite()


def test_nothing_labelled_costs_nothing(build: Built) -> None:
    system = build().train()
    blank = Target(label_map=torch.full((33, 40), IGNORE_LABEL, dtype=torch.uint8))
    total = system.loss([picture(33, 40)] * 2, [blank] * 2).total
    assert float(total.detach()) == 0.0
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in system.parameters())


def test_every_parameter_learns_and_a_picture_is_learned(build: Built) -> None:
    system = build().train()
    image, target = picture(49, 65), truth(49, 65)
    blocks = target.label_map
    assert blocks is not None
    blocks[:] = 0
    blocks[:, 30:], blocks[25:, :20] = 1, 2
    image[0, :, 30:], image[1, 25:, :20] = 1.0, 1.0
    optimiser = torch.optim.Adam(system.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        total = system.loss([image, 0.6 * image], [target] * 2).total
        total.backward()
        if not losses:
            assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []
        optimiser.step()
        losses.append(float(total.detach()))
    assert min(losses[-3:]) < 0.75 * losses[0]


def test_the_last_layer_is_its_head(build: Built) -> None:
    system = build()
    for name in head_names(system):
        last = [m for m in system.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1]
        assert last.out_channels == len(NAMES)
    if system.model_name != "deeplabv3_mobilenet_v3_large":  # torchvision's classifier is all that follows the trunk
        assert all(isinstance(system.get_submodule(name), nn.Conv2d) for name in head_names(system))


def test_a_state_comes_back(build: Built) -> None:
    first, second = build(), build()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.1)
        for module in first.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
    second.load_state_dict(first.state_dict())
    image = picture(40, 33)[None]
    with torch.inference_mode():
        assert torch.equal(first.eval().predict_logits(image), second.eval().predict_logits(image))


def test_a_classifiers_convolutions_are_the_start(build: Built) -> None:
    system = build()
    prefix = next(p for p in ("encoder.backbone.", "backbone.") if any(n.startswith(p) for n in system.state_dict()))
    trunk = {n.removeprefix(prefix): v + 1 for n, v in system.state_dict().items() if n.startswith(prefix)}
    if system.model_name == "deeplabv3_mobilenet_v3_large":
        trunk = {f"features.{name}": value for name, value in trunk.items()}
    taken, line = system.start_state({**trunk, "fc.weight": torch.zeros(10, 4)})
    assert line == "starts from a classifier: its convolutions"
    assert set(taken) == {n for n in system.state_dict() if n.startswith(prefix)}
    own = system.state_dict()
    assert all(torch.equal(value, own[name] + 1) for name, value in taken.items())
    assert system.start_state(own) == (own, "")
