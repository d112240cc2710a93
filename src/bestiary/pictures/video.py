"""Video files: written frame by frame, and what they say of their speed."""

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.pictures.encode import to_numpy
from bestiary.records import require

USUAL_RATE = 25.0
"""Frames a second where a source does not say: cameras and some streams."""

FRAME_NAME = re.compile(r"(.*)#(\d{6,})")
"""How `pictures.sources` names the frames of a video: its own name, and the frame's number."""


def frame_of(name: str) -> tuple[str, int] | None:
    """The video that a picture's name says it is a frame of, and its number; None for a name of another kind."""
    match = FRAME_NAME.fullmatch(name)
    return None if match is None else (match[1], int(match[2]))


def frames_a_second(path: str | Path) -> float:
    """What a video file says of itself; `USUAL_RATE` where it says nothing or is none."""
    import cv2

    if not Path(path).is_file():
        return USUAL_RATE
    capture = cv2.VideoCapture(str(path))
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return rate if 0 < rate < 1000 else USUAL_RATE


class VideoFile:
    """A video that grows frame by frame, in constant memory. MPEG-4 in `.mp4`, the one codec that every build of OpenCV
    has.

    Args:
        path: of the file; its folder is there.
        size_hw: of all frames.
        rate: frames a second.

    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: Path, size_hw: tuple[int, int], rate: float = USUAL_RATE) -> None:
        import cv2

        self.path, self.size_hw = path, size_hw
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size_hw[::-1])
        if not self._writer.isOpened():
            raise UsageError("the video cannot be written", where=str(path), mend="Is the folder there and writable?")

    def write(self, frame: UInt8[Tensor, "3 H W"]) -> None:
        """Append one frame.

        Raises:
            RecordError: it has another size.
        """
        size = tuple(frame.shape[-2:])
        require(size == self.size_hw, "VideoFile.write(frame)", f"size {size}", f"{self.size_hw}, as of the first")
        self._writer.write(np.ascontiguousarray(to_numpy(frame.to(torch.uint8))[..., ::-1]))

    def close(self) -> None:
        """Finish the file, which players can open only then."""
        self._writer.release()
