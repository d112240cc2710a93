"""One size for all pictures, whatever becomes of their proportions: how SSD sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.heads.network_scale import size_of
from bestiary.heads.region_learning import scale_target
from bestiary.layers.scaling import as_float
from bestiary.records import Target


@dataclass(frozen=True)
class FixedScale:
    """A square.

    Attributes:
        side: pixels.
        antialias: average where pictures shrink, as `transforms.Resize` does; without it they are sampled, as
            torchvision's detectors and OpenCV do.
    """

    side: int
    antialias: bool = False

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UsageError(f"got {self.side}, wanted at least 1", where="side")

    def times(self, factor: int | float) -> "FixedScale":
        """A square of so many times the side."""
        return FixedScale(max(1, round(self.side * factor)), self.antialias)

    def resize(self, image: Float[Tensor, "C H W"]) -> Float[Tensor, "C S S"]:
        """The picture at that size, bilinear with half-pixel centres."""
        square = self.side, self.side
        if size_of(image) == square:
            return image
        return F.interpolate(image[None], size=square, mode="bilinear", antialias=self.antialias)[0]

    def bring(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[list[Float[Tensor, "C S S"]], list[Target]]:
        """Pictures and, of their truth, what detectors read: `System.to_network_scale`."""
        resized = [self.resize(as_float(image)) for image in images]
        square = self.side, self.side
        return resized, [scale_target(t, size_of(i), square) for i, t in zip(images, targets, strict=True)]
