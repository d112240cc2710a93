"""What every system that names pixels shares: pictures of any size and number of channels in, label maps out."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.layers.channels import match_channels
from bestiary.layers.overlap_tile import mirror_window
from bestiary.layers.preprocess import Normalize
from bestiary.predictions import Prediction, Segmentation
from bestiary.records import Target
from bestiary.system import System


class PixelSystem(System):
    """Base of the systems that name pixels. A subclass writes `forward`, `loss`, and `logit_windows`.

    Args:
        categories: 2 to 255 names, the background among them if the data has one.
        normalize: part that scales pictures; it says how many channels the network wants. A picture of three channels
            becomes one by the usual weights of grey (`layers.channels.match_channels`), one becomes several by
            repetition.
        class_weights: weight of each category in the cross-entropy.
        predict_size: pixels that the shorter side is resized to before predicting (antialiased, bilinear; the logits
            are resized back); None predicts at the picture's own size.
        keep_probs: whether predictions carry the probabilities of all classes.

    Raises:
        UsageError: numbers of categories or weights that cannot be.
    """

    task = "segmentation"
    normalize: nn.Module
    class_weights: Tensor | None

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        class_weights: Sequence[float] | None = None,
        predict_size: int | None = None,
        keep_probs: bool = False,
    ) -> None:
        super().__init__(categories)
        if not 2 <= len(categories) <= 255:
            raise UsageError(
                f"got {len(categories)} categories, wanted 2 to 255, the background included", where="categories"
            )
        if class_weights is not None and len(class_weights) != len(categories):
            raise UsageError(
                f"got {len(class_weights)} weights for {len(categories)} categories", where="class_weights"
            )
        if predict_size is not None and predict_size < 1:
            raise UsageError(f"got {predict_size}, wanted pixels of the shorter side, or None", where="predict_size")
        self.in_channels = len(normalize.mean)
        self.normalize = normalize
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.predict_size = predict_size
        self.keep_probs = keep_probs

    def prepare(
        self, images: Shaped[Tensor, "B C H W"], top: int, left: int, size_hw: tuple[int, int]
    ) -> Float[Tensor, "B C2 H2 W2"]:
        """Normalised windows of the pictures, which are mirrored at their borders."""
        return self.normalize(match_channels(mirror_window(images, top, left, size_hw), self.in_channels))

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
        scaled = self._resized(images)
        if scaled is images and not self.keep_probs:  # nothing but the label maps need ever be whole
            label_maps = torch.empty(len(images), *size_hw, dtype=torch.uint8, device=images.device)
            for top, left, window in self.logit_windows(images):
                label_maps[:, top : top + window.shape[-2], left : left + window.shape[-1]] = window.argmax(1)
            return [Segmentation(label_map, size_hw, categories=self.categories) for label_map in label_maps]
        logits = self.predict_logits(scaled)
        if scaled is not images:
            logits = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
        probs = logits.float().softmax(1) if self.keep_probs else [None] * len(images)
        label_maps = logits.argmax(1).to(torch.uint8)
        return [Segmentation(m, size_hw, p, self.categories) for m, p in zip(label_maps, probs, strict=True)]

    def _resized(self, images: Shaped[Tensor, "B C H W"]) -> Shaped[Tensor, "B C H2 W2"]:
        short = min(images.shape[-2:])
        if self.predict_size is None or short == self.predict_size:
            return images
        height, width = (max(1, round(side * self.predict_size / short)) for side in images.shape[-2:])
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        return F.interpolate(scaled, size=(height, width), mode="bilinear", antialias=True)


def require_label_maps(
    images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
) -> list[UInt8[Tensor, "_h _w"]]:
    """The targets' label maps.

    Raises:
        RecordError: numbers differ, there is no picture, a label map is missing, or it is not of its picture's size.
    """
    if len(images) != len(targets) or not images:
        raise RecordError(
            f"got {len(images)} pictures and {len(targets)} targets, wanted as many, and one at least", where="loss"
        )
    label_maps = []
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        if target.label_map is None:
            raise RecordError("got None, wanted the class of every pixel", where=f"targets[{i}].label_map")
        if target.label_map.shape != image.shape[-2:]:
            wanted = f"the picture's, {tuple(image.shape[-2:])}"
            raise RecordError(
                f"got size {tuple(target.label_map.shape)}, wanted {wanted}", where=f"targets[{i}].label_map"
            )
        label_maps.append(target.label_map)
    return label_maps


def of_equal_size(images: Sequence[Tensor]) -> list[list[int]]:
    """Indices of pictures that can be stacked, in the order of their first."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault((*image.shape, image.dtype), []).append(i)
    return list(groups.values())


def extend(plane: Shaped[Tensor, "H W"], size_hw: tuple[int, int], value: float | int) -> Shaped[Tensor, "H2 W2"]:
    """The plane with `value` on the right and bottom up to `size_hw`."""
    return F.pad(plane, [0, size_hw[1] - plane.shape[1], 0, size_hw[0] - plane.shape[0]], value=value)


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
