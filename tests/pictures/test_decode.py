"""Every kind of file against Pillow, orientations against Pillow's transposition, and every kind of broken file."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bestiary.errors import PictureError, UsageError
from bestiary.pictures.decode import (
    is_picture_name,
    over_white,
    read_depth,
    read_image,
    read_instance_map,
    read_label_map,
    read_size,
    upright,
)
from bestiary.pictures.encode import to_numpy
from bestiary.pictures.headers import is_whole, max_pixels


def noise(height: int = 37, width: int = 53, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def smooth() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, (x + y) * 2], axis=2).clip(0, 255).astype(np.uint8)


def oracle(path: Path) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".gif", ".tga", ".jp2"])
def test_lossless_rgb_files_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    array = noise()
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(array).save(path, **options)
    wanted = oracle(path) if suffix == ".gif" else array
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 37, 53)
    assert np.array_equal(to_numpy(image), wanted)
    assert read_size(path) == (37, 53)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm", ".jpg"])
def test_grey_becomes_three_equal_channels_or_stays_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise(channels=1)).save(path)
    image = read_image(path)
    assert image.shape == (3, 37, 53)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    one = read_image(path, grey=True)
    assert one.shape == (1, 37, 53)
    assert torch.equal(one[0], image[0])


def test_grey_of_a_colour_file_is_its_luma(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2, 3), (100, 150, 200), np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", grey=True).unique().tolist() == [
        round(0.299 * 100 + 0.587 * 150 + 0.114 * 200)
    ]


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16", "L"])
def test_png_modes(tmp_path: Path, mode: str) -> None:
    rgba = Image.fromarray(noise(channels=4), "RGBA")
    path = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(noise(channels=1).astype(np.uint16) * 257).save(path)
        image = read_image(path)
        assert image.dtype == torch.float32
        assert np.array_equal(to_numpy(image)[..., 0], noise(channels=1).astype(np.float32) / np.float32(255))
        return
    picture = rgba.convert("RGB").convert("P") if mode == "P" else rgba.convert(mode)
    picture.save(path)
    stored = Image.open(path)
    if mode in ("LA", "RGBA"):
        white = Image.new("RGBA", stored.size, "white")
        wanted = np.asarray(Image.alpha_composite(white, stored.convert("RGBA")).convert("RGB"))
        assert np.abs(to_numpy(read_image(path)).astype(int) - wanted).max() <= 1  # Pillow rounds in fixed point
    else:
        assert np.array_equal(to_numpy(read_image(path)), np.asarray(stored.convert("RGB")))


def test_palette_with_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60] + [0] * 762)
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=1)
    assert to_numpy(read_image(tmp_path / "a.png")).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_alpha_over_white_by_hand() -> None:
    rgba = np.array([[[0, 100, 255, 0], [0, 100, 255, 255], [0, 100, 200, 128]]], np.uint8)
    assert over_white(rgba).tolist() == [[[255, 255, 255], [0, 100, 255], [127, 177, 227]]]
    assert over_white(np.array([[[0.5, 0, 1, 0.25]]], np.float32)).tolist() == [[[0.875, 0.75, 1.0]]]


def test_cmyk_jpeg_is_pillows(tmp_path: Path) -> None:
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "a.jpg")
    assert np.array_equal(to_numpy(read_image(tmp_path / "a.jpg")), oracle(tmp_path / "a.jpg"))


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_files_become_float(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    import cv2

    values = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), values if values.ndim == 2 else values[..., ::-1])
    image = read_image(tmp_path / f"a{suffix}")
    assert image.dtype == torch.float32
    wanted = values / 65535 if values.ndim == 3 else np.repeat(values[..., None], 3, 2) / 65535
    np.testing.assert_allclose(to_numpy(image), wanted, atol=1e-7)


def test_sixteen_bit_alpha_lies_on_white(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.array([[[0, 0, 65535, 0], [0, 0, 65535, 65535]]], np.uint16))
    assert to_numpy(read_image(tmp_path / "a.png")).tolist() == [[[1, 1, 1], [1, 0, 0]]]


def test_float_tiff_and_npy_keep_their_values(tmp_path: Path) -> None:
    values = np.linspace(-2, 5, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif")[0].numpy(), values)
    many = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    np.save(tmp_path / "b.npy", many)
    assert torch.equal(read_image(tmp_path / "b.npy"), torch.from_numpy(many).permute(2, 0, 1))
    assert read_size(tmp_path / "b.npy") == (5, 6)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), c) for c in ("red", "green", "blue")]
    for suffix in (".gif", ".webp", ".png", ".tif"):
        options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
        path = tmp_path / f"a{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert read_image(path)[:, 0, 0].tolist() == [255, 0, 0], suffix


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_alike_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 95} if suffix == ".jpg" else {}
    Image.fromarray(smooth()).save(path, exif=exif, **options)
    wanted = upright(smooth(), orientation)
    image = to_numpy(read_image(path))
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).max() <= (6 if suffix == ".jpg" else 0)
    if suffix == ".jpg":
        assert np.array_equal(image, oracle(path))
    assert read_size(path) == wanted.shape[:2]


def test_orientation_by_hand() -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert upright(stored, 2).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert upright(stored, 3).tolist() == [[6, 5, 4], [3, 2, 1]]
    assert upright(stored, 6).tolist() == [[4, 1], [5, 2], [6, 3]]  # a telephone held upright
    assert upright(stored, 8).tolist() == [[3, 6], [2, 5], [1, 4]]


def test_nonsense_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif)
    assert read_size(tmp_path / "a.jpg") == (48, 64)


def test_unicode_paths(tmp_path: Path) -> None:
    path = tmp_path / "Überblick 图片" / "naïve ☂.png"
    path.parent.mkdir()
    Image.fromarray(noise()).save(path)
    assert np.array_equal(to_numpy(read_image(path)), noise())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_files_are_found(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(PictureError, match=r"truncated|cannot be decoded|broken"):
        read_image(path)


def test_a_truncated_jpeg_is_given_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(path, quality=95)
    whole = read_image(path)
    path.write_bytes(path.read_bytes()[:-60])
    part = read_image(path, allow_truncated=True)
    assert part.shape == whole.shape
    assert torch.equal(part[:, :16], whole[:, :16])
    assert not torch.equal(part, whole)


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_behind_the_end_of_a_jpeg_are_legal(progressive: bool) -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()
    assert is_whole("jpeg", data)
    assert is_whole("jpeg", data + b"\x00" * 500)
    assert not is_whole("jpeg", data[:-2] + b"\x00" * 500)
    for cut in range(600, len(data) - 2, 97):
        assert not is_whole("jpeg", data[:cut])


def test_a_thumbnails_end_is_not_the_pictures_end() -> None:
    small, large = io.BytesIO(), io.BytesIO()
    Image.fromarray(smooth()).resize((16, 16)).save(small, "JPEG")
    Image.fromarray(smooth()).save(large, "JPEG", comment=small.getvalue())
    data = large.getvalue()
    assert data.count(b"\xff\xd9") == 2
    assert is_whole("jpeg", data + b"x")
    assert not is_whole("jpeg", data[:-40])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "folder"),
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (lambda p: p.write_text("<html>404</html>"), "<html>404"),
        (lambda p: p.write_bytes(b"\xff\xd8\xff\xe0"), "broken header"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\nabc"), "broken header"),
        (lambda p: p.write_bytes(b"\xff\xd8\xff\xda" + b"\x00" * 40), "broken header"),
    ],
)
def test_broken_files_name_themselves(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    for read in (read_image, read_size, read_label_map):
        with pytest.raises(PictureError, match=words) as error:
            read(path)
        assert error.value.where == str(path)


def test_the_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max_pixels() == 200_000_000
    for suffix in (".png", ".jpg", ".gif"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(noise(10, 10)).save(path)
        monkeypatch.setenv("BESTIARY_MAX_PIXELS", "100")
        assert read_image(path).shape == (3, 10, 10)
        monkeypatch.setenv("BESTIARY_MAX_PIXELS", "99")
        with pytest.raises(PictureError, match="BESTIARY_MAX_PIXELS"):
            read_image(path)
    monkeypatch.setenv("BESTIARY_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="'many'"):
        read_size(tmp_path / "a.png")


def test_a_bomb_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(PictureError, match="400,000,000 pixels"):
        read_image(path)


def test_pillows_own_limit_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(noise()).save(tmp_path / "a.gif")
    assert read_image(tmp_path / "a.gif").shape == (3, 37, 53)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_label_maps_keep_indices(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 255], [2, 0, 7]], np.uint8)
    palette = Image.fromarray(ids).convert("P")
    palette.putdata(ids.flatten().tolist())
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "p.png")
    Image.fromarray(ids).save(tmp_path / "l.png")
    Image.fromarray(np.stack([ids] * 3, 2)).save(tmp_path / "rgb.png")
    np.save(tmp_path / "n.npy", ids.astype(np.int64))
    for name in ("p.png", "l.png", "rgb.png", "n.npy"):
        assert read_label_map(tmp_path / name).tolist() == ids.tolist(), name
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_label_map(tmp_path / "bit.png").tolist() == [[1, 0]]


def test_colours_of_a_label_map(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[128, 0, 0], [0, 128, 0], [1, 2, 3]]], np.uint8)).save(tmp_path / "c.png")
    assert read_label_map(tmp_path / "c.png", {(128, 0, 0): 4, (0, 128, 0): 0}).tolist() == [[4, 0, 255]]
    with pytest.raises(PictureError, match="table of colours"):
        read_label_map(tmp_path / "c.png")


def test_label_ids_above_255_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[256, 3]], np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="class id 256"):
        read_label_map(tmp_path / "a.png")
    assert read_instance_map(tmp_path / "a.png").tolist() == [[256, 3]]


def test_instance_maps_in_colour_are_cocos(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8)).save(tmp_path / "a.png")
    assert read_instance_map(tmp_path / "a.png").tolist() == [[1 + 512 + 3 * 65536, 2**24 - 1]]


def test_depth_in_metres(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1500, 65535]], np.uint16)).save(tmp_path / "d.png")
    assert read_depth(tmp_path / "d.png", 0.001, (65535,)).tolist() == [[0, 1.5, 0]]
    np.save(tmp_path / "d.npy", np.array([[np.nan, np.inf, 2]], np.float32))
    assert read_depth(tmp_path / "d.npy", 0.5).tolist() == [[0, 0, 1]]


def test_names_of_pictures() -> None:
    assert is_picture_name("a.JPG")
    assert is_picture_name(Path("x/b.tiff"))
    assert not is_picture_name("a.txt")
    assert not is_picture_name("._a.jpg")


def test_real_pictures_equal_pillow(real_data: Path) -> None:
    for name in ("bccd/BCCD/JPEGImages/BloodImage_00000.jpg", "camvid/images/val/0016E5_07959.jpg"):
        assert np.array_equal(to_numpy(read_image(real_data / name)), oracle(real_data / name))
        assert read_size(real_data / name) == oracle(real_data / name).shape[:2]
