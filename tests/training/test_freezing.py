import pytest
import torch
from loop_parts import tiny
from torch import nn

from bestiary.errors import UsageError
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
