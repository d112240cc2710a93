"""Two dense labellers that answer as one: what one misses the other may see.

Noh, Hong, Han: Learning Deconvolution Network for Semantic Segmentation, ICCV 2015, section 4.4: windows of single
objects bring out details and a fully convolutional network the overall shape; the mean of both probability maps is
better than either, and a dense CRF follows. The authors' published code multiplies the scores instead.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.heads.segmentation import PixelSystem
from bestiary.layers.preprocess import channel_normalize
from bestiary.layers.scaling import resize_logits
from bestiary.records import Losses, Target
from bestiary.system import Images

EnsembleRule = Literal["mean", "product"]


class PixelEnsemble(PixelSystem):
    """The system. It predicts, and is not trained: its members are. `take({"crf": "..."})` refines the joint answer.

    Args:
        members: trained systems with the same categories; each looks in its own way (its size, views and CRF).
        rule: mean: of the members' probabilities (the paper). product: of their scores, those below 0 counting as 0
            (the authors' code, where DeconvNet's are so by themselves); views and CRFs of the members have no part.

    Raises:
        UsageError: fewer than two members, categories that differ, or members of another kind than one class a pixel.
    """

    members: nn.ModuleList

    def __init__(self, members: Sequence[PixelSystem], rule: EnsembleRule = "mean") -> None:
        if len(members) < 2:
            raise UsageError(f"got {len(members)}, wanted two members at least", where="PixelEnsemble")
        if rule not in get_args(EnsembleRule):
            raise UsageError(f"got {rule!r}, wanted one of {', '.join(get_args(EnsembleRule))}", where="PixelEnsemble")
        first = members[0].categories
        for member in members[1:]:
            if member.categories != first:
                got = f"got {', '.join(member.categories)}, wanted {', '.join(first)} as the first member has"
                raise UsageError(got, where="PixelEnsemble")
        if any(member.multi_label for member in members):
            raise UsageError("got classes that overlap, wanted one class a pixel", where="PixelEnsemble")
        super().__init__(first, channel_normalize(members[0].in_channels))
        self.members, self.rule = nn.ModuleList(members), rule

    def predict_logits(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """What has the joint probabilities as its softmax: the logarithm of their mean, or the scores' product."""
        systems = [member for member in self.members if isinstance(member, PixelSystem)]
        if self.rule == "mean":
            return torch.stack([system.predict_probs(images) for system in systems]).mean(0).log()
        size_hw = int(images.shape[-2]), int(images.shape[-1])
        scores = [resize_logits(_scores(system, images), size_hw).clamp(min=0) for system in systems]
        return torch.stack(scores).prod(0)

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """The whole pictures at once."""
        yield 0, 0, self.predict_logits(images)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """There is none."""
        raise UsageError("an ensemble is not trained", where="PixelEnsemble", mend="Train its members, each by itself")


def _scores(system: PixelSystem, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K _h _w"]:
    """Logits at the size that the system works at."""
    scaled, _ = system.to_network_scale(list(images), [Target()] * len(images))
    return system.predict_logits(torch.stack(list(scaled)))
