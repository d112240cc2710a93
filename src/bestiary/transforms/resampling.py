"""Pixels under a map: the only place that knows OpenCV's coordinates (centre of the first pixel at 0, 0) and memory
order.

Pictures are worked on as `[H, W, C]`, and the tensors that come out have their memory in that order (`[C, H, W]` is a
view), so that nothing is transposed on the way from decoder to network. What need not be computed is not: a cut is a
view of the picture, a resize is `cv2.resize`, only rotation, shear and fractional offsets go through
`cv2.warpAffine`.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from bestiary.ops.masks import masks_to_boxes
from bestiary.transforms.warp import NEARLY, Warp, fill_values

Pixels = Shaped[np.ndarray, "_h _w _c"]
FAR = 0.5
"""Shrinking below this factor averages over areas; above, plain bilinear sampling loses nothing that is seen."""

WASTE = 4.0
"""How many times the visible pixels a resize may compute before `warpAffine`, which computes only those, is the
faster way.
"""


def to_pixels(image: Shaped[Tensor, "_c _h _w"]) -> Pixels:
    """`[H, W, C]` array on the same memory where that is possible without copying each row."""
    return image.permute(1, 2, 0).numpy()


def to_image(pixels: Shaped[np.ndarray, "_h _w *_c"]) -> Shaped[Tensor, "_c _h _w"]:
    """Tensor `[C, H, W]` on the memory of `pixels`; OpenCV drops the last axis of one-channel pictures, it comes
    back.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1)


def packed(pixels: Pixels) -> Pixels:
    """`pixels` with each pixel's channels side by side and rows of whole pixels, as OpenCV needs it."""
    channels = pixels.shape[2]
    fits = channels == 1 or pixels.strides[2] == pixels.itemsize
    return pixels if fits and pixels.strides[1] == channels * pixels.itemsize else np.ascontiguousarray(pixels)


def warp_image(image: Shaped[Tensor, "C _h _w"], warp: Warp) -> Shaped[Tensor, "C _h2 _w2"]:
    """The picture under `warp`: bilinear, averaging areas where it shrinks below a half."""
    if warp.is_identity:
        return image
    x1, y1, x2, y2 = warp.window_xyxy
    fill = fill_values(warp.fill, image.shape[0], image.dtype)
    view, matrix = to_pixels(image[:, y1:y2, x1:x2]), warp.matrix
    if x2 == x1 or y2 == y1:
        return to_image(_filled(warp.size_hw, fill, view.dtype))
    if warp.keeps_boxes_tight and not warp.is_upright:  # a quarter turn: exchange x and y, and what is left is upright
        view, matrix = view.transpose(1, 0, 2), matrix[:, [1, 0, 2]]
        x1, y1, x2, y2 = y1, x1, y2, x2
    if warp.keeps_boxes_tight:
        spans = matrix[[0, 1], [0, 1]][:, None] * [[x1, x2], [y1, y2]] + matrix[:, 2:]
        whole = np.round(spans).astype(np.int64)
        if np.abs(spans - whole).max() < NEARLY and not _is_wasteful(whole, warp.size_hw):
            return to_image(_upright(view, whole, warp.size_hw, fill))
    shifted = np.column_stack([matrix[:, :2], matrix @ [x1, y1, 1]])
    return to_image(_affine(packed(view), shifted, warp.size_hw, fill))


def _is_wasteful(spans: Int64[np.ndarray, "2 2"], size_hw: tuple[int, int]) -> bool:
    """Whether a picture stretched to `spans` is mostly outside the new picture."""
    low, high = spans.min(1), spans.max(1)
    seen = np.minimum(high, size_hw[::-1]) - np.maximum(low, 0)
    return bool((seen <= 0).any() or (np.prod(high - low) > WASTE * np.prod(seen) and np.prod(high - low) > 1 << 20))


def _upright(
    view: Pixels, spans: Int64[np.ndarray, "2 2"], size_hw: tuple[int, int], fill: tuple[float, ...]
) -> Pixels:
    """`view` stretched to the columns `spans[0]` and rows `spans[1]` of a new picture (first after last: mirrored)."""
    import cv2

    low, high = spans.min(1), spans.max(1)
    (width, height), mirror = high - low, spans[:, 0] > spans[:, 1]
    if (height, width) != view.shape[:2]:
        shrink = min(height / view.shape[0], width / view.shape[1])
        how = cv2.INTER_AREA if shrink < FAR else cv2.INTER_LINEAR
        view = _channels(cv2.resize(packed(view), (int(width), int(height)), interpolation=how))
    seen_low, seen_high = np.maximum(low, 0), np.minimum(high, size_hw[::-1])
    start = np.where(mirror, high - seen_high, seen_low - low)
    size = seen_high - seen_low
    if (size <= 0).any():
        return _filled(size_hw, fill, view.dtype)
    view = view[start[1] : start[1] + size[1], start[0] : start[0] + size[0]]
    if mirror.any():
        view = _channels(cv2.flip(packed(view), -1 if mirror.all() else int(mirror[0])))
    if view.shape[:2] == tuple(size_hw):
        return view
    left, top = (int(v) for v in seen_low)
    return framed(view, (left, top, size_hw[1] - left - view.shape[1], size_hw[0] - top - view.shape[0]), fill)


