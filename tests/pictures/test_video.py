"""Video files: what is written is read back, and names of frames."""

from pathlib import Path

import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.pictures.sources import iterate
from bestiary.pictures.video import USUAL_RATE, VideoFile, frame_of, frames_a_second


def write(path: Path, frames: int, size_hw: tuple[int, int] = (48, 64), rate: float = 12.0) -> Path:
    """Frames that grow brighter, red."""
    video = VideoFile(path, size_hw, rate)
    for i in range(frames):
        frame = torch.zeros(3, *size_hw, dtype=torch.uint8)
        frame[0] = 40 * i
        video.write(frame)
    video.close()
    return path


@pytest.mark.parametrize("size_hw", [(48, 64), (50, 66)])
def test_frames_are_read_back_in_order_and_colour(size_hw: tuple[int, int], tmp_path: Path) -> None:
    path = write(tmp_path / "klipp é.mp4", 5, size_hw)
    frames = list(iterate(path))
    assert [frame_of(frame.name) for frame in frames] == [(str(path), i) for i in range(5)]
    assert tuple(frames[0].image.shape) == (3, *size_hw)
    assert [round(float(frame.image[0].float().mean()) / 40) for frame in frames] == [0, 1, 2, 3, 4]
    assert float(frames[4].image[2].float().mean()) < 12
    assert frames_a_second(path) == pytest.approx(12)


def test_a_source_that_says_no_rate_has_the_usual_one(tmp_path: Path) -> None:
    assert frames_a_second(tmp_path / "nowhere.mp4") == USUAL_RATE
    (tmp_path / "nonsense.mp4").write_bytes(b"nonsense")
    assert frames_a_second(tmp_path / "nonsense.mp4") == USUAL_RATE


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a/b.mp4#000012", ("a/b.mp4", 12)), ("camera0#1234567", ("camera0", 1234567)), ("a#1.jpg", None), ("a#12", None)],
)
def test_names_of_frames(name: str, wanted: tuple[str, int] | None) -> None:
    assert frame_of(name) == wanted


def test_frames_of_another_size_and_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", (48, 64))
    with pytest.raises(RecordError, match=r"got size \(64, 48\), wanted \(48, 64\), as of the first"):
        video.write(torch.zeros(3, 64, 48, dtype=torch.uint8))
    video.close()
    with pytest.raises(UsageError, match="cannot be written"):
        VideoFile(tmp_path / "nowhere" / "a.mp4", (48, 64))
