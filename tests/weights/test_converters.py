import torch
from torch import nn

from bestiary.layers.frozen_norm import FrozenBatchNorm2d
from bestiary.weights.converters import match_norm_counters, rename_detector_v1, set_frozen_norm_eps, strip_prefix


def test_names_of_the_first_detectors_become_those_of_the_newer() -> None:
    pairs = {
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "rpn.head.conv.bias": "rpn.head.conv.0.0.bias",
        "backbone.fpn.inner_blocks.0.weight": "backbone.fpn.inner_blocks.0.0.weight",
        "backbone.fpn.layer_blocks.3.bias": "backbone.fpn.layer_blocks.3.0.bias",
        "roi_heads.mask_head.mask_fcn1.weight": "roi_heads.mask_head.0.0.weight",
        "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
        "head.classification_head.conv.0.weight": "head.classification_head.conv.0.0.weight",
        "head.regression_head.conv.6.bias": "head.regression_head.conv.3.0.bias",
        "head.regression_head.bbox_reg.bias": "head.regression_head.bbox_reg.bias",
        "backbone.body.conv1.weight": "backbone.body.conv1.weight",
        "rpn.head.cls_logits.weight": "rpn.head.cls_logits.weight",
        "roi_heads.box_head.fc6.weight": "roi_heads.box_head.fc6.weight",
    }
    state = {name: torch.tensor(float(i)) for i, name in enumerate(pairs)}
    renamed = rename_detector_v1(state)
    assert list(renamed) == list(pairs.values())
    assert all(renamed[new] is state[old] for old, new in pairs.items())
    assert rename_detector_v1(renamed) == renamed


def test_counters_go_only_where_nobody_counts() -> None:
    state = {
        "a.weight": torch.ones(1),
        "a.num_batches_tracked": torch.tensor(3),
        "b.num_batches_tracked": torch.tensor(4),
    }
    assert list(match_norm_counters(state, ["a.weight", "a.num_batches_tracked"])) == [
        "a.weight",
        "a.num_batches_tracked",
    ]


def test_a_prefix_goes_only_if_all_names_have_it() -> None:
    one = torch.ones(1)
    assert list(strip_prefix({"module.a": one, "module.b": one}, "module.")) == ["a", "b"]
    assert list(strip_prefix({"module.a": one, "b": one}, "module.")) == ["module.a", "b"]
    assert strip_prefix({}, "module.") == {}


def test_eps_of_frozen_norms_only() -> None:
    model = nn.Sequential(FrozenBatchNorm2d(3), nn.BatchNorm2d(3), nn.Sequential(FrozenBatchNorm2d(3)), nn.LayerNorm(3))
    assert set_frozen_norm_eps(model, 0.0) == 2
    assert [m.eps for m in model.modules() if hasattr(m, "eps")] == [0.0, 1e-5, 0.0, 1e-5]
    features = torch.rand(1, 3, 2, 2)
    assert torch.equal(model[0](features), features)
