"""What every system that names pixels shares: pictures of any size and number of channels in, label maps out."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.heads.dense_crf import DenseCrf, dense_crf_named
from bestiary.heads.pixel_views import ONE_LOOK, PixelViews, resize_pictures
from bestiary.layers.channels import match_channels
from bestiary.layers.overlap_tile import mirror_window
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import resize_logits
from bestiary.losses.class_masks import count_masks
from bestiary.losses.pixel_objective import PixelObjective, weights_of
from bestiary.losses.segmentation import (
    ClassCounts,
    count_classes,
    inverse_frequency_weights,
    median_frequency_weights,
)
from bestiary.predictions import Prediction, Segmentation
from bestiary.records import IGNORE_LABEL, Sample, Target
from bestiary.system import System
from bestiary.transforms.moving import move_target
from bestiary.transforms.warp import Warp

Padding = Literal["mirror", "mean"]
ClassBalance = Literal["none", "median_frequency", "inverse_frequency"]

MULTI_LABEL_TASK = "multi_label_segmentation"
"""What a labeller recognises whose categories may overlap: other truth is read for it, and scored otherwise."""


class PixelSystem(System):
    """Base of the systems that name pixels. A subclass writes `forward`, `loss`, and `logit_windows`.

    Args:
        categories: 2 to 255 names, the background among them if the data has one.
        normalize: part that scales pictures; it says how many channels the network wants. A picture of three channels
            becomes one by the usual weights of grey (`layers.channels.match_channels`), one becomes several by
            repetition.

    Attributes:
        padding: what lies outside a picture: the picture mirrored at its border, or the mean colour (0 after
            normalisation), as Caffe's networks have it.
        objective: what `loss` is made of.
        class_weights: weight of each category in it; None for 1 each.
        class_balance: how the training pictures give the class weights, where none were given (`observe`).
        multi_label: a pixel may belong to several categories, or to none: each has its own sigmoid, and the truth is
            `Target.class_masks`. One category alone is then enough.
        mask_threshold: the probability from which a pixel belongs to a category, where it may belong to several.
        predict_size: pixels that the shorter side is resized to before predicting (antialiased, bilinear; the logits
            are resized back); None predicts at the picture's own size.
        keep_probs: whether predictions carry the probabilities of all classes.
        test_views: what of a picture is looked at when predicting; once, whole, unless `take` is told otherwise.
        crf: what the probabilities are refined by; None for nothing.

    Raises:
        UsageError: a number of categories that cannot be.
    """

    task = "segmentation"
    further_arguments: ClassVar[frozenset[str]] = frozenset(
        {
            "class_balance",
            "class_weights",
            "crf",
            "focal_gamma",
            "keep_probs",
            "losses",
            "mask_threshold",
            "multi_label",
            "ohem_prob",
            "ohem_share",
            "predict_size",
            "test_flip",
            "test_merge",
            "test_scales",
            "test_window",
            "window_overlap",
        }
    )
    padding: ClassVar[Padding] = "mirror"
    objective: PixelObjective = PixelObjective()
    class_balance: ClassBalance = "none"
    multi_label: bool = False
    mask_threshold: int | float = 0.5
    predict_size: int | None = None
    keep_probs: bool = False
    test_views: PixelViews = ONE_LOOK
    crf: DenseCrf | None = None
    normalize: nn.Module
    class_weights: Tensor | None

    def __init__(self, categories: Sequence[str], normalize: Normalize) -> None:
        super().__init__(categories)
        if not 1 <= len(categories) <= 255:
            raise UsageError(
                f"got {len(categories)} categories, wanted 2 to 255, the background included", where="categories"
            )
        self.in_channels = len(normalize.mean)
        self.normalize = normalize
        self.register_buffer("class_weights", None, persistent=False)

    def take(self, arguments: Mapping[str, Any]) -> None:
        """Learn by another objective, or predict in another way, by the names of `further_arguments`: `losses` and
        those of its terms are the fields of `PixelObjective`; `test_scales`, `test_flip`, `test_merge`, `test_window`
        and `window_overlap` those of `PixelViews`; `crf` a name of `DENSE_CRFS`, or none; the others attributes.

        Raises:
            UsageError: a value that cannot be.
        """
        self._take_objective(arguments)
        views = self.test_views
        self.test_views = PixelViews(
            tuple(arguments.get("test_scales", views.scales)),
            arguments.get("test_flip", views.flip),
            arguments.get("test_merge", views.merge),
            arguments.get("test_window", views.window),
            arguments.get("window_overlap", views.overlap),
        )
        self.predict_size = arguments.get("predict_size", self.predict_size)
        if self.predict_size is not None and self.predict_size < 1:
            got = f"got {self.predict_size}, wanted pixels of the shorter side, or None"
            raise UsageError(got, where="predict_size")
        self.mask_threshold = arguments.get("mask_threshold", self.mask_threshold)
        if not 0 < self.mask_threshold < 1:
            raise UsageError(f"got {self.mask_threshold}, wanted more than 0 and less than 1", where="mask_threshold")
        self.keep_probs = arguments.get("keep_probs", self.keep_probs)
        if "crf" in arguments:
            name = arguments["crf"]
            self.crf = None if name in (None, "none") else dense_crf_named(name)
        if self.crf is not None and self.multi_label:
            raise UsageError("got both, wanted one: a dense CRF gives each pixel one class", where="crf, multi_label")

    def _take_objective(self, arguments: Mapping[str, Any]) -> None:
        rule = self.objective
        self.objective = PixelObjective(
            tuple(arguments.get("losses") or rule.terms),
            arguments.get("focal_gamma", rule.focal_gamma),
            arguments.get("ohem_prob", rule.ohem_prob),
            arguments.get("ohem_share", rule.ohem_share),
        )
        self.multi_label = arguments.get("multi_label", self.multi_label)
        self.task = MULTI_LABEL_TASK if self.multi_label else type(self).task
        if len(self.categories) < 2 and not self.multi_label:
            mend = "Add the background's class, or set multi_label"
            raise UsageError("got 1 categories, wanted 2 to 255", where="categories", mend=mend)
        self.class_balance = arguments.get("class_balance", self.class_balance)
        if self.class_balance not in get_args(ClassBalance):
            wanted = ", ".join(get_args(ClassBalance))
            raise UsageError(f"got {self.class_balance!r}, wanted one of {wanted}", where="class_balance")
        if arguments.get("class_weights") is not None:
            like = next(self.parameters(), torch.zeros(()))
            self.class_weights = weights_of(arguments["class_weights"], self.categories).to(like)

    def observe(self, samples: Sequence[Sample], say: Callable[[str], None] = lambda _: None) -> None:
        """Count the classes' pixels, if `class_balance` asks for weights and none were given."""
        if self.class_balance == "none" or self.class_weights is not None:
            return
        counts = self._count(samples)
        rule = median_frequency_weights if self.class_balance == "median_frequency" else inverse_frequency_weights
        weights = [round(float(weight), 4) for weight in rule(counts)]
        named = ", ".join(f"{name} {weight:g}" for name, weight in zip(self.categories, weights, strict=True))
        say(f"class weights by {self.class_balance.replace('_', ' ')}: {named}")
        self.take({"class_weights": weights})
        self.arguments = {**self.arguments, "class_weights": weights}

    def _count(self, samples: Sequence[Sample]) -> ClassCounts:
        if self.multi_label:
            return count_masks((s.target.class_masks(len(self.categories)) for s in samples), len(self.categories))
        label_maps = (s.target.label_map for s in samples if s.target.label_map is not None)
        return count_classes(label_maps, len(self.categories))

    def prepare(
        self, images: Shaped[Tensor, "B C H W"], top: int, left: int, size_hw: tuple[int, int]
    ) -> Float[Tensor, "B C2 H2 W2"]:
        """Normalised windows of the pictures; what lies outside is as `padding` says."""
        if self.padding == "mirror":
            return self.normalize(match_channels(mirror_window(images, top, left, size_hw), self.in_channels))
        inside = images[..., max(0, top) : max(0, top + size_hw[0]), max(0, left) : max(0, left + size_hw[1])]
        pixels = self.normalize(match_channels(inside, self.in_channels))
        above, before = min(max(0, -top), size_hw[0]), min(max(0, -left), size_hw[1])
        below, behind = size_hw[0] - above - pixels.shape[-2], size_hw[1] - before - pixels.shape[-1]
        return F.pad(pixels, [before, behind, above, below])

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "_c _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Shaped[Tensor, "_c _h2 _w2"]], Sequence[Target]]:
        """Pictures with the shorter side that prediction works at, and their truth, by the nearest pixel."""
        if self.predict_size is None:
            return images, targets
        moved = []
        for image, target in zip(images, targets, strict=True):
            before = int(image.shape[-2]), int(image.shape[-1])
            warp = Warp.resize(before, self._working_size(before))
            moved.append(target if warp.is_identity else move_target(target.to("cpu"), warp).to(image.device))
        return [self._resized(image[None])[0] for image in images], moved

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """Windows (top, left, logits) that together cover the pictures."""
        raise NotImplementedError

    def predict_logits(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel, at the size that the pictures have."""
        windows = self.logit_windows(images)
        first = next(windows)
        logits = first[2].new_empty(len(images), len(self.categories), *images.shape[-2:])
        for top, left, window in itertools.chain([first], windows):
            logits[..., top : top + window.shape[-2], left : left + window.shape[-1]] = window
        return logits

    def probs_of(self, logits: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The softmax over the classes, or each class's own sigmoid."""
        return logits.float().sigmoid() if self.multi_label else logits.float().softmax(1)

    def predict_probs(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Probabilities of every pixel, at the size that the pictures have, as `test_views` looks and after `crf`."""
        working_hw = self._working_size((int(images.shape[-2]), int(images.shape[-1])))
        probs = self.test_views.probs(images, working_hw, lambda part: self.probs_of(self.predict_logits(part)))
        if not self.multi_label:
            probs = probs / probs.sum(1, keepdim=True)  # the largest of several views do not add up to one
        if self.crf is None:
            return probs
        return torch.stack([self.crf.refine(image, found) for image, found in zip(images, probs, strict=True)])

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """A label map each; the lower index wins a tie. Pictures of equal size share a forward pass."""
        found: dict[int, Prediction] = {}
        for indices in of_equal_size(images):
            stack = torch.stack([images[i] for i in indices])
            found.update(zip(indices, self._predict_equal(stack), strict=True))
        return [found[i] for i in range(len(images))]

    def _predict_equal(self, images: Shaped[Tensor, "B C H W"]) -> list[Segmentation]:
        size_hw = (int(images.shape[-2]), int(images.shape[-1]))
        if min(size_hw) < 1:
            raise RecordError(
                f"got a picture of {size_hw[0]} x {size_hw[1]}, wanted at least one pixel", where="images"
            )
        if self.crf is not None or not self.test_views.is_plain:
            probs = self.predict_probs(images)
            return self._answers(probs.argmax(1), probs)
        scaled = self._resized(images)
        if scaled is images and not self.keep_probs and not self.multi_label:
            # nothing but the label maps need ever be whole
            label_maps = torch.empty(len(images), *size_hw, dtype=torch.uint8, device=images.device)
            for top, left, window in self.logit_windows(images):
                label_maps[:, top : top + window.shape[-2], left : left + window.shape[-1]] = window.argmax(1)
            return [Segmentation(label_map, size_hw, categories=self.categories) for label_map in label_maps]
        logits = resize_logits(self.predict_logits(scaled), size_hw)
        return self._answers(logits.argmax(1), self.probs_of(logits) if self.keep_probs or self.multi_label else None)

    def _answers(self, likeliest: Int64[Tensor, "B H W"], probs: Float[Tensor, "B K H W"] | None) -> list[Segmentation]:
        threshold = self.mask_threshold if self.multi_label else None
        return segmentations(likeliest, probs, self.categories, self.keep_probs, threshold)

    def _working_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """The size that pictures of `size_hw` are predicted at."""
        if self.predict_size is None or min(size_hw) == self.predict_size:
            return size_hw
        height, width = (max(1, round(side * self.predict_size / min(size_hw))) for side in size_hw)
        return height, width

    def _resized(self, images: Shaped[Tensor, "B C H W"]) -> Shaped[Tensor, "B C H2 W2"]:
        return resize_pictures(images, self._working_size((int(images.shape[-2]), int(images.shape[-1]))))


def segmentations(
    likeliest: Int64[Tensor, "B H W"],
    probs: Float[Tensor, "B K H W"] | None,
    categories: tuple[str, ...],
    keep_probs: bool = False,
    mask_threshold: int | float | None = None,
) -> list[Segmentation]:
    """What a labeller says of pictures of one size.

    Args:
        likeliest: class of each pixel.
        probs: of every class; None where none are kept and classes do not overlap.
        categories: K names.
        keep_probs: whether the answers carry the probabilities.
        mask_threshold: a pixel belongs to each class of more than this probability; None where it has one class.
    """
    label_maps = likeliest.to(torch.uint8)
    size_hw = (int(label_maps.shape[-2]), int(label_maps.shape[-1]))
    class_masks = None
    if mask_threshold is not None and probs is not None:
        class_masks = probs > mask_threshold
        label_maps = label_maps.masked_fill(~class_masks.any(1), IGNORE_LABEL)
    answers = []
    for i, label_map in enumerate(label_maps):
        kept = probs[i] if keep_probs and probs is not None else None
        masks = None if class_masks is None else class_masks[i]
        answers.append(Segmentation(label_map, size_hw, kept, categories, class_masks=masks))
    return answers


def require_label_maps(
    images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
) -> list[UInt8[Tensor, "_h _w"]]:
    """The targets' label maps.

    Raises:
        RecordError: numbers differ, there is no picture, a label map is missing, or it is not of its picture's size.
    """
    _require_as_many(images, targets)
    label_maps = []
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        if target.label_map is None:
            raise RecordError("got None, wanted the class of every pixel", where=f"targets[{i}].label_map")
        _require_size(image, target.label_map, f"targets[{i}].label_map")
        label_maps.append(target.label_map)
    return label_maps


def require_class_masks(
    images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target], num_classes: int
) -> tuple[list[Bool[Tensor, "K _h _w"]], list[UInt8[Tensor, "_h _w"]]]:
    """The targets' class masks, and label maps that are `IGNORE_LABEL` where nothing is known and 0 elsewhere.

    Raises:
        RecordError: numbers differ, there is no picture, or a target has neither masks nor a label map of its
            picture's size.
    """
    _require_as_many(images, targets)
    found, unknown = [], []
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        class_masks, known = target.class_masks(num_classes)
        _require_size(image, known, f"targets[{i}]")
        found.append(class_masks)
        unknown.append((~known).to(torch.uint8) * IGNORE_LABEL)
    return found, unknown


def _require_as_many(images: Sequence[object], targets: Sequence[object]) -> None:
    if len(images) != len(targets) or not images:
        raise RecordError(
            f"got {len(images)} pictures and {len(targets)} targets, wanted as many, and one at least", where="loss"
        )


def _require_size(image: Tensor, plane: Tensor, where: str) -> None:
    if plane.shape[-2:] != image.shape[-2:]:
        wanted = f"the picture's, {tuple(image.shape[-2:])}"
        raise RecordError(f"got size {tuple(plane.shape[-2:])}, wanted {wanted}", where=where)


def of_equal_size(images: Sequence[Tensor]) -> list[list[int]]:
    """Indices of pictures that can be stacked, in the order of their first."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault((*image.shape, image.dtype), []).append(i)
    return list(groups.values())


def extend(
    planes: Shaped[Tensor, "*K H W"], size_hw: tuple[int, int], value: float | int
) -> Shaped[Tensor, "*K H2 W2"]:
    """The planes with `value` on the right and bottom up to `size_hw`."""
    return F.pad(planes, [0, size_hw[1] - planes.shape[-1], 0, size_hw[0] - planes.shape[-2]], value=value)


def stack_weights(
    targets: Sequence[Target], truth: Sequence[Tensor], size_hw: tuple[int, int]
) -> Float[Tensor, "B H W"] | None:
    """Weight maps of a batch, 1 for targets that have none; None if no target has one."""
    if all(target.weight_map is None for target in targets):
        return None
    maps = [
        torch.ones(m.shape, device=m.device) if t.weight_map is None else t.weight_map
        for t, m in zip(targets, truth, strict=True)
    ]
    return torch.stack([extend(m, size_hw, 0.0) for m in maps])
