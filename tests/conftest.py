"""Shapes and types are checked while the tests run; real data is found by an environment variable."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

SRC = Path(__file__).resolve().parent.parent / "src" / "bestiary"


def checked_modules() -> list[str]:
    """Every module but packages, numba kernels (a wrapper would hide them from the compiler) and typer's commands.

    Typer hands its commands a context of its own, of another class than the one it asks them to be annotated with.
    """
    modules = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        if "_kernels" not in parts and parts[-1] not in ("__init__", "_kernels", "run_commands"):
            modules.append(".".join(parts))
    return modules


hook = jaxtyping.install_import_hook(checked_modules(), "beartype.beartype")


def seed_all() -> None:
    """Every generator that code may draw from unasked."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def seeded_module() -> None:
    """What a file's fixtures draw does not depend on the files before it, which differ from run to run."""
    seed_all()


@pytest.fixture(autouse=True)
def seeded_test(seeded_module: None) -> None:
    """Nor does what a test draws on the tests before it."""
    seed_all()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that ask for it are left out, and listed, where it is not set."""
    folder = os.environ.get("BESTIARY_TEST_DATA")
    if not folder:
        pytest.skip("real data: set BESTIARY_TEST_DATA to the folder of data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"BESTIARY_TEST_DATA={folder} is not a folder")
    return path


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape checks off: a compiler cannot look into them, and they would speak before an operator's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs leave an empty curves.png: drawing would take most of their time."""
    from bestiary.training import logs

    monkeypatch.setattr(logs, "draw_curves", lambda path, _: path.touch())
