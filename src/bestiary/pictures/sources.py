"""Anything that holds pictures, opened as a stream.

| given | pictures | named |
|---|---|---|
| a file | one | its path |
| a folder | all pictures in it and below, in order of their paths | path relative to the folder |
| a glob (`shots/*.jpg`, `shots/**/*.png`) | what it matches, in order | path |
| a `.txt` file | one path a line, relative to that file | the line |
| a video file or stream (`rtsp://...`) | its frames | path#000000, path#000001 ... |
| a camera: `"webcam"`, `"0"`, 0 | its frames, without end | camera0#000000 ... |
| a tensor `[C, H, W]` or `[B, C, H, W]` | as they are | 0, 1 ... |
| an array `[H, W]`, `[H, W, C]` or `[B, H, W, C]` | RGB, not OpenCV's BGR | 0, 1 ... |
| a Pillow picture | upright RGB | its file name, or 0 |
| a sequence of any of these | all of them, one after another | as each would be; running number for memory |

Pictures are decoded one at a time, when they are asked for: memory does not grow with the source.
"""

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from bestiary.errors import DataError, PictureError, UsageError
from bestiary.pictures.decode import SUFFIXES, from_pillow, is_picture_name, read_image

Source = str | Path | Tensor | Any | Sequence[Any]

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".flv", ".3gp", ".mjpeg"]
)
"""File names that are taken for videos."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture and where it came from."""

    image: Shaped[Tensor, "C H W"]
    name: str


def iterate(source: Source, on_error: Callable[[PictureError], object] | None = None) -> Iterator[Picture]:
    """The pictures of `source`, one by one.

    Args:
        source: see the table above.
        on_error: called with the error of each broken picture, which is then left out (`errors.append` counts and
            keeps them). Without it the first broken picture raises. A source that is a single file always raises.

    Raises:
        PictureError: a picture cannot be decoded.
        DataError: nothing there, or no picture in it.
        UsageError: a thing that holds no pictures.
    """
    if isinstance(source, str | Path | int) and not isinstance(source, bool):
        yield from _from_place(source, on_error)
    elif isinstance(source, Tensor):
        yield from _from_tensor(source)
    elif isinstance(source, np.ndarray):
        yield from _from_array(source)
    elif isinstance(source, Picture):
        yield source
    elif hasattr(source, "getexif") and hasattr(source, "convert"):
        yield Picture(from_pillow(source), str(getattr(source, "filename", "") or "0"))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        yield from _from_sequence(source, on_error)
    else:
        wanted = "a path, folder, glob, video, camera, tensor, array, Pillow picture, or a sequence of these"
        raise UsageError(f"got {type(source).__name__}, wanted {wanted}", where="source")


def iterate_batches(
    source: Source, batch: int = 1, on_error: Callable[[PictureError], object] | None = None
) -> Iterator[list[Picture]]:
    """The pictures of `source`, `batch` at a time, in constant memory; the last list may be shorter."""
    if batch < 1:
        raise UsageError(f"got {batch}, wanted at least 1", where="batch")
    waiting: list[Picture] = []
    for picture in iterate(source, on_error):
        waiting.append(picture)
        if len(waiting) == batch:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def list_pictures(folder: Path) -> list[Path]:
    """Picture files in `folder` and below, hidden ones left out, in order of their relative paths."""
    found = [p for p in folder.rglob("*") if is_picture_name(p) and p.is_file()]
    found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def _from_place(source: str | Path | int, on_error: Callable[[PictureError], object] | None) -> Iterator[Picture]:
    text = str(source)
    path = Path(text).expanduser()
    if isinstance(source, int) or text == "webcam" or (text.isdigit() and not path.exists()):
        device = 0 if text == "webcam" else int(text)
        yield from _from_capture(device, f"camera{device}")
    elif "://" in text:
        yield from _from_capture(text, text)
    elif path.is_dir():
        yield from _from_paths(_some(list_pictures(path), text), path, on_error)
    elif path.is_file():
        yield from _from_file(path, on_error)
    elif glob.has_magic(text):
        matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        pictures = [p for p in matches if p.is_file() and (is_picture_name(p) or p.suffix.lower() in VIDEO_SUFFIXES)]
        for match in _some(pictures, text):
            if match.suffix.lower() in VIDEO_SUFFIXES:
                yield from _from_capture(str(match), str(match))
            else:
                yield from _from_paths([match], None, on_error)
    else:
        raise DataError("there is no such file or folder", where=text, mend="Check the path and its spelling")


