"""The fully connected CRF with Gaussian edge potentials, by mean field (Krähenbühl and Koltun, NIPS 2011).

    E(x) = sum_i u_i(x_i) + sum_{i<j} mu(x_i, x_j) [ w1 exp(-|p_i - p_j|^2 / (2 alpha^2) - |I_i - I_j|^2 / (2 beta^2))
                                                   + w2 exp(-|p_i - p_j|^2 / (2 gamma^2)) ]      (equations 1-3)

DeepLab (Chen et al., ICLR 2015 and TPAMI 2018) and many after it sharpen a network's label probabilities with it.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.geometry.boxes import at_least_float32
from bestiary.ops.gaussian_filters import gaussian_matrix, grid_gaussian_filter
from bestiary.ops.permutohedral import permutohedral_filter, permutohedral_lattice, scaled_filter
from bestiary.records import require

Normalization = Literal["symmetric", "before", "after", "none"]
Method = Literal["lattice", "exact"]
Weight = int | float | Float[Tensor, ""]
"""A number, or a scalar tensor that learns."""

_MOST_EXACT = 1 << 14
"""Pixels that the exact method takes: their pairs fill 1 GB."""


class Appearance(NamedTuple):
    """The kernel of nearby pixels of like colour.

    Attributes:
        weight: w1.
        sigma_xy: alpha, pixels.
        sigma_rgb: beta, levels of 255.
    """

    weight: Weight
    sigma_xy: int | float
    sigma_rgb: int | float


class Smoothness(NamedTuple):
    """The kernel of nearby pixels, which takes small isolated regions away.

    Attributes:
        weight: w2.
        sigma_xy: gamma, pixels.
    """

    weight: Weight
    sigma_xy: int | float


DEEPLAB_LARGE_FOV = Appearance(4.0, 49.0, 5.0), Smoothness(3.0, 3.0)
"""DeepLab v1, VGG-16 with a large field of view, as in the authors' released script; its paper searched w1, alpha, beta
on 100 validation pictures and fixed w2 = gamma = 3."""

DEEPLAB_V2 = Appearance(4.0, 67.0, 3.0), Smoothness(3.0, 1.0)
"""DeepLab v2, ResNet-101, as in the best known port to torch (mIoU 76.35 to 77.69 on VOC 2012 val)."""

Kernel = tuple[Weight, Callable[[Tensor], Tensor]]
"""Weight, and what the pixels of each pixel's neighbourhood say together: normalised, before the weight."""


