"""What a network that classifies regions takes over from a classifier of whole pictures, and what of it stays."""

from collections.abc import Mapping

from torch import Tensor, nn

from bestiary.backbones.chain import Chain
from bestiary.errors import UsageError

HEAD = "roi_heads.box_head"
HIDDEN = ("fc6", "fc7")


def start_from_classifier(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The convolutions of a classifier that calls them `features`, and of its `classifier` the first two linear layers,
    by the region network's names, and a line that says so; any other state as it is, with no line.

    Args:
        state: of the classifier.
        own: of the region network, whose fc6 and fc7 may be factored (`FactoredLinear`): they are taken whole.
    """
    taken = {f"backbone.{name}": value for name, value in state.items() if f"backbone.{name}" in own}
    if not taken:
        return state, ""
    linear = [name for name, value in state.items() if name.startswith("classifier.") and value.ndim == 2]
    found = ["its convolutions"]
    for name, there in zip(HIDDEN, linear, strict=False):
        if tuple(state[there].shape) == _shape_of(f"{HEAD}.{name}", own):
            taken[f"{HEAD}.{name}.weight"] = state[there]
            taken[f"{HEAD}.{name}.bias"] = state[there.removesuffix("weight") + "bias"]
            found.append(name)
    return taken, f"starts from a classifier: {', '.join(found)}"


def _shape_of(path: str, own: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Outputs and inputs of a linear layer, whole or factored."""
    whole = own.get(f"{path}.weight")
    if whole is not None:
        return whole.shape[0], whole.shape[1]
    first, second = own.get(f"{path}.inputs.weight"), own.get(f"{path}.outputs.weight")
    return None if first is None or second is None else (second.shape[0], first.shape[1])


def freeze_blocks(trunk: Chain, count: int) -> None:
    """Stop gradients to the layers up to the `count`th pool.

    Raises:
        UsageError: the trunk has not so many pools.
    """
    pools = [place for place, layer in enumerate(trunk.features) if isinstance(layer, nn.MaxPool2d)]
    if not 0 <= count <= len(pools):
        raise UsageError(f"got {count}, wanted 0 to {len(pools)}", where="frozen_blocks")
    for layer in list(trunk.features)[: pools[count - 1]] if count else ():
        layer.requires_grad_(False)
