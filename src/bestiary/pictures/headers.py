"""What a picture file says of itself before anything is decoded: kind, size, orientation.

JPEG and PNG, which are nearly all pictures, are read by walking their markers (some ten microseconds, whatever the
size of the file); every other format goes through Pillow. Sources: ITU-T T.81 annex B (JPEG markers), CIPA DC-008
(Exif, tag 274), the PNG specification (chunks IHDR, tRNS, eXIf), RFC 2083.
"""

import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

import numpy as np

from bestiary.errors import PictureError, UsageError
from bestiary.pictures.tiff import TIFF_STARTS, TiffPicture

DEFAULT_MAX_PIXELS = 200_000_000
"""Largest picture opened unless the environment variable BESTIARY_MAX_PIXELS says otherwise."""

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_ORIENTATION = 0x0112
_SAMPLES = 0x0115


@dataclass(frozen=True)
class Header:
    """What the header says.

    Attributes:
        kind: "jpeg", "png", or Pillow's name of the format in lower case.
        size_hw: as stored, before the orientation is applied.
        orientation: Exif's, 1..8; 1 where there is none.
        channels: stored channels; a palette counts as one.
        bits: of one channel.
        palette: True where pixels are indices into a table of colours.
        alpha: True where there is an alpha channel or a transparent colour.
        pages: True of a TIFF with several pictures, which may be the channels of one.
    """

    kind: str
    size_hw: tuple[int, int]
    orientation: int = 1
    channels: int = 3
    bits: int = 8
    palette: bool = False
    alpha: bool = False
    pages: bool = False

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Size after the orientation is applied: 5..8 swap the sides."""
        height, width = self.size_hw
        return (width, height) if self.orientation >= 5 else (height, width)


class BrokenHeaderError(ValueError):
    """The file starts like a JPEG or PNG but its markers lead nowhere."""


def max_pixels() -> int:
    """The limit in force. Raises `UsageError` if BESTIARY_MAX_PIXELS is not a positive whole number."""
    text = os.environ.get("BESTIARY_MAX_PIXELS")
    if text is None:
        return DEFAULT_MAX_PIXELS
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"got {text!r}, wanted a positive whole number", where="BESTIARY_MAX_PIXELS")
    return int(text)


def read_header(file: BufferedIOBase, where: str) -> Header:
    """Read the header of an open file (or of bytes in a `BytesIO`); the file's position is left anywhere.

    Raises:
        PictureError: empty, not a picture, a broken header, or more pixels than `max_pixels()`.
    """
    start = file.read(16)
    if not start:
        raise PictureError("got an empty file (0 bytes), wanted a picture", where=where, mend="Replace or delete it")
    try:
        if start.startswith(_JPEG_START):
            header = _read_jpeg(file)
        elif start.startswith(_PNG_START):
            header = _read_png(file)
        else:
            header = _read_other(file, where)
    except (BrokenHeaderError, struct.error) as error:
        raise PictureError(
            f"got a broken header ({error}), wanted a picture", where=where, mend="Copy it again"
        ) from error
    height, width = header.size_hw
    if height < 1 or width < 1:
        raise PictureError(f"got a size of {width}x{height}, wanted at least 1x1", where=where, mend="Copy it again")
    if height * width > max_pixels():
        raise PictureError(
            f"got {width}x{height} = {height * width:,} pixels, wanted at most {max_pixels():,}",
            where=where,
            mend="If you trust it, set BESTIARY_MAX_PIXELS to a larger number",
        )
    return header


def is_whole(kind: str, data: bytes) -> bool:
    """Whether the end marker of a JPEG or PNG is there; True for kinds whose decoder notices by itself.

    Bytes after the end (camera trailers, a second picture) are legal. A file that ends in the marker costs one
    comparison.
    """
    if kind == "png":
        return data.endswith(_PNG_END) or _PNG_END in data
    if kind != "jpeg" or data.endswith(b"\xff\xd9"):
        return True
    return _jpeg_ends(data)


@contextmanager
def pillow_without_limit() -> Iterator[Any]:
    """Pillow's `Image` with its own size limit lifted: ours is checked instead, and can be raised by the user."""
    from PIL import Image

    with _PILLOW_LOCK:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield Image
        finally:
            Image.MAX_IMAGE_PIXELS = before


