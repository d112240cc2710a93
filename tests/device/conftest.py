"""The devices that are not the CPU.

A second device changes torch for the whole process (methods of tensors and modules, what the accelerator is), so these
tests are collected only where `BESTIARY_DEVICE_TESTS` is set: `tests/test_second_device.py` runs them in a process of
their own.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

if "BESTIARY_DEVICE_TESTS" in os.environ:
    from second_device import second_device
else:
    collect_ignore_glob = ["test_*.py"]


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
