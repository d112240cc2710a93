import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary import zoo
from bestiary.backbones import resnet
from bestiary.backbones.cutting import cut, cut_before, layers_of
from bestiary.backbones.resnet import ResNet, Variant
from bestiary.errors import UsageError
from bestiary.heads.last_layer import head_names

pytestmark = pytest.mark.usefixtures("unchecked")  # a traced forward gets proxies, which no shape check lets through


@pytest.fixture(scope="module")
def net() -> resnet.ResNetClassifier:
    torch.manual_seed(0)
    return resnet.resnet18(["a", "b", "c"]).eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def seen(net: nn.Module, path: str, pixels: Tensor, before: bool = False) -> Tensor:
    """What a hook sees at a module: the map as it is at that moment, before anything writes over it."""
    maps: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        maps.append((given[0] if before else out).clone())

    handle = net.get_submodule(path).register_forward_hook(keep)
    with torch.no_grad():
        net(pixels)
    handle.remove()
    return maps[-1]


@pytest.mark.parametrize("path", ["conv1", "bn1", "maxpool", "layer1.0.bn1", "layer2.0.downsample.0", "layer3", "fc"])
def test_a_cut_gives_what_a_hook_sees(net: nn.Module, pixels: Tensor, path: str) -> None:
    with torch.no_grad():
        assert torch.equal(cut(net, path)(pixels), seen(net, path, pixels))


def test_several_layers_give_a_dictionary_and_no_activation_writes_over_a_map(net: nn.Module, pixels: Tensor) -> None:
    names = ["bn1", "layer1.0.bn1", "layer2", "layer4.1"]  # an in-place ReLU follows each of the first two
    with torch.no_grad():
        maps = cut(net, names)(pixels)
    assert list(maps) == names
    for name in names:
        assert torch.equal(maps[name], seen(net, name, pixels)), name
    assert float(maps["bn1"].min()) < 0


def test_only_what_is_needed_is_kept_under_its_own_name_and_shared(net: resnet.ResNetClassifier) -> None:
    part = cut(net, "layer2.0.conv1")
    own = net.state_dict()
    wanted = [name for name in own if name.split(".")[0] in ("conv1", "bn1", "layer1")] + ["layer2.0.conv1.weight"]
    assert list(part.state_dict()) == wanted
    assert part.get_parameter("conv1.weight") is net.conv1.weight
    apart = copy.deepcopy(part)
    with torch.no_grad():
        apart.get_parameter("conv1.weight").zero_()
    assert float(net.conv1.weight.detach().abs().sum()) > 0
    fresh = cut(resnet.resnet18(["a", "b", "c"]), "layer2.0.conv1")
    fresh.load_state_dict(part.state_dict())
    assert torch.equal(fresh.get_parameter("conv1.weight"), net.conv1.weight)


@pytest.mark.parametrize(
    ("name", "path"), [("conv4_x", "layer3"), ("C3", "layer2"), ("C5", "layer4"), ("conv1", "conv1")]
)
def test_names_of_the_paper_and_of_levels(net: nn.Module, pixels: Tensor, name: str, path: str) -> None:
    with torch.no_grad():
        assert torch.equal(cut(net, name)(pixels), cut(net, path)(pixels))


def test_operations_without_a_module_have_names_too(net: resnet.ResNetClassifier, pixels: Tensor) -> None:
    with torch.no_grad():
        pooled = cut(net, "pool5")(pixels)
        assert torch.equal(pooled, seen(net, "layer4", pixels).mean((2, 3)))
        assert torch.equal(cut(net, "mean")(pixels), pooled)
        assert torch.equal(cut_before(net, "fc")(pixels), pooled)
        assert torch.equal(net.fc(pooled), net(pixels))


def test_levels_of_a_trunk_are_its_answers(pixels: Tensor) -> None:
    trunk = ResNet(Variant(resnet.BasicBlock, (1, 1, 1, 1))).eval()
    with torch.no_grad():
        c2, _, c4, _ = trunk(pixels)
        found = cut(trunk, ["C2", "C4"])(pixels)
    assert torch.equal(found["C2"], c2)
    assert torch.equal(found["C4"], c4)


def test_the_layers_that_it_lists_can_all_be_cut(net: nn.Module) -> None:
    names = layers_of(net)
    assert names[:3] == ("conv1", "bn1", "maxpool")
    assert names[-2:] == ("layer4", "fc")
    assert set(names) <= {name for name, _ in net.named_modules()}
    for name in names[::9]:
        cut(net, name)


