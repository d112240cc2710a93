"""Arrays on disk: keys that tell all apart, files that never harm, a folder that stays within its limit."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bestiary.array_cache import ABANDONED, ArrayCache, key_of
from bestiary.errors import UsageError

ARRAYS = {"boxes": np.arange(12, dtype=np.float32).reshape(3, 4), "scores": np.array([0.5, 0.25, 0.125])}


def put_several(cache: ArrayCache, count: int) -> list[str]:
    """Entries of equal size whose times of use are seconds apart, oldest first."""
    keys = [key_of(i) for i in range(count)]
    for age, key in zip(range(count, 0, -1), keys, strict=True):
        cache.put(key, ARRAYS)
        path = cache.path_of(key)
        if path.exists():
            os.utime(path, (time.time() - 10 * age,) * 2)
    return keys


DIFFERENT: list[Any] = [
    None, 0, 0.0, False, "", "0", [], {}, [0], [[0]], [0, 0], ["0"], ["a", "b"], ["ab"], [["a"], "b"], {"a": 1},
    {"a": [1]}, {"a": None}, {"b": 1}, torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32),
    torch.zeros(0), torch.zeros(()), torch.zeros(4, dtype=torch.bool), np.zeros(4, np.float32),
    np.zeros(4, np.float64), np.zeros((2, 2), np.float32), -0.0 * torch.ones(4), float("nan"), float("inf"),
]  # fmt: skip


def test_whatever_differs_has_another_key() -> None:
    keys = [key_of(part) for part in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
    assert key_of("a", "b") != key_of("ab")
    assert key_of(1, [2, 3]) != key_of(1, 2, 3)


def test_the_same_has_the_same_key() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    assert key_of(whole[:, ::2]) == key_of(whole[:, ::2].contiguous())
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of(whole.numpy().T) == key_of(np.ascontiguousarray(whole.numpy().T))
    assert key_of((1, 2)) == key_of([1, 2])
    # Known for good: another key after an upgrade would silently empty everybody's folder.
    assert key_of("a", 1) == hashlib.sha256(b'sequence 2;str "a";int 1;').hexdigest()


@pytest.mark.parametrize("part", [{1, 2}, object(), b"bytes", np.array([object()]), Path("x")])
def test_what_has_no_contents_of_its_own_makes_no_key(part: object) -> None:
    with pytest.raises(TypeError, match="a key cannot be made of"):
        key_of("fine", part)


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    cache, key = ArrayCache(tmp_path / "made" / "later"), key_of("x")
    assert cache.get(key) is None
    cache.put(key, ARRAYS)
    got = cache.get(key)
    assert got is not None
    assert list(got) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype
    cache.put(key, {"other": np.zeros((0, 4))})
    again = ArrayCache(tmp_path / "made" / "later").get(key)
    assert again is not None
    assert again["other"].shape == (0, 4)


def test_a_broken_file_counts_as_absent(tmp_path: Path) -> None:
    cache, key, rng = ArrayCache(tmp_path), key_of("x"), np.random.default_rng(0)
    cache.put(key, ARRAYS)
    path = cache.path_of(key)
    whole = path.read_bytes()
    for length in (0, 1, 4, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert cache.get(key) is None, length
    for _ in range(400):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        cache.get(key)  # whatever it is, nothing is raised
    path.write_bytes(b"\x93NUMPY\x01\x00")
    assert cache.get(key) is None
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)
    assert cache.get(key) is None


def test_those_not_read_for_longest_go_first(tmp_path: Path) -> None:
    probe = ArrayCache(tmp_path / "probe")
    probe.put("00", ARRAYS)
    size = probe.path_of("00").stat().st_size
    cache = ArrayCache(tmp_path / "kept", limit_bytes=int(5.5 * size))
    keys = put_several(cache, 5)
    assert all(cache.get(key) is not None for key in [*keys[1:], keys[0]][-1:])  # the oldest was just read
    cache.put(key_of("sixth"), ARRAYS)
    left = [cache.path_of(key).exists() for key in keys]
    assert left == [True, False, False, True, True]  # 6 are too many; 4 are nine tenths of 5.5
    assert cache.path_of(key_of("sixth")).exists()


def test_the_folder_never_holds_more_than_its_limit(tmp_path: Path) -> None:
    probe = ArrayCache(tmp_path / "probe")
    probe.put("00", ARRAYS)
    limit = 4 * probe.path_of("00").stat().st_size
    for i in range(20):  # each time another process
        ArrayCache(tmp_path / "kept", limit_bytes=limit).put(key_of(i), ARRAYS)
        assert sum(p.stat().st_size for p in (tmp_path / "kept").rglob("*.npz")) <= limit


def test_what_killed_processes_left_goes_with_the_old_files(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, limit_bytes=1)
    old, new = tmp_path / "aa" / "x.partial", tmp_path / "aa" / "y.partial"
    old.parent.mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * ABANDONED,) * 2)
    cache.put("bb", ARRAYS)
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written_keeps_nothing_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ArrayCache(tmp_path / "file")
    cache.put("ab", ARRAYS)
    assert cache.get("ab") is None


def test_a_limit_must_leave_room() -> None:
    with pytest.raises(UsageError, match="wanted at least 1"):
        ArrayCache("x", limit_bytes=0)
