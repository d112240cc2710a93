import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.errors import DataError, PictureError, UsageError
from bestiary.pictures.sources import Picture, iterate, iterate_batches, list_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(["b.png", "a.jpg", "sub/ü.png", "sub/deep/c.bmp"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (i * 10, 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / ".hidden" / "x.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "._b.png")
    return tmp_path


def names(source: object) -> list[str]:
    return [p.name for p in iterate(source)]


def test_folder_is_recursive_sorted_and_without_hidden_files(folder: Path) -> None:
    assert names(folder) == ["a.jpg", "b.png", "sub/deep/c.bmp", "sub/ü.png"]
    assert names(str(folder)) == names(folder)
    assert [p.name for p in list_pictures(folder)] == ["a.jpg", "b.png", "c.bmp", "ü.png"]


def test_file_glob_and_list(folder: Path) -> None:
    assert names(folder / "b.png") == [str(folder / "b.png")]
    assert names(str(folder / "*.png")) == [str(folder / "b.png")]
    assert names(str(folder / "**" / "*.png")) == [str(folder / "b.png"), str(folder / "sub" / "ü.png")]
    (folder / "list.txt").write_text("sub/ü.png\n\n# not this\nb.png\n", encoding="utf-8")
    assert names(folder / "list.txt") == ["sub/ü.png", "b.png"]


def test_a_folder_whose_name_looks_like_a_pattern(folder: Path) -> None:
    (folder / "a[1]").mkdir()
    Image.new("RGB", (4, 3)).save(folder / "a[1]" / "x.png")
    assert names(folder / "a[1]") == ["x.png"]
    assert len(names(folder / "a[1]" / "x.png")) == 1


def test_broken_pictures_raise_or_are_counted(folder: Path) -> None:
    (folder / "aa.png").write_bytes(b"nonsense")
    with pytest.raises(PictureError, match=r"aa\.png"):
        names(folder)
    errors: list[PictureError] = []
    found = [p.name for p in iterate(folder, on_error=errors.append)]
    assert found == ["a.jpg", "b.png", "sub/deep/c.bmp", "sub/ü.png"]
    assert [e.where for e in errors] == [str(folder / "aa.png")]
    with pytest.raises(PictureError):
        list(iterate(folder / "aa.png", on_error=errors.append))


def test_pictures_are_decoded_only_when_asked_for(folder: Path) -> None:
    (folder / "z.png").write_bytes(b"nonsense")
    first = list(itertools.islice(iterate(folder), 4))
    assert len(first) == 4


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1, 1]), (3, [3, 1]), (4, [4]), (9, [4])])
def test_batches(folder: Path, batch: int, sizes: list[int]) -> None:
    assert [len(b) for b in iterate_batches(folder, batch)] == sizes


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no picture found, looked for .*\.png"):
        names(tmp_path)
    with pytest.raises(DataError, match="no picture found"):
        names(str(tmp_path / "*.png"))
    with pytest.raises(DataError, match="no such file or folder"):
        names(tmp_path / "gone")
    with pytest.raises(UsageError, match="batch"):
        list(iterate_batches(tmp_path, 0))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        names(tmp_path / "empty.txt")


def test_tensors() -> None:
    one = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert next(iterate(one)).image is not None
    assert [p.image.shape for p in iterate(torch.zeros(2, 3, 4, 5))] == [(3, 4, 5)] * 2
    assert next(iterate(torch.zeros(4, 5))).image.shape == (3, 4, 5)
    assert next(iterate(torch.zeros(7, 40, 50))).image.shape == (7, 40, 50)
    assert next(iterate(torch.zeros(3, 4, 5, dtype=torch.float64))).image.dtype == torch.float32
    with pytest.raises(UsageError, match="permute"):
        names(torch.zeros(40, 50, 3))
    with pytest.raises(UsageError, match="int64"):
        names(torch.zeros(3, 4, 5, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"\(0, 3, 4, 5\)"):
        names(torch.zeros(0, 3, 4, 5))


def test_arrays_are_rgb_height_width_channels() -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    array[0, 1] = (1, 2, 3)
    assert next(iterate(array)).image[:, 0, 1].tolist() == [1, 2, 3]
    assert next(iterate(np.zeros((4, 5), np.uint8))).image.shape == (3, 4, 5)
    assert next(iterate(np.full((4, 5), 65535, np.uint16))).image.unique().tolist() == [1.0]
    assert len(names(np.zeros((2, 4, 5, 3), np.float64))) == 2
    assert next(iterate(array[::-1, ::-1])).image[:, 3, 3].tolist() == [1, 2, 3]
    with pytest.raises(UsageError, match=r"torch\.from_numpy"):
        names(np.zeros((3, 40, 50), np.uint8))
    with pytest.raises(UsageError, match="bool"):
        names(np.zeros((4, 5), bool))


def test_pillow_pictures_stand_upright(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 3), (0, 0, 0, 0))
    assert next(iterate(picture)).image.unique().tolist() == [255]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", exif=exif)
    turned = next(iterate(Image.open(tmp_path / "a.jpg")))
    assert turned.image.shape == (3, 4, 3)
    assert turned.name.endswith("a.jpg")


def test_sequences_of_anything(folder: Path) -> None:
    mixed = [
        folder / "b.png",
        np.zeros((4, 5, 3), np.uint8),
        torch.zeros(3, 2, 2),
        Picture(torch.zeros(3, 1, 1), "mine"),
    ]
    assert names(mixed) == [str(folder / "b.png"), "1", "2", "mine"]
    assert names(x for x in mixed) == names(mixed)
    with pytest.raises(UsageError, match="dict"):
        names({"a": 1})
    with pytest.raises(UsageError, match="float"):
        names(3.5)


def test_video_frames_are_rgb_and_streamed(tmp_path: Path) -> None:
    path = tmp_path / "clip é.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for i in range(5):
        writer.write(np.full((24, 32, 3), (0, 0, 40 * i), np.uint8))  # BGR: red
    writer.release()
    frames = list(iterate(path))
    assert [p.name for p in frames] == [f"{path}#{i:06d}" for i in range(5)]
    assert abs(int(frames[4].image[0].float().mean()) - 160) < 4
    assert frames[4].image[2].float().mean() < 8
    (tmp_path / "bad.mp4").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="video"):
        names(tmp_path / "bad.mp4")


def test_no_camera_is_an_error_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self, device: int) -> None:
            assert device == 7

        def isOpened(self) -> bool:
            return False

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Closed)
    for source in ("7", 7):
        with pytest.raises(DataError, match="camera7"):
            names(source)
