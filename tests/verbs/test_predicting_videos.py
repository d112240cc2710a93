"""Videos in, videos out: one drawn file a stream, its rate kept, finished however the stream ends."""

import json
import re
from pathlib import Path

import pytest
import torch

import bestiary
from bestiary.cli.main import main
from bestiary.pictures.sources import iterate
from bestiary.pictures.video import VideoFile, frames_a_second
from bestiary.verbs.models import save
from bestiary.verbs.predicting import FrameRate, Outputs, predict_source

CATEGORIES = ["ant", "bee"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "moving.mp4"
    video = VideoFile(path, (48, 64), 10.0)
    for i in range(4):
        frame = torch.full((3, 48, 64), 60, dtype=torch.uint8)
        frame[0, 8 + i : 24 + i, 10:30] = 250
        video.write(frame)
    video.close()
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    system = bestiary.create("yolo_v1_small", CATEGORIES, arguments={"size": 64})
    return save(system, tmp_path_factory.mktemp("run") / "best.safetensors")


def test_the_rate_is_that_of_the_last_frames() -> None:
    seconds = iter([0.0, 1.0, 2.0, 2.1, 2.2, 2.3])
    rate = FrameRate(lambda: next(seconds), window=3)
    found = [rate.tick() for _ in range(6)]
    assert found[0] is None
    assert found[1:] == pytest.approx([1, 1, 3 / 2.1, 3 / 1.2, 10])


def test_a_video_becomes_one_video(clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "out", coco=True)
    found = list(predict_source(bestiary.load(checkpoint), str(clip), outputs, threshold=0.0, batch=3))
    assert [p.name for p in found] == [f"{clip}#{i:06d}" for i in range(4)]
    (drawn,) = sorted((tmp_path / "out").glob("*.mp4"))
    assert len(list(iterate(drawn))) == 4
    assert frames_a_second(drawn) == pytest.approx(10)
    assert not list((tmp_path / "out").glob("*.jpg"))
    rows = json.loads((tmp_path / "out" / "predictions.coco.json").read_text())
    assert {row["file_name"] for row in rows} <= {p.name for p in found}


def test_a_stream_that_is_left_early_is_finished(clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    stream = predict_source(bestiary.load(checkpoint), str(clip), Outputs(tmp_path / "out", coco=True))
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    (drawn,) = (tmp_path / "out").glob("*.mp4")
    assert len(list(iterate(drawn))) == 2
    json.loads((tmp_path / "out" / "predictions.coco.json").read_text())


def test_two_videos_become_two(clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "clips" / "other.mp4"
    other.parent.mkdir()
    other.write_bytes(clip.read_bytes())
    (tmp_path / "clips" / "third.mp4").write_bytes(clip.read_bytes())
    list(predict_source(bestiary.load(checkpoint), str(tmp_path / "clips" / "*.mp4"), Outputs(tmp_path / "out")))
    assert [len(list(iterate(path))) for path in sorted((tmp_path / "out").glob("*.mp4"))] == [4, 4]


def test_the_command_shows_frames_a_second(
    clip: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", str(checkpoint), str(clip), "--out", str(tmp_path / "out")])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "frames a second" not in lines[0]
    assert all(re.search(r"\(\d+\.\d frames a second\)$", line) for line in lines[1:])
    assert len(list((tmp_path / "out").iterdir())) == 1
