"""The head that most networks since 2015 share: global average pooling and one linear layer."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Trunk
from bestiary.heads.classification import Classifier


class PooledClassifier(Classifier):
    """A trunk, global average pooling and `fc`. The trunk's children become its own: state names are flat.

    A subclass says in `maps` how they are run.

    Args:
        trunk: not usable on its own afterwards.
        categories: K names.
        resize: shorter side that `predict` scales to.
        crop: side of the centre crop it then takes.
        label_smoothing: share of the target spread over all categories (Szegedy et al., 2016, section 7).
    """

    fc: nn.Linear

    def __init__(
        self,
        trunk: Trunk,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            categories, resize=resize, crop=crop, label_smoothing=label_smoothing, in_channels=trunk.in_channels
        )
        for name, part in trunk.named_children():
            self.add_module(name, part)
        self.fc = nn.Linear(trunk.levels[-1].channels, len(self.categories))

    def maps(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B _c _h _w"], ...]:
        """The trunk's levels, by the parts that are now its own."""
        raise NotImplementedError

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.fc(self.maps(pixels)[-1].mean((2, 3)))
