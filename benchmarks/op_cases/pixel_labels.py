"""SLIC beside scikit-image's; and all windows of a pixel classifier at once beside one row of them, each cut out."""

from importlib import import_module
from types import ModuleType

import torch
from benchmarks.op_cases import Case, Peers
from torch.nn import functional as F

from bestiary.features.slic import slic_segments
from bestiary.features.superpixel_pooling import superpixel_means
from bestiary.segmentation.pixel_windows import pixel_windows


def _scikit_image() -> ModuleType | None:
    try:
        return import_module("skimage.segmentation")
    except ImportError:
        return None


def _scene(height: int, width: int) -> torch.Tensor:
    """Areas, slow changes and a camera's noise."""
    g = torch.Generator().manual_seed(0)
    areas = F.interpolate(torch.rand(1, 3, 12, 16, generator=g), (height, width), mode="nearest")
    light = F.interpolate(torch.rand(1, 3, 4, 5, generator=g), (height, width), mode="bicubic")
    noise = 0.015 * torch.randn(1, 3, height, width, generator=g)
    return (0.6 * areas + 0.35 * light + noise).mul(255).clamp(0, 255).to(torch.uint8)[0]


def cases(peers: Peers) -> list[Case]:
    """Superpixels, means over them, windows."""
    library, found = _scikit_image(), []
    for height, width, count in ((180, 240, 300), (375, 500, 500)):
        image = _scene(height, width)
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        peer = None if library is None else (lambda p=pixels, n=count, lib=library: lib.slic(p, n_segments=n))
        ours = lambda i=image, n=count: slic_segments(i, n)  # noqa: E731
        found.append(Case(f"slic {height} x {width}, {count} superpixels", ours, peer, 1.0, "scikit-image"))
    segments = slic_segments(_scene(375, 500), 500)
    count = int(segments.max()) + 1
    maps = torch.rand(512, 24, 32)
    rows, columns = torch.arange(375) * 24 // 375, torch.arange(500) * 32 // 500

    def enlarged() -> torch.Tensor:
        flat = maps[:, rows][:, :, columns].flatten(1)
        return maps.new_zeros(512, count).index_add(1, segments.flatten().long(), flat)

    found.append(
        Case(
            "superpixel_means 512 x 24 x 32 over 375 x 500",
            lambda: superpixel_means(maps, segments, count),
            enlarged,
            5.0,
            "enlarged maps, index_add",
        )
    )
    net = pixel_windows().eval()
    window_pixels = torch.rand(1, 1, 94 + 128, 94 + 128)

    @torch.inference_mode()
    def at_once() -> torch.Tensor:
        return net.dense_logits(window_pixels)

    @torch.inference_mode()
    def one_row() -> torch.Tensor:
        return net.window_logits(window_pixels[:, :, :95])

    # one row of the 128: twenty times faster overall is a sixth of a row's time
    found.append(
        Case("net N4, all windows of 128 x 128", at_once, one_row, 20 / 128, "one row of 128, window by window")
    )
    return found
