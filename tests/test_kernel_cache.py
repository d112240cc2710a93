"""Compiled loops kept on disk by several processes at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bestiary.kernel_cache import FILES, is_known, save

SRC = Path(__file__).resolve().parent.parent / "src" / "bestiary"
LOOP = """
import sys
import numba, numpy
from bestiary import kernel_cache

@numba.njit(cache=True)
def total(values):
    found = values[0]
    for i in range(1, values.shape[0]):
        found += values[i]
    return found

print(total(numpy.full(5, 3, sys.argv[1])), sum(total.stats.cache_hits.values()))
"""


def test_numba_is_the_one_that_this_was_written_for() -> None:
    assert is_known(FILES)
    assert FILES.save is save
    assert not is_known(None)


def test_two_signatures_at_once_never_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process read the index before the first had written it, and writes its code last."""
    one, other = (FILES(str(tmp_path), "total", "stamp") for _ in range(2))
    one.save(("float64",), "code for float64")
    with monkeypatch.context() as patch:
        patch.setattr(other, "_load_index", dict)
        other.save(("int64",), "code for int64")
    assert len(list(tmp_path.glob("*.nbc"))) == 2
    assert other.load(("int64",)) == "code for int64"
    assert one.load(("float64",)) is None, "lost from the index, so it is compiled once more"
    one.save(("float64",), "code for float64")
    assert {key: one.load((key,)) for key in ("float64", "int64")} == {
        "float64": "code for float64",
        "int64": "code for int64",
    }
    assert len(list(tmp_path.glob("*.nbc"))) == 2


def test_the_index_never_leads_to_a_file_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, order = FILES(str(tmp_path), "total", "stamp"), []
    for name in ("_save_data", "_save_index"):
        write: Any = getattr(kept, name)
        monkeypatch.setattr(kept, name, lambda *a, write=write, name=name: (order.append(name), write(*a)))
    kept.save(("float64",), "code")
    assert order == ["_save_data", "_save_index"]


def test_other_code_of_the_same_name_has_other_files(tmp_path: Path) -> None:
    before, after = (FILES(str(tmp_path), "total", stamp) for stamp in ("before", "after"))
    before.save(("float64",), "old code")
    after.save(("float64",), "new code")
    assert after.load(("float64",)) == "new code"
    assert len(list(tmp_path.glob("*.nbc"))) == 2


def test_loops_are_found_again_by_the_next_process(tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    script.write_text(LOOP, encoding="utf-8")

    def run(kind: str) -> list[str]:
        done = subprocess.run([sys.executable, str(script), kind], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert [run("float64"), run("int64"), run("float64"), run("int64")] == [
        ["15.0", "0"],
        ["15", "0"],
        ["15.0", "1"],
        ["15", "1"],
    ]


def test_every_package_of_kernels_imports_it_first() -> None:
    files = [path for path in SRC.rglob("*.py") if "njit(" in path.read_text(encoding="utf-8")]
    assert len(files) > 50
    for path in files:
        first = path if path.parent.name != "_kernels" else path.parent / "__init__.py"
        assert "from bestiary import kernel_cache" in first.read_text(encoding="utf-8"), path
