"""Looking at pixels more than once when predicting: mirrored, at several scales, in overlapping windows, and the
probabilities of all views made one.

Chen et al., DeepLab v3, arXiv 1706.05587, section 4.1, and Zhao et al., PSPNet, CVPR 2017, section 5: the probabilities
of several scales and of the mirror images are averaged; PSPNet's pictures are seen in windows of the training crop's
size that overlap by a third, and each pixel has the mean of those that see it. Chen et al., DeepLab v2, TPAMI 2018,
section 4.1.2, take the maximum over scales.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.heads.test_time import each_view, require_scales
from bestiary.heads.tiling import Tiling
from bestiary.layers.scaling import resize_logits

ViewMerge = Literal["mean", "max"]

Look = Callable[[Shaped[Tensor, "B C H W"]], Float[Tensor, "B K H W"]]
"""Probabilities of every pixel of pictures, at their size."""


@dataclass(frozen=True)
class PixelViews:
    """What a dense labeller looks at, and how what it says of the views becomes one answer.

    Attributes:
        scales: factors on the size that the system works at; none for 1 alone.
        flip: also the mirror image of each view.
        merge: of the views' probabilities: mean or max.
        window: side of the windows that each view is seen in, pixels; 0 for the whole view at once.
        overlap: least share of a side that neighbouring windows have in common.
    """

    scales: tuple[int | float, ...] = ()
    flip: bool = False
    merge: ViewMerge = "mean"
    window: int = 0
    overlap: int | float = 1 / 3

    def __post_init__(self) -> None:
        require_scales(self.scales)
        if self.merge not in get_args(ViewMerge):
            raise UsageError(f"got {self.merge!r}, wanted one of {', '.join(get_args(ViewMerge))}", where="test_merge")
        if self.window < 0:
            raise UsageError(f"got {self.window}, wanted pixels, or 0 for no windows", where="test_window")
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(f"got {self.overlap}, wanted a share from 0 to 0.9", where="window_overlap")

    @property
    def is_plain(self) -> bool:
        """One look at the whole picture, at the size that the system works at."""
        return each_view(self.scales, self.flip) == ((1.0, False),) and not self.window

    def probs(
        self, images: Shaped[Tensor, "B C H W"], working_hw: tuple[int, int], look: Look
    ) -> Float[Tensor, "B K H W"]:
        """The views' probabilities merged, at the pictures' size.

        Args:
            images: of one size.
            working_hw: the size that the scales multiply.
            look: at a view, or at a window of it.
        """
        views = each_view(self.scales, self.flip)
        found = (self._view(images, working_hw, scale, flip, look) for scale, flip in views)
        if self.merge == "max":
            return functools.reduce(torch.maximum, found)
        return functools.reduce(torch.add, found) / len(views)

    def _view(
        self, images: Shaped[Tensor, "B C H W"], working_hw: tuple[int, int], scale: float, flip: bool, look: Look
    ) -> Float[Tensor, "B K H W"]:
        seen = resize_pictures(images, (round(working_hw[0] * scale), round(working_hw[1] * scale)))
        found = self._over_windows(seen.flip(-1) if flip else seen, look)
        return resize_logits(found.flip(-1) if flip else found, (int(images.shape[-2]), int(images.shape[-1])))

    def _over_windows(self, images: Shaped[Tensor, "B C H W"], look: Look) -> Float[Tensor, "B K H W"]:
        """The mean of the windows that see a pixel; every pixel is in one of them."""
        windows = Tiling(self.window, self.overlap).windows((int(images.shape[-2]), int(images.shape[-1])))
        if len(windows) == 1:
            return look(images)
        sums, counts = torch.zeros(0), torch.zeros(images.shape[-2:], device=images.device)
        for x1, y1, x2, y2 in windows:
            probs = look(images[..., y1:y2, x1:x2])
            if not sums.numel():  # how many classes there are, the first window says
                sums = probs.new_zeros(*probs.shape[:2], *images.shape[-2:])
            sums[..., y1:y2, x1:x2] += probs
            counts[y1:y2, x1:x2] += 1
        return sums / counts.to(sums.dtype)


ONE_LOOK = PixelViews()
"""Pictures once, whole."""


def resize_pictures(images: Shaped[Tensor, "B C H W"], size_hw: tuple[int, int]) -> Shaped[Tensor, "B C H2 W2"]:
    """Bilinear and antialiased, one pixel a side at least; as they are, whatever their type, if they have the size."""
    height, width = max(1, size_hw[0]), max(1, size_hw[1])
    if tuple(images.shape[-2:]) == (height, width):
        return images
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return F.interpolate(scaled, size=(height, width), mode="bilinear", antialias=True)
