"""The dense labellers that see a whole picture at once and answer with logits of all its pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from bestiary.heads.segmentation import (
    PixelSystem,
    extend,
    require_class_masks,
    require_label_maps,
    stack_weights,
)
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.scaling import resize_logits
from bestiary.records import IGNORE_LABEL, Losses, Target
from bestiary.system import Images


@dataclass(frozen=True, eq=False)
class PixelOutputs:
    """What a network says in training.

    Attributes:
        logits: of every pixel of the input, less the margin of the network's geometry.
        auxiliary: further logits by name, of any size; the base's loss resizes them to those (bilinear).
    """

    logits: Float[Tensor, "B K H W"]
    auxiliary: Mapping[str, Float[Tensor, "B _k _h _w"]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PixelTruth:
    """The truth of a batch, at the size of the network's output.

    Attributes:
        label_maps: class of each pixel; what was padded is to be ignored. Of classes that may overlap it says no more
            than where nothing is known.
        weight_maps: weight of each pixel in the loss, 0 where padded; None for 1.
        class_masks: which pixels belong to each class, where classes may overlap.
    """

    label_maps: UInt8[Tensor, "B H W"]
    weight_maps: Float[Tensor, "B H W"] | None = None
    class_masks: Bool[Tensor, "B K H W"] | None = None


class WholePicture(PixelSystem):
    """Base of these labellers. A subclass writes `outputs`, and `loss_terms` where its loss is more than its objective
    on the logits and on each auxiliary output.

    A picture is padded as `padding` says, by the margin on every side and at the right and bottom up to a size that
    suits, for training as for predicting, and the output is cropped.

    Attributes:
        geometry: sizes of input that suit the network.
        auxiliary_weights: of the auxiliary outputs' losses, by their names.
    """

    geometry: InputGeometry = InputGeometry()
    auxiliary_weights: ClassVar[Mapping[str, float]] = {}

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of the input less its margin, and what else the loss sees."""
        raise NotImplementedError

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H2 W2"]:
        """Logits of the input less its margin."""
        return self.outputs(pixels).logits

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """`loss_terms` of the pictures as one batch.

        Pictures of different sizes are padded to the smallest legal size that covers the largest; what is added is
        ignored.

        Raises:
            RecordError: a target without label map, of another size than its picture, or with a label that is no
            category.
        """
        pictures = list(images)
        truth = self.truth_of(pictures, targets)
        height, width = int(truth.label_maps.shape[-2]), int(truth.label_maps.shape[-1])
        pixels = torch.cat([self._with_margin(picture[None], (height, width)) for picture in pictures])
        return Losses(self.loss_terms(self.outputs(pixels), truth))

    def truth_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]) -> PixelTruth:
        """The truth at the smallest legal size that covers all pictures. Raises as `loss` does."""
        class_masks: list[Tensor] | None = None
        if self.multi_label:
            class_masks, label_maps = require_class_masks(images, targets, len(self.categories))
        else:
            label_maps = require_label_maps(images, targets)
        height, width = (self.geometry.covering(max(int(m.shape[axis]) for m in label_maps)) for axis in (0, 1))
        return PixelTruth(
            torch.stack([extend(m, (height, width), IGNORE_LABEL) for m in label_maps]),
            stack_weights(targets, label_maps, (height, width)),
            None if class_masks is None else torch.stack([extend(m, (height, width), False) for m in class_masks]),
        )

    def loss_terms(self, outputs: PixelOutputs, truth: PixelTruth) -> dict[str, Tensor]:
        """The objective on the logits, and on each auxiliary output times its weight (`aux_cross_entropy`)."""
        terms = self.objective_of(outputs.logits, truth)
        for name, logits in outputs.auxiliary.items():
            resized = resize_logits(logits, (int(truth.label_maps.shape[-2]), int(truth.label_maps.shape[-1])))
            further = self.objective_of(resized, truth)
            terms |= {f"{name}_{term}": self.auxiliary_weights[name] * value for term, value in further.items()}
        return terms

    def objective_of(self, logits: Float[Tensor, "B K H W"], truth: PixelTruth) -> dict[str, Tensor]:
        """The objective's terms."""
        return self.objective(logits, truth.label_maps, self.class_weights, truth.weight_maps, truth.class_masks)

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """The whole pictures at once."""
        height, width = int(images.shape[-2]), int(images.shape[-1])
        size_hw = (self.geometry.covering(height), self.geometry.covering(width))
        yield 0, 0, self(self._with_margin(images, size_hw))[..., :height, :width]

    def _with_margin(self, images: Shaped[Tensor, "B C H W"], size_hw: tuple[int, int]) -> Float[Tensor, "B C2 H2 W2"]:
        """Input whose output has `size_hw` and starts at the pictures' first pixel."""
        margin = self.geometry.margin
        return self.prepare(images, -margin, -margin, (size_hw[0] + 2 * margin, size_hw[1] + 2 * margin))
