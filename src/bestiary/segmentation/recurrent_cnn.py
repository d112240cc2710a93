"""Recurrent convolutional network for scene labelling: Pinheiro, Collobert: Recurrent Convolutional Neural Networks for
Scene Labeling, ICML 2014.

Faithful: one small network sees the picture together with what it said itself the round before, at a scale that is
smaller by as much as the answers lie apart, several times with the same weights; so the window grows with every round
(25, 121, 505 pixels) and the parameters do not. Each round is trained to name the pixel in the middle; the first hears
zeros. Windows are drawn at random. Ours: two 8 x 8 convolutions of 25 and 50 maps, 2 x 2 max pooling, hyperbolic
tangents, and a layer of classes; answers are handed on as probabilities; smaller scales are means of squares; logits
`step` pixels apart are interpolated.

All windows are evaluated at once (`layers.dense_windows`): the answers are those of each window cut out and seen alone.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.heads.pixel_sampling import Sampling, WindowSampling, as_row
from bestiary.heads.published import STANFORD_8
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.dense_windows import dense, window_side
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import resize_logits
from bestiary.records import Losses, Target
from bestiary.system import Images

SHRINKING = 4
"""Pixels of a round's input from one of its answers to the next: two poolings."""

MOST_ROUNDS = 4
"""The window of a fifth would have 8,185 pixels a side."""

Step = Literal[1, 4]


