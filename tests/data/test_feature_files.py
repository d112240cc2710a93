import json
from pathlib import Path

import numpy as np
import pytest

from bestiary.data.feature_files import FeatureWriter, read_features
from bestiary.errors import DataError, UsageError


def rows(count: int, shape: tuple[int, ...] = (4,), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *shape), dtype=np.float32)


def write_unequal(path: Path) -> None:
    with FeatureWriter(path) as writer:
        writer.add(rows(3), ["a.png", "c.png", "d.png"], [0, 0, 0])
        writer.add(rows(1, (5,)), ["b.png"], [0])


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("shape", [(4,), (3, 2, 5)])
def test_what_was_written_in_pieces_is_read_whole(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path, first, second = tmp_path / "deep" / f"f{suffix}", rows(5, shape), rows(2, shape, 1)
    with FeatureWriter(path, ["a", "ü"], {"layer": "fc"}) as writer:
        writer.add(first, [f"{i}.png" for i in range(5)], [0, 1, None, 1, 0])
        writer.add(second, ["x/ß.png", "y.png"], [1, 1])
    found = read_features(path)
    np.testing.assert_array_equal(found.values, np.concatenate([first, second]))
    assert found.names[4:] == ("4.png", "x/ß.png", "y.png")
    assert found.labels.tolist() == [0, 1, -1, 1, 0, 1, 1]
    assert (found.categories, found.facts, len(found)) == (("a", "ü"), {"layer": "fc"}, 7)
    assert isinstance(found.values, np.memmap) == (suffix == ".npy")
    wanted = {"f.npz"} if suffix == ".npz" else {"f.npy", "f.json"}
    assert {p.name for p in path.parent.iterdir()} == wanted


def test_anybody_can_open_them(tmp_path: Path) -> None:
    for name in ("f.npz", "f.npy"):
        with FeatureWriter(tmp_path / name) as writer:
            for i in range(1200):  # the number of rows gains digits while it grows
                writer.add(rows(1, seed=i), [str(i)], [None])
    with np.load(tmp_path / "f.npz") as arrays:
        assert arrays["features"].shape == (1200, 4)
        assert arrays["names"][-1] == "1199"
    assert np.array_equal(np.load(tmp_path / "f.npy")[7], rows(1, seed=7)[0])
    assert json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))["names"][:2] == ["0", "1"]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f{suffix}"
    with FeatureWriter(path) as writer:
        writer.add(rows(2), ["a", "b"], [None, None])
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError, match="of shape"):
        write_unequal(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert len(read_features(path)) == 2


def test_bad_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in .npz or .npy"):
        FeatureWriter(tmp_path / "f.parquet")
    with pytest.raises(DataError, match="no picture"), FeatureWriter(tmp_path / "f.npz"):
        pass
    with pytest.raises(DataError, match=r"b.png: got features of shape \(5,\), wanted \(4,\)"):
        write_unequal(tmp_path / "f.npz")
    assert list(tmp_path.iterdir()) == []


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_features(tmp_path / "f.npz")
    (tmp_path / "f.npz").write_bytes(b"nothing of the kind")
    np.save(tmp_path / "g.npy", rows(2))
    np.savez(tmp_path / "h.npz", other=rows(2))
    for name in ("f.npz", "g.npy", "h.npz"):
        with pytest.raises(DataError, match="it holds no features"):
            read_features(tmp_path / name)
