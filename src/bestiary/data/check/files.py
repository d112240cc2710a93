"""What the picture files of an index are: decoded once each, in threads, remembered as a few numbers and a digest."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Shaped, UInt8

from bestiary.errors import PictureError
from bestiary.pictures.decode import decode_image, read_image
from bestiary.pictures.headers import Header, read_header

Progress = Callable[[int, int], object]
"""Called with (done, total)."""

THUMB = 16
"""Side of the thumbnail by which near duplicates are found."""

_BATCH = 512
_GREY = 128
_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
}

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Probe:
    """What one picture file is.

    Attributes:
        rule: the rule that it breaks ("truncated-picture" ...); None if it is whole.
        got: what the decoder said of a broken file.
        mend: what the decoder advised.
        header: None where even that cannot be read, and for .npy.
        size_hw: upright; None if unknown.
        channels: of the file.
        digest: of the decoded pixels; None if not decoded.
        thumb: grey, for near duplicates; None if not decoded.
        grey_rows: share of rows at the bottom that are blank mid-grey, as decoders fill what is missing.
        real_kind: the format of the file where its name says another.
    """

    rule: str | None = None
    got: str = ""
    mend: str = ""
    header: Header | None = None
    size_hw: tuple[int, int] | None = None
    channels: int = 3
    digest: bytes | None = None
    thumb: UInt8[np.ndarray, "16 16"] | None = None
    grey_rows: float = 0.0
    real_kind: str = ""


def probe_file(path: Path, decode: bool = True) -> Probe:
    """Look at one file; never raises for what is in it."""
    header = None
    try:
        if path.suffix.lower() == ".npy":
            image = read_image(path)
            return _probed(image.permute(1, 2, 0).numpy(), None, decode, "")
        if not decode:
            with path.open("rb") as file:
                header = read_header(file, str(path))
            return Probe(
                None, header=header, size_hw=header.upright_hw, channels=header.channels, real_kind=_named(path, header)
            )
        data = path.read_bytes()
        header = read_header(io.BytesIO(data), str(path))
        image = decode_image(data, str(path))
        return _probed(image.permute(1, 2, 0).numpy(), header, True, _named(path, header))
    except PictureError as error:
        size = header.upright_hw if header else None
        return Probe(_rule_of(error.message), error.message, error.mend or "Replace or delete it", header, size)
    except OSError as error:
        return Probe("unreadable-file", error.strerror or str(error), "Check its permissions")
    except MemoryError:
        return Probe("oversized-picture", "more pixels than fit into memory", "Make it smaller", header)


def probe_files(paths: Iterable[Path], decode: bool, progress: Progress | None) -> dict[Path, Probe]:
    """Look at every file once, several at a time (decoders leave Python's lock)."""
    unique = list(dict.fromkeys(paths))
    answers = in_threads(lambda path: probe_file(path, decode), unique, progress)
    return dict(zip(unique, answers, strict=True))


def in_threads(ask: Callable[[Item], Answer], items: list[Item], progress: Progress | None = None) -> Iterator[Answer]:
    """`ask` of every item in order; at most a few hundred are under way, so memory does not grow with the data set."""
    import cv2

    threads, before = min(os.cpu_count() or 1, 8), cv2.getNumThreads()
    cv2.setNumThreads(1)  # one picture a thread
    waiting, done = iter(items), 0
    try:
        with ThreadPoolExecutor(threads) as pool:
            while batch := list(islice(waiting, _BATCH)):
                for answer in pool.map(ask, batch):
                    done += 1
                    if progress is not None:
                        progress(done, len(items))
                    yield answer
    finally:
        cv2.setNumThreads(before)


def _probed(pixels: Shaped[np.ndarray, "H W C"], header: Header | None, decode: bool, real_kind: str) -> Probe:
    import cv2

    height, width, channels = pixels.shape
    if not decode:
        return Probe(None, header=header, size_hw=(height, width), channels=channels, real_kind=real_kind)
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16)
    digest.update(f"{height}x{width}x{channels}:{pixels.dtype}".encode())
    values = pixels if pixels.dtype == np.uint8 else (np.nan_to_num(pixels).clip(0, 1) * 255).astype(np.uint8)
    small = cv2.resize(np.ascontiguousarray(values), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    thumb = small if small.ndim == 2 else small.astype(np.float32).mean(2).astype(np.uint8)
    stored = header.channels if header else channels
    is_jpeg = header is not None and header.kind == "jpeg"
    return Probe(
        None,
        header=header,
        size_hw=(height, width),
        channels=stored,
        digest=digest.digest(),
        thumb=thumb,
        grey_rows=blank_rows(values) if is_jpeg else 0.0,
        real_kind=real_kind,
    )


def blank_rows(pixels: Shaped[np.ndarray, "H W C"]) -> float:
    """Share of rows at the bottom that are mid-grey throughout: a JPEG whose data ended early decodes so."""
    if pixels.dtype != np.uint8 or len(pixels) < 16 or np.abs(pixels[-1].astype(np.int16) - _GREY).max() > 1:
        return 0.0
    blank = np.abs(pixels.reshape(len(pixels), -1).astype(np.int16) - _GREY).max(1) <= 1
    full = np.flatnonzero(~blank)
    rows = len(pixels) - (int(full[-1]) + 1 if len(full) else 0)
    return rows / len(pixels)


def _named(path: Path, header: Header) -> str:
    """The format where the name says another, otherwise nothing."""
    suffixes = _SUFFIXES.get(header.kind)
    named = any(path.suffix.lower() in known for known in _SUFFIXES.values())
    return header.kind if suffixes and named and path.suffix.lower() not in suffixes else ""


def _rule_of(message: str) -> str:
    for words, rule in (
        ("no such file", "missing-picture"),
        ("empty file", "empty-picture"),
        ("truncated", "truncated-picture"),
        ("pixels, wanted at most", "oversized-picture"),
        ("cannot be read", "unreadable-file"),
    ):
        if words in message:
            return rule
    return "broken-picture"
