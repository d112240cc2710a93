"""Eigenfaces: Turk, Pentland, Eigenfaces for Recognition, Journal of Cognitive Neuroscience 3(1), 1991.

Pictures are points; the faces among them lie near a subspace. A picture is known by the nearest face in that subspace,
unless it is too far from all faces in it (an unknown person), or too far from the subspace itself (not a face).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float32, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary import draw
from bestiary.errors import UsageError
from bestiary.features.subspace import PrincipalSubspace
from bestiary.heads.fitted_classification import FittedClassifier, describe_all
from bestiary.heads.published import imagenet_categories
from bestiary.layers.channels import match_channels
from bestiary.layers.scaling import as_float
from bestiary.records import Sample

Verdict = Literal["known", "unknown", "not a face"]
Nearest = Literal["example", "mean"]

FOLDS = 5
"""Parts of the training set, each measured by a subspace of the others, from which the thresholds are learned."""


@dataclass(frozen=True)
class Recognition:
    """What is said of one picture.

    Attributes:
        verdict: "not a face" (far from face space), "unknown" (a face, far from all known ones), or "known".
        category: the nearest person's name; None unless known.
        label: that person's index; None unless known.
        from_space: distance of the picture from face space.
        within_space: distance to the nearest face in face space.
    """

    verdict: Verdict
    category: str | None
    label: int | None
    from_space: float
    within_space: float


class Eigenfaces(FittedClassifier):
    """Nearest face among the coefficients of the principal components, with the paper's two thresholds.

    Pictures become grey, `side` x `side` pixels (bilinear, antialiased, aspect ratio not kept). They are compared pixel
    by pixel: faces must stand at the same place in all of them.

    `fit` learns the thresholds by cross-validation: each fifth of the training pictures (spread over the people) is
    measured with a subspace of the other four. Each threshold is the `accepted` quantile of those distances, from face
    space, and to the nearest face of the same person. (The paper chooses them by hand.) Probabilities are
    exp(-d^2 / 2 s^2) of the distance to each person's nearest face, normalised, with the s that makes the log loss of
    that cross-validation least.

    Args:
        categories: the K people.
        components: number of eigenfaces, or, below 1, the share of the variance they must hold.
        nearest: "example", each training face stands for itself; or "mean", one mean face a person stands for them all,
            as in the paper.
        side: height and width in pixels.
        accepted: share of the training faces that each threshold lets pass, above 0, at most 1.

    Raises:
        UsageError: an argument out of range.
    """

    in_channels = 1
    coefficients: Tensor
    """[M, components], float32: of every training face, or of each person's mean."""
    labels: Tensor
    """[M], int64."""
    thresholds: Tensor
    """[2], float32: distance from face space, distance within; infinite where one picture a person tells nothing."""
    spread: Tensor
    """[], float32: s."""

    def __init__(
        self,
        categories: Sequence[str],
        *,
        components: int | float = 0.95,
        nearest: Nearest = "example",
        side: int = 48,
        accepted: int | float = 0.95,
    ) -> None:
        super().__init__(categories)
        if side < 1:
            raise UsageError(f"got {side}, wanted 1 or more", where="side")
        if not 0 < accepted <= 1:
            raise UsageError(f"got {accepted}, wanted above 0, at most 1", where="accepted")
        self.nearest, self.side, self.accepted = nearest, side, accepted
        self.space = PrincipalSubspace(components)
        self.declare("coefficients", "labels", "thresholds", "spread")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn subspace, faces and thresholds; `seed` divides the pictures for cross-validation.

        Raises:
            UsageError: fewer than two pictures, or all alike.
        """
        found, labels = describe_all(samples, self.row_of, len(self.categories), say)
        rows = torch.stack(found)
        if bool((rows == rows[0]).all()):
            mend = "Principal components need pictures that differ"
            raise UsageError(f"got {len(rows)} pictures that are all alike", where="fit(samples)", mend=mend)
        outside, people = self._held_out(rows, labels, seed)
        inside = people.gather(1, labels[:, None])[:, 0]
        seen = torch.isfinite(inside)
        inside = inside[seen]
        limits = [_quantile(distances, self.accepted) for distances in (outside, inside)]
        self.space.fit(rows)
        coefficients, owners = self._faces(self.space.project(rows), labels)
        self.learn("coefficients", coefficients)
        self.learn("labels", owners)
        self.learn("thresholds", torch.tensor(limits))
        self.learn("spread", _spread(people[seen], labels[seen]))
        say(
            f"{len(self.space.components)} eigenfaces hold"
            f" {float(self.space.variances.sum() / rows.var(0, correction=0).sum()):.1%} of the variance"
            f" of {len(rows):,} pictures; thresholds: {limits[0]:.3g} from face space, {limits[1]:.3g} within"
        )

    def row_of(self, image: Shaped[Tensor, "C _h _w"]) -> Float32[Tensor, " D"]:
        """Grey levels 0..1 of the picture as it is compared."""
        grey = as_float(match_channels(image, 1))[None].float()
        size = (self.side, self.side)
        if grey.shape[-2:] != size:
            grey = F.interpolate(grey, size, mode="bilinear", align_corners=False, antialias=True)
        return grey.flatten()

    def _faces(
        self, coefficients: Float32[Tensor, "N K"], labels: Int64[Tensor, " N"]
    ) -> tuple[Float32[Tensor, "M K"], Int64[Tensor, " M"]]:
        """What stands for each person, and whose it is."""
        if self.nearest == "example":
            return coefficients, labels
        people = labels.unique()
        return torch.stack([coefficients[labels == person].mean(0) for person in people]), people

    def _held_out(
        self, rows: Float32[Tensor, "N D"], labels: Int64[Tensor, " N"], seed: int
    ) -> tuple[Float32[Tensor, " N"], Float32[Tensor, "N P"]]:
        """Distances of pictures that the subspace has not seen: from face space, and within it to each person's nearest
        face, infinite where the rest holds none.
        """
        folds = _folds(labels, seed)
        outside, people = torch.empty(len(rows)), torch.empty(len(rows), len(self.categories))
        space = PrincipalSubspace(self.space.wanted)
        for fold in folds.unique().tolist():
            held, others = folds == fold, folds != fold
            space.fit(rows[others])
            outside[held] = space.distance(rows[held])
            faces, owners = self._faces(space.project(rows[others]), labels[others])
            people[held] = self._nearest(space.project(rows[held]), faces, owners)
        return outside, people

    def _nearest(
        self, coefficients: Float32[Tensor, "B K"], faces: Float32[Tensor, "M K"], owners: Int64[Tensor, " M"]
    ) -> Float32[Tensor, "B P"]:
        """Distance to each person's nearest face."""
        gaps = torch.cdist(coefficients, faces, compute_mode="donot_use_mm_for_euclid_dist")
        people = torch.full((len(gaps), len(self.categories)), math.inf)
        return people.scatter_reduce_(1, owners.expand(len(gaps), -1), gaps, "amin")

    def distances(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]]
    ) -> tuple[Float32[Tensor, " B"], Float32[Tensor, "B P"]]:
        """From face space, and within it to each person's nearest face (infinite for people without pictures)."""
        self.require_fitted()
        rows = torch.stack([self.row_of(image) for image in images])
        from_space, coefficients = [], []
        for row in rows:  # one by one: a batched product may round differently from a single one
            coefficients.append(self.space.project(row))
            from_space.append((row - self.space.reconstruct(coefficients[-1])).norm())
        return torch.stack(from_space), self._nearest(torch.stack(coefficients), self.coefficients, self.labels)

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """Normalised exp(-d^2 / 2 s^2) of the distances to each person's nearest face."""
        return (-(self.distances(images)[1] / self.spread).square() / 2).softmax(1)

    def recognise(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Recognition]:
        """Known, unknown or not a face, by the two thresholds (the paper's four cases, of which a picture far from
        face space but near a known face is "not a face" too)."""
        if not len(images):
            return []
        from_space, people = self.distances(images)
        limit_from, limit_within = self.thresholds.tolist()
        found = []
        for outside, gaps in zip(from_space.tolist(), people, strict=True):
            within, label = float(gaps.min()), int(gaps.argmin())
            verdict: Verdict = "not a face" if outside > limit_from else "unknown" if within > limit_within else "known"
            known = verdict == "known"
            name = self.categories[label] if known else None
            found.append(Recognition(verdict, name, label if known else None, outside, within))
        return found

    def components(self) -> Float32[Tensor, "K S S"]:
        """The eigenfaces as pictures of unit length, greatest variance first."""
        self.require_fitted()
        return self.space.components.unflatten(1, (self.side, self.side))

    def draw_components(self, count: int = 15, columns: int = 8) -> UInt8[Tensor, "3 H W"]:
        """The mean face and the first eigenfaces on one sheet; grey is zero, each is scaled to its own extremes."""
        faces = self.components()[: max(0, count)]
        pictures = [self.space.mean.view(1, self.side, self.side).clamp(0, 1)]
        pictures += [(face / face.abs().max() / 2 + 0.5)[None].clamp(0, 1) for face in faces]
        wide = [F.interpolate(p[None], scale_factor=max(1, 96 // self.side), mode="nearest")[0] for p in pictures]
        return draw.grid(wide, columns, ["mean", *(str(i + 1) for i in range(len(faces)))])


def _folds(labels: Int64[Tensor, " N"], seed: int) -> Int64[Tensor, " N"]:
    """A fold for each picture: each person's pictures, shuffled, are dealt out in turn; always at least two folds."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    folds = torch.empty_like(labels)
    folds[order] = torch.arange(len(labels)) % min(FOLDS, len(labels))
    return folds


def _spread(people: Float32[Tensor, "N P"], labels: Int64[Tensor, " N"]) -> Float32[Tensor, ""]:
    """The s of least log loss among those from a tenth to ten times the typical distance to one's own nearest face; 1
    where there is nothing to choose by.
    """
    if not len(people):
        return torch.tensor(1.0)
    own = people.gather(1, labels[:, None]).square().mean().sqrt().clamp(min=1e-6)
    scales = own * torch.logspace(-1, 1, 41)
    losses = [F.cross_entropy(-(people / scale).square() / 2, labels) for scale in scales]
    return scales[torch.stack(losses).argmin()]


def _quantile(distances: Float32[Tensor, " N"], share: int | float) -> float:
    """The least of the distances that at least `share` of them do not exceed; infinite for none."""
    if not len(distances):
        return math.inf
    return float(distances.sort().values[max(0, math.ceil(share * len(distances)) - 1)])


def eigenfaces(
    categories: Sequence[str] | None = None,
    *,
    components: int | float = 0.95,
    nearest: Nearest = "example",
    side: int = 48,
    accepted: int | float = 0.95,
) -> Eigenfaces:
    """Eigenfaces with two thresholds.

    Args:
        categories: the people; None for ImageNet's 1,000.
        components: number of eigenfaces, or, below 1, the share of the variance that they must hold.
        nearest: whether each training face stands for itself (example), or one mean face a person for all (mean).
        side: height and width at which faces are compared, in pixels.
        accepted: share of the training faces that each threshold lets pass.
    """
    names = imagenet_categories() if categories is None else categories
    return Eigenfaces(names, components=components, nearest=nearest, side=side, accepted=accepted)
