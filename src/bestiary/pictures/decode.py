"""Picture files to tensors.

`read_image` gives RGB `[C, H, W]`: uint8 stays uint8, 16-bit files become float32 0..1. The same rules hold for
every format: Exif orientation is applied; grey becomes three equal channels; a palette becomes its colours;
transparency is laid over white (what a viewer on paper shows; dropping alpha would bring out whatever lies under
transparent pixels); CMYK becomes RGB; of an animation the first frame is taken; a float file keeps its values; a TIFF
of more than four channels keeps them all; a `.npy` file holds `[H, W]` or `[H, W, C]` with any number of channels.
OpenCV decodes the common formats from bytes that Python read (any path), Pillow and tifffile the odd ones.

The tensors are views of the decoder's `[H, W, C]` memory (channels last): no copy is made, and OpenCV can work on
them in place.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int32, Shaped, UInt8
from torch import Tensor

from bestiary.errors import PictureError
from bestiary.pictures.headers import Header, is_whole, pillow_without_limit, read_header
from bestiary.pictures.tiff import TiffPicture
from bestiary.records import IGNORE_LABEL

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
).union((".pbm", ".pnm", ".jp2", ".avif", ".tga", ".ico", ".npy"))
"""File names that are taken for pictures when a folder is listed (compared in lower case)."""

Array = Shaped[np.ndarray, "..."]


def is_picture_name(path: Path | str) -> bool:
    """Whether the name ends as a picture's does; hidden files (`.name`, macOS's `._name.jpg`) are not pictures."""
    path = Path(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image(
    path: Path | str, grey: bool = False, allow_truncated: bool = False
) -> UInt8[Tensor, "C H W"] | Float32[Tensor, "C H W"]:
    """Read a picture as RGB.

    Args:
        path: the file.
        grey: give one channel (luma, ITU-R BT.601) instead of three.
        allow_truncated: give what is there of a file that was cut off, instead of an error.

    Raises:
        PictureError: missing, empty, truncated, too large or not a picture.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _to_tensor(_read_npy(path), grey)
    return decode_image(_read_bytes(path), str(path), grey, allow_truncated)


def decode_image(
    data: bytes, where: str = "bytes", grey: bool = False, allow_truncated: bool = False
) -> UInt8[Tensor, "C H W"] | Float32[Tensor, "C H W"]:
    """As `read_image`, for the content of a file. `where` names it in errors."""
    header = read_header(io.BytesIO(data), where)
    if not allow_truncated and not is_whole(header.kind, data):
        _fail_truncated(where, f"{len(data)} bytes without the end marker")
    if header.kind == "tiff" and (header.channels > 4 or header.pages):
        with TiffPicture(data, where) as picture:
            if picture.channels > 4:
                return picture.read(0, 0, picture.size_hw)
    array = _decode_opencv(data, header) if _opencv_can(header) else None
    array = _decode_pillow(data, where, allow_truncated) if array is None else upright(array, header.orientation)
    return _to_tensor(array, grey)


