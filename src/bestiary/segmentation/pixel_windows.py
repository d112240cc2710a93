"""Sliding-window pixel classifier: Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal
Membranes in Electron Microscopy Images, NIPS 2012.

A network names the pixel in the middle of a window. Faithful: their net N4 (95 x 95 pixels; four times convolution and
2 x 2 max pooling, 200 hidden units), its scaled hyperbolic tangent, windows mirrored at the border of the picture,
training on randomly chosen windows, as many of each class, turned and mirrored. Beyond the paper: `evaluation="dense"`
gives the same answers for all windows at once (`layers.dense_windows`), hundreds of times sooner than window by window;
`windows=None` trains on all of them (Masci et al.: A Fast Learning Algorithm for Image Segmentation with Max-Pooling
Convolutional Networks, ICIP 2013).
Left out: foveation and nonuniform sampling of the window, calibration and median filter afterwards, and the mean of
four networks. Ours: pictures are scaled to -1..1, and the initialisation is torch's.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.heads.pixel_sampling import Sampling, WindowSampling, as_row, turned
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.dense_windows import dense, window_side
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaled_tanh import ScaledTanh
from bestiary.records import Losses, Target
from bestiary.system import Images

CATEGORIES = ("membrane", "cell")
"""The paper's two classes, in the order of the labels 0 and 1 of its data."""

N4_KERNELS = (4, 5, 4, 4)
"""Convolutions of net N4, each before a 2 x 2 max pooling; what is left of 95 pixels is 3 x 3."""

Evaluation = Literal["dense", "windows"]


class PixelWindows(WholePicture):
    """Convolutions, poolings and a hidden layer over a window; 219,290 parameters as net N4 (grey, two classes).

    Args:
        categories: as in `PixelSystem`.
        normalize: as in `PixelSystem`.
        kernels: sides of the convolutions; each is followed by a 2 x 2 max pooling.
        maps: channels of each.
        hidden: units between the last maps and the classes.
        last: side of the last maps, which are fully connected to the hidden units.
        windows: windows that training draws from each picture; None trains on all of them.
        sampling: which ones: as many of each class, or as they come.
        turn: training turns and mirrors each window at random, in the eight ways of a square.
        evaluation: of a picture: all windows at once, or each cut out and seen alone. The answers are the same.

    Raises:
        UsageError: fewer than one window.
    """

    network: nn.Sequential

    def __init__(
        self,
        categories: Sequence[str],
        normalize: Normalize,
        kernels: Sequence[int] = N4_KERNELS,
        *,
        maps: int = 48,
        hidden: int = 200,
        last: int = 3,
        windows: int | None = 128,
        sampling: Sampling = "balanced",
        turn: bool = True,
        evaluation: Evaluation = "dense",
    ) -> None:
        super().__init__(categories, normalize)
        layers: list[nn.Module] = []
        channels = self.in_channels
        for kernel in kernels:
            # pooling first: a rising function commutes with the maximum
            layers += [nn.Conv2d(channels, maps, kernel), nn.MaxPool2d(2), ScaledTanh()]
            channels = maps
        layers += [nn.Conv2d(maps, hidden, last), ScaledTanh(), nn.Conv2d(hidden, len(self.categories), 1)]
        self.network = nn.Sequential(*layers)
        self.side = window_side(layers)
        self.geometry = InputGeometry(margin=self.side // 2)
        self.windows = None if windows is None else WindowSampling(windows, sampling)
        self.turn, self.evaluation = turn, evaluation

    def outputs(self, pixels: Float[Tensor, "B C H W"]) -> PixelOutputs:
        """Logits of the middles of all windows."""
        every = self.window_logits if self.evaluation == "windows" else self.dense_logits
        return PixelOutputs(every(pixels))

    def dense_logits(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H2 W2"]:
        """All windows at once."""
        return dense(self.network, pixels)

    def window_logits(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H2 W2"]:
        """Window by window, those of a row of pixels in one pass."""
        side = self.side
        rows = []
        for top in range(pixels.shape[-2] - side + 1):
            strip = pixels[:, :, top : top + side].unfold(-1, side, 1)  # B C side W2 side
            windows = strip.permute(0, 3, 1, 2, 4).flatten(0, 1)
            rows.append(self.network(windows).view(len(pixels), -1, len(self.categories)).transpose(1, 2))
        return torch.stack(rows, dim=2)

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The objective's terms over the windows that are drawn (torch's default generator), or over all."""
        if self.windows is None:
            return super().loss(images, targets)
        windows, truth = self.windows.draw(self, images, targets)
        logits = self.network(turned(windows) if self.turn else windows).flatten(1)
        return Losses(self.loss_terms(PixelOutputs(as_row(logits)), truth))


def pixel_windows(
    categories: Sequence[str] | None = None,
    in_channels: int = 1,
    windows: int | None = 128,
    sampling: Sampling = "balanced",
    turn: bool = True,
    evaluation: Evaluation = "dense",
) -> PixelWindows:
    """Net N4 of the paper; `categories=None` gives membrane and cell.

    Args:
        categories: K names; None gives the paper's two.
        in_channels: channels of a picture.
        windows: windows that training draws from each picture; none for all of them.
        sampling: which ones: balanced (as many of each class) or natural (as they come).
        turn: training turns and mirrors each window at random.
        evaluation: dense (all windows of a picture at once) or windows (each cut out and seen alone, as the paper does;
            the answers are the same, hundreds of times later).
    """
    normalize = Normalize([0.5] * in_channels, [0.5] * in_channels)
    return PixelWindows(
        categories or CATEGORIES, normalize, windows=windows, sampling=sampling, turn=turn, evaluation=evaluation
    )


def pixel_windows_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    windows: int | None = None,
    sampling: Sampling = "natural",
    turn: bool = False,
    evaluation: Evaluation = "dense",
) -> PixelWindows:
    """Net N4 with half the maps and hidden units, for colour and windows the right way up.

    Arguments as `pixel_windows`.
    """
    normalize = Normalize([0.5] * in_channels, [0.5] * in_channels)
    return PixelWindows(
        categories or CATEGORIES,
        normalize,
        maps=24,
        hidden=100,
        windows=windows,
        sampling=sampling,
        turn=turn,
        evaluation=evaluation,
    )
