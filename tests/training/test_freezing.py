import pytest
import torch
from loop_parts import tiny
from torch import nn

from bestiary import zoo
from bestiary.errors import UsageError
from bestiary.heads.last_layer import head_names
from bestiary.training.freezing import freeze, is_within


@pytest.mark.parametrize(
    ("name", "prefix", "within"),
    [
        ("a.b.weight", "a", True),
        ("a.b.weight", "a.b", True),
        ("a.b", "a.b", True),
        ("ab.c", "a", False),
        ("a", "a.b", False),
    ],
)
def test_prefixes_are_whole_words(name: str, prefix: str, within: bool) -> None:
    assert is_within(name, prefix) is within


def test_only_the_named_parts_are_frozen() -> None:
    system = tiny(norm=True)
    frozen = freeze(system, ["stem.1", "head.bias"])
    assert frozen.names == ("stem.1.weight", "stem.1.bias", "head.bias")
    assert {n for n, p in system.named_parameters() if not p.requires_grad} == set(frozen.names)


def test_frozen_norms_keep_their_statistics_and_bits_through_training() -> None:
    system = tiny(norm=True, dropout=0.5)
    frozen = freeze(system, ["stem"])
    before = {k: v.clone() for k, v in system.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        system.train()
        frozen.hold()
        assert system.dropout.training
        system(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimiser.step()
    after = system.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed == {"head.weight", "head.bias"}


def test_without_prefixes_nothing_is_frozen() -> None:
    system = tiny(norm=True)
    frozen = freeze(system, [])
    system.train()
    frozen.hold()
    assert frozen.names == ()
    assert all(m.training for m in system.modules())


def test_an_unknown_prefix_lists_the_parts() -> None:
    with pytest.raises(UsageError) as caught:
        freeze(tiny(norm=True), ["stem", "haed"])
    assert "no part is called 'haed'" in caught.value.message
    assert caught.value.mend == "Did you mean head? Known parts: stem, stem.0, stem.1, head"


def test_a_module_of_bare_parameters_lists_them() -> None:
    bare = nn.ParameterDict({"alpha": nn.Parameter(torch.zeros(1))})
    with pytest.raises(UsageError, match="Known parts: alpha"):
        freeze(bare, ["beta_gamma"])


def test_all_but_the_named_parts_stay_bit_identical_buffers_too() -> None:
    system = tiny(norm=True, dropout=0.5)
    frozen = freeze(system, [], train_only=["stem.0.weight", "head"])
    assert frozen.names == ("stem.0.bias", "stem.1.weight", "stem.1.bias")
    before = {k: v.clone() for k, v in system.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    for _ in range(3):
        system.train()
        frozen.hold()
        assert not system.dropout.training
        assert system.head.training
        system(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimiser.step()
    after = system.state_dict()
    assert {k for k in after if not torch.equal(after[k], before[k])} == {"stem.0.weight", "head.weight", "head.bias"}


def test_freezing_within_what_is_trained() -> None:
    system = tiny(norm=True)
    assert set(freeze(system, ["head.bias"], train_only=["head"]).names) == {
        n for n, _ in system.named_parameters() if n != "head.weight"
    }


@pytest.mark.parametrize(("name", "part"), [("resnet18_cifar", "fc"), ("squeezenet1_1", "classifier.1")])
def test_the_head_of_a_classifier_is_the_layer_of_its_logits(name: str, part: str) -> None:
    system = zoo.build(name, ["a", "b", "c"])
    frozen = freeze(system, [], train_only=["head"])
    assert {n for n, p in system.named_parameters() if p.requires_grad} == {f"{part}.weight", f"{part}.bias"}
    system.train()
    frozen.hold()
    kept = [m for n, m in system.named_modules() if n and not is_within(part, n) and not is_within(n, part)]
    assert not any(module.training for module in kept)


def test_a_system_may_say_what_its_head_is() -> None:
    system = zoo.build("resnet18_cifar", ["a", "b"])
    vars(system)["head_names"] = ("layer4.1", "fc")
    freeze(system, [], train_only=["head"])
    assert {n.split(".")[0] for n, p in system.named_parameters() if p.requires_grad} == {"layer4", "fc"}


def test_a_system_that_does_not_say_has_no_head() -> None:
    with pytest.raises(UsageError, match=r"does not say which part is its head. Name the part by its path"):
        head_names(zoo.build("unet_padded_small", ["a", "b"]))
    with pytest.raises(UsageError, match="train_only: no part is called 'haed'"):
        freeze(tiny(), [], train_only=["haed"])
