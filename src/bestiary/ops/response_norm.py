"""Local response normalisation across channels, as AlexNet's paper has it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.records import require


def local_response_norm(
    input: Float[Tensor, "B C *spatial"],
    size: int = 5,
    alpha: int | float = 1e-4,
    beta: int | float = 0.75,
    k: int | float = 2.0,
) -> Float[Tensor, "B C *spatial"]:
    """Each value divided by (k + alpha * sum of squares over `size` neighbouring channels) ** beta.

    Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012, section
    3.3: n = `size`, the sum over channels i - n/2 .. i + n/2, cut at the first and last channel.

    Convention: alpha is *not* divided by the number of channels. `torch.nn.functional.local_response_norm` and Caffe
    do divide it: theirs with `alpha=size * a` is ours with `alpha=a`; published networks that were trained with
    (5, 1e-4, 0.75) in Caffe need `alpha=2e-5, k=1` here. Half precision is computed in float32.

    Args:
        input: any number of spatial axes.
        size: channels in the sum; odd.
        alpha: of one square.
        beta: exponent.
        k: positive, so that the division is defined where all channels are zero.

    Raises:
        RecordError: an even size, a negative alpha, or k not positive.
    """
    require(input.ndim >= 2, "local_response_norm(input)", f"shape {tuple(input.shape)}", "(B, C, ...)")
    require(size >= 1 and size % 2 == 1, "local_response_norm(size)", size, "an odd number")
    require(k > 0 and alpha >= 0, "local_response_norm", f"k={k}, alpha={alpha}", "k > 0, alpha >= 0")
    wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    channels, half = input.shape[1], size // 2
    squares = (
        F.pad(wide.square().flatten(2), (0, 0, half, half)) if input.ndim > 2 else F.pad(wide.square(), (half,) * 2)
    )
    # In place from here: no gradient needs these sums, and fresh memory is what costs.
    total = squares.narrow(1, 0, channels) * alpha
    for shift in range(1, size):
        total.add_(squares.narrow(1, shift, channels), alpha=alpha)
    scale = total.add_(k).view_as(wide)
    if beta == 0.75:  # the published exponent, by two roots: a power costs ten times as much
        root = scale.rsqrt_()
        factor = root.sqrt() * root
    else:
        factor = scale.pow(-beta)
    return (wide * factor).to(input.dtype)
