"""Recognition by colour alone: Swain, Ballard, Color Indexing, IJCV 7(1), 1991.

A picture is a histogram of its colours; it belongs to what the training pictures with the greatest histogram
intersections show. Where in the picture a colour stands plays no part.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.colour_histogram import Space, colour_histogram
from bestiary.features.neighbours import nearest_histograms, vote
from bestiary.heads.fitted_classification import FittedClassifier, describe_all, to_bytes
from bestiary.heads.published import imagenet_categories
from bestiary.records import Sample


class ColourHistogram(FittedClassifier):
    """Nearest training histograms by intersection.

    The paper keeps one histogram an object and its own opponent axes; here every training picture keeps one, in RGB or
    HSV. Of equal intersections the training picture given first to `fit` counts as nearer; of categories with equally
    many votes the one with the lower index wins.

    Args:
        categories: K names.
        bins: cells along each axis of the colour space.
        space: "rgb" or "hsv".
        k: how many training pictures vote; all where there are fewer.

    Raises:
        UsageError: k below 1, or not three numbers of cells, 1 to 256 each.
    """

    space: Space
    histograms: Tensor
    """[D, N], float32: a bin of all training pictures lies together."""
    labels: Tensor
    """[N], int64."""

    def __init__(
        self, categories: Sequence[str], *, bins: Sequence[int] = (8, 8, 8), space: Space = "rgb", k: int = 1
    ) -> None:
        super().__init__(categories)
        if k < 1:
            raise UsageError(f"got {k}, wanted 1 or more", where="k")
        if len(bins) != 3 or not all(1 <= n <= 256 for n in bins):
            raise UsageError(f"got {tuple(bins)}, wanted three numbers of cells, each 1 to 256", where="bins")
        self.bins, self.space, self.k = tuple(bins), space, k
        self.declare("histograms", "labels")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Keep all histograms; nothing is random."""
        rows, labels = describe_all(samples, self.histogram_of, len(self.categories), say)
        self.learn("histograms", torch.stack(rows, 1))
        self.learn("labels", labels)
        say(f"{len(rows):,} histograms of {len(rows[0]):,} cells kept")

    def histogram_of(self, image: Shaped[Tensor, "C _h _w"]) -> Float32[Tensor, " D"]:
        """The picture as it is stored and compared; grey pictures lie on the grey diagonal."""
        return colour_histogram(to_bytes(image), self.bins, self.space)

    def neighbours(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]]
    ) -> tuple[Float64[Tensor, "B k"], Int64[Tensor, "B k"]]:
        """Intersections with the nearest training pictures and their numbers in the order of `fit`, best first."""
        self.require_fitted()
        rows = torch.stack([self.histogram_of(image) for image in images])
        return nearest_histograms(rows, self.histograms, min(self.k, len(self.labels)))

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """The share of the neighbours' votes."""
        return vote(self.labels[self.neighbours(images)[1]], len(self.categories))


def colour_histogram_classifier(
    categories: Sequence[str] | None = None, *, bins: Sequence[int] = (8, 8, 8), space: Space = "rgb", k: int = 1
) -> ColourHistogram:
    """Nearest joint colour histogram by intersection.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        bins: cells along each axis of the colour space.
        space: axes red, green, blue (rgb) or hue, saturation, value (hsv).
        k: how many training pictures vote.
    """
    names = imagenet_categories() if categories is None else categories
    return ColourHistogram(names, bins=bins, space=space, k=k)
