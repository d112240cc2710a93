"""What every way of proposing boxes keeps to: a picture in, boxes out, best first, each found once and kept on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from bestiary.array_cache import ArrayCache, key_of
from bestiary.errors import RecordError, UsageError
from bestiary.layers.learned import Learned
from bestiary.records import Rows, Sample, require, require_boxes, require_tensor, row_field


@dataclass(frozen=True, eq=False)
class Proposals(Rows):
    """The N boxes that a method proposes for one picture, best first.

    Attributes:
        boxes_xyxy: within the picture, each with two positive sides, none twice.
        scores: falling; comparable within the picture only.
    """

    boxes_xyxy: Float32[Tensor, "N 4"] = row_field()
    scores: Float32[Tensor, " N"] = row_field()

    def __post_init__(self) -> None:
        require_boxes("Proposals", self.boxes_xyxy)
        require_tensor("Proposals", "scores", self.scores, (None,), torch.float32)
        self.require_rows()


class Proposer(Learned):
    """Base of the methods. A subclass sets `name` and `version`, takes its settings as keyword arguments, and writes
    `find`; one that learns declares what it learns (`Learned`) and writes `fit`.

    Attributes:
        name: its name in `bestiary.proposals.methods`.
        version: to be raised whenever the boxes of given settings change, so that none kept on disk is stale.
        cache: where found boxes are kept; None keeps none.
        arguments: those by which `bestiary.proposals.methods` built it.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    cache: ArrayCache | None = None
    arguments: Mapping[str, Any] = MappingProxyType({})

    def settings(self) -> Mapping[str, Any]:
        """Everything beside the picture and what was learned that decides the boxes: plain JSON."""
        raise NotImplementedError

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The boxes of a picture, uint8 0..255 or float 0..1, grey or RGB."""
        raise NotImplementedError

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn from pictures with boxes; nothing for methods that need not learn.

        Args:
            samples: map-style; each access decodes a picture.
            seed: of everything random.
            say: told in plain lines how far it is.
        """

    @property
    def is_ready(self) -> bool:
        """Whether it can propose: it need not learn, or has."""
        return self.is_fitted or not any(m.declared for m in self.modules() if isinstance(m, Learned))

    def identity(self) -> str:
        """A hash of everything beside the picture that decides the boxes: another one after fitting, say."""
        return key_of(self.name, self.version, self.settings(), dict(self.state_dict()))

    def propose(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The boxes of a picture, from the cache if they are there.

        Raises:
            UsageError: a method that learns has not learned yet.
            RecordError: a picture without pixels.
        """
        if not self.is_ready:
            raise UsageError("the method has not learned yet", where=self.name, mend="Call fit(samples) first")
        require(image.ndim == 3 and image.numel() > 0, "image", f"shape {tuple(image.shape)}", "(C, H, W) with pixels")
        found = self.kept(image)
        if found is None:
            with torch.no_grad():
                found = self.find(image.detach().cpu())
            self.keep(image, found)
        return found

    def kept(self, image: Shaped[Tensor, "C H W"]) -> Proposals | None:
        """The boxes of a picture as the cache holds them; None where it does not, or there is none."""
        if self.cache is None:
            return None
        arrays = self.cache.get(key_of(self.identity(), image))
        if arrays is None or set(arrays) != {"boxes_xyxy", "scores"}:
            return None
        try:
            return Proposals(torch.from_numpy(arrays["boxes_xyxy"]), torch.from_numpy(arrays["scores"]))
        except (RecordError, TypeError):  # not a file of ours
            return None

    def keep(self, image: Shaped[Tensor, "C H W"], found: Proposals) -> None:
        """Put the boxes of a picture into the cache, if there is one."""
        if self.cache is not None:
            arrays = {"boxes_xyxy": found.boxes_xyxy.numpy(), "scores": found.scores.numpy()}
            self.cache.put(key_of(self.identity(), image), arrays)
