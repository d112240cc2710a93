"""Nearest neighbours among raw pixels: Cover, Hart, Nearest Neighbor Pattern Classification, IEEE Trans. Inf. Theory,
1967.

The whole training set is the model. A picture belongs to what most of the k training pictures nearest to it show.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.features.neighbours import Metric, nearest_rows, vote
from bestiary.heads.fitted_classification import FittedClassifier, describe_all, to_bytes
from bestiary.heads.published import imagenet_categories
from bestiary.records import Sample


class NearestNeighbour(FittedClassifier):
    """k nearest neighbours by L1 or L2 distance of pixels.

    Of training pictures at equal distances those that were given first to `fit` count as nearer. Of categories with
    equally many votes the one with the lower index wins, as in every `Classification`.

    Args:
        categories: K names.
        k: how many neighbours vote; all training pictures where there are fewer.
        metric: "l1" or "l2".
        side: pictures are brought to this many pixels in height and width (bilinear, antialiased; the aspect ratio is
            not kept) and stored as bytes. Pictures of that size are taken as they are.
        in_channels: 3, or 1 to compare in grey.

    Raises:
        UsageError: k, side or in_channels out of range.
    """

    metric: Metric
    pictures: Tensor
    """[N, C * side * side], uint8."""
    labels: Tensor
    """[N], int64."""

    def __init__(
        self, categories: Sequence[str], *, k: int = 1, metric: Metric = "l1", side: int = 32, in_channels: int = 3
    ) -> None:
        super().__init__(categories)
        for name, value in (("k", k), ("side", side)):
            if value < 1:
                raise UsageError(f"got {value}, wanted 1 or more", where=name)
        if in_channels not in (1, 3):
            raise UsageError(f"got {in_channels}, wanted 1 or 3", where="in_channels")
        self.k, self.metric, self.side, self.in_channels = k, metric, side, in_channels
        self.declare("pictures", "labels")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Keep all pictures; nothing is random."""
        rows, labels = describe_all(samples, self.row_of, len(self.categories), say)
        self.learn("pictures", torch.stack(rows))
        self.learn("labels", labels)
        say(f"{len(rows):,} pictures kept, {self.pictures.numel() / 2**20:.1f} MiB")

    def row_of(self, image: Shaped[Tensor, "C _h _w"]) -> UInt8[Tensor, " D"]:
        """The picture as it is stored and compared."""
        pixels = to_bytes(image, self.in_channels)
        if pixels.shape[-2:] != (self.side, self.side):
            size = (self.side, self.side)
            scaled = F.interpolate(pixels[None].float(), size, mode="bilinear", align_corners=False, antialias=True)
            pixels = scaled[0].clamp(0, 255).round().to(torch.uint8)
        return pixels.flatten()

    def neighbours(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]]
    ) -> tuple[Float64[Tensor, "B k"], Int64[Tensor, "B k"]]:
        """Distances to the nearest training pictures and their numbers in the order of `fit`, nearest first."""
        self.require_fitted()
        rows = torch.stack([self.row_of(image) for image in images])
        return nearest_rows(rows, self.pictures, min(self.k, len(self.pictures)), self.metric)

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """The share of the neighbours' votes."""
        return vote(self.labels[self.neighbours(images)[1]], len(self.categories))


def nearest_neighbour(
    categories: Sequence[str] | None = None, *, k: int = 1, metric: Metric = "l1", side: int = 32, in_channels: int = 3
) -> NearestNeighbour:
    """k nearest neighbours among raw pixels.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        k: how many neighbours vote.
        metric: distance of two pictures, the sum of absolute differences (l1) or the root of the sum of squares (l2).
        side: height and width at which pictures are compared, in pixels.
        in_channels: 3, or 1 to compare in grey.
    """
    names = imagenet_categories() if categories is None else categories
    return NearestNeighbour(names, k=k, metric=metric, side=side, in_channels=in_channels)