def dense_crf(
    logits: Float[Tensor, "*B K H W"],
    image: Shaped[Tensor, "*B C H W"],
    iterations: int = 10,
    appearance: tuple[Weight, int | float, int | float] | None = Appearance(10.0, 80.0, 13.0),
    smoothness: tuple[Weight, int | float] | None = Smoothness(3.0, 3.0),
    compatibility: Float[Tensor, "K K"] | None = None,
    normalization: Normalization = "symmetric",
    include_self: bool = True,
    method: Method = "lattice",
) -> Float[Tensor, "*B K H W"]:
    """Label probabilities after mean-field inference (algorithm 1): as sharp as the picture's own borders.

    Each iteration is `Q = softmax(logits - sum_m w_m mu K_m Q)`, beginning with `Q = softmax(logits)`.

    Convention: the unary energy is `-logits` up to a constant a pixel, so logits and log-probabilities (`probs.log()`)
    do alike, and -inf forbids a label. `sigma_rgb` counts levels of 255, whether the image is uint8 or float 0..1.
    Defaults are those of the reference library's examples (10, 80, 13 and 3, 3); DeepLab's are `DEEPLAB_LARGE_FOV` and
    `DEEPLAB_V2`: `dense_crf(logits, image, 10, *DEEPLAB_V2)`. The released code, which published numbers come from,
    differs from the paper twice, and is followed by default: kernels are normalised (paper: "none"), and j = i is part
    of the sums (paper: left out, `include_self=False`, by subtracting Q_i, as if the lattice had an exact peak).
    Method "lattice" gives the released code's numbers to about 1e-5. Gradients flow to the logits, both weights and the
    compatibility, not to the image. Half precision is computed in float32.

    Args:
        logits: of one picture or a batch.
        image: the same picture(s), uint8 0..255 or float 0..1, with any number of channels.
        iterations: of the mean field; 0 gives softmax(logits).
        appearance: `Appearance`, or its numbers in order; None leaves it out.
        smoothness: `Smoothness`, or its numbers in order; None leaves it out.
        compatibility: mu, what label k costs beside label l at row k, column l; None: Potts, 1 beside any other label.
        normalization: with n_i = sum_j k_ij: "symmetric": k_ij / sqrt(n_i n_j); "before": k_ij / n_j;
            "after": k_ij / n_i; "none".
        include_self: whether a pixel is among its own neighbours.
        method: "lattice": both kernels on the permutohedral lattice, linear in pixels; "exact": all pairs (smoothness
            by `grid_gaussian_filter`), for pictures up to 128 x 128.

    Raises:
        RecordError: shapes do not fit, a sigma is not positive, or too many pixels for the exact method.
        UsageError: no such normalisation or method.
    """
    _require(logits, image, compatibility, iterations, normalization, method)
    for name, kernel in (("appearance", appearance), ("smoothness", smoothness)):
        for sigma in kernel[1:] if kernel is not None else ():
            require(0 < sigma < math.inf, f"dense_crf({name})", f"sigma {sigma}", "a positive number")
    energies = at_least_float32(logits).movedim(-3, -1)
    labels = energies.shape[-1]
    levels = image.to(energies.dtype) * (1 if image.dtype == torch.uint8 else 255)
    costs = None if compatibility is None else compatibility.to(energies.dtype)
    pictures, answers = math.prod(logits.shape[:-3]), []
    unaries = energies.reshape(pictures, energies.shape[-3] * energies.shape[-2], labels)
    levels = levels.reshape(pictures, *image.shape[-3:])
    for unary, colours in zip(unaries, levels, strict=True):
        kernels = _kernels(colours, appearance, smoothness, normalization, include_self, method)
        answers.append(_mean_field(unary, kernels, costs, iterations))
    probs = torch.stack(answers) if answers else energies
    return probs.view(energies.shape).movedim(-1, -3).to(logits.dtype)


def _require(
    logits: Tensor, image: Tensor, compatibility: Tensor | None, iterations: int, normalization: str, method: str
) -> None:
    fits = logits.ndim in (3, 4) and logits.shape[-3] > 0
    require(fits, "dense_crf(logits)", f"shape {tuple(logits.shape)}", "(K, H, W) or (B, K, H, W), K at least 1")
    wanted = (*logits.shape[:-3], "C", *logits.shape[-2:])
    fits = image.ndim == logits.ndim and image.shape[:-3] == logits.shape[:-3] and image.shape[-2:] == logits.shape[-2:]
    require(fits, "dense_crf(image)", f"shape {tuple(image.shape)}", str(wanted))
    fits = image.dtype == torch.uint8 or image.is_floating_point()
    require(fits, "dense_crf(image)", str(image.dtype), "uint8 0..255 or float 0..1")
    labels = logits.shape[-3]
    if compatibility is not None:
        fits = tuple(compatibility.shape) == (labels, labels)
        shape = f"shape {tuple(compatibility.shape)}"
        require(fits, "dense_crf(compatibility)", shape, f"({labels}, {labels})")
    require(iterations >= 0, "dense_crf(iterations)", iterations, "0 or more")
    for name, got, known in (("normalization", normalization, Normalization), ("method", method, Method)):
        if got not in get_args(known):
            raise UsageError(f"got {got!r}, wanted one of {get_args(known)}", where=f"dense_crf({name})")
    pixels = logits.shape[-2] * logits.shape[-1]
    if method == "exact":
        require(pixels <= _MOST_EXACT, "dense_crf(method='exact')", f"{pixels} pixels", f"at most {_MOST_EXACT}")


def _mean_field(
    logits: Float[Tensor, "N K"], kernels: list[Kernel], costs: Float[Tensor, "K K"] | None, iterations: int
) -> Float[Tensor, "N K"]:
    probs = _softmax(logits)
    for _ in range(iterations):
        # Potts: the sum of all labels' messages is the same for every label, so support for one's own remains.
        total = logits if costs is None else torch.zeros_like(logits)
        for weight, messages in kernels:
            # A number's product is part of the addition, which saves a pass over memory.
            spoken = messages(probs)
            total = total + weight * spoken if isinstance(weight, Tensor) else torch.add(total, spoken, alpha=weight)
        probs = _softmax(total if costs is None else logits - total @ costs.t())
    return probs


