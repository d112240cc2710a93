"""The contract that every trainable system keeps: three verbs, one return type each.

    forward(pixels)          raw outputs of the network on its normalised input: what is exported
    loss(images, targets)    named, weighted terms; the same in training and evaluation mode
    predict(source)          predictions in original pixels, sorted and clipped

`forward` is pure. `loss` and `predict` take pictures as people hold them and prepare them with the system's own parts.
Systems without gradients have `fit(samples)` in place of `loss`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bestiary.errors import PictureError, UsageError
from bestiary.layers.learned import Learned
from bestiary.pictures.sources import Source, iterate_batches
from bestiary.predictions import Prediction
from bestiary.records import Losses, Sample, Target

Images = Sequence[Shaped[Tensor, "C _h _w"]] | Shaped[Tensor, "B C H W"]
"""Pictures: uint8 0..255 or float 0..1, of equal or different sizes."""


class System(nn.Module):
    """Base of every trainable system. A subclass sets `task`, calls `super().__init__(categories)`, and writes three
    methods.

    Attributes:
        task: "classification", "detection", "segmentation" ...
        categories: names of the K classes, without background.
        in_channels: channels of a picture.
        model_name: its name in the zoo, and
        arguments: what its constructor was given beside the categories: together they rebuild it from a checkpoint.
        learned: of which pictures a model from a checkpoint has learned; see `verbs.datasets.has_learned`.
        further_arguments: names that every system of this kind takes beside those of its constructor; a zoo hands them
            to `take` and keeps them in `arguments`.
        learns_from_labels: whether a detector learns from pictures that have a label and no boxes, too.
    """

    further_arguments: ClassVar[frozenset[str]] = frozenset()
    learns_from_labels: ClassVar[bool] = False

    task: str = ""
    categories: tuple[str, ...]
    in_channels: int = 3
    model_name: str = ""
    arguments: Mapping[str, Any] = MappingProxyType({})
    learned: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, categories: Sequence[str]) -> None:
        super().__init__()
        self.categories = tuple(categories)

    def take(self, arguments: Mapping[str, Any]) -> None:
        """Set `further_arguments`, all or some of them; the others keep their values."""
        if arguments:
            raise NotImplementedError

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """What of another network's state this one starts from, by its own names, and a line that says so. A state of
        its own kind, and one it knows nothing of, come back as they are, with no line.
        """
        return state, ""

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Any:
        """Raw outputs for normalised pixels."""
        raise NotImplementedError

    def observe(self, samples: Sequence[Sample], say: Callable[[str], None] = lambda _: None) -> None:
        """Take from the training pictures what must be known before the first step (how frequent each class is);
        nothing, for most systems. What is taken is kept in `arguments`. Arguments as of `FittedSystem.fit`.
        """

    def begin_stage(self, name: str) -> None:
        """Prepare for one stage of a recipe that has several: from now on `loss` is that stage's. Called before each
        stage, and again when it is resumed, so it changes no parameter that an earlier call has changed already.
        """

    def fit_stage(
        self, name: str, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Learn in a stage without gradients, as `FittedSystem.fit` does; what is learned stands in buffers or
        parameters.
        """
        raise NotImplementedError

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The objective's terms for pictures at network scale (not resized here), whatever `self.training` says."""
        raise NotImplementedError

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Shaped[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and truth resized as `predict` would resize the pictures; as they are for systems that take any
        size."""
        return images, targets

    def validation_loss(self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]) -> Losses:
        """`loss` of pictures in their original pixels, brought to the scale that `predict` works at."""
        return self.loss(*self.to_network_scale(images, targets))

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """Predictions for decoded pictures, in their own pixels. Called in evaluation mode, without gradients."""
        raise NotImplementedError

    def predict(self, source: Source, batch: int = 1) -> list[Prediction]:
        """Predictions for tensors, arrays, PIL pictures, files, folders, globs or a video, all at once.

        Args:
            source: what `bestiary.pictures.sources` can open; tensors `[3, H, W]` or `[B, 3, H, W]`.
            batch: pictures a forward pass.
        """
        return list(self.stream(source, batch))

    def stream(
        self, source: Source, batch: int = 1, on_error: Callable[[PictureError], object] | None = None
    ) -> Iterator[Prediction]:
        """Like `predict`, one by one in constant memory; each prediction keeps its picture in `image`.

        Args:
            source: as for `predict`.
            batch: pictures a forward pass.
            on_error: told of each picture that cannot be decoded, which is then left out; without it the first one
                raises.
        """
        return stream_predictions(self, source, batch, on_error)


class FittedSystem(Learned, System):
    """Base of the systems without gradients (nearest neighbour, SVMs, part models): `fit` instead of `loss`.

    What it learns stands in declared buffers (`Learned`), its own and its parts'.
    """

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn from all samples at once, in their original pixels; what was learned before is forgotten.

        Args:
            samples: map-style; each access decodes a picture, so keep what a second pass needs.
            seed: of everything random.
            say: told in plain lines how far it is.

        Raises:
            RecordError: a sample without the truth that the system needs.
            UsageError: too few samples to learn from.
        """
        raise NotImplementedError

    def require_fitted(self) -> None:
        """Raise `UsageError` if nothing was learned yet."""
        if not self.is_fitted:
            mend = f"`bestiary train {self.model_name or 'MODEL'} --data FOLDER`, or fit(samples)"
            raise UsageError("the system has not been fitted", where=self.model_name or None, mend=mend)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """There is none: it is fitted."""
        raise UsageError("the system is fitted, it has no loss", where=self.model_name or None, mend="Use fit(samples)")


@runtime_checkable
class Predictor(Protocol):
    """What can predict: a system, or an exported graph in some runtime."""

    @property
    def task(self) -> str:
        """What it recognises."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """Names in label order."""
        ...

    def predict(self, source: Source, batch: int = 1) -> list[Prediction]:
        """As `System.predict`."""
        ...

    def stream(
        self, source: Source, batch: int = 1, on_error: Callable[[PictureError], object] | None = None
    ) -> Iterator[Prediction]:
        """As `System.stream`."""
        ...

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """Predictions for decoded pictures."""
        ...


def stream_predictions(
    predictor: Predictor, source: Source, batch: int = 1, on_error: Callable[[PictureError], object] | None = None
) -> Iterator[Prediction]:
    """Open `source`, predict batch by batch, and attach name and picture to each prediction."""
    module = predictor if isinstance(predictor, nn.Module) else None
    device = next((p.device for p in module.parameters()), torch.device("cpu")) if module else torch.device("cpu")
    for pictures in iterate_batches(source, batch, on_error):
        with evaluation_mode(predictor), torch.inference_mode():
            found = predictor.predict_images([picture.image.to(device) for picture in pictures])
        for picture, prediction in zip(pictures, found, strict=True):
            yield replace(prediction.to("cpu"), name=picture.name, image=picture.image)


@contextmanager
def evaluation_mode(predictor: Predictor) -> Iterator[None]:
    """The system in evaluation mode, and afterwards each of its parts in the mode it was in; nothing for a graph."""
    if not isinstance(predictor, nn.Module):
        yield
        return
    module: nn.Module = predictor
    were_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in were_training:
            part.training = True
