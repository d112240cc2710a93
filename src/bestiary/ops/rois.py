"""Regions of a batch as every region operator takes them, and the maps and bins that go with them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.ops.overlaps import require_boxes4
from bestiary.records import require

Boxes = Float[Tensor, "R 5"] | Sequence[Float[Tensor, "_n 4"]]
"""Regions of a batch: rows (picture, x1, y1, x2, y2), or `xyxy` boxes per picture."""


def region_rows(boxes: Boxes, features: Shaped[Tensor, "B C H W"], where: str) -> Float[Tensor, "R 5"]:
    """Regions as rows (picture, x1, y1, x2, y2), float32 (float64 for float64 features), without a gradient.

    A tensor of rows leaves the length of the batch free in an exported graph; a list fixes it.

    Raises:
        RecordError: neither rows of 5 nor a list of as many [N, 4] as there are pictures.
    """
    require(features.ndim == 4, f"{where}(input)", f"shape {tuple(features.shape)}", "(B, C, H, W)")
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    where = f"{where}(boxes)"
    if isinstance(boxes, Tensor):
        require(boxes.ndim == 2 and boxes.shape[1] == 5, where, f"shape {tuple(boxes.shape)}", "(R, 5)")
        return boxes.detach().to(features.device, dtype)
    batch = features.shape[0]
    require(len(boxes) == batch, where, f"boxes of {len(boxes)} pictures", f"of {batch}, the batch")
    rows = [torch.zeros(0, 5, dtype=dtype, device=features.device)]
    for picture, of_picture in enumerate(boxes):
        require_boxes4(f"{where}[{picture}]", of_picture)
        of_picture = of_picture.detach().to(features.device, dtype)
        rows.append(torch.cat([torch.full_like(of_picture[:, :1], picture), of_picture], dim=1))
    return torch.cat(rows)


def require_pictures(pictures: Shaped[Tensor, " R"], batch: int, where: str) -> None:
    """Raise `RecordError` unless every region lies in one of the batch's pictures."""
    if not len(pictures):
        return
    low, high = torch.aminmax(pictures)
    fits = bool(low >= 0) and bool(high < batch)
    got = f"pictures {float(low):g} to {float(high):g}"
    require(fits, where, got, f"indices below {batch}, the batch")


def bins_down_across(output_size: int | Sequence[int]) -> tuple[int, int]:
    """Bins (down, across) of an output size that may be one number for both."""
    sizes = (output_size, output_size) if isinstance(output_size, int) else tuple(int(s) for s in output_size)
    fits = len(sizes) == 2 and min(sizes) > 0
    require(fits, "output_size", output_size, "positive numbers of bins: one, or (down, across)")
    return sizes[0], sizes[1]


def is_channels_last(features: Shaped[Tensor, "B C H W"]) -> bool:
    """Whether the memory is channels-last and not at the same time contiguous (as with one channel or one pixel)."""
    return features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()


def empty_in_layout(
    shape: Sequence[int | torch.SymInt],
    like: Shaped[Tensor, "..."],
    channels_last: bool,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "_ _ _ _"]:
    """An unfilled tensor of a layout, on the device and (unless given) of the type of `like`."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device, memory_format=layout)


def room_in_layout(
    shape: Sequence[int],
    like: Shaped[Tensor, "..."],
    channels_last: bool = False,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "..."]:
    """`empty_in_layout` for memory that is written now: on the CPU, large tensors come in huge pages.

    numpy asks the system for them and torch does not. The first touch of 50 MB is 25 page faults instead of 12,000,
    which take as long as pooling a thousand regions.
    """
    import numpy as np

    dtype = dtype or like.dtype
    if like.device.type != "cpu" or dtype not in (torch.float32, torch.float64):
        return empty_in_layout(shape, like, channels_last, dtype)
    in_memory = [shape[0], *shape[2:], shape[1]] if channels_last else list(shape)
    room = torch.from_numpy(np.empty(in_memory, np.float32 if dtype == torch.float32 else np.float64))
    return room.movedim(-1, 1) if channels_last else room


def pixels_first(features: Shaped[Tensor, "B C H W"], positions: int = 1) -> Shaped[Tensor, "B H W C"]:
    """The map as contiguous [B, H, W, C]; a view where it is channels-last and `positions` is 1.

    Args:
        features: channels ordered (class, position) where there are positions, as R-FCN's score maps are.
        positions: how many; then the channels come out ordered (position, class), each position's in one piece.
    """
    batch, channels, height, width = features.shape
    if positions == 1 and features.is_contiguous(memory_format=torch.channels_last):
        return features.permute(0, 2, 3, 1)
    split = features.reshape(batch, channels // positions, positions, height, width)
    pixels = room_in_layout((batch, height, width, channels), features)
    pixels.view(batch, height, width, positions, channels // positions).copy_(split.permute(0, 3, 4, 2, 1))
    return pixels


def _channels_first(pixels: Shaped[Tensor, "B H W C"], positions: int = 1) -> Shaped[Tensor, "B C H W"]:
    """The inverse of `pixels_first`; a view where `positions` is 1."""
    batch, height, width, channels = pixels.shape
    if positions == 1:
        return pixels.permute(0, 3, 1, 2)
    split = pixels.reshape(batch, height, width, positions, channels // positions)
    return split.permute(0, 4, 3, 1, 2).reshape(batch, channels, height, width)


def copy_channels_first(
    pixels: Shaped[Tensor, "B H W _C"], positions: int, target: Shaped[Tensor, "B _c H W"]
) -> Shaped[Tensor, "B _c H W"]:
    """Write [B, H, W, C] pixels, as `pixels_first` makes them, into a map of any layout, and give that."""
    plain = pixels.device.type == "cpu" and pixels.dtype == target.dtype == torch.float32
    if positions > 1 or not plain or not target.is_contiguous() or not pixels.is_contiguous():
        return target.copy_(_channels_first(pixels, positions))
    from bestiary.ops._kernels.rows import channels_first
    from bestiary.ops._kernels.threads import in_threads

    source, out = pixels.flatten(1, 2).numpy(), target.flatten(2).numpy()

    def work(start: int, stop: int) -> None:
        channels_first(source, start, stop, out)

    in_threads(work, len(source) * -(-source.shape[1] // 32), torch.get_num_threads(), grain=16)
    return target
