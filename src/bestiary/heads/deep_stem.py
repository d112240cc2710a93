"""The start of a labeller whose ResNet has a stem of three convolutions, for which few classifiers are published."""

from collections.abc import Mapping

from torch import Tensor

from bestiary.heads.trunk_labeller import start_trunk


def start_past_the_stem(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """`start_trunk`; of a classifier with another stem what fits: all but the stem and two convolutions behind it,
    which read another number of channels and keep their random values.
    """
    taken, line = start_trunk(state, own)
    if not line:
        return taken, line
    fitting = {name: value for name, value in taken.items() if value.shape == own[name].shape}
    stray = sorted({name.rsplit(".", 1)[0].removeprefix("backbone.") for name in taken if name not in fitting})
    return fitting, f"{line}, but for the stem and {', '.join(stray)}" if stray else line
