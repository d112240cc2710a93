"""What the tests of the evaluators share."""

import pytest


@pytest.fixture(params=["scanned", "json"])
def either_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's files read by the kernel whatever their size, and then by json: both must say the same."""
    monkeypatch.setattr("bestiary.metrics.coco_files._WORTH_A_SCAN", 0 if request.param == "scanned" else 1 << 60)
