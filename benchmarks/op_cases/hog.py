"""HOG of a picture of 640 x 480, and a cascade over it.

OpenCV 5 has left both out. scikit-image's `hog` is the nearest (hard votes, no interpolation).
"""

from collections.abc import Callable

import numpy as np
import torch
from benchmarks.op_cases import Case, Peers

from bestiary.features.cascade import Cascade
from bestiary.features.haar import enumerate_haar
from bestiary.features.hog import hog
from bestiary.features.integral import integral_images
from bestiary.features.object_windows import Template
from bestiary.layers.hog_network import HogNetwork


def _picture() -> torch.Tensor:
    rough = torch.rand(1, 3, 484, 644, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(rough, 5, 1)[0]
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).byte()


def _cascade(stages: int, each: int) -> Cascade:
    """Stages of random features, each of which passes about half of what it sees."""
    rng = np.random.default_rng(0)
    cascade = Cascade()
    cascade.learn_shape(Template((24, 24)), torch.tensor([1.0, 8.0]))
    table = enumerate_haar((24, 24))
    for _ in range(stages):
        features = table[torch.from_numpy(rng.choice(len(table), each, replace=False))]
        stumps = torch.stack([torch.zeros(each), torch.ones(each), torch.ones(each)], dim=1).double()
        cascade.add_stage(features, stumps, each / 2)
    return cascade


def _scan(picture: torch.Tensor) -> Callable[[], object]:
    cascade = _cascade(15, 9)

    def run() -> object:
        sums, squares = integral_images(picture[1].contiguous())
        return [cascade.scan(sums, squares, scale).features for scale in cascade.scales((480, 640), 1.25)]

    return run


def cases(peers: Peers) -> list[Case]:
    """Our kernel beside scikit-image's, beside our own network form, and a cascade over all sizes from 24 pixels."""
    from skimage.feature import hog as their_hog

    picture = _picture()
    theirs, batch = picture.permute(1, 2, 0).numpy(), picture[None].float() / 255
    network = HogNetwork()

    def scikit() -> object:
        return their_hog(theirs, 9, (8, 8), (2, 2), block_norm="L2-Hys", channel_axis=2, feature_vector=False)

    return [
        Case("hog 640 x 480", lambda: hog(picture), scikit, 5.0, "scikit-image"),
        Case("hog 640 x 480, kernel beside layers", lambda: hog(picture), lambda: network(batch), 2.0, "our layers"),
        Case("cascade of 15 stages over 640 x 480, step 1, scales 1.25", _scan(picture)),
    ]
