"""Tensors to picture files, and the two views of one memory that OpenCV (`[H, W, C]`) and torch (`[C, H, W]`) have.

Files are written beside their place under another name and then renamed: a reader sees the old picture or the new,
never half.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.records import require


def to_numpy(image: Shaped[Tensor, "C H W"]) -> Shaped[np.ndarray, "H W C"]:
    """The picture as `[H, W, C]`, sharing memory; contiguous if it came from `read_image` or `from_numpy`."""
    return image.detach().cpu().permute(1, 2, 0).numpy()


def from_numpy(array: Shaped[np.ndarray, "H W C"]) -> Shaped[Tensor, "C H W"]:
    """An `[H, W, C]` array as a picture, sharing memory."""
    return torch.from_numpy(array).permute(2, 0, 1)


def write_image(path: Path | str, image: Shaped[Tensor, "C H W"], quality: int = 95) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: its suffix says the format (.png, .jpg, .webp, .bmp, .tif ...; .npy for any number of channels).
        image: RGB or one channel; uint8, or float 0..1 (rounded to 8 bits; 16 bits for .tif; kept by .npy).
        quality: of JPEG and WebP, 1..100.

    Raises:
        UsageError: a suffix that no encoder knows.
        RecordError: another number of channels or type.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(to_numpy(image)))
        write_bytes(path, buffer.getvalue())
        return
    require(image.shape[0] in (1, 3), "write_image(image)", f"{image.shape[0]} channels", "1 or 3")
    wanted = image.dtype == torch.uint8 or image.dtype.is_floating_point
    require(wanted, "write_image(image)", str(image.dtype), "uint8, or float 0..1")
    array = to_numpy(image)
    if array.dtype != np.uint8:
        top, kind = (65535, np.uint16) if path.suffix.lower() in (".tif", ".tiff") else (255, np.uint8)
        array = np.rint(np.nan_to_num(array).clip(0, 1) * top).astype(kind)
    write_bytes(path, _encode(path, np.ascontiguousarray(array[..., ::-1]), quality))


def write_map(path: Path | str, values: UInt8[Tensor, "H W"] | Int[Tensor, "H W"]) -> None:
    """Write class or instance ids (0..65535) as a grey PNG: 8 bits where they suffice, otherwise 16."""
    low, top = (int(values.min()), int(values.max())) if values.numel() else (0, 0)
    require(low >= 0 and top <= 65535, "write_map(values)", f"values from {low} to {top}", "0 to 65535")
    require(
        Path(path).suffix.lower() == ".png", "write_map(path)", Path(path).name, "a .png: other formats change the ids"
    )
    array = values.cpu().numpy().astype(np.uint8 if top <= 255 else np.uint16)
    write_bytes(Path(path), _encode(Path(path), np.ascontiguousarray(array), 95))


def write_palette_map(path: Path | str, labels: UInt8[Tensor, "H W"], colours: Sequence[tuple[int, int, int]]) -> None:
    """Write class ids as an indexed PNG, as VOC's are: viewers show the colours, programs read the ids.

    Args:
        path: ends in `.png`.
        labels: class of each pixel.
        colours: red, green, blue 0..255 of each of the 256 ids; black for those beyond.
    """
    import io

    from PIL import Image

    require(Path(path).suffix.lower() == ".png", "write_palette_map(path)", Path(path).name, "a .png")
    picture = Image.fromarray(np.ascontiguousarray(labels.cpu().numpy()))
    flat = [channel for colour in colours[:256] for channel in colour]
    picture.putpalette(flat + [0] * (768 - len(flat)))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    write_bytes(Path(path), buffer.getvalue())


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path` atomically; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _encode(path: Path, array: Shaped[np.ndarray, "..."], quality: int) -> bytes:
    import cv2

    suffix = path.suffix.lower()
    flags = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }.get(suffix, [])
    try:
        done, data = cv2.imencode(suffix, array, flags)
    except cv2.error:
        done, data = False, None
    if not done or data is None:
        raise UsageError(
            f"got a file name ending in {suffix!r}, wanted .png, .jpg, .webp, .bmp or .tif", where=str(path)
        )
    return data.tobytes()
