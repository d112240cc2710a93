"""Pictures of any proportions in one square, stretched or with grey margins; and boxes there and back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes
from bestiary.heads.network_scale import size_of
from bestiary.layers.scaling import as_float
from bestiary.records import Objects, Target

GREY = 0.5
"""Darknet's colour of the margin, on the 0..1 scale."""


@dataclass(frozen=True)
class Square:
    """The square that a network sees.

    Attributes:
        side: pixels.
        letterbox: proportions stay: the picture is as large as fits, centred, with grey around it. Otherwise it is
            stretched.
        antialias: average where pictures shrink, as `transforms.Resize` does; without it they are sampled, as
            torchvision's detectors and OpenCV do.
    """

    side: int
    letterbox: bool = False
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UsageError(f"got {self.side}, wanted at least 1", where="size")

    def times(self, factor: int | float) -> "Square":
        """A square of so many times the side."""
        return replace(self, side=max(1, round(self.side * factor)))

    def fitted_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Size of the picture within the square."""
        if not self.letterbox:
            return self.side, self.side
        height, width = (max(1, int(side * self.side / max(size_hw) + 1e-6)) for side in size_hw)
        return height, width

    def resize(self, image: Float[Tensor, "C _h _w"]) -> Float[Tensor, "C H W"]:
        """The picture as large as it is within the square: bilinear with half-pixel centres."""
        fitted = self.fitted_hw(size_of(image))
        if size_of(image) == fitted:
            return image
        return F.interpolate(image[None], size=fitted, mode="bilinear", antialias=self.antialias)[0]

    def place(self, image: Shaped[Tensor, "C _h _w"]) -> Float[Tensor, "C S S"]:
        """The picture in the square, 0..1."""
        height, width = self.fitted_hw(size_of(image))
        left, top = self._corner_xy(size_of(image))
        margins = (left, self.side - width - left, top, self.side - height - top)
        return F.pad(self.resize(as_float(image)), margins, value=GREY)

    def to_square(self, boxes_xyxy: Float[Tensor, "N 4"], size_hw: tuple[int, int]) -> Float[Tensor, "N 4"]:
        """Boxes of a picture of `size_hw` as they lie in the square."""
        factors, corner = self._map(boxes_xyxy, size_hw)
        return boxes_xyxy * factors + corner

    def to_picture(self, boxes_xyxy: Float[Tensor, "N 4"], size_hw: tuple[int, int]) -> Float[Tensor, "N 4"]:
        """Boxes of the square as they lie in the picture, clipped to it."""
        factors, corner = self._map(boxes_xyxy, size_hw)
        return clip_boxes((boxes_xyxy - corner) / factors, size_hw)

    def bring(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[list[Float[Tensor, "C S S"]], list[Target]]:
        """Pictures and, of their truth, labels and objects: `System.to_network_scale`."""
        moved = []
        for image, target in zip(images, targets, strict=True):
            objects = target.objects
            if objects is not None:
                boxes = self.to_square(objects.boxes_xyxy, size_of(image))
                objects = Objects(boxes, objects.labels, crowd=objects.crowd, difficult=objects.difficult)
            moved.append(Target(label=target.label, objects=objects))
        return [self.place(image) for image in images], moved

    def _corner_xy(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        height, width = self.fitted_hw(size_hw)
        return (self.side - width) // 2, (self.side - height) // 2

    def _map(self, like: Tensor, size_hw: tuple[int, int]) -> tuple[Float32[Tensor, "4"], Float32[Tensor, "4"]]:
        (height, width), corner = self.fitted_hw(size_hw), self._corner_xy(size_hw)
        factors = torch.tensor([width / size_hw[1], height / size_hw[0]] * 2, device=like.device)
        return factors, torch.tensor(corner * 2, dtype=torch.float32, device=like.device)
