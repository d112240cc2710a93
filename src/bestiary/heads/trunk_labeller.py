"""Dense labellers of one plain shape: a trunk, a classifier of its last map, perhaps another of an earlier map, and
bilinear upsampling. State names are torchvision's: `backbone`, `classifier`, `aux_classifier`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.backbones.levels import Trunk
from bestiary.heads.segmentation import Padding
from bestiary.heads.whole_picture import PixelOutputs, WholePicture, resize_logits
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize, channel_normalize

AUXILIARY = "aux_classifier"


class TrunkLabeller(WholePicture):
    """The system.

    Args:
        backbone: pictures to maps, fine to coarse.
        classifier: its last map to K logits a cell.
        categories: K names.
        aux_classifier: likewise of an earlier map, in training only; None for none.
        aux_map: which one, as an index of the trunk's maps.
        normalize: of the pixels; ImageNet's means and deviations if None.

    Attributes:
        head_names: the classifiers that there are.
    """

    padding: ClassVar[Padding] = "mean"
    # A map of one cell has no spread, which batch norm divides by.
    geometry: InputGeometry = InputGeometry(smallest=32)
    auxiliary_weights: ClassVar[Mapping[str, float]] = {"aux": 0.5}
    aux_classifier: nn.Module | None

    def __init__(
        self,
        backbone: Trunk,
        classifier: nn.Module,
        categories: Sequence[str],
        *,
        aux_classifier: nn.Module | None = None,
        aux_map: int = -2,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(categories, normalize or channel_normalize(backbone.in_channels))
        self.backbone, self.classifier, self.aux_classifier = backbone, classifier, aux_classifier
        self.aux_map = aux_map
        self.head_names = ("classifier",) if aux_classifier is None else ("classifier", AUXILIARY)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits at the pictures' size, and "aux" at the trunk's."""
        maps = self.backbone(pixels)
        auxiliary = {} if self.aux_classifier is None else {"aux": self.aux_classifier(maps[self.aux_map])}
        return PixelOutputs(self._upsampled(maps[-1], pixels), auxiliary)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel; the auxiliary classifier does not run."""
        return self._upsampled(self.backbone(pixels)[-1], pixels)

    def _upsampled(self, features: Tensor, pixels: Tensor) -> Float[Tensor, "B K H W"]:
        return resize_logits(self.classifier(features), (pixels.shape[-2], pixels.shape[-1]))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier its convolutions; of a labeller with an auxiliary classifier all but that, where this one has
        none.
        """
        taken, line = start_trunk(state, self.state_dict())
        stray = [name for name in state if name.startswith(f"{AUXILIARY}.")]
        if line or not stray or self.aux_classifier is not None:
            return taken, line
        kept = {name: value for name, value in state.items() if name not in stray}
        return kept, f"{len(kept)} entries loaded, without those of the auxiliary classifier"


def start_trunk(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str = "backbone."
) -> tuple[Mapping[str, Tensor], str]:
    """What a labeller takes over from a classifier: the layers of its trunk, by the labeller's names, and a line that
    says so. A state that has the prefix itself, or nothing of the trunk, comes back as it is, with no line.

    Args:
        state: of the classifier.
        own: of the labeller.
        prefix: of the trunk's names in `own`.
    """
    if any(name.startswith(prefix) for name in state):
        return state, ""
    taken = {prefix + name: value for name, value in state.items() if prefix + name in own}
    return (taken, "starts from a classifier: its convolutions") if taken else (state, "")
