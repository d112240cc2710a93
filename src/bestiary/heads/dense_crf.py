"""The dense CRF as the last part of a dense labeller: probabilities in, the same as sharp as the picture's borders out.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011. The inference
itself is `ops.dense_crf`; here stand the numbers that systems were published with, by name.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.ops.dense_crf import DEEPLAB_LARGE_FOV, DEEPLAB_V2, Appearance, Smoothness, dense_crf


@dataclass(frozen=True)
class DenseCrf:
    """A CRF that is not learned.

    Attributes:
        appearance: kernel of nearby pixels of like colour.
        smoothness: kernel of nearby pixels.
        iterations: of the mean field.
    """

    appearance: Appearance
    smoothness: Smoothness
    iterations: int = 10

    def refine(self, image: Shaped[Tensor, "C H W"], probs: Float[Tensor, "K H W"]) -> Float[Tensor, "K H W"]:
        """Probabilities after the mean field.

        Args:
            image: the picture, uint8 0..255 or float 0..1, of any number of channels.
            probs: of the K classes at each of its pixels. One of 0 counts as the smallest number that there is, so that
                neighbours can still speak for its class.
        """
        logits = probs.float().clamp(min=torch.finfo(torch.float32).tiny).log()
        return dense_crf(logits, image, self.iterations, self.appearance, self.smoothness).to(probs.dtype)


DENSE_CRFS: Mapping[str, DenseCrf] = {
    "deeplab_v1": DenseCrf(*DEEPLAB_LARGE_FOV),
    "deeplab_v2": DenseCrf(*DEEPLAB_V2),
    "deconvnet": DenseCrf(Appearance(5.0, 20.0, 3.0), Smoothness(3.0, 3.0)),
    "plain": DenseCrf(Appearance(10.0, 80.0, 13.0), Smoothness(3.0, 3.0), iterations=5),
}
"""Numbers by what they were published with; the first three were chosen for VOC's pictures of about 500 x 375. "plain"
are those of the examples of the best known Python library, tuned to no network."""


def dense_crf_named(name: str) -> DenseCrf:
    """The set of that name.

    Raises:
        UsageError: no such set; the nearest is named.
    """
    if name not in DENSE_CRFS:
        close = difflib.get_close_matches(name, list(DENSE_CRFS), n=1, cutoff=0.5)
        mend = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(DENSE_CRFS)}"
        raise UsageError(f"no dense CRF is called {name!r}", where="crf", mend=mend)
    return DENSE_CRFS[name]
