"""What networks that are built of VGG's layers take over from a trained classifier, by the paper's names of layers."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from bestiary.backbones.vgg_table import places

FC6_SIDE = 7
"""Of the map that the first fully connected layer reads."""

FULLY_CONNECTED = {"fc6": 0, "fc7": 3}
"""Places of the layers themselves in `classifier`, ReLU and dropout after each."""


def classifier_layers(state: Mapping[str, Tensor], depths: Sequence[int]) -> dict[str, Tensor]:
    """Entries of a VGG classifier, or of its trunk, by layer: "conv1_1.weight", "conv1_1_bn.running_mean" ...,
    "fc6.weight", "fc7.bias".

    fc6 and fc7 come as the convolutions that they are, 7x7 and 1x1, where the classifier has them. The last layer,
    which names other categories, is left out.

    Args:
        state: with torchvision's names.
        depths: convolutions of each block.

    Returns:
        Nothing, if the state is not of a VGG of these depths.
    """
    batch_norm = "features.1.running_mean" in state
    where = {name: place for name, place in places(depths, batch_norm).items() if name.startswith("conv")}
    there = {name for name, value in state.items() if name.startswith("features.") and value.ndim == 4}
    if there != {f"features.{place}.weight" for place in where.values()}:
        return {}
    found: dict[str, Tensor] = {}
    for name, place in where.items():
        parts = {name: place, f"{name}_bn": place + 1} if batch_norm else {name: place}
        for layer, at in parts.items():
            prefix = f"features.{at}."
            found |= {f"{layer}.{key.removeprefix(prefix)}": v for key, v in state.items() if key.startswith(prefix)}
    for name, side in (("fc6", FC6_SIDE), ("fc7", 1)):
        place = FULLY_CONNECTED[name]
        weight, bias = state.get(f"classifier.{place}.weight"), state.get(f"classifier.{place}.bias")
        if weight is not None and bias is not None and weight.shape[1] % side**2 == 0:
            found[f"{name}.weight"] = weight.view(len(weight), -1, side, side)
            found[f"{name}.bias"] = bias
    return found


def start_named(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], depths: Sequence[int], prefixes: Mapping[str, str]
) -> tuple[Mapping[str, Tensor], str]:
    """The classifier's layers by a network's own names, those that fit, and a line that says so; any other state as it
    is, with no line.

    Args:
        state: of the classifier.
        own: of the network.
        depths: convolutions of each block.
        prefixes: beginning of a layer's name ("conv", "fc") -> what stands before it in `own`.
    """
    taken = {}
    for name, value in classifier_layers(state, depths).items():
        kind = next((kind for kind in prefixes if name.startswith(kind)), None)
        if kind is not None and own.get(prefixes[kind] + name, value.new_empty(0)).shape == value.shape:
            taken[prefixes[kind] + name] = value
    if not taken:
        return state, ""
    fully = [layer for layer in ("fc6", "fc7") if any(name.endswith(f"{layer}.weight") for name in taken)]
    return taken, f"starts from a classifier: {', '.join(['its convolutions', *fully])}"