class RecurrentCNN(WholePicture):
    """The network; 98,083 parameters for three channels and eight classes, whatever the rounds.

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        rounds: how often the network sees the picture.
        maps: of the two convolutions.
        kernel: their sides.
        windows: windows that training draws from each picture; None trains on all that prediction evaluates.
        sampling: which ones: as many of each class, or as they come.
        step: pixels from one evaluated window to the next.

    Attributes:
        sides: of the window that an answer of each round is made of, the first round's first.

    Raises:
        UsageError: a number of rounds or maps that cannot be, or an odd kernel, whose windows would have no middle
            pixel.
    """

    auxiliary_weights: ClassVar[Mapping[str, float]] = {f"round{number}": 1.0 for number in range(1, MOST_ROUNDS)}
    network: nn.Sequential

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        *,
        rounds: int = 2,
        maps: tuple[int, int] = (25, 50),
        kernel: int = 8,
        windows: int | None = 32,
        sampling: Sampling = "natural",
        step: Step = 4,
    ) -> None:
        super().__init__(categories, normalize)
        if not 1 <= rounds <= MOST_ROUNDS or min(maps) < 1 or kernel < 2 or kernel % 2:
            got = f"got {rounds} rounds, {maps} maps and kernels of {kernel}"
            wanted = f"1 to {MOST_ROUNDS} rounds, maps, and even kernels"
            raise UsageError(f"{got}, wanted {wanted}", where="RecurrentCNN")
        classes = len(self.categories)
        self.network = nn.Sequential(
            *(nn.Conv2d(self.in_channels + classes, maps[0], kernel), nn.MaxPool2d(2), nn.Tanh()),
            *(nn.Conv2d(maps[0], maps[1], kernel), nn.MaxPool2d(2), nn.Tanh()),
            nn.Conv2d(maps[1], classes, 1),
        )
        side, sides = window_side(self.network), [1]
        for number in range(rounds):
            sides.append(sides[-1] + (side - 1) * SHRINKING**number)
        self.rounds, self.step, self.sides = rounds, step, tuple(sides[1:])
        self.windows = None if windows is None else WindowSampling(windows, sampling)
        self.geometry = InputGeometry(margin=sides[-1] // 2, grid=step)

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of every pixel by the last round, and by those before (`round1` ...)."""
        margin = self.geometry.margin
        size_hw = (pixels.shape[-2] - 2 * margin, pixels.shape[-1] - 2 * margin)
        return _named([resize_logits(logits, size_hw, True) for logits in self.answers(pixels, self.step)])

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The objective's terms of all rounds, each as much as the last, over the windows that are drawn (torch's
        default generator), or over all.
        """
        if self.windows is None:
            return super().loss(images, targets)
        windows, truth = self.windows.draw(self, images, targets)
        outputs = _named([as_row(logits.flatten(1)) for logits in self.answers(windows, self.sides[-1])])
        return Losses(self.loss_terms(outputs, truth))

    def answers(self, pixels: Float[Tensor, "B C H W"], step: int) -> list[Float[Tensor, "B K H2 W2"]]:
        """Each round's logits of the middles of the largest windows that lie in the picture, `step` pixels apart.

        A step of a window's side or more gives the answers of windows that were cut out.
        """
        height, width = pixels.shape[-2:]
        said = pixels.new_zeros(pixels.shape[0], len(self.categories), height, width)
        found = []
        for number in range(self.rounds):
            scale = SHRINKING**number
            spacing = min(step, scale)  # of what the round sees, in pixels
            seen = torch.cat([self._at_scale(pixels, number, spacing, said), said], dim=1)
            logits = self.network(seen) if step > spacing else dense(self.network, seen, scale // spacing)
            found.append(logits)
            said = self.probs_of(logits).to(logits.dtype)
        return [_middle_of(logits, found[-1]) for logits in found]

    def _at_scale(
        self, pixels: Float[Tensor, "B C H W"], number: int, spacing: int, said: Float[Tensor, "B K H2 W2"]
    ) -> Float[Tensor, "B C H2 W2"]:
        """The picture around the middles of the windows that `said` is of: means of squares of the round's scale,
        whose outermost pixels count half, so that they have a middle pixel.
        """
        if number == 0:
            return pixels
        scale = SHRINKING**number
        first = self.sides[number - 1] // 2 - scale // 2
        height, width = (first + (count - 1) * spacing + scale + 1 for count in said.shape[-2:])
        part = pixels[..., first:height, first:width]
        return F.avg_pool2d(F.avg_pool2d(part, 2, 1), scale, spacing)


def _named(rounds: Sequence[Tensor]) -> PixelOutputs:
    return PixelOutputs(rounds[-1], {f"round{i}": logits for i, logits in enumerate(rounds[:-1], 1)})


def _middle_of(logits: Float[Tensor, "B K H W"], like: Float[Tensor, "B K H2 W2"]) -> Float[Tensor, "B K H2 W2"]:
    top, left = (logits.shape[-2] - like.shape[-2]) // 2, (logits.shape[-1] - like.shape[-1]) // 2
    return logits[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def recurrent_cnn(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    rounds: int = 2,
    windows: int | None = 32,
    sampling: Sampling = "natural",
    step: Step = 4,
) -> RecurrentCNN:
    """The network; `categories=None` gives the Stanford Background data set's.

    Args:
        categories: K names; None gives the paper's eight.
        in_channels: channels of a picture.
        rounds: how often the network sees the picture: windows of 25, 121, 505 pixels.
        windows: windows that training draws from each picture; none for all.
        sampling: which ones: balanced (as many of each class) or natural (as they come).
        step: pixels from one evaluated window to the next, 1 or 4; logits between them are interpolated.
    """
    return RecurrentCNN(
        categories or STANFORD_8, _signed(in_channels), rounds=rounds, windows=windows, sampling=sampling, step=step
    )


def recurrent_cnn_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    rounds: int = 2,
    windows: int | None = None,
    sampling: Sampling = "natural",
    step: Step = 4,
) -> RecurrentCNN:
    """The same network, trained on all windows of a picture at once.

    Arguments as `recurrent_cnn`.
    """
    return recurrent_cnn(categories, in_channels, rounds, windows, sampling, step)


def _signed(in_channels: int) -> Normalize:
    return Normalize([0.5] * in_channels, [0.5] * in_channels)
