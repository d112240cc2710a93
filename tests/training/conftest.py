"""Makes the tests' own parts importable, here and in the processes that the tests start."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs leave an empty curves.png: drawing would take most of their time."""
    from bestiary.training import logs

    monkeypatch.setattr(logs, "draw_curves", lambda path, _: path.touch())
