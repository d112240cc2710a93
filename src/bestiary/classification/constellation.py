"""Constellations of parts.

Fergus, Perona, Zisserman: Object Class Recognition by Unsupervised Scale-Invariant Learning, CVPR 2003; Weber, Welling,
Perona: Unsupervised Learning of Models for Recognition, ECCV 2000.

A picture is its salient regions. A class is a few parts, each with its appearance, that stand in a certain way to one
another; whatever else is seen is clutter. Which region is which part is never told: expectation maximisation sums over
all ways to say so.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary import draw
from bestiary.errors import UsageError
from bestiary.features.constellation import Background, PartModel, Views, explain
from bestiary.features.constellation_learning import LearnSettings, learn
from bestiary.features.patches import region_patches
from bestiary.features.saliency import Regions, salient_regions
from bestiary.features.subspace import PrincipalSubspace
from bestiary.heads.fitted_classification import FittedClassifier, describe_all
from bestiary.heads.published import imagenet_categories
from bestiary.layers.channels import match_channels
from bestiary.layers.scaling import as_float
from bestiary.records import Sample

RADII = (3, 20)
"""Of salient regions, pixels, both ends never reached."""

PATCHES = 20_000
"""Patches, picked at random, that the appearance space is learned from."""

UNSEEN, SHAPELESS, LEARNED = 0, 1, 2
"""What is known of a class: no picture; pictures without regions enough; a constellation."""

Description = tuple[Regions, Float32[Tensor, "N S"], tuple[int, int]]


class Constellation(FittedClassifier):
    """The class whose constellation explains a picture best, against clutter alone.

    Each class has its own model; the background's appearance is a Gaussian over the regions of all training pictures.
    Probabilities are the likelihood ratios, normalised: classes are equally likely beforehand.

    Beside the paper: the joint Gaussian of places and of log radii is over differences to the first found part, which
    holds whichever parts are missing (the paper orders parts from left to right); the background is learned from the
    same pictures; patches are freed of brightness and contrast; learning starts from regions of one picture and swaps
    parts, see `features.constellation_learning`; salient regions are picked as in `features.saliency`.

    Args:
        categories: K names.
        parts: of each class, 2 to 7. Time grows with (regions + 1) to the power of it, less what can be ruled out.
        regions: at most so many of a picture.
        side: pictures are grey, and brought to this many pixels along their longer side (bilinear, antialiased).
        appearance: principal components of a patch.
        scale_invariant: measure places in units of the first found part's radius, else in pixels.
        pictures: at most so many of a class are learned from, picked at random.

    Raises:
        UsageError: an argument out of range.
    """

    in_channels = 1
    known: Tensor
    """[K], int64: UNSEEN, SHAPELESS or LEARNED."""
    means: Tensor
    """[K, 3 (P - 1)], float64, as are the following: `PartModel`'s fields, zero where there is none."""
    covariances: Tensor
    appearance_means: Tensor
    appearance_variances: Tensor
    found: Tensor
    clutter: Tensor
    background: Tensor
    """[2 A + 1]: means, variances, and the mean number of regions."""

    def __init__(
        self,
        categories: Sequence[str],
        *,
        parts: int = 4,
        regions: int = 20,
        side: int = 128,
        appearance: int = 10,
        scale_invariant: bool = True,
        pictures: int = 100,
    ) -> None:
        super().__init__(categories)
        limits = {"parts": (parts, 2, 7), "regions": (regions, parts, 100), "side": (side, 2 * RADII[0] + 3, 4096)}
        limits |= {"appearance": (appearance, 1, 121), "pictures": (pictures, 1, 1_000_000)}
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise UsageError(f"got {value}, wanted {least} to {most}", where=name)
        self.regions, self.side, self.pictures = regions, side, pictures
        self.settings = LearnSettings(parts=parts, is_scaled=scale_invariant)
        self.space = PrincipalSubspace(appearance)
        self.declare("known", "means", "covariances", "appearance_means", "appearance_variances", "found", "clutter")
        self.declare("background")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn a constellation of each class.

        Raises:
            UsageError: no picture has salient regions enough.
        """
        described, labels = describe_all(samples, self.describe, len(self.categories), say)
        rng = np.random.default_rng(seed)
        patches = torch.cat([patch for _, patch, _ in described])
        if max(len(regions) for regions, _, _ in described) < self.settings.parts:
            mend = "Has each picture something to see? Fewer parts, or a larger side, need less"
            raise UsageError(f"no picture has {self.settings.parts} salient regions", where="fit(samples)", mend=mend)
        self.space.fit(patches[torch.from_numpy(np.sort(rng.permutation(len(patches))[:PATCHES]))])
        seen = self.space.project(patches).double()
        count = torch.tensor([len(patches) / len(described)], dtype=torch.float64)
        self.learn("background", torch.cat([seen.mean(0), seen.var(0, correction=0).clamp(min=1e-6), count]))
        models: list[PartModel | None] = []
        for label, name in enumerate(self.categories):
            own = np.flatnonzero(labels.numpy() == label)
            own = np.sort(rng.permutation(own)[: self.pictures])
            models.append(self._learn_class([described[i] for i in own], name, rng, say))
        self._keep(
            models, [LEARNED if m else SHAPELESS if (labels == k).any() else UNSEEN for k, m in enumerate(models)]
        )

    def _learn_class(
        self, described: list[Description], name: str, rng: np.random.Generator, say: Callable[[str], None]
    ) -> PartModel | None:
        if not any(len(regions) >= self.settings.parts for regions, _, _ in described):
            say(f"{name}: no picture has regions enough for {self.settings.parts} parts")
            return None
        history: list[float] = []
        model = learn(self._views(described), self._background(), self.settings, rng, history.append)
        say(
            f"{name}: log likelihood ratio {history[-1] / len(described):.2f} a picture after {len(history)} steps,"
            f" all {self.settings.parts} parts found in {float(model.found[-1]):.0%} of {len(described)}"
        )
        return model

    def _keep(self, models: list[PartModel | None], known: list[int]) -> None:
        filled = next(model for model in models if model)
        for buffer, field in (
            ("means", "means"), ("covariances", "covariance"), ("appearance_means", "appearance_means"),
            ("appearance_variances", "appearance_variances"), ("found", "found"), ("clutter", "clutter"),
        ):  # fmt: skip
            nothing = np.zeros_like(np.asarray(getattr(filled, field)))
            values = [nothing if model is None else np.asarray(getattr(model, field)) for model in models]
            self.learn(buffer, torch.from_numpy(np.stack(values)))
        self.learn("known", torch.tensor(known))

    def describe(self, image: Shaped[Tensor, "C _h _w"]) -> Description:
        """Salient regions, their patches, and the size (height, width) at which they were looked for."""
        grey = as_float(match_channels(image, 1)).float()
        height, width = grey.shape[-2:]
        scale = self.side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        if size != (height, width):
            grey = F.interpolate(grey[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        regions = salient_regions(grey[0], count=self.regions, radii=RADII)
        return regions, region_patches(grey[0], regions), size

    def _views(self, described: Sequence[Description]) -> Views:
        places = [
            torch.cat([r.centres_xy.double(), r.radii.double().log()[:, None]], 1).numpy() for r, _, _ in described
        ]
        # One by one: a batched product of matrices may round differently from a single one.
        looks = [self.space.project(patches).double().numpy() for _, patches, _ in described]
        starts = np.concatenate([[0], np.cumsum([len(p) for p in places])]).astype(np.int64)
        areas = np.array([float(h * w) for _, _, (h, w) in described])
        return Views(np.concatenate(places), np.concatenate(looks), starts, areas)

    def _background(self) -> Background:
        values = self.background.numpy()
        size = len(values) // 2
        return Background(values[:size], values[size:-1], float(values[-1]), float(np.log(RADII[1] / RADII[0])))

    def model_of(self, label: int) -> PartModel | None:
        """The constellation of a class; None where nothing could be learned of it."""
        self.require_fitted()
        if int(self.known[label]) != LEARNED:
            return None
        arrays = [
            t[label].numpy()
            for t in (self.means, self.covariances, self.appearance_means, self.appearance_variances, self.found)
        ]
        return PartModel(*arrays, clutter=float(self.clutter[label]))

    def log_ratios(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float64[Tensor, "B K"]:
        """Log of the likelihood ratio of each class to clutter alone: above 0 the class is likelier to be there.

        A class whose pictures had too few regions is taken for clutter: 0. One without pictures is never there: -inf.
        """
        self.require_fitted()
        ratios = torch.zeros(len(images), len(self.categories), dtype=torch.float64)
        views = self._views([self.describe(image) for image in images])
        for label in range(len(self.categories)):
            model = self.model_of(label)
            if model is not None:
                found = explain(model, self._background(), views, self.settings.is_scaled)
                ratios[:, label] = torch.from_numpy(found.log_ratios)
            elif int(self.known[label]) == UNSEEN:
                ratios[:, label] = -torch.inf
        return ratios

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """The likelihood ratios, normalised."""
        return self.log_ratios(images).softmax(1).float()

    def find_parts(self, image: Shaped[Tensor, "C _h _w"], label: int) -> tuple[Regions, Int64[Tensor, " P"]]:
        """The picture's salient regions in its own pixels, and which of them is each part in the likeliest hypothesis;
        -1 for a part that was not found.

        Raises:
            UsageError: there is no constellation of that class.
        """
        model = self.model_of(label)
        if model is None:
            raise UsageError(f"no constellation was learned of {self.categories[label]!r}", where="label")
        described = self.describe(image)
        regions, _, size = described
        best = explain(model, self._background(), self._views([described]), self.settings.is_scaled, 0.0).best[0]
        height, width = image.shape[-2:]
        stretch = torch.tensor([width / size[1], height / size[0]])
        radii = regions.radii * stretch.mean()
        return Regions(regions.centres_xy * stretch, radii, regions.saliency), torch.from_numpy(best)

    def draw_parts(self, image: Shaped[Tensor, "C H W"], label: int) -> UInt8[Tensor, "3 H W"]:
        """The picture with the parts of one class where they were found."""
        regions, best = self.find_parts(image, label)
        here = torch.nonzero(best >= 0).flatten()
        centres, radii = regions.centres_xy[best[here]], regions.radii[best[here], None]
        boxes = torch.cat([centres - radii, centres + radii], 1)
        return draw.objects(image, boxes, here, [f"part {int(p) + 1}" for p in here])


def constellation(
    categories: Sequence[str] | None = None,
    *,
    parts: int = 4,
    regions: int = 20,
    side: int = 128,
    appearance: int = 10,
    scale_invariant: bool = True,
    pictures: int = 100,
) -> Constellation:
    """Constellations of parts.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        parts: of each class, 2 to 7.
        regions: at most so many salient regions of a picture.
        side: pixels along the longer side at which pictures are looked at.
        appearance: principal components of a patch.
        scale_invariant: measure places in units of the first found part's radius, else in pixels.
        pictures: at most so many of a class are learned from.
    """
    return Constellation(
        imagenet_categories() if categories is None else categories,
        parts=parts,
        regions=regions,
        side=side,
        appearance=appearance,
        scale_invariant=scale_invariant,
        pictures=pictures,
    )
