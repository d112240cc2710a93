"""What every classifier does around its network: cross entropy, and the resize, crop and softmax of prediction."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.heads.views import CENTRE, Views, batches_of_views
from bestiary.layers.channels import match_channels
from bestiary.layers.preprocess import IMAGENET_MEAN, IMAGENET_STD, ChannelOrder, Normalize
from bestiary.layers.scaling import as_float, centre_crop, resize_short_side, stack_equal
from bestiary.predictions import Classification, Prediction
from bestiary.records import Losses, Target
from bestiary.system import Images, System


class Classifier(System):
    """Base of the classifiers: a subclass adds the network and `forward(pixels) -> logits`.

    Args:
        categories: K names.
        resize: `predict` scales the shorter side to this (bilinear, antialiased) ...
        crop: ... and takes a centre crop of this side, the evaluation protocol of the published networks.
        label_smoothing: share of the target spread evenly over all K categories, 0 <= share < 1.
        mean: per channel, on the 0..1 scale.
        std: likewise.
        in_channels: channels of a picture; where it is not 3 and mean and std are ImageNet's, their averages are used.
        channel_order: "bgr" for networks of Caffe's; pictures, mean and std are RGB all the same.

    Attributes:
        views: what of a picture prediction looks at: the centre crop, unless `take` is told otherwise.
        min_side: pixels that the network needs a side; a class says its own.
        any_size: whether one exported graph takes pictures of all sizes, or only of the crop's.

    Raises:
        UsageError: no category, a crop larger than the resized side or smaller than `min_side`, a share outside its
            range.
    """

    task = "classification"
    further_arguments: ClassVar[frozenset[str]] = frozenset({"views", "view_sides", "view_flip"})
    min_side: ClassVar[int] = 1
    any_size: ClassVar[bool] = True
    views: Views = CENTRE

    def __init__(
        self,
        categories: Sequence[str],
        *,
        resize: int = 256,
        crop: int = 224,
        label_smoothing: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        in_channels: int = 3,
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        super().__init__(categories)
        if not self.categories:
            raise UsageError("got no category, wanted at least one", where="categories")
        if not 1 <= crop <= resize:
            mend = "The crop is cut out of the resized picture."
            raise UsageError(f"got resize={resize}, crop={crop}, wanted 1 <= crop <= resize", mend=mend)
        if crop < self.min_side:
            raise UsageError(f"got {crop}, wanted at least {self.min_side} for this network", where="crop")
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"got {label_smoothing}, wanted 0 <= share < 1", where="label_smoothing")
        self.resize, self.crop, self.label_smoothing, self.in_channels = resize, crop, label_smoothing, in_channels
        self.normalize = Normalize(_per_channel(mean, in_channels), _per_channel(std, in_channels), channel_order)

    def take(self, arguments: Mapping[str, Any]) -> None:
        """Look at pictures in another way: `views` (a kind of `Views`), `view_sides`, `view_flip`.

        Raises:
            UsageError: no such kind, or a side that is too small for it.
        """
        old = self.views
        views = Views(
            arguments.get("views", old.kind),
            tuple(arguments.get("view_sides", old.sides)),
            bool(arguments.get("view_flip", old.flip)),
        )
        views.require_room(self.crop, self.min_side)
        self.views = views

    def dense_logits(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits averaged over all places of normalised pictures of any size.

        This is `forward` of the networks that end in a global mean; those with a fixed number of places override it.
        """
        return self(pixels)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Cross entropy of softmax(logits) with `targets[i].label`, mean over the batch: term "cross_entropy".

        Raises:
            RecordError: pictures of different sizes, a target without label, or a label that is no category.
        """
        pixels = self.normalize(stack_equal(images))
        labels = labels_of(targets, len(pixels), len(self.categories)).to(pixels.device)
        loss = F.cross_entropy(self(pixels), labels, label_smoothing=self.label_smoothing)
        return Losses({"cross_entropy": loss})

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "_c _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures resized and cropped in the middle (float, not normalised), whatever `views`; labels as they are.

        Grey pictures for a network of colours are repeated, colours for a grey one mixed.
        """
        found = [as_float(match_channels(image, self.in_channels)) for image in images]
        return [centre_crop(resize_short_side(image, self.resize), self.crop) for image in found], targets

    def predict_images(self, images: Sequence[Shaped[Tensor, "_c _h _w"]]) -> list[Prediction]:
        """Softmax probabilities, the mean over the `views` of each picture."""
        if not len(images):
            return []
        look = self.dense_logits if self.views.kind == "dense" else self
        found = [as_float(match_channels(image, self.in_channels)) for image in images]
        views = [self.views.of(image, self.resize, self.crop) for image in found]
        probs = torch.zeros(len(images), len(self.categories), device=images[0].device)
        for pictures, stack in batches_of_views(views, len(images)):
            places = torch.tensor(pictures, device=probs.device)
            probs.index_add_(0, places, look(self.normalize(stack)).float().softmax(1))
        probs /= len(views[0])
        return [
            Classification(row, size_hw=(int(image.shape[-2]), int(image.shape[-1])), categories=self.categories)
            for row, image in zip(probs, images, strict=True)
        ]


def _per_channel(values: Sequence[float], in_channels: int) -> Sequence[float]:
    if len(values) == in_channels or tuple(values) not in (IMAGENET_MEAN, IMAGENET_STD):
        return values
    return [sum(values) / len(values)] * in_channels


def labels_of(targets: Sequence[Target], batch: int, num_categories: int) -> Int64[Tensor, " B"]:
    """`targets[i].label` as one tensor.

    Raises:
        RecordError: there are not `batch` of them, one is None, or one is outside 0 .. num_categories - 1.
    """
    if len(targets) != batch:
        raise RecordError(f"got {len(targets)}, wanted one a picture, {batch}", where="targets")
    labels: list[int] = []
    for i, target in enumerate(targets):
        where = f"targets[{i}].label"
        if target.label is None:
            mend = "A classifier needs the class of the whole picture; is this a detection or segmentation data set?"
            raise RecordError("got None, wanted a category index", where=where, mend=mend)
        if not 0 <= target.label < num_categories:
            mend = "The model's categories must be those of the data."
            raise RecordError(f"got {target.label}, wanted 0 to {num_categories - 1}", where=where, mend=mend)
        labels.append(target.label)
    return torch.tensor(labels, dtype=torch.int64)