def _softmax(logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Softmax of each row; torch computes rows of fewer than 16 numbers one number at a time, ten times slower."""
    labels = logits.shape[1]
    if labels >= 16:
        return torch.softmax(logits, dim=1)
    return torch.softmax(F.pad(logits, (0, 16 - labels), value=-math.inf), dim=1)[:, :labels]


def _kernels(
    colours: Float[Tensor, "C H W"],
    appearance: tuple[Weight, int | float, int | float] | None,
    smoothness: tuple[Weight, int | float] | None,
    normalization: Normalization,
    include_self: bool,
    method: Method,
) -> list[Kernel]:
    places, found = _places(colours), []
    if appearance is not None:
        weight, sigma_xy, sigma_rgb = appearance
        features = torch.cat([places / sigma_xy, colours.flatten(1).t() / sigma_rgb], dim=1)
        make = _on_all_pairs if method == "exact" else _on_a_lattice
        found.append((weight, make(features, normalization, include_self)))
    if smoothness is not None:
        weight, sigma = smoothness
        if method == "exact":
            found.append((weight, _on_the_grid(colours, sigma, normalization, include_self)))
        else:
            found.append((weight, _on_a_lattice(places / sigma, normalization, include_self)))
    return found


def _places(colours: Float[Tensor, "C H W"]) -> Float[Tensor, "N 2"]:
    """x and y of each pixel, row by row."""
    _, height, width = colours.shape
    y = torch.arange(height, dtype=colours.dtype, device=colours.device)[:, None].expand(height, width)
    x = torch.arange(width, dtype=colours.dtype, device=colours.device)[None].expand(height, width)
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _on_a_lattice(
    features: Float[Tensor, "N d"], normalization: Normalization, include_self: bool
) -> Callable[[Tensor], Tensor]:
    lattice = permutohedral_lattice(features)
    own = 0.0 if include_self else 1.0
    sums = permutohedral_filter(features.new_ones(features.shape[0], 1), lattice)[:, 0] - own
    before, after = _normalisers(sums, normalization)
    if include_self:
        return lambda probs: scaled_filter(probs, lattice, before, after)
    return lambda probs: scaled_filter(probs, lattice, before, after) - (before * after)[:, None] * probs


def _on_all_pairs(
    features: Float[Tensor, "N d"], normalization: Normalization, include_self: bool
) -> Callable[[Tensor], Tensor]:
    matrix = gaussian_matrix(features, features)
    if not include_self:
        matrix.fill_diagonal_(0)
    before, after = _normalisers(matrix.sum(dim=1), normalization)
    matrix = after[:, None] * matrix * before
    return lambda probs: matrix @ probs


def _on_the_grid(
    colours: Float[Tensor, "C H W"], sigma: int | float, normalization: Normalization, include_self: bool
) -> Callable[[Tensor], Tensor]:
    height, width = colours.shape[1:]
    own = 0.0 if include_self else 1.0

    def neighbours(values: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        picture = values.reshape(height, width, values.shape[1])
        return grid_gaussian_filter(picture, sigma).flatten(0, 1) - own * values

    before, after = _normalisers(neighbours(colours.new_ones(height * width, 1))[:, 0], normalization)
    return lambda probs: after[:, None] * neighbours(before[:, None] * probs)


def _normalisers(sums: Float[Tensor, " N"], normalization: Normalization) -> tuple[Tensor, Tensor]:
    """What multiplies a pixel before and after the sum over neighbours; zero where it has none at all."""
    one = torch.ones_like(sums)
    if normalization == "none":
        return one, one
    power = -0.5 if normalization == "symmetric" else -1.0
    factor = torch.where(sums > 0, sums.clamp(min=torch.finfo(sums.dtype).tiny) ** power, torch.zeros_like(sums))
    return (one if normalization == "after" else factor), (one if normalization == "before" else factor)