@pytest.mark.parametrize(
    "name", [*(n for n in zoo.ZOO if n.endswith("_cifar")), "caffenet", "googlenet_2014", "squeezenet1_0", "vgg16"]
)
def test_every_family_can_be_cut_at_all_its_names_and_before_its_head(name: str) -> None:
    with torch.device("meta"):
        net = zoo.build(name, ["a", "b"])
    (head,) = head_names(net)
    paths = layers_of(net)
    assert head in paths
    part = cut_before(net, head)
    assert [n for n in net.state_dict() if n.startswith(head)]
    assert not [n for n in part.state_dict() if n.startswith(head)]
    known = [*net.layer_names, paths[0], paths[len(paths) // 2]] if hasattr(net, "layer_names") else list(paths[:2])
    maps = cut(net, known)
    assert set(maps.meta["layer_names"]) >= set(known)


@pytest.mark.parametrize("function", [cut, cut_before])
def test_unknown_layers_get_the_nearest(net: nn.Module, function: Callable[..., nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"no layer is called 'layr3'. Did you mean 'layer3'"):
        function(net, "layr3")
    with pytest.raises(UsageError, match=r"There are \d+ layers: "):
        function(net, "#")


def test_bad_requests(net: nn.Module) -> None:
    with pytest.raises(UsageError, match="at least one"):
        cut(net, [])

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.sum() > 0 else x

    with pytest.raises(UsageError, match="Looks cannot be traced"):
        cut(Looks(), "conv")


class Twice(nn.Module):
    """A module that runs twice, another under two names, functional dropout, and an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.same = self.conv
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = F.dropout(self.conv(x), 0.5, self.training)
        y = self.norm(x)
        y += 1
        return y.relu_()


def test_of_a_module_that_runs_twice_the_last_run_counts() -> None:
    net, x = Twice().eval(), torch.rand(1, 3, 4, 4)
    for name in ("conv", "same"):
        assert torch.equal(cut(net, name)(x), net.conv(net.conv(x)))
    both = cut(net, ["norm", "relu_"])(x)
    wanted = net.norm(net.conv(net.conv(x)))
    assert torch.equal(both["norm"], wanted)
    assert torch.equal(both["relu_"], (wanted + 1).relu())


def test_functional_dropout_follows_the_mode_of_the_cut() -> None:
    part, x = cut(Twice().eval(), "norm"), torch.rand(1, 3, 8, 8)
    assert not part.training
    assert torch.equal(part(x), part(x))
    part.train()
    assert not torch.equal(part(x), part(x))
    assert list(part.state_dict()) == [n for n in Twice().state_dict() if not n.startswith("same")]


def test_the_mode_is_the_nets(net: nn.Module) -> None:
    assert not any(module.training for module in cut(net, "layer2").modules())
    learning = resnet.resnet18(["a"])
    learning.bn1.eval()
    part = cut(learning, "layer2")
    assert part.training
    assert part.layer1.training
    assert not part.bn1.training


def test_a_cut_exports_and_compiles(net: nn.Module, pixels: Tensor) -> None:
    part = cut(net, ["C2", "C3"])
    program = torch.export.export(part, (pixels,))
    with torch.no_grad():
        wanted, got = part(pixels), program.module()(pixels)
        compiled = torch.compile(part, backend="eager")(pixels)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value)
        torch.testing.assert_close(compiled[name], value)


class Regressor(nn.Module):
    """A net as a layer in another: the example of the documentation."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.last = nn.Linear(128, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.last(self.trunk(pixels).mean((2, 3)))


def test_a_net_is_a_layer_in_another(pixels: Tensor) -> None:
    whole = Regressor(cut(resnet.resnet18(["a"]), "C3"))
    assert all(name.startswith(("trunk.", "last.")) for name in whole.state_dict())
    assert "trunk.layer2.1.conv2.weight" in whole.state_dict()
    whole(pixels).square().sum().backward()
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in whole.named_parameters() if "bn" not in n
    )

    whole.zero_grad(set_to_none=True)
    whole.trunk.requires_grad_(False)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    whole.trunk.eval()
    optimiser = torch.optim.SGD([p for p in whole.parameters() if p.requires_grad], lr=0.1)
    whole(pixels).square().sum().backward()
    optimiser.step()
    after = whole.state_dict()
    assert {n for n in after if not torch.equal(after[n], before[n])} == {"last.weight", "last.bias"}
    assert torch.equal(Regressor(cut(whole.trunk, "layer1")).trunk(pixels), cut(whole.trunk, "layer1")(pixels))
