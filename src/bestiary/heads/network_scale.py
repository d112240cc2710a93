"""The size at which a detector sees pictures: the rule of Fast R-CNN and of all that came after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.heads.region_learning import scale_target
from bestiary.layers.preprocess import resize_bilinear, short_side_scale
from bestiary.layers.scaling import as_float
from bestiary.records import Target


@dataclass(frozen=True)
class NetworkScale:
    """Shorter sides go to `min_size`, unless the longer would exceed `max_size`.

    Attributes:
        min_size: pixels.
        max_size: pixels.
    """

    min_size: int
    max_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_size <= self.max_size:
            got = f"min_size={self.min_size}, max_size={self.max_size}"
            raise UsageError(f"got {got}, wanted 1 <= min_size <= max_size")

    def times(self, factor: int | float) -> "NetworkScale":
        """Both sides so many times as long."""
        smaller, larger = (max(1, round(side * factor)) for side in (self.min_size, self.max_size))
        return NetworkScale(smaller, larger)

    def resize(self, image: Float[Tensor, "C H W"]) -> Float[Tensor, "C H2 W2"]:
        """The picture at that size; at least one pixel is left of each side."""
        size_hw = size_of(image)
        return resize_bilinear(image, max(short_side_scale(size_hw, self.min_size, self.max_size), 1 / min(size_hw)))

    def bring(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[list[Float[Tensor, "C _h2 _w2"]], list[Target]]:
        """Pictures and, of their truth, what region detectors read: `System.to_network_scale`."""
        resized = [self.resize(as_float(image)) for image in images]
        pairs = zip(images, resized, targets, strict=True)
        return resized, [scale_target(target, size_of(before), size_of(after)) for before, after, target in pairs]


def size_of(image: Shaped[Tensor, "*B H W"]) -> tuple[int, int]:
    """Height and width."""
    return int(image.shape[-2]), int(image.shape[-1])
