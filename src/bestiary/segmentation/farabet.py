"""Multi-scale convolutional network for scene labelling: Farabet, Couprie, Najman, LeCun: Learning Hierarchical
Features for Scene Labeling, PAMI 2013.

Faithful: a Laplacian pyramid of three levels, locally normalised; one network of three stages with 7 x 7 kernels, 16,
64 and 256 maps, the same for all levels (windows of 46 x 46 pixels of each); the maps of all levels brought to one size
and stacked, 768 values a place; two layers that name the class; the mean of the predicted distributions over the
superpixels of Felzenszwalb and Huttenlocher. The second stage's maps see 8 of 16 maps each, the third's 16 of 64, drawn
at random.
Ours: which of the first maps see Y and which U and V (10 and 6); how far contrast is normalised (15 x 15); borders are
mirrored; the network is trained as one, where the authors train features with a linear classifier first. Their cover of
a segmentation tree is not here.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.features.superpixels import felzenszwalb_segments
from bestiary.heads.published import STANFORD_8
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.channels import match_channels
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import resize_logits
from bestiary.layers.sparse_convolution import SparseConv2d, drawn_connections
from bestiary.ops.local_contrast import laplacian_pyramid, normalise_contrast

SCALES = 3
KERNEL = 7
STRIDE = 4
"""Of the features: two poolings."""

BORDER = 21
"""Pixels around a level with which the windows of its cells, 46 pixels wide and 4 apart, end 21 beyond it."""

YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))
"""Rows Y, U, V from red, green, blue (ITU-R BT.470)."""

DRAWN = 2013
"""Seed of the tables of connections."""


class Farabet(WholePicture):
    """The network; 1,022,862 parameters for three channels and eight classes.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`; it hands on values 0..1.
        maps: of the three stages.
        fans: input maps that each map of the second and of the third stage sees.
        hidden: units between features and classes.
        superpixels: predictions are averaged over superpixels.
        grain: of the superpixels: larger makes larger ones (Felzenszwalb's k, for values of 0..255).

    Raises:
        UsageError: a number below 1.
    """

    geometry = InputGeometry(grid=16, smallest=112)  # of the coarsest level 28 pixels, enough to be mirrored

    features: nn.Sequential
    classifier: nn.Sequential
    to_yuv: Tensor | None

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        *,
        maps: tuple[int, int, int] = (16, 64, 256),
        fans: tuple[int, int] = (8, 16),
        hidden: int = 1024,
        superpixels: bool = True,
        grain: int | float = 100.0,
    ) -> None:
        super().__init__(categories, normalize)
        if min(*maps, *fans, hidden) < 1 or grain < 0:
            got = f"got {maps} maps, fans {fans}, {hidden} hidden units, grain {grain}"
            raise UsageError(f"{got}, wanted at least 1 each, a grain of 0 or more", where="Farabet")
        self.register_buffer("to_yuv", torch.tensor(YUV) if self.in_channels == 3 else None, persistent=False)
        tables = [
            _first_table(self.in_channels, maps[0]),
            drawn_connections(maps[0], maps[1], min(fans[0], maps[0]), DRAWN),
            drawn_connections(maps[1], maps[2], min(fans[1], maps[1]), DRAWN + 1),
        ]
        inputs = (self.in_channels, *maps[:2])
        stages = [SparseConv2d(i, table, KERNEL) for i, table in zip(inputs, tables, strict=True)]
        self.features = nn.Sequential(
            *(stages[0], nn.Tanh(), nn.MaxPool2d(2)),
            *(stages[1], nn.Tanh(), nn.MaxPool2d(2)),
            *(stages[2], nn.Tanh()),
        )
        self.classifier = nn.Sequential(
            nn.Conv2d(SCALES * maps[2], hidden, 1), nn.Tanh(), nn.Conv2d(hidden, len(self.categories), 1)
        )
        self.superpixels, self.grain = superpixels, grain

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel: those of the places 4 pixels apart, enlarged."""
        size_hw = (pixels.shape[-2], pixels.shape[-1])
        stacked = self.stack(self.scale_features(level) for level in self.pyramid(pixels))
        return PixelOutputs(resize_logits(self.classifier(stacked), size_hw))

    def pyramid(self, pixels: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B C _h _w"]]:
        """The levels, fine to coarse, normalised."""
        if self.to_yuv is not None:
            pixels = torch.einsum("oc,bchw->bohw", self.to_yuv, pixels)
        return [normalise_contrast(level) for level in laplacian_pyramid(pixels, SCALES)]

    def scale_features(self, level: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F H2 W2"]:
        """Of one level, at a quarter of its size: each place has seen 46 x 46 pixels."""
        return self.features(F.pad(level, [BORDER] * 4, mode="reflect"))

    def stack(self, features: Iterator[Float[Tensor, "B F _h _w"]]) -> Float[Tensor, "B G H W"]:
        """All levels' features at the size of the first's."""
        first = next(features)
        size_hw = (first.shape[-2], first.shape[-1])
        return torch.cat([first, *(resize_logits(further, size_hw) for further in features)], dim=1)

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """Of the whole pictures; over superpixels the logarithm of the mean of the probabilities."""
        for top, left, logits in super().logit_windows(images):
            if self.superpixels:
                logits = torch.stack([self._levelled(*pair) for pair in zip(images, logits, strict=True)])
            yield top, left, logits

    def _levelled(self, image: Shaped[Tensor, "C H W"], logits: Float[Tensor, "K H W"]) -> Float[Tensor, "K H W"]:
        values = match_channels(image, self.in_channels)
        values = values.float() if values.dtype == torch.uint8 else values.float() * 255
        segments = felzenszwalb_segments(values, self.grain, 0.8, 20).to(logits.device)
        probs = mean_over(self.probs_of(logits[None])[0], segments)
        return probs.logit(1e-7) if self.multi_label else probs.clamp(min=torch.finfo(probs.dtype).tiny).log()


def mean_over(maps: Float[Tensor, "K H W"], segments: Shaped[Tensor, "H W"]) -> Float[Tensor, "K H W"]:
    """Each pixel has its segment's mean."""
    owner = segments.flatten().long()
    flat = maps.flatten(1)
    sums = flat.new_zeros(len(flat), int(owner.max()) + 1).index_add(1, owner, flat)
    return (sums / owner.bincount().to(flat.dtype))[:, owner].view_as(maps)


def _first_table(in_channels: int, maps: int) -> list[list[int]]:
    """Of colour pictures five maps in eight see the brightness and three the colour; else all see everything."""
    if in_channels != 3:
        return [list(range(in_channels))] * maps
    bright = maps - maps * 3 // 8
    return [[0]] * bright + [[1, 2]] * (maps - bright)


def farabet(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    superpixels: bool = True,
    grain: float = 100.0,
) -> Farabet:
    """The paper's widths; `categories=None` gives the Stanford Background data set's.

    Args:
        categories: K names; None gives the paper's eight.
        in_channels: channels of a picture; three are taken as red, green, blue.
        superpixels: predictions are averaged over superpixels.
        grain: of the superpixels: larger makes larger ones.
    """
    return Farabet(categories or STANFORD_8, _unit_range(in_channels), superpixels=superpixels, grain=grain)


def farabet_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    superpixels: bool = True,
    grain: float = 100.0,
) -> Farabet:
    """Half the maps of each stage, which see half as many, and 256 hidden units.

    Arguments as `farabet`.
    """
    normalize = _unit_range(in_channels)
    return Farabet(
        categories or STANFORD_8,
        normalize,
        maps=(8, 32, 128),
        fans=(4, 8),
        hidden=256,
        superpixels=superpixels,
        grain=grain,
    )


def _unit_range(in_channels: int) -> Normalize:
    return Normalize([0.0] * in_channels, [1.0] * in_channels)
