"""What PSPNet, RefineNet, DFN and ExFuse all keep, on narrow trunks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.atrous import set_output_stride
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import ResNet, Variant
from bestiary.deploy.onnx_graph import exported_module, write_graph
from bestiary.heads.whole_picture import WholePicture
from bestiary.layers.preprocess import Normalize
from bestiary.predictions import Segmentation
from bestiary.records import Target
from bestiary.segmentation.dfn import DFN, dfn_resnet18, dfn_resnet101
from bestiary.segmentation.exfuse import ExFuse, exfuse_resnet18, exfuse_resnext101
from bestiary.segmentation.psp_net import PSPNet, psp_net_resnet18, psp_net_resnet101
from bestiary.segmentation.refine_net import RefineNet, refine_net_resnet18, refine_net_resnet101

Build = Callable[..., WholePicture]
KINDS = (psp_net_resnet18, refine_net_resnet18, dfn_resnet18, exfuse_resnet18)
CATEGORIES = ("sky", "road", "car")
every_kind = pytest.mark.parametrize("build", KINDS, ids=lambda kind: kind.__name__.removesuffix("_resnet18"))


def narrow(build: Build, **arguments: object) -> WholePicture:
    """With statistics as after some training, so that evaluation mode is not the identity."""
    torch.manual_seed(0)
    net = build(CATEGORIES, width=8, **arguments)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return net


def halves(size_hw: tuple[int, int] = (64, 80)) -> tuple[Tensor, Target]:
    """Bright on the left, which is class 1, dark on the right, class 2; a strip of unknown."""
    noise = torch.rand(3, *size_hw, generator=torch.Generator().manual_seed(1))
    labels = torch.ones(size_hw, dtype=torch.uint8)
    labels[:, size_hw[1] // 2 :] = 2
    image = 0.2 * noise + 0.6 * (labels == 1)
    labels[:2] = 255
    return image, Target(label_map=labels)


@every_kind
def test_every_parameter_gets_a_gradient(build: Build) -> None:
    net = narrow(build).train()
    image, target = halves()
    net.loss([image, image.flip(2)], [target, target]).total.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@every_kind
def test_the_loss_falls_on_one_picture_and_it_is_labelled(build: Build) -> None:
    net = narrow(build).train()
    image, target = halves()
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        terms = net.loss([image], [target])
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        losses.append(float(terms.terms["cross_entropy"].detach()))
    assert losses[-1] < 0.35 * losses[0]
    known = target.label_map != 255  # type: ignore[operator]
    assert (net.predict_logits(image[None])[0].argmax(0) == target.label_map)[known].float().mean() > 0.9


@every_kind
@pytest.mark.parametrize("size_hw", [(1, 1), (17, 31), (65, 40)])
def test_a_picture_of_any_size_is_learned_and_predicted(build: Build, size_hw: tuple[int, int]) -> None:
    net = narrow(build)
    image = torch.randint(0, 256, (3, *size_hw), dtype=torch.uint8)
    loss = net.train().loss([image], [Target(label_map=torch.ones(size_hw, dtype=torch.uint8))])
    assert torch.isfinite(loss.total)
    (prediction,) = net.eval().predict(image)
    assert isinstance(prediction, Segmentation)
    assert tuple(prediction.label_map.shape) == size_hw


@every_kind
def test_where_nothing_is_known_nothing_is_learned(build: Build) -> None:
    net = narrow(build).train()
    image, _ = halves((40, 40))
    loss = net.loss([image], [Target(label_map=torch.full((40, 40), 255, dtype=torch.uint8))]).total
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(not p.grad.any() for p in net.parameters() if p.grad is not None)


@every_kind
def test_a_batch_equals_single_pictures(build: Build) -> None:
    net = narrow(build).eval()
    net.take({"keep_probs": True})
    images = [torch.rand(3, h, w) for h, w in ((40, 60), (70, 50), (40, 60))]
    with torch.inference_mode():
        for image, together in zip(images, net.predict_images(images), strict=True):
            (alone,) = net.predict_images([image])
            torch.testing.assert_close(together.probs, alone.probs, atol=1e-5, rtol=0)  # type: ignore[union-attr]


@every_kind
@torch.inference_mode()
def test_what_forward_says_is_what_training_sees(build: Build) -> None:
    net = narrow(build).eval()
    pixels = torch.randn(1, 3, net.geometry.covering(64), net.geometry.covering(80))
    outputs = net.outputs(pixels)
    assert torch.equal(net(pixels), outputs.logits)
    assert outputs.logits.shape == (1, 3, *pixels.shape[-2:])


@every_kind
@torch.inference_mode()
def test_a_state_makes_another_net_say_the_same(build: Build) -> None:
    net, other = narrow(build).eval(), build(CATEGORIES, width=8).eval()
    other.load_state_dict(net.state_dict())
    image, _ = halves()
    assert torch.equal(net.predict_logits(image[None]), other.predict_logits(image[None]))


@every_kind
def test_one_and_five_channels(build: Build) -> None:
    grey, many = narrow(build, in_channels=1).eval(), narrow(build, in_channels=5).train()
    image, target = halves((40, 50))
    (prediction,) = grey.predict(image)
    assert tuple(prediction.label_map.shape) == (40, 50)  # type: ignore[union-attr]
    assert torch.isfinite(many.loss([torch.rand(5, 40, 50)], [target]).total)


@every_kind
def test_a_classifier_of_the_trunk_is_a_start(build: Build) -> None:
    net = narrow(build)
    trunk = {name.removeprefix("backbone."): p for name, p in net.state_dict().items() if name.startswith("backbone.")}
    taken, line = net.start_state({**trunk, "fc.weight": torch.zeros(3, 64), "fc.bias": torch.zeros(3)})
    assert "classifier" in line
    assert set(taken) == {f"backbone.{name}" for name in trunk}
    own = net.state_dict()
    assert net.start_state(own) == (own, "")


@pytest.mark.parametrize("build", [psp_net_resnet101, refine_net_resnet101, dfn_resnet101, exfuse_resnext101])
def test_the_papers_forms_label_every_pixel(build: Build) -> None:
    with torch.device("meta"):
        net = build()
        side = net.geometry.covering(512)
        outputs = net.outputs(torch.empty(1, 3, side, side))
    assert tuple(outputs.logits.shape) == (1, 21, side, side)
    assert set(net.auxiliary_weights) <= set(outputs.auxiliary)
    assert [net.get_submodule(head) for head in getattr(net, "head_names", ())]


SHALLOW = Variant(BasicBlock, (1, 1, 1, 1), width=4)


def shallow(kind: type[WholePicture]) -> WholePicture:
    torch.manual_seed(0)
    trunk, options = ResNet(SHALLOW), {}
    if kind is PSPNet:
        set_output_stride(trunk, 16)
    if kind is RefineNet:
        options = {"widths": (8, 4, 4, 4)}
    return kind(trunk, CATEGORIES, Normalize(), **options).eval()  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize("kind", [RefineNet, DFN, ExFuse])
def test_an_exported_program_takes_other_sizes(kind: type[WholePicture], unchecked: None) -> None:
    net = shallow(kind)
    grid, least = max(net.geometry.grid, 8), net.geometry.smallest
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    start = torch.randn(1, 3, least + 2 * grid, least + 3 * grid)
    with torch.no_grad():
        program = torch.export.export(net, (start,), dynamic_shapes=(sizes,), strict=False).module()
        other = torch.randn(1, 3, least + 5 * grid, least + grid)
        torch.testing.assert_close(program(other), net(other), atol=1e-5, rtol=1e-5)


def test_a_file_of_the_pyramid_says_what_the_net_says(tmp_path: Path, unchecked: None) -> None:
    """Its pooling has another form in a graph."""
    import onnxruntime

    graph = exported_module(shallow(PSPNet))
    write_graph(graph, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for count, height, width in ((1, 33, 49), (2, 100, 57)):
        images = torch.rand(count, 3, height, width)
        (found,) = session.run(None, {graph.images.name: images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), graph(images), atol=1e-5, rtol=1e-4)
