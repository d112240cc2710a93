"""Pictures recognised by points that lie in them as in training pictures (Lowe, IJCV 2004, section 7).

Every SIFT point of a picture looks for its nearest among the points of all training pictures. Training pictures that
are found often make a shortlist; of each it is asked how many of its matched points one similarity or affine map
explains.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float32, Int64, Shaped, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.dense_sift import gray_of
from bestiary.features.keypoints import Keypoints
from bestiary.features.matching import nearest
from bestiary.features.sift import SiftSettings, detect_and_describe
from bestiary.features.verification import verify
from bestiary.heads.fitted_classification import FittedClassifier, describe_all
from bestiary.heads.published import imagenet_categories
from bestiary.records import Sample


class SiftFit(FittedClassifier):
    """Votes of geometrically verified matches.

    A category's score is the number of its shortlisted pictures' inliers, counted from `least` a picture on, and its
    share of what nearness alone says (McCann, Lowe: Local naive Bayes nearest neighbor, CVPR 2012), which is at most 1:
    it decides where the geometry says nothing or the same of two. The probability is its share of all scores.

    Pictures are grey, enlarged (bilinear) or shrunk to a working size: 32x32 holds no point that SIFT would find.

    Args:
        categories: K names.
        shortest: pictures whose shorter side is below this are enlarged to it ...
        longest: ... and those whose longer side is above this are shrunk to it.
        points: strongest points kept of a picture, and
        pictures: random training pictures kept of a category: they bound size and time.
        contrast: of points, see `SiftSettings`.
        neighbours: stored points that each point of a picture is matched with.
        shortlist: training pictures whose geometry is looked at.
        tolerance: distance of an inlier from where the map puts it, as a share of the training picture's longer side.
        least: inliers of a training picture that counts. The paper has 3 for one and the same object; among many
            pictures of like things 3 to 5 agree by chance.

    Raises:
        UsageError: a number out of range.
    """

    descriptors: Tensor
    """[N, 128], uint8: 512 times a RootSIFT descriptor, rounded, at most 255."""
    xy: Tensor
    """[N, 2], float32, pixels of the picture at its working size."""
    scale: Tensor
    angle: Tensor
    owner: Tensor
    """[N], int64: the picture of each point."""
    labels: Tensor
    """[P], int64, of the pictures."""
    sides: Tensor
    """[P], float32: their longer sides at working size."""

    def __init__(
        self,
        categories: Sequence[str],
        *,
        shortest: int = 128,
        longest: int = 480,
        points: int = 200,
        pictures: int = 1000,
        contrast: float = 0.04,
        neighbours: int = 10,
        shortlist: int = 30,
        tolerance: float = 0.05,
        least: int = 6,
    ) -> None:
        super().__init__(categories)
        wrong = {
            "shortest": not 16 <= shortest <= longest,
            "points": points < 1,
            "pictures": pictures < 1,
            "contrast": not contrast >= 0,
            "neighbours": neighbours < 1,
            "shortlist": shortlist < 1,
            "tolerance": not tolerance > 0,
            "least": least < 1,
        }
        wanted = {"shortest": f"16 to longest, {longest}", "contrast": "0 or more", "tolerance": "above 0"}
        numbers = {
            "shortest": shortest, "points": points, "pictures": pictures, "contrast": contrast,
            "neighbours": neighbours, "shortlist": shortlist, "tolerance": tolerance, "least": least,
        }  # fmt: skip
        for name in (name for name, bad in wrong.items() if bad):
            raise UsageError(f"got {numbers[name]}, wanted {wanted.get(name, '1 or more')}", where=name)
        self.shortest, self.longest, self.pictures = shortest, longest, pictures
        self.neighbours, self.shortlist, self.tolerance, self.least = neighbours, shortlist, tolerance, least
        self.settings = SiftSettings(contrast=contrast, most=points, root=True)
        self.declare("descriptors", "xy", "scale", "angle", "owner", "labels", "sides")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Keep the points of the training pictures; the seed chooses among pictures where there are too many.

        Raises:
            UsageError: no picture, or no point in any of them.
            RecordError: a sample without label.
        """
        found, labels = describe_all(samples, self.points_of, len(self.categories), say)
        chosen = self._chosen(labels, seed)
        kept = [found[i] for i in chosen.tolist()]
        counts = torch.tensor([len(points) for points, _, _ in kept])
        if not counts.sum():
            mend = "The pictures are flat or too small; a lower contrast finds more."
            raise UsageError("found no point in any training picture", where="sift_fit", mend=mend)
        self.learn("descriptors", torch.cat([descriptors for _, descriptors, _ in kept]))
        for name in ("xy", "scale", "angle"):
            self.learn(name, torch.cat([getattr(points, name) for points, _, _ in kept]))
        self.learn("owner", torch.repeat_interleave(torch.arange(len(kept)), counts))
        self.learn("labels", labels[chosen])
        self.learn("sides", torch.tensor([side for _, _, side in kept]))
        size = self.descriptors.numel() / 2**20
        say(f"{int(counts.sum()):,} points of {len(kept):,} pictures kept, {size:.1f} MiB of descriptors")

    def points_of(self, image: Shaped[Tensor, "C _h _w"]) -> tuple[Keypoints, UInt8[Tensor, "N 128"], float]:
        """Points and descriptors of a picture at its working size, and the longer side of that."""
        gray = gray_of(image, self.shortest, self.longest)
        points, descriptors = detect_and_describe(gray.clamp(0, 1), self.settings)
        return points, (512 * descriptors).round().clamp(max=255).to(torch.uint8), float(max(gray.shape))

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """Each category's share of all scores; equal ones where a picture holds no point."""
        found = [self.points_of(image) for image in images]
        counts = [len(points) for points, _, _ in found]
        sought = torch.cat([descriptors for _, descriptors, _ in found])
        # One more than is matched: how far it is says how much nearer the others are.
        near = nearest(sought, self.descriptors, self.neighbours + 1)
        parts = zip(found, near[0].split(counts), near[1].split(counts), strict=True)
        scores = torch.stack([self._scores(points, *lists) for (points, _, _), *lists in parts])
        return scores / scores.sum(1, keepdim=True)

    def inliers_of(
        self, points: Keypoints, rows: Int64[Tensor, "n k"], picture: int
    ) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
        """Pairs of a picture's points and stored ones of one training picture that one map explains.

        Args:
            points: of the picture.
            rows: stored points that each is matched with.
            picture: the training picture's number.

        Returns:
            Numbers of the points, and of the stored ones.
        """
        pairs = (self.owner[rows] == picture).nonzero()
        theirs = rows[pairs[:, 0], pairs[:, 1]]
        stored = Keypoints(self.xy[theirs], self.scale[theirs], self.angle[theirs])
        agreed = verify(points[pairs[:, 0]], stored, self.tolerance * float(self.sides[picture])).inliers
        return pairs[agreed, 0], theirs[agreed]

    def _scores(
        self, points: Keypoints, distances: Float32[Tensor, "n k"], rows: Int64[Tensor, "n k"]
    ) -> Float32[Tensor, " K"]:
        matched, nearer = rows[:, : self.neighbours], self._nearness(distances)
        owners = self.owner[matched]
        scores = _votes(self.labels[owners], nearer, len(self.categories))
        if not scores.sum():
            return torch.ones(len(self.categories))
        scores /= scores.sum()
        votes = _votes(owners, nearer, len(self.labels))
        best = votes.topk(min(self.shortlist, len(votes))).indices
        for picture in best[votes[best] > 0].tolist():
            count = len(self.inliers_of(points, matched, picture)[0])
            scores[self.labels[picture]] += max(0, count - self.least + 1)
        return scores

    def _nearness(self, distances: Float32[Tensor, "n k"]) -> Float32[Tensor, "n _m"]:
        """Of each match the share by which it is nearer, in squared distance, than the first neighbour beyond them all;
        1 where the store holds no more."""
        if distances.shape[1] <= self.neighbours:
            return torch.ones_like(distances)
        beyond = distances[:, -1:].clamp(min=1e-6)
        return (1 - (distances[:, : self.neighbours] / beyond).square()).clamp(min=0)

    def _chosen(self, labels: Int64[Tensor, " P"], seed: int) -> Int64[Tensor, " p"]:
        """Numbers of the pictures to keep, ascending."""
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        kept = [order[labels[order] == label][: self.pictures] for label in range(len(self.categories))]
        return torch.cat(kept).sort().values


