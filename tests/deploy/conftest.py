"""Graphs that several tests look at are exported once."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deploy_parts import small_system, unchecked

from bestiary.verbs.exporting import ExportReport, export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportReport]:
    """The report of a small system's export, made when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("graphs"), {}

    def of(name: str) -> ExportReport:
        if name not in done:
            with unchecked():
                done[name] = export(small_system(name), folder / f"{name}.onnx")
        return done[name]

    return of
