"""Names and values of published states, brought to the layout that the systems use."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor, nn

COUNTER = ".num_batches_tracked"

RENAMES: tuple[tuple[re.Pattern[str], str], ...] = (
    # a pyramid's convolutions were bare and are now the first of a convolution-norm-activation
    (re.compile(r"^(.*fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(.*rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
    (re.compile(r"^(.*roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$"), r"\1.{below}.0.\3"),
    # RetinaNet's convolutions stood among their ReLUs, at every second number
    (re.compile(r"^(.*(?:classification|regression)_head\.conv)\.([0246])\.(weight|bias)$"), r"\1.{half}.0.\3"),
)
"""torchvision's detectors, from the layout of their first files to that of their code since 0.13."""


def rename_detector_v1(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with the names of torchvision's newer detectors; what has them already, or is no detector, is
    unchanged.

    `rpn.head.conv.weight` becomes `rpn.head.conv.0.0.weight`, `backbone.fpn.inner_blocks.0.weight` becomes
    `backbone.fpn.inner_blocks.0.0.weight` (layer_blocks likewise), `roi_heads.mask_head.mask_fcn1.weight` becomes
    `roi_heads.mask_head.0.0.weight`, `head.regression_head.conv.2.weight` becomes
    `head.regression_head.conv.1.0.weight`.
    """
    return {_renamed(name): tensor for name, tensor in state.items()}


def match_norm_counters(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The state without those `num_batches_tracked` that are not in `wanted`: frozen norms count no batches."""
    names = set(wanted)
    return {name: tensor for name, tensor in state.items() if name in names or not name.endswith(COUNTER)}


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The state without `prefix`, if every name has it (`module.` of a data-parallel wrapper); else as it is."""
    if not state or not all(name.startswith(prefix) for name in state):
        return dict(state)
    return {name[len(prefix) :]: tensor for name, tensor in state.items()}


def set_frozen_norm_eps(model: nn.Module, eps: float) -> int:
    """Set `eps` of all frozen norms, and say how many there are.

    A frozen norm is a module with running statistics and an affine weight that is no parameter. torchvision's first
    COCO detectors were trained with 0 (registry field `norm_eps`); with 1e-5 the boxes move.
    """
    count = 0
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if "running_var" in buffers and "weight" in buffers and hasattr(module, "eps"):
            vars(module)["eps"] = eps
            count += 1
    return count


def _renamed(name: str) -> str:
    for pattern, template in RENAMES:
        match = pattern.match(name)
        if match:
            number = int(match.group(2)) if "{" in template else 0
            return match.expand(template.replace("{below}", str(number - 1)).replace("{half}", str(number // 2)))
    return name
