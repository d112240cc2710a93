"""Channel shuffle (Zhang, Zhou, Lin, Sun: ShuffleNet, CVPR 2018, figure 1)."""

from jaxtyping import Float
from torch import Tensor, stack


def channel_shuffle(features: Float[Tensor, "B C H W"], groups: int) -> Float[Tensor, "B C H W"]:
    """Deals the channels of `groups` groups out, one of each in turn: channel (g, i) goes to (i, g).

    Shuffling with `groups` and then with C / groups gives the input back. C must be a multiple of `groups`.
    """
    return features.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def interleave(first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
    """The shuffle of two groups that lie apart, a channel of each in turn: concatenated and shuffled in one copy."""
    return stack((first, second), 2).flatten(1, 2)