def _from_file(path: Path, on_error: Callable[[PictureError], object] | None) -> Iterator[Picture]:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        yield from _from_capture(str(path), str(path))
    elif suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        names = [line for line in lines if line and not line.startswith("#")]
        if not names:
            raise DataError("the list is empty, wanted one picture path a line", where=str(path))
        for name in names:
            for picture in _from_paths([path.parent / name], None, on_error):
                yield replace(picture, name=name)
    else:
        yield Picture(read_image(path), str(path))


def _some(pictures: list[Path], where: str) -> list[Path]:
    if not pictures:
        wanted = " ".join(sorted(SUFFIXES))
        raise DataError(f"no picture found, looked for {wanted}", where=where, mend="Name a folder that holds pictures")
    return pictures


def _from_paths(
    paths: Iterable[Path], root: Path | None, on_error: Callable[[PictureError], object] | None
) -> Iterator[Picture]:
    for path in paths:
        name = path.relative_to(root).as_posix() if root else str(path)
        try:
            image = read_image(path)
        except PictureError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        yield Picture(image, name)


def _from_capture(device: str | int, name: str) -> Iterator[Picture]:
    import cv2

    capture = cv2.VideoCapture(device)
    try:
        if not capture.isOpened():
            mend = (
                "Check that it is connected"
                if isinstance(device, int)
                else "Check the file, or convert it to mp4 (H.264)"
            )
            raise DataError("cannot be opened as a video", where=name, mend=mend)
        frame = 0
        while True:
            there, bgr = capture.read()
            if not there:
                break
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            yield Picture(torch.from_numpy(rgb).permute(2, 0, 1), f"{name}#{frame:06d}")
            frame += 1
        if frame == 0:
            raise DataError("holds no frame that can be decoded", where=name, mend="Convert it to mp4 (H.264)")
    finally:
        capture.release()


def _from_tensor(tensor: Tensor) -> Iterator[Picture]:
    if tensor.ndim == 2:
        tensor = tensor.expand(3, *tensor.shape)
    if tensor.ndim not in (3, 4) or tensor.numel() == 0:
        raise UsageError(
            f"got a tensor of shape {tuple(tensor.shape)}, wanted [C, H, W] or [B, C, H, W]", where="source"
        )
    if tensor.dtype != torch.uint8 and not tensor.dtype.is_floating_point:
        raise UsageError(f"got a tensor of {tensor.dtype}, wanted uint8 0..255 or float 0..1", where="source")
    if tensor.ndim == 3 and tensor.shape[0] > 4 and tensor.shape[2] in (1, 3):
        mend = "For [H, W, C] give tensor.permute(2, 0, 1)"
        raise UsageError(f"got a tensor of shape {tuple(tensor.shape)}, wanted [C, H, W]", where="source", mend=mend)
    for i, image in enumerate(tensor if tensor.ndim == 4 else tensor[None]):
        yield Picture(image if image.dtype == torch.uint8 else image.float(), str(i))


def _from_array(array: Shaped[np.ndarray, "..."]) -> Iterator[Picture]:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim not in (3, 4) or array.size == 0:
        raise UsageError(
            f"got an array of shape {array.shape}, wanted [H, W], [H, W, C] or [B, H, W, C]", where="source"
        )
    if array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(65535)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UsageError(f"got an array of {array.dtype}, wanted uint8, uint16 or float 0..1", where="source")
    if array.shape[-1] > 4 and array.shape[-3] in (1, 3):
        mend = "For [C, H, W] give torch.from_numpy(array)"
        raise UsageError(f"got an array of shape {array.shape}, wanted [H, W, C]", where="source", mend=mend)
    for i, image in enumerate(array if array.ndim == 4 else array[None]):
        image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        plain = np.ascontiguousarray(image if image.dtype == np.uint8 else image.astype(np.float32))
        yield Picture(torch.from_numpy(plain).permute(2, 0, 1), str(i))


def _from_sequence(source: Iterable[Any], on_error: Callable[[PictureError], object] | None) -> Iterator[Picture]:
    number = 0
    for item in source:
        places = isinstance(item, str | Path)
        single = places and Path(item).is_file() and Path(item).suffix.lower() not in {*VIDEO_SUFFIXES, ".txt"}
        inner = _from_paths([Path(item)], None, on_error) if single else iterate(item, on_error)
        for picture in inner:
            yield picture if places or isinstance(item, Picture) else replace(picture, name=str(number))
            number += 1