def _votes(groups: Int64[Tensor, "n k"], nearer: Float32[Tensor, "n k"], count: int) -> Float32[Tensor, " _g"]:
    """What each group gets from all points: of every one its nearest match there, and no other."""
    first = (groups[:, :, None] == groups[:, None]).int().argmax(2) == torch.arange(groups.shape[1])
    return torch.zeros(count).index_add_(0, groups[first], nearer[first])


def sift_fit(
    categories: Sequence[str] | None = None,
    *,
    shortest: int = 128,
    longest: int = 480,
    points: int = 200,
    pictures: int = 1000,
    contrast: float = 0.04,
    neighbours: int = 10,
    shortlist: int = 30,
    tolerance: float = 0.05,
    least: int = 6,
) -> SiftFit:
    """SIFT points matched with all training pictures, votes of those that one map explains.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        shortest: smaller pictures are enlarged until their shorter side has this many pixels.
        longest: larger ones are shrunk until their longer side has this many.
        points: strongest points kept of a picture.
        pictures: training pictures kept of a category.
        contrast: least contrast of a point; lower finds more.
        neighbours: stored points that each point is matched with.
        shortlist: training pictures whose geometry is looked at.
        tolerance: distance of an inlier from where the map puts it, as a share of the longer side.
        least: inliers of a training picture that counts.
    """
    names = imagenet_categories() if categories is None else categories
    return SiftFit(
        names, shortest=shortest, longest=longest, points=points, pictures=pictures, contrast=contrast,
        neighbours=neighbours, shortlist=shortlist, tolerance=tolerance, least=least,
    )  # fmt: skip
