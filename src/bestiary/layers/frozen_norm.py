"""Batch normalisation whose statistics and affine parameters never change.

Detectors fine-tune with few pictures a step, too few for batch statistics, so the published ones keep the classifier's
(He et al.: Mask R-CNN, ICCV 2017).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]
"""A part that makes the normalisation layer for a number of channels."""


class FrozenBatchNorm2d(nn.Module):
    """`(x - running_mean) / sqrt(running_var + eps) * weight + bias` with four buffers and no parameter.

    Args:
        channels: C.
        eps: added to the variance. Files trained with eps 0 (torchvision's COCO_V1 detectors) need 0 here too.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_load_state_dict_pre_hook(drop_batch_count)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One multiply-add a value; the scale is folded first, in the order torchvision folds it."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return features * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        """Channels and eps, for printing."""
        return f"{len(self.weight)}, eps={self.eps}"


def drop_batch_count(norm: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    """Accept the state of a trainable batch norm, which also counts its batches."""
    state.pop(prefix + "num_batches_tracked", None)
