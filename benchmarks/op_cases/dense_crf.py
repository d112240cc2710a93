"""Dense CRF on a picture of 500 x 375 with 21 labels, beside the C++ library that published numbers come from.

pydensecrf is looked for where this runs (`pip install pydensecrf2`); it has one thread.
"""

from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from benchmarks.op_cases import Case, Peers
from torch.nn import functional as F

from bestiary.ops.dense_crf import DEEPLAB_LARGE_FOV, Appearance, Smoothness, dense_crf
from bestiary.ops.gaussian_filters import grid_gaussian_filter
from bestiary.ops.permutohedral import permutohedral_filter, permutohedral_lattice


def _reference() -> ModuleType | None:
    try:
        return import_module("pydensecrf.densecrf")
    except ImportError:
        return None


def _scene(labels: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and a picture with areas, slow changes and a camera's noise."""
    g = torch.Generator().manual_seed(0)
    areas = F.interpolate(torch.rand(1, 3, 12, 16, generator=g), (height, width), mode="nearest")
    light = F.interpolate(torch.rand(1, 3, 4, 5, generator=g), (height, width), mode="bicubic")
    noise = 0.015 * torch.randn(1, 3, height, width, generator=g)
    image = (0.6 * areas + 0.35 * light + noise).mul(255).clamp(0, 255).to(torch.uint8)[0]
    logits = F.interpolate(2 * torch.randn(1, labels, height // 8, width // 8, generator=g), (height, width))[0]
    return logits, image


def _by_reference(
    library: ModuleType, logits: torch.Tensor, image: torch.Tensor, near: Appearance, smooth: Smoothness
) -> np.ndarray:
    labels, height, width = logits.shape
    crf = library.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(-logits.reshape(labels, -1).numpy()))
    crf.addPairwiseGaussian(sxy=smooth.sigma_xy, compat=smooth.weight)
    colours = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    crf.addPairwiseBilateral(sxy=near.sigma_xy, srgb=near.sigma_rgb, rgbim=colours, compat=near.weight)
    return np.array(crf.inference(10))


def cases(peers: Peers) -> list[Case]:
    """The whole inference with two settings, and its two filters."""
    library, found = _reference(), []
    logits, image = _scene(21, 375, 500)
    for name, near, smooth in (
        ("80, 13", Appearance(10.0, 80.0, 13.0), Smoothness(3.0, 3.0)),
        ("49, 5", *DEEPLAB_LARGE_FOV),
    ):
        settings = logits, image, near, smooth
        found.append(
            Case(
                f"dense_crf 375 x 500, 21 labels, 10 iterations, sigma {name}",
                lambda s=settings: dense_crf(s[0], s[1], 10, s[2], s[3]),
                None if library is None else lambda s=settings: _by_reference(library, *s),
                1.0,
                "pydensecrf",
            )
        )
    pixels = torch.cat(
        [torch.stack(torch.meshgrid(torch.arange(375) / 80, torch.arange(500) / 80, indexing="ij")), image / 13]
    )
    features, values = pixels.flatten(1).t().contiguous(), torch.rand(375 * 500, 21)
    lattice = permutohedral_lattice(features)
    found += [
        Case("permutohedral_lattice 187500 x 5", lambda: permutohedral_lattice(features)),
        Case("permutohedral_filter, lattice given, 187500 x 21", lambda: permutohedral_filter(values, lattice)),
        Case(
            "grid_gaussian_filter 375 x 500 x 21, sigma 3", lambda: grid_gaussian_filter(values.view(375, 500, 21), 3)
        ),
    ]
    return found
