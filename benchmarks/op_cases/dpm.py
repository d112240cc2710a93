"""Deformable part models: features and placing of parts."""

from collections.abc import Callable

import torch
from benchmarks.op_cases import Case, Peers

from bestiary.features.dpm_hog import dpm_features, feature_pyramid
from bestiary.features.part_models import Component, Templates, placed
from bestiary.ops.distance import min_envelope_2d


def picture(height: int, width: int) -> torch.Tensor:
    """Smooth colour with texture."""
    generator = torch.Generator().manual_seed(0)
    coarse = 200 * torch.rand(1, 3, 12, 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (smooth + 40 * torch.rand(3, height, width, generator=generator)).clamp(0, 255).to(torch.uint8)


def component(seed: int) -> Component:
    """Eight parts on a root of 8 x 7 cells."""
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.stack([torch.randint(0, 9, (8,), generator=generator) for _ in range(2)], 1)
    costs = torch.tensor([[0.01, -0.01, 0.05, 0.05]]).repeat(8, 1)
    root, parts = (torch.randn(*s, generator=generator) for s in ((32, 8, 7), (8, 32, 6, 6)))
    return Component(0.1 * root, 0.1 * parts, anchors, costs, torch.tensor(-1.0))


def cases(peers: Peers) -> list[Case]:
    """Features of a picture, a pyramid of them, the distance transform, and the scores of one mixture."""
    image = picture(480, 640)
    templates = Templates([component(seed) for seed in range(3)])
    pyramid = feature_pyramid(image)
    responses = torch.randn(48, 120, 160, generator=torch.Generator().manual_seed(1))
    bends = templates.deformations[:, 2], templates.deformations[:, 3]
    slopes = -templates.deformations[:, 0], -templates.deformations[:, 1]
    return [
        Case("dpm features 640 x 480, cells of 8", lambda: dpm_features(image), _loop(image), 1.0, "skimage hog"),
        Case("dpm pyramid 640 x 480, 10 levels an octave", lambda: feature_pyramid(image)),
        Case(
            "dpm placing 48 parts, 120 x 160, roots at every second place",
            lambda: placed(responses, templates.deformations, templates.anchors, (55, 75)),
            lambda: min_envelope_2d(-responses, bends, slopes),
            1.0,
            "our distance transform at all places",
        ),
        Case(
            "dpm scores of 3 mirrored components on a pyramid",
            lambda: [templates.score(pair) for pair in pyramid],
        ),
    ]


def _loop(image: torch.Tensor) -> Callable[[], object] | None:
    """scikit-image's HOG of cells of 8 pixels; another normalisation, the same work."""
    try:
        from skimage.feature import hog
    except ImportError:
        return None
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return lambda: hog(pixels, 9, (8, 8), (2, 2), channel_axis=-1)
