"""Table 1 of the VGG paper, and where in a network its layers stand.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bestiary.backbones.levels import Level

Depths = tuple[int, int, int, int, int]
"""Convolutions of each of the five blocks."""

DEPTHS: dict[str, Depths] = {
    "vgg11": (1, 1, 2, 2, 2),  # A
    "vgg13": (2, 2, 2, 2, 2),  # B
    "vgg16": (2, 2, 3, 3, 3),  # D
    "vgg19": (2, 2, 4, 4, 4),  # E
}
WIDTHS = (64, 128, 256, 512, 512)

FROM_NET_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2")
"""Net A's first four convolutions, by the names of the layers that they become in a deeper net."""

CLASSIFIER_NAMES = {"fc6": "1", "fc7": "4", "fc8": "6"}


def places(depths: Sequence[int], batch_norm: bool = False) -> dict[str, int]:
    """Where in `features` the paper's layers stand: each convolution itself ("conv3_1") and each pool ("pool3")."""
    found, place = {}, 0
    for block, depth in enumerate(depths, 1):
        for i in range(1, depth + 1):
            found[f"conv{block}_{i}"] = place
            place += 3 if batch_norm else 2
        found[f"pool{block}"] = place
        place += 1
    return found


def layer_names(depths: Depths, batch_norm: bool = False) -> dict[str, str]:
    """The paper's names of layers and the parts of a classifier whose outputs they are.

    A convolution or fully connected layer counts with its rectification, as papers speak of it: "conv4_3" is the map
    after the ReLU. `fc8` are the logits. The levels C0 .. C5 are among them.
    """
    rectified = 2 if batch_norm else 1
    found = {
        name: f"features.{place + rectified if name.startswith('conv') else place}"
        for name, place in places(depths, batch_norm).items()
    }
    levels = {name: f"features.{place}" for name, (place, _) in taps(depths, WIDTHS, batch_norm).items()}
    return found | {name: f"classifier.{place}" for name, place in CLASSIFIER_NAMES.items()} | levels


def taps(
    depths: Depths, widths: Sequence[int], batch_norm: bool, output_stride: int = 32
) -> dict[str, tuple[int, Level]]:
    """Level names C0 .. C5: the place in `features` after which the map stands, and what it is."""
    where, rectified = places(depths, batch_norm), 2 if batch_norm else 1
    found = {}
    for block, width in enumerate(widths):
        stride = min(2**block, output_stride)
        place = where[f"conv{block + 1}_{depths[block]}"] + rectified
        found[f"C{block}"] = (place, Level(f"C{block}", width, stride))
    return found | {"C5": (where["pool5"], Level("C5", widths[-1], output_stride))}


def start_from_net_a(state: Mapping[str, Tensor], depths: Depths, batch_norm: bool) -> tuple[Mapping[str, Tensor], str]:
    """What a deeper net takes over from net A with as many norms, and a line that says so; any other state as it is.

    The paper's "first four convolutional layers" of A are conv1_1, conv2_1, conv3_1 and conv3_2. They become the layers
    of these names: in a deeper net the first four convolutions have other shapes.
    """
    first = places(DEPTHS["vgg11"], batch_norm)
    convolution_names = {name for name, tensor in state.items() if name.startswith("features.") and tensor.ndim == 4}
    is_net_a = convolution_names == {f"features.{first[n]}.weight" for n in first if n.startswith("conv")}
    if not is_net_a or depths == DEPTHS["vgg11"] or ("features.1.running_mean" in state) != batch_norm:
        return state, ""
    here, taken = places(depths, batch_norm), {}
    for name in FROM_NET_A:
        for step in range(2 if batch_norm else 1):  # the convolution, and its norm
            there, own = f"features.{first[name] + step}.", f"features.{here[name] + step}."
            taken |= {own + key.removeprefix(there): value for key, value in state.items() if key.startswith(there)}
    taken |= {key: value for key, value in state.items() if key.startswith("classifier.")}
    others = sum(depths) - len(FROM_NET_A)
    line = f"starts from net A (VGG-11): {', '.join(FROM_NET_A)} and the fully connected layers; the other {others} "
    return taken, line + "convolutions start fresh"


def thinned_fully_connected(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fc6 and fc7 of a classifier as convolutions of 1,024 filters, the first 3x3: `fc6.weight`, `fc6.bias` and so on;
    nothing where the state has none.

    Of fc6's 4,096 filters of 7x7 places every fourth and every third place stay, which a dilation puts as far apart as
    they were; of fc7 every fourth (Chen et al., DeepLab; Liu et al., SSD, section 3.1).
    """
    if tuple(state.get("classifier.0.weight", torch.empty(0)).shape) != (4096, WIDTHS[4] * 49):
        return {}
    fc6 = state["classifier.0.weight"].view(4096, WIDTHS[4], 7, 7)
    fc7 = state["classifier.3.weight"].view(4096, 4096, 1, 1)
    return {
        "fc6.weight": fc6[::4, :, ::3, ::3].contiguous(),
        "fc6.bias": state["classifier.0.bias"][::4].contiguous(),
        "fc7.weight": fc7[::4, ::4].contiguous(),
        "fc7.bias": state["classifier.3.bias"][::4].contiguous(),
    }