def read_size(path: Path | str) -> tuple[int, int]:
    """(height, width) after Exif rotation, from the header alone. Raises `PictureError` as `read_image` does."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        array = _read_npy(path)
        return int(array.shape[0]), int(array.shape[1])
    try:
        with path.open("rb") as file:
            return read_header(file, str(path)).upright_hw
    except OSError as error:
        raise _unreadable(path, error) from error


def read_label_map(path: Path | str, colors: Mapping[tuple[int, int, int], int] | None = None) -> UInt8[Tensor, "H W"]:
    """Read a map of class ids: the stored values of a grey file, the indices (not the colours) of a palette file.

    Args:
        path: the file.
        colors: RGB colour -> id for colour-coded maps; a colour that is not in the table becomes `IGNORE_LABEL`.

    Raises:
        PictureError: as `read_image`; also a colour file without `colors`, or ids above 255.
    """
    path = Path(path)
    values = _stored_values(path)
    if values.ndim == 3 and values.shape[2] >= 3:
        if colors is None:
            if not (np.array_equal(values[..., 0], values[..., 1]) and np.array_equal(values[..., 0], values[..., 2])):
                mend = "Give a table of colours (colors.txt: name r g b), or save class ids as an 8-bit grey PNG"
                raise PictureError("got a colour picture, wanted class ids", where=str(path), mend=mend)
            return torch.from_numpy(np.ascontiguousarray(values[..., 0])).to(torch.uint8)
        return torch.from_numpy(_ids_of_colors(values[..., :3], colors))
    values = values if values.ndim == 2 else values[..., 0]
    if values.dtype != np.uint8:
        top = int(values.max())
        if top > 255 or int(values.min()) < 0:
            raise PictureError(
                f"got class id {top}, wanted at most 255", where=str(path), mend="Renumber the classes from 0"
            )
        values = values.astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(values))


def read_instance_map(path: Path | str) -> Int32[Tensor, "H W"]:
    """Read a map of instance ids: 8 or 16-bit grey, palette indices, or RGB as COCO panoptic writes it (r + 256 g +
    65536 b).
    """
    values = _stored_values(Path(path))
    if values.ndim == 3 and values.shape[2] >= 3:
        r, g, b = (values[..., i].astype(np.int32) for i in range(3))
        return torch.from_numpy(r + 256 * g + 65536 * b)
    values = values if values.ndim == 2 else values[..., 0]
    return torch.from_numpy(values.astype(np.int32))


def read_depth(path: Path | str, scale: float, invalid: tuple[int, ...] = ()) -> Float32[Tensor, "H W"]:
    """Read depths in metres, 0 where unknown.

    Args:
        path: a 16-bit (or float) one-channel file.
        scale: metres a stored unit: 0.001 for millimetres.
        invalid: stored values that mean unknown, beside 0 and non-finite ones.
    """
    values = _stored_values(Path(path))
    values = values if values.ndim == 2 else values[..., 0]
    unknown = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for value in invalid:
        unknown |= values == value
    depth = (values * float(scale)).astype(np.float32)  # in double: 1500 mm is 1.5 m, not 1.5000001
    depth[unknown] = 0
    return torch.from_numpy(depth)


def from_pillow(picture: Any) -> UInt8[Tensor, "C H W"] | Float32[Tensor, "C H W"]:
    """A Pillow picture by the rules of `read_image`."""
    return _to_tensor(_pillow_array(picture), grey=False)


def upright(array: Shaped[np.ndarray, "H W *C"], orientation: int) -> Shaped[np.ndarray, "H2 W2 *C"]:
    """Undo an Exif orientation 1..8: how the stored picture must be turned and mirrored to stand upright (CIPA
    DC-008, tag 274).
    """
    if orientation == 1:
        return array
    if orientation >= 5:  # 5..8 are 1, 4, 2, 3 with rows and columns exchanged
        array = array.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        array = array[:, ::-1]
    if orientation in (3, 4):
        array = array[::-1]
    return np.ascontiguousarray(array)


def over_white(rgba: Shaped[np.ndarray, "H W 4"]) -> Shaped[np.ndarray, "H W 3"]:
    """Lay a picture with alpha over white; the type (uint8 or float 0..1) is kept, rounding is to the nearest."""
    if rgba.dtype == np.uint8:
        alpha = rgba[..., 3:].astype(np.uint16)
        mixed = rgba[..., :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255: fits
        return ((mixed.astype(np.uint32) + 127) // 255).astype(np.uint8)
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> PictureError:
    if isinstance(error, FileNotFoundError):
        return PictureError("there is no such file", where=str(path), mend="Check the path and its spelling")
    if isinstance(error, IsADirectoryError):
        return PictureError("got a folder, wanted a picture file", where=str(path), mend="Name one of its files")
    return PictureError(f"cannot be read ({error.strerror or error})", where=str(path), mend="Check its permissions")


def _fail_truncated(where: str, got: str) -> None:
    mend = "Copy it again, or delete it (allow_truncated=True gives what is there)"
    raise PictureError(f"got a truncated picture ({got}), wanted a whole one", where=where, mend=mend)


def _opencv_can(header: Header) -> bool:
    """Which files OpenCV decodes exactly as Pillow would; the rest is Pillow's."""
    if header.kind == "jpeg":
        return header.channels in (1, 3) and header.bits == 8 and header.size_hw[0] > 0
    if header.kind == "png":
        return not header.alpha or (header.channels == 4)
    if header.kind == "tiff":
        return header.orientation == 1 and not header.alpha and not header.palette and header.bits != 1
    return header.kind in ("bmp", "webp") and not header.alpha and header.bits == 8 and not header.palette


