"""Units and tables of ShuffleNet V1 and V2."""

import pytest
import torch
from torch import nn

from bestiary.backbones.levels import Level
from bestiary.backbones.shufflenet_v1 import WIDTHS, ShuffleNetV1, ShuffleUnit
from bestiary.backbones.shufflenet_v2 import X1_0, KeepingUnit, ShuffleNetV2, StridingUnit
from bestiary.errors import UsageError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_levels() -> None:
    assert ShuffleNetV1(3).levels == (
        Level("C1", 24, 2),
        Level("C2", 24, 4),
        Level("C3", 240, 8),
        Level("C4", 480, 16),
        Level("C5", 960, 32),
    )
    assert [(level.channels, level.stride) for level in ShuffleNetV2(X1_0).levels] == [
        (24, 2),
        (24, 4),
        (116, 8),
        (232, 16),
        (1024, 32),
    ]


def test_the_small_stem_keeps_the_pictures_size() -> None:
    for trunk in (ShuffleNetV1(3, small=True), ShuffleNetV2(X1_0, small=True)):
        assert [level.stride for level in trunk.levels] == [1, 1, 2, 4, 8]
        assert [m.shape[-1] for m in trunk.eval()(torch.rand(1, 3, 32, 32))] == [32, 32, 16, 8, 4]


@pytest.mark.parametrize("groups", WIDTHS)
def test_only_the_first_1x1_of_the_net_is_ungrouped(groups: int) -> None:
    trunk = ShuffleNetV1(groups)
    units = [unit for stage in (trunk.stage2, trunk.stage3, trunk.stage4) for unit in stage]
    assert [len(stage) for stage in (trunk.stage2, trunk.stage3, trunk.stage4)] == [4, 8, 4]
    assert [unit.conv1.groups for unit in units] == [1] + [groups] * 15
    assert {unit.conv3.groups for unit in units} == {groups}
    assert all(unit.conv2.groups == unit.conv2.in_channels for unit in units)


def test_a_unit_of_stride_two_keeps_its_averaged_input_in_front() -> None:
    unit = ShuffleUnit(24, 240, 2, 3, 1, nn.BatchNorm2d).eval()
    features = torch.rand(2, 24, 9, 9)
    out = unit(features)
    assert out.shape == (2, 240, 5, 5)
    torch.testing.assert_close(out[:, :24], nn.functional.avg_pool2d(features, 3, 2, 1))


def test_a_unit_of_stride_one_adds_its_input() -> None:
    unit = ShuffleUnit(24, 24, 1, 3, 3, nn.BatchNorm2d).eval()
    nn.init.zeros_(unit.bn3.weight)  # type: ignore[arg-type]
    positive = torch.rand(2, 24, 5, 5)
    assert torch.equal(unit(positive), positive)


def test_the_filter_of_a_unit_has_no_activation() -> None:
    unit = ShuffleUnit(24, 24, 1, 3, 3, nn.BatchNorm2d).eval()
    seen = []
    unit.conv3.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().min()))
    unit(torch.randn(1, 24, 6, 6))
    assert float(seen[0]) < 0


def test_the_shuffle_lets_groups_talk_within_a_unit() -> None:
    for groups in (3, 1):
        unit = ShuffleUnit(24, 24, 1, groups, 3, nn.BatchNorm2d).eval()  # groups=1 does not shuffle
        unit.conv3 = nn.Conv2d(6, 24, 1, groups=3, bias=False)
        features = torch.rand(1, 24, 6, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(unit(features)[:, :8].sum(), features)
        assert gradient[:, :8].any()
        assert bool(gradient[:, 8:].any()) is (groups == 3)


def test_zero_init_residual_starts_the_adding_units_as_identities() -> None:
    trunk = ShuffleNetV1(3, zero_init_residual=True)
    for stage in (trunk.stage2, trunk.stage3, trunk.stage4):
        assert [bool(unit.bn3.weight.any()) for unit in stage] == [True] + [False] * (len(stage) - 1)
    assert all(unit.bn3.weight.all() for unit in ShuffleNetV1(3).stage2)


def test_other_numbers_of_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="1, 2, 3, 4, 8"):
        ShuffleNetV1(5)


def test_half_of_the_channels_of_v2_pass_untouched() -> None:
    unit = KeepingUnit(12, nn.BatchNorm2d).eval()
    features = torch.randn(2, 12, 5, 5)
    out = unit(features)
    assert torch.equal(out[:, ::2], features[:, :6])
    torch.testing.assert_close(out[:, 1::2], unit.branch2(features[:, 6:]))


def test_both_branches_of_a_striding_unit_see_all_channels() -> None:
    unit = StridingUnit(6, 16, nn.BatchNorm2d).eval()
    features = torch.randn(2, 6, 7, 7)
    out = unit(features)
    assert out.shape == (2, 16, 4, 4)
    torch.testing.assert_close(out[:, ::2], unit.branch1(features))
    torch.testing.assert_close(out[:, 1::2], unit.branch2(features))
