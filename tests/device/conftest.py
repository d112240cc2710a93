"""The devices that are not the CPU."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from second_device import second_device


@pytest.fixture(
    params=[
        "second device",
        pytest.param("gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The one that needs no hardware, and a GPU where there is one."""
    with second_device() if request.param == "second device" else nullcontext(torch.device("cuda", 0)) as chosen:
        yield chosen
