"""The fill rule and the reference numbers (torchvision 0.28, torch 2.13, CPU, evaluation mode)."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def rule() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", HERE / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def states() -> dict[str, tuple[int, list[str]]]:
    """Per model its number of parameters, and the lines "name length,length" of its state."""
    with np.load(HERE / "states.npz") as file:
        lines = {name: str(file[name]).split("\n") for name in file.files}
    return {name: (int(first), rest) for name, (first, *rest) in lines.items()}


@pytest.fixture(scope="session")
def outputs() -> dict[str, np.ndarray]:
    with np.load(HERE / "outputs.npz") as file:
        return {name: file[name] for name in file.files}
