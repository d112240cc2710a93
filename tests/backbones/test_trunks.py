"""Every trunk of the table keeps its promise of levels, under its classifier's state names."""

import pytest
import torch

from bestiary.backbones.trunks import TRUNKS, build_trunk, levels_from
from bestiary.errors import UsageError
from bestiary.necks.fpn import FPN, CoarserByPool, PyramidBackbone

LIGHT = ["resnet18", "vgg11_bn_half", "darknet19", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"]
LIGHT += ["mobilenet_v3_small", "shufflenet_v1_g3", "shufflenet_v2_x0_5"]


@pytest.mark.parametrize("name", LIGHT)
def test_a_pyramid_stands_on_c2_to_c5(name: str) -> None:
    trunk = build_trunk(name)
    levels = levels_from(trunk)
    assert [v.stride for v in levels] == [4, 8, 16, 32]
    backbone = PyramidBackbone(trunk, FPN(levels, 8, extra=CoarserByPool())).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 8, 64 // s, 96 // s) for s in (4, 8, 16, 32)] + [(1, 8, 1, 2)]


@pytest.mark.parametrize("name", list(TRUNKS))
def test_all_trunks_say_their_levels(name: str) -> None:
    with torch.device("meta"):
        trunk = build_trunk(name)
    assert [v.stride for v in levels_from(trunk)] == [4, 8, 16, 32]
    assert not any(n.startswith(("fc.", "classifier.")) for n in trunk.state_dict())


def test_an_unknown_trunk_is_an_error() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        build_trunk("resnet51")
    with pytest.raises(UsageError, match="There are resnet18"):
        build_trunk("zzzz")