_PILLOW_LOCK = threading.RLock()


def _read_jpeg(file: BufferedIOBase) -> Header:
    position, orientation = 2, 1
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            raise BrokenHeaderError("no frame before the file ends")
        marker = head[1]
        if marker == 0xFF:  # fill bytes before a marker
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
            continue
        if marker in (0xD9, 0xDA):
            raise BrokenHeaderError("no frame before the scan")
        length = struct.unpack(">H", head[2:4])[0]
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack(">BHHB", file.read(6))
            return Header("jpeg", (height, width), orientation, channels, bits)
        if marker == 0xE1 and orientation == 1:
            body = file.read(length - 2)
            if body.startswith(b"Exif\x00\x00"):
                orientation = _exif_orientation(body[6:])
        position += 2 + length


def _read_png(file: BufferedIOBase) -> Header:
    file.seek(8)
    head = file.read(25)
    if head[4:8] != b"IHDR":
        raise BrokenHeaderError("no IHDR chunk")
    width, height, bits, color = struct.unpack(">IIBB", head[8:18])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color)
    if channels is None:
        raise BrokenHeaderError(f"colour type {color}")
    position, orientation, transparent = 33, 1, False
    while True:  # eXIf may stand before or after the pixels; a truncated tail is found when decoding
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        length = struct.unpack(">I", head[:4])[0]
        if head[4:] == b"tRNS":
            transparent = True
        elif head[4:] == b"eXIf":
            orientation = _exif_orientation(file.read(length))
        position += 12 + length
    return Header("png", (height, width), orientation, channels, bits, color == 3, transparent or color in (4, 6))


def _read_other(file: BufferedIOBase, where: str) -> Header:
    from PIL import UnidentifiedImageError

    file.seek(0)
    try:
        with pillow_without_limit() as image_module:
            picture = image_module.open(file)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error) as error:
        file.seek(0)
        start = file.read(12)
        if start.startswith(TIFF_STARTS):
            return _read_many_channels(file, where)
        got = f"a file that starts with {start!r}"
        raise PictureError(f"got {got}, wanted a picture", where=where, mend="Convert it to PNG or JPEG") from error
    kind = (picture.format or "").lower()
    width, height = picture.size
    orientation = 1
    if kind == "tiff":  # newer Pillows report the turned size: ask the tags
        tags = picture.tag_v2
        width, height = int(tags[256]), int(tags[257])
    orientation = _legal_orientation(picture.getexif().get(_ORIENTATION))
    bands, mode = picture.getbands(), picture.mode
    bits = 16 if mode.startswith("I;16") else 32 if mode in ("I", "F") else 1 if mode == "1" else 8
    alpha = "A" in bands or "a" in bands or "transparency" in picture.info
    channels, pages = len(bands), False
    if kind == "tiff":  # of channels that lie apart in the file Pillow sees the first alone
        channels, pages = max(channels, int(picture.tag_v2.get(_SAMPLES, 1))), bool(picture.is_animated)
    return Header(kind, (height, width), orientation, channels, bits, mode.startswith("P"), alpha, pages)


def _read_many_channels(file: BufferedIOBase, where: str) -> Header:
    """Of a TIFF that Pillow does not know: five channels, say."""
    file.seek(0)
    with TiffPicture(file.read(), where) as picture:
        return Header("tiff", picture.size_hw, 1, picture.channels, 8 * np.dtype(picture.dtype).itemsize)


def _exif_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return 1
    (first,) = struct.unpack(order + "I", tiff[4:8])
    if first + 2 > len(tiff):
        return 1
    (count,) = struct.unpack(order + "H", tiff[first : first + 2])
    for entry in range(first + 2, min(first + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack(order + "HH", tiff[entry : entry + 4])
        if tag == _ORIENTATION and kind == 3:
            return _legal_orientation(struct.unpack(order + "H", tiff[entry + 8 : entry + 10])[0])
    return 1


def _legal_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _jpeg_ends(data: bytes) -> bool:
    position = 2
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            return False
        marker = found.group(1)[0]
        if marker == 0xD9:
            return True
        if marker == 0x01 or marker == 0xD8 or found.end() + 2 > len(data):
            position = found.end()
            continue
        position = found.end() + int(struct.unpack(">H", data[found.end() : found.end() + 2])[0])
