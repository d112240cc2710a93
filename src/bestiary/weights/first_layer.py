"""Weights of colour pictures for a network that sees other channels.

Every new channel gets the mean of the filter over red, green and blue, and all are scaled so that a grey picture, the
same in every channel, has the response that it had: by 3 / C for C channels. One channel thus gets the sum. Normalised
alike, more channels answer as strongly as three did, and training goes on from there.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

COLOURS = 3


def colour_filters(entries: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """The name of the first convolution, if it sees colours in the file and other channels in the model.

    It is the only entry with filters over three channels where the model's have another number, all else being equal;
    None where there is no such entry, or several.

    Args:
        entries: of the file.
        own: of the model.
    """
    found = [name for name, value in entries.items() if name in own and _differ_in_channels(value, own[name])]
    return found[0] if len(found) == 1 else None


def _differ_in_channels(there: Tensor, here: Tensor) -> bool:
    if not there.ndim == here.ndim == 4 or not there.is_floating_point():
        return False
    sizes = there.shape[0] == here.shape[0] and there.shape[2:] == here.shape[2:]
    return sizes and there.shape[1] == COLOURS != here.shape[1]


def for_channels(filters: Float[Tensor, "O 3 H W"], channels: int) -> Float[Tensor, "O C H W"]:
    """Filters over `channels` channels in place of red, green and blue."""
    return filters.mean(1, keepdim=True).repeat(1, channels, 1, 1) * (COLOURS / channels)
