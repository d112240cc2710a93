"""Our forms of torchvision's dense labellers: the same state, and with the same parameters the same logits.

`segmentation.npz` holds what torchvision 0.28 makes of a picture of 130 x 162 pixels, not normalised, with 21 classes:
of the logits at the picture's size every second class and every sixth pixel either way.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from bestiary import zoo
from bestiary.heads.trunk_labeller import TrunkLabeller
from bestiary.heads.whole_picture import resize_logits

NAMES = [
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
]


@pytest.fixture(scope="module")
def wanted() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "segmentation.npz") as file:
        return {name: file[name] for name in file.files}


def built(name: str) -> TrunkLabeller:
    with torch.device("meta"):
        system = zoo.build(name)
    system.normalize = nn.Identity()  # its numbers are no part of the state, and the picture comes as it is
    system = system.to_empty(device="cpu").eval()
    assert isinstance(system, TrunkLabeller)
    return system


@pytest.mark.parametrize("name", NAMES)
def test_state_and_logits_are_torchvisions(name: str, rule: ModuleType, wanted: dict[str, np.ndarray]) -> None:
    system = built(name)
    parameters, *lines = str(wanted[f"{name}.state"]).split("\n")
    assert sum(p.numel() for p in system.parameters()) == int(parameters)
    assert [f"{key} {','.join(map(str, value.shape))}" for key, value in system.state_dict().items()] == lines
    rule.fill(system)
    with torch.inference_mode():
        said = system.outputs(rule.picture((1, 3, 130, 162)))
    found = {"out": said.logits, "aux": resize_logits(said.auxiliary["aux"], (130, 162))}
    for key, logits in found.items():
        right = wanted[f"{name}.{key}"]
        assert np.abs(logits[:, ::2, ::6, ::6].numpy() - right).max() <= 1e-4 * np.abs(right).max(), key
