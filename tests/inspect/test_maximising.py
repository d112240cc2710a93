"""Pictures that excite a unit most."""

import itertools

import pytest
import torch
from tests.inspect.small_nets import branches
from torch import nn
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.inspect.maximising import Ball, Box, Prior, maximise, total_variation

NO_PRIOR = Prior(bound_weight=0, variation_weight=0, jitter=0)


def filters() -> nn.Conv2d:
    torch.manual_seed(4)
    return nn.Conv2d(3, 4, 8)


@pytest.mark.parametrize("line_search", [False, True])
def test_of_a_linear_unit_in_a_ball_it_is_the_filter(line_search: bool) -> None:
    net = filters()
    found = maximise(net, "", 2, (3, 8, 8), prior=NO_PRIOR, domain=Ball(2.0), steps=80, line_search=line_search)
    weights = net.weight.detach()[2]
    assert float(F.cosine_similarity(found.picture.flatten(), weights.flatten(), 0)) > 0.999
    assert float(found.picture.norm()) == pytest.approx(2, abs=1e-4)
    assert found.activation == pytest.approx(2 * float(weights.norm()) + float(net.bias.detach()[2]), rel=1e-3)  # type: ignore[index]


def test_with_line_search_the_objective_never_falls() -> None:
    found = maximise(branches(), "conv3", 1, (3, 16, 16), steps=40, line_search=True)
    assert len(found.objective) > 5
    assert all(b >= a for a, b in itertools.pairwise(found.objective))
    assert found.objective[-1] > found.objective[0]


def test_the_picture_stays_in_its_range_and_excites_the_unit() -> None:
    net = branches()
    found = maximise(net, "conv3", (1, 2, 2), (3, 16, 16), steps=60, prior=NO_PRIOR)
    assert float(found.picture.min()) >= 0
    assert float(found.picture.max()) <= 1
    tame = maximise(net, "conv3", (1, 2, 2), (3, 16, 16), steps=1, prior=NO_PRIOR)
    assert found.activation > 20 * tame.activation > 0
    narrow = maximise(net, "conv3", 1, (3, 16, 16), steps=20, domain=Box(-2.0, -1.0))
    assert -2 <= float(narrow.picture.min()) <= float(narrow.picture.max()) <= -1


def test_more_weight_on_variation_gives_less_of_it() -> None:
    weights = (0.0, 0.1, 1.0, 10.0)
    found = [
        maximise(branches(), "conv3", 1, (3, 16, 16), steps=60, prior=Prior(variation_weight=w)).variation
        for w in weights
    ]
    assert all(later < 0.8 * earlier for earlier, later in itertools.pairwise(found)), found


def test_more_weight_on_the_bound_gives_less_contrast() -> None:
    found = [
        maximise(branches(), "conv3", 1, (3, 16, 16), steps=60, prior=Prior(bound_weight=w, variation_weight=0)).picture
        for w in (0.0, 100.0)
    ]
    assert (found[1] - 0.5).abs().max() < 0.8 * (found[0] - 0.5).abs().max()


def test_the_same_seed_gives_the_same_picture() -> None:
    one, same, other = (maximise(branches(), "conv3", 0, (3, 12, 12), steps=8, seed=seed).picture for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_unit_that_faint_noise_leaves_silent_is_woken_by_stronger_noise() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    net[0].weight.data.fill_(0.0)
    net[0].weight.data[0, 0, 1, 1] = 1.0
    net[0].bias.data.fill_(-0.7)
    found = maximise(net, "", 0, (1, 12, 12), prior=NO_PRIOR, steps=60)
    assert found.activation >= 0.003 - 1e-6  # one position in a hundred at 1 - 0.7
    net[0].bias.data.fill_(-5.0)
    assert maximise(net, "", 0, (1, 12, 12), prior=NO_PRIOR, steps=3).activation == 0


def test_preparation_is_part_of_the_network() -> None:
    net = filters()
    found = maximise(net, "", 0, (3, 8, 8), prepare=lambda x: -x, prior=NO_PRIOR, domain=Ball(1.0), steps=60)
    weights = net.weight.detach()[0]
    assert float(F.cosine_similarity(found.picture.flatten(), weights.flatten(), 0)) < -0.999


def test_variation_by_hand() -> None:
    picture = torch.tensor([[0.0, 1.0], [3.0, 1.0]]).view(1, 1, 2, 2)
    # Differences (right, below): (1, 3), (0, 0), (-2, 0), (0, 0).
    assert float(total_variation(picture, 2.0)) == pytest.approx((10 + 0 + 4 + 0) / 4)
    assert float(total_variation(picture, 1.0)) == pytest.approx((10**0.5 + 2) / 4, abs=1e-5)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UsageError, match="unit"):
        maximise(branches(), "conv3", 6, (3, 16, 16), steps=1)
    with pytest.raises(RecordError):
        maximise(branches(), "conv3", 0, (3, 16, 16), steps=0)
    with pytest.raises(RecordError):
        Prior(alpha=0)
