"""The tests of tests/device, in a process of their own: a second device changes torch for all that runs beside it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "device"


@pytest.mark.parametrize("part", ["ops", "systems", "training", "metrics"])
def test_all_is_the_same_on_another_device(part: str) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"test_{part}_elsewhere.py")]
    environment = {**os.environ, "BESTIARY_DEVICE_TESTS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=HERE.parent.parent, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= {"ops": 100, "systems": 60, "training": 1, "metrics": 20}[part]