def _decode_opencv(data: bytes, header: Header) -> Array | None:
    """Decode to `[H, W]` or `[H, W, 3]` RGB, uint8 or float32; None where OpenCV cannot, so that Pillow can say why."""
    import cv2

    plain = header.kind != "tiff" and header.bits <= 8 and not header.alpha
    flags = cv2.IMREAD_COLOR_RGB if plain else cv2.IMREAD_UNCHANGED
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION if plain else flags)
    except cv2.error:
        return None
    if array is None or plain:
        return array
    if array.shape[:2] != header.size_hw or array.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        return None
    if array.ndim == 3:
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    array = _scaled(array)
    return over_white(array) if array.ndim == 3 and array.shape[2] == 4 else array


def _decode_pillow(data: bytes, where: str, allow_truncated: bool) -> Array:
    from PIL import ImageFile

    try:
        with pillow_without_limit() as image_module:
            before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, allow_truncated
            try:
                picture = image_module.open(io.BytesIO(data))
                picture.load()
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
            return _pillow_array(picture)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if "truncated" in str(error):
            _fail_truncated(where, str(error))
        raise PictureError(f"cannot be decoded ({error})", where=where, mend="Open and save it again as PNG") from error


def _pillow_array(picture: Any) -> Array:
    """`[H, W]` or `[H, W, 3]`, uint8 or float32, of a Pillow picture; orientation, palette, alpha and CMYK resolved."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        return _scaled(np.asarray(picture).astype(np.uint16))
    if picture.mode == "I":  # 16-bit PGM, which Pillow scales to 0..65535
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"32-bit values from {values.min()} to {values.max()}")
        return _scaled(values.astype(np.uint16))
    if picture.mode == "F":
        return np.array(picture, dtype=np.float32)
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return over_white(np.asarray(picture.convert("RGBA")))
    return np.array(picture if picture.mode == "L" else picture.convert("RGB"))


def _scaled(array: Array) -> Array:
    """uint8 as it is, uint16 to float32 0..1, floats to float32 with their values."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    return array.astype(np.float32)


def _read_npy(path: Path) -> Array:
    try:
        array = np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise PictureError(
            f"is not a plain .npy array ({error})", where=str(path), mend="Save with numpy.save"
        ) from error
    if array.ndim not in (2, 3) or array.dtype not in (np.uint8, np.uint16, np.float32, np.float64) or array.size == 0:
        got = f"{array.dtype} of shape {array.shape}"
        raise PictureError(f"got {got}, wanted uint8, uint16 or float32 [H, W] or [H, W, C]", where=str(path))
    return _scaled(array)


def _to_tensor(array: Array, grey: bool) -> Tensor:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if grey and array.ndim == 3 and array.shape[2] == 3:
        import cv2

        array = cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_RGB2GRAY)
    if array.ndim == 2:
        array = array[..., None] if grey else np.repeat(array[..., None], 3, axis=2)
    return torch.from_numpy(array).permute(2, 0, 1)


def _stored_values(path: Path) -> Array:
    """Values as stored, upright: palette indices, 16 bit unscaled; `[H, W]`, or `[H, W, C]` with RGB order."""
    if path.suffix.lower() == ".npy":
        try:
            return np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise PictureError(f"is not a plain .npy array ({error})", where=str(path)) from error
    data = _read_bytes(path)
    header = read_header(io.BytesIO(data), str(path))
    if not is_whole(header.kind, data):
        _fail_truncated(str(path), f"{len(data)} bytes without the end marker")
    if header.kind == "png" and not header.palette and not header.alpha and header.bits >= 8:
        import cv2

        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is not None:
            return upright(array if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1]), header.orientation)
    from PIL import ImageOps

    try:
        with pillow_without_limit() as image_module:
            picture = image_module.open(io.BytesIO(data))
            picture.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise PictureError(f"cannot be decoded ({error})", where=str(path), mend="Save it again as PNG") from error
    values = np.array(ImageOps.exif_transpose(picture))
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _ids_of_colors(rgb: Array, colors: Mapping[tuple[int, int, int], int]) -> Array:
    codes = rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2]
    known = sorted((r << 16 | g << 8 | b, value) for (r, g, b), value in colors.items())
    keys, ids = np.array([k for k, _ in known], np.int32), np.array([v for _, v in known], np.uint8)
    at = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    return np.where(keys[at] == codes, ids[at], np.uint8(IGNORE_LABEL))
