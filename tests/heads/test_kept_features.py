"""What is kept, under which key, and for how long."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bestiary.array_cache import ArrayCache
from bestiary.heads import kept_features
from bestiary.heads.kept_features import StateHash, at_least_for_now, kept


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def step(module: nn.Module) -> None:
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.rand(4, 2)).square().sum().backward()
    optimiser.step()


CHANGES = {
    "a step": step,
    "norm statistics": lambda m: m.train()(torch.rand(4, 2)),
    "a loaded state": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "another type": lambda m: m.double(),
    "another tensor": lambda m: setattr(m[0], "bias", nn.Parameter(torch.ones(3))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_another_hash(change: str) -> None:
    module, hashes = network(), StateHash()
    before = hashes.of([module])
    CHANGES[change](module)
    assert hashes.of([module]) != before
    assert hashes.of([module]) == StateHash().of([module])


def test_equal_states_are_equal_and_an_unchanged_one_is_not_read_again(monkeypatch) -> None:
    module, hashes = network(), StateHash()
    first = hashes.of([module])
    assert first == StateHash().of([network()])
    monkeypatch.setattr(kept_features, "key_of", lambda *_: pytest.fail("it is hashed again"))
    assert hashes.of([module]) == first


def test_a_tensor_that_counts_no_changes_is_read_each_time() -> None:
    with torch.inference_mode():
        module = network()
        hashes = StateHash()
        before = hashes.of([module])
        module[0].bias.add_(1)
        assert hashes.of([module]) != before


def test_what_is_kept_is_not_made_again(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> dict[str, Tensor]:
        made.append("")
        return {"maps": torch.arange(6.0, requires_grad=True).view(2, 3).T}

    cache = ArrayCache(tmp_path)
    for _ in range(2):
        assert kept(cache, "ab12", make)["maps"].equal(torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert len(made) == 1
    kept(cache, "ab13", make)
    kept(None, "ab12", make)
    assert len(made) == 3


def test_without_a_cache_there_is_one_for_a_while(tmp_path: Path) -> None:
    own = ArrayCache(tmp_path)
    with at_least_for_now(own) as cache:
        assert cache is own
    with at_least_for_now(None) as cache:
        kept(cache, "ab12", lambda: {"x": torch.ones(1)})
        assert cache.path_of("ab12").exists()
        folder = cache.folder
    assert not folder.exists()
