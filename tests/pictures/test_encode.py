from pathlib import Path

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.pictures.decode import read_image, read_instance_map, read_label_map
from bestiary.pictures.encode import from_numpy, to_numpy, write_bytes, write_image, write_map


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_views_share_memory_both_ways() -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    image = from_numpy(array)
    image[1, 2, 3] = 9
    assert array[2, 3, 1] == 9
    back = to_numpy(image)
    assert back.flags.c_contiguous
    assert np.shares_memory(back, array)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG", ".npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_round_trip(tmp_path: Path, suffix: str, channels: int) -> None:
    image = noise(channels, 9, 11)
    write_image(tmp_path / "new folder" / f"ä{suffix}", image)
    read = read_image(tmp_path / "new folder" / f"ä{suffix}", grey=channels == 1)
    assert torch.equal(read, image)


def test_floats_are_rounded_and_clipped(tmp_path: Path) -> None:
    image = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, float("nan"), 1 / 255, 0.6 / 255]).reshape(1, 2, 4)
    write_image(tmp_path / "a.png", image)
    assert read_image(tmp_path / "a.png", grey=True).flatten().tolist() == [0, 128, 255, 255, 0, 0, 1, 1]
    write_image(tmp_path / "a.tif", torch.full((3, 2, 2), 0.25))
    assert torch.allclose(read_image(tmp_path / "a.tif"), torch.tensor(0.25), atol=1e-5)


def test_jpeg_quality_counts(tmp_path: Path) -> None:
    image = noise(3, 32, 32)
    write_image(tmp_path / "low.jpg", image, quality=10)
    write_image(tmp_path / "high.jpg", image, quality=95)
    assert (tmp_path / "low.jpg").stat().st_size < (tmp_path / "high.jpg").stat().st_size / 2


def test_maps_round_trip_and_refuse_what_changes_them(tmp_path: Path) -> None:
    write_map(tmp_path / "a.png", torch.tensor([[0, 255]], dtype=torch.uint8))
    assert read_label_map(tmp_path / "a.png").tolist() == [[0, 255]]
    write_map(tmp_path / "b.png", torch.tensor([[0, 40000]], dtype=torch.int32))
    assert read_instance_map(tmp_path / "b.png").tolist() == [[0, 40000]]
    with pytest.raises(RecordError, match="65536"):
        write_map(tmp_path / "c.png", torch.tensor([[65536]], dtype=torch.int32))
    with pytest.raises(RecordError, match=r"a \.png"):
        write_map(tmp_path / "c.jpg", torch.tensor([[1]], dtype=torch.int32))


def test_errors_say_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.xyz"):
        write_image(tmp_path / "a.xyz", noise(3, 2, 2))
    with pytest.raises(RecordError, match="2 channels"):
        write_image(tmp_path / "a.png", noise(2, 2, 2))
    with pytest.raises(RecordError, match="int64"):
        write_image(tmp_path / "a.png", noise(3, 2, 2).long())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("bestiary.pictures.encode.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
