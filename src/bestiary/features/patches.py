"""What salient regions look like: patches of one size, free of brightness and contrast."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.features.saliency import Regions

FAINT = 0.01
"""Added to a patch's standard deviation (grey levels 0..1) before dividing by it: noise is not blown up."""


def region_patches(grey: Float32[Tensor, "H W"], regions: Regions, side: int = 11) -> Float32[Tensor, "N S"]:
    """The square around each region as `side` x `side` means of its cells, less their mean, divided by their deviation.

    Args:
        grey: 0..1.
        regions: circles within the picture.
        side: cells along each axis (11 in Fergus, Perona, Zisserman, 2003).
    """
    from bestiary.features._kernels.saliency import patch_means

    pixels = grey.detach().cpu().double().numpy()
    integral = np.zeros((pixels.shape[0] + 1, pixels.shape[1] + 1))
    integral[1:, 1:] = pixels.cumsum(0).cumsum(1)
    boxes = torch.cat([regions.centres_xy - regions.radii[:, None], regions.centres_xy + regions.radii[:, None]], 1)
    means = torch.from_numpy(patch_means(integral, boxes.contiguous().numpy(), side))
    centred = means - means.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + FAINT)