def framed(view: Pixels, margins_ltrb: tuple[int, int, int, int], fill: tuple[float, ...]) -> Pixels:
    """`view` with margins of a colour."""
    import cv2

    left, top, right, bottom = margins_ltrb
    height, width, channels = view.shape
    if channels <= 4:
        return _channels(cv2.copyMakeBorder(packed(view), top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill))
    out = _filled((top + height + bottom, left + width + right), fill, view.dtype)
    out[top : top + height, left : left + width] = view
    return out


def _affine(
    view: Pixels, matrix: Float64[np.ndarray, "2 3"], size_hw: tuple[int, int], fill: tuple[float, ...]
) -> Pixels:
    import cv2

    smallest = float(np.linalg.svd(matrix[:, :2], compute_uv=False)[-1])
    if smallest < FAR:  # average first, so that the bilinear samples miss nothing
        height, width = view.shape[:2]
        new = max(1, round(width * smallest)), max(1, round(height * smallest))
        view = _channels(cv2.resize(view, new, interpolation=cv2.INTER_AREA))
        matrix = np.column_stack([matrix[:, :2] * [width / new[0], height / new[1]], matrix[:, 2]])
    linear = np.linalg.inv(matrix[:, :2])
    offset = -linear @ matrix[:, 2] + linear.sum(1) * 0.5 - 0.5
    inverse = np.column_stack([linear, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def sample(part: Pixels, colour: tuple[float, ...]) -> Shaped[np.ndarray, "_h2 _w2 *_c"]:
        border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": colour}
        return cv2.warpAffine(part, inverse, size_hw[::-1], flags=flags, **border)

    return in_groups(view, fill, sample)


def in_groups(
    pixels: Pixels,
    fill: tuple[float, ...],
    sample: Callable[[Pixels, tuple[float, ...]], Shaped[np.ndarray, "_h2 _w2 *_c"]],
) -> Pixels:
    """`sample` on groups of channels that OpenCV has exact kernels for: 1, 3 or 4 (with others it steps 1/32 pixel)."""
    channels = pixels.shape[2]
    if channels in (1, 3, 4):
        return _channels(sample(pixels, fill))
    edges = [*range(0, channels - channels % 3, 3), *range(channels - channels % 3, channels), channels]
    groups = [slice(a, b) for a, b in pairwise(edges)]
    parts = [_channels(sample(np.ascontiguousarray(pixels[..., g]), fill[g])) for g in groups]
    return np.concatenate(parts, axis=2)


def warp_nearest(maps: Shaped[Tensor, "*C _h _w"], warp: Warp, fill: float) -> Shaped[Tensor, "*C _h2 _w2"]:
    """Each new pixel has the value of the old pixel that its centre falls into, `fill` outside the window."""
    from bestiary.transforms._kernels import sample_nearest

    out = torch.full((*maps.shape[:-2], *warp.size_hw), fill, dtype=maps.dtype)
    region = np.array([0, 0, warp.size_hw[1], warp.size_hw[0]])
    sources, targets = maps.contiguous().view(-1, *maps.shape[-2:]).numpy(), out.view(-1, *warp.size_hw).numpy()
    for source, target in zip(sources, targets, strict=True):
        sample_nearest(source, warp.inverse, np.array(warp.window_xyxy), region, target)
    return out


def warp_masks(
    masks: Bool[Tensor, "N _h _w"], bounds_xyxy: Int64[np.ndarray, "N 4"], warp: Warp
) -> Bool[Tensor, "N _h2 _w2"]:
    """Like `warp_nearest`, computing only where each mask (empty outside its bounds) can go."""
    from bestiary.transforms._kernels import sample_nearest

    height, width = warp.size_hw
    out = np.zeros((len(masks), height, width), dtype=np.uint8)
    reach = warp.boxes(bounds_xyxy.astype(np.float64))
    low = np.clip(np.floor(reach[:, :2] - NEARLY), 0, [width, height]).astype(np.int64)
    high = np.clip(np.ceil(reach[:, 2:] + NEARLY), 0, [width, height]).astype(np.int64)
    sources, window = masks.view(torch.uint8).numpy(), np.array(warp.window_xyxy)
    for n in range(len(masks)):
        if bounds_xyxy[n, 2] > bounds_xyxy[n, 0]:
            sample_nearest(sources[n], warp.inverse, window, np.concatenate([low[n], high[n]]), out[n])
    return torch.from_numpy(out).view(torch.bool)


def bounds_of_masks(masks: Bool[Tensor, "N _h _w"]) -> Int64[np.ndarray, "N 4"]:
    """The smallest box around each mask's pixels, zeros where there are none."""
    return masks_to_boxes(masks, inclusive=False).to(torch.int64).numpy()


def _filled(size_hw: tuple[int, int], fill: tuple[float, ...], dtype: np.dtype) -> Pixels:
    out = np.empty((*size_hw, len(fill)), dtype=dtype)
    out[:] = fill
    return out


def _channels(pixels: Shaped[np.ndarray, "_h _w *_c"]) -> Pixels:
    return pixels[..., None] if pixels.ndim == 2 else pixels
