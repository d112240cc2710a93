"""Distance transforms, exact: Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, 2012.

`euclidean_distance` is of pixel sets, `min_envelope_1d` and `min_envelope_2d` are of functions (the generalised
transform that deformable part models score with), `border_weights` is U-Net's use of distances.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from torch import Tensor

from bestiary.geometry.boxes import at_least_float32
from bestiary.records import require

_PAIRS_AT_ONCE = 1 << 24
"""Pairs of places that the plain path compares at a time (128 MB)."""

_REACH = 7.0
"""Distances beyond this many sigmas count as infinite: what they would add is below 3e-11 w0."""


def euclidean_distance(masks: Bool[Tensor, "*N H W"]) -> Float32[Tensor, "*N H W"]:
    """Distance of each pixel of a mask to the nearest pixel outside it.

    Convention: between pixel centres, in pixels; 0 outside the mask (as scipy's `distance_transform_edt`). The
    picture's border is not outside; a mask that covers its whole picture is infinitely far from any. Squared distances
    are whole numbers and exact; their roots are rounded to float32.

    Args:
        masks: any number of them; on any device, computed on the CPU.

    Raises:
        RecordError: not bool, or fewer than two axes.
    """
    require(masks.ndim >= 2, "euclidean_distance(masks)", f"shape {tuple(masks.shape)}", "(..., H, W)")
    require(masks.dtype == torch.bool, "euclidean_distance(masks)", str(masks.dtype), "torch.bool")
    return _euclidean_distance(masks)


@torch.library.custom_op("bestiary::euclidean_distance", mutates_args=())
def _euclidean_distance(masks: Tensor) -> Tensor:
    from bestiary.ops._kernels.distance import column_gaps, distances, nearest_columns
    from bestiary.ops._kernels.threads import in_threads

    height, width = masks.shape[-2:]
    count, threads = math.prod(masks.shape[:-2]), torch.get_num_threads()
    out = np.empty((count * height, width), np.float32)
    if out.size:
        pixels = masks.detach().cpu().contiguous().numpy().view(np.uint8).reshape(count, height, width)
        gaps, columns = np.empty(pixels.shape, np.int32), np.empty(out.shape, np.int32)
        in_threads(lambda a, b: column_gaps(pixels, a, b, gaps), count, threads)
        rows = gaps.reshape(-1, width)

        def work(start: int, stop: int) -> None:
            nearest_columns(rows, start, stop, height + width, columns)
            distances(rows, columns, start, stop, out)

        in_threads(work, len(rows), threads, grain=16)
    return torch.from_numpy(out).reshape(masks.shape).to(masks.device)


@_euclidean_distance.register_fake
def _(masks: Tensor) -> Tensor:
    return masks.new_empty(masks.shape, dtype=torch.float32)


def min_envelope_1d(
    costs: Float[Tensor, "*N L"], quadratic: int | float | Tensor, linear: int | float | Tensor = 0.0
) -> tuple[Float[Tensor, "*N L"], Int64[Tensor, "*N L"]]:
    """The generalised distance transform of each line: D(p) = min over q of costs(q) + a (p - q)^2 + b (p - q).

    Section 2.1, with a linear term. Time goes with L, not with its square.

    Convention: places are 0, 1 ... L - 1. Of equal q the lowest is taken, as far as rounding lets them be equal. Costs
    may be +inf (no q there), not -inf or NaN; a line of only +inf gives +inf and q = 0. Gradients flow to the costs, a
    and b (those of the q that was taken). Half precision is computed in float32, the choice of q in float64.

    Args:
        costs: lines.
        quadratic: a > 0; a number, or a tensor that broadcasts to `costs.shape[:-1]`.
        linear: b; likewise.

    Returns:
        D, and the q of each p.

    Raises:
        RecordError: no line to speak of, or a not positive (checked on the CPU only).
    """
    require(costs.ndim >= 1, "min_envelope_1d(costs)", f"shape {tuple(costs.shape)}", "(..., L)")
    values = at_least_float32(costs)
    a, b = _of_lines(values, quadratic, "quadratic"), _of_lines(values, linear, "linear")
    sources = _envelope(values.detach(), a.detach(), b.detach())
    step = torch.arange(values.shape[-1], device=values.device) - sources
    found = values.gather(-1, sources) + (a[..., None] * step + b[..., None]) * step
    return found.to(costs.dtype), sources


def min_envelope_2d(
    costs: Float[Tensor, "*N H W"],
    quadratic: tuple[int | float | Tensor, int | float | Tensor],
    linear: tuple[int | float | Tensor, int | float | Tensor] = (0.0, 0.0),
) -> tuple[Float[Tensor, "*N H W"], Int64[Tensor, "*N H W 2"]]:
    """The generalised distance transform of maps: D(p) = min over q of costs(q) + a.(p - q)^2 + b.(p - q).

    Section 2.2: along x, then along y. Deformable part models (Felzenszwalb et al., TPAMI 2010, section 3.1) score a
    part with the negative of it, costs being negative responses.

    Convention: as `min_envelope_1d`; places and coefficients are in the order x, y.

    Args:
        costs: maps.
        quadratic: a of x and of y, each > 0; numbers, or tensors that broadcast to `costs.shape[:-2]`.
        linear: b of x and of y; likewise.

    Returns:
        D, and (x, y) of the q of each p.

    Raises:
        RecordError: fewer than two axes, or a not positive (checked on the CPU only).
    """
    require(costs.ndim >= 2, "min_envelope_2d(costs)", f"shape {tuple(costs.shape)}", "(..., H, W)")
    (ax, ay), (bx, by) = ((_rowwise(x), _rowwise(y)) for x, y in (quadratic, linear))
    values = at_least_float32(costs)
    along_x, x = min_envelope_1d(values, ax, bx)
    found, y = min_envelope_1d(along_x.transpose(-1, -2), ay, by)
    y = y.transpose(-1, -2)
    return found.transpose(-1, -2).to(costs.dtype), torch.stack([x.gather(-2, y), y], dim=-1)


def _rowwise(number: int | float | Tensor) -> int | float | Tensor:
    return number[..., None] if isinstance(number, Tensor) and number.ndim else number


def _of_lines(values: Tensor, number: int | float | Tensor, name: str) -> Tensor:
    given = torch.as_tensor(number, dtype=values.dtype, device=values.device)
    if name == "quadratic" and given.device.type == "cpu" and not torch.compiler.is_compiling() and given.numel():
        require(bool((given > 0).all()), "quadratic", float(given.detach().min()), "numbers above 0")
    lines = values.shape[:-1]
    # The last axes must agree; further ones of the lines are free.
    fits = given.ndim <= len(lines) and all(g in (1, w) for g, w in zip(given.shape[::-1], lines[::-1], strict=False))
    require(fits, name, f"shape {tuple(given.shape)}", f"one that broadcasts to {tuple(lines)}")
    return given.expand(lines)


@torch.library.custom_op("bestiary::min_envelope", mutates_args=())
def _envelope(costs: Tensor, quadratic: Tensor, linear: Tensor) -> Tensor:
    if costs.device.type != "cpu":
        return envelope_in_torch(costs, quadratic, linear)
    from bestiary.ops._kernels.distance import envelope
    from bestiary.ops._kernels.threads import in_threads

    length = costs.shape[-1]
    sources = np.zeros((math.prod(costs.shape[:-1]), length), np.int64)
    lines = costs.detach().double().contiguous().numpy().reshape(sources.shape)
    a, b = (t.detach().double().contiguous().numpy().reshape(-1) for t in (quadratic, linear))
    in_threads(lambda s, e: envelope(lines, a, b, s, e, sources), len(sources), torch.get_num_threads(), grain=8)
    return torch.from_numpy(sources).reshape(costs.shape)


@_envelope.register_fake
def _(costs: Tensor, quadratic: Tensor, linear: Tensor) -> Tensor:
    return costs.new_empty(costs.shape, dtype=torch.int64)


def envelope_in_torch(costs: Tensor, quadratic: Tensor, linear: Tensor) -> Int64[Tensor, "..."]:
    """The q of each p by comparing all, for any device."""
    length = costs.shape[-1]
    lines, a, b = (t.double().reshape(-1, *tail) for t, tail in ((costs, (length,)), (quadratic, ()), (linear, ())))
    place = torch.arange(length, device=costs.device, dtype=torch.float64)
    step = place[:, None] - place[None]
    sources = torch.zeros(lines.shape, dtype=torch.int64, device=costs.device)
    for part in torch.arange(len(lines), device=costs.device).split(max(1, _PAIRS_AT_ONCE // max(1, length * length))):
        bend = (a[part, None, None] * step + b[part, None, None]) * step
        sources[part] = (lines[part, None, :] + bend).argmin(dim=-1)
    return sources.reshape(costs.shape)


def border_weights(
    instance_map: Int[Tensor, "H W"], w0: int | float = 10.0, sigma: int | float = 5.0
) -> Float64[Tensor, "H W"]:
    """w0 exp(-(d1 + d2)^2 / (2 sigma^2)): U-Net's weight of the thin borders between touching things.

    Ronneberger, Fischer, Brox, MICCAI 2015, equation 2, second term; w_c, which balances the classes, is the caller's.
    d1 and d2 are the distances to the nearest and to the second nearest thing.

    Convention: between pixel centres, in pixels, exact; 0 inside things (the paper's figure 3d) and where fewer than
    two things lie within 7 sigma, where the term is below 3e-11 w0.

    Args:
        instance_map: number of the thing each pixel belongs to, 0 for none.
        w0: the value that touching borders would have.
        sigma: pixels.

    Raises:
        RecordError: not [H, W], sigma not above 0, or w0 below 0.
    """
    from bestiary.ops._kernels.distance import two_nearest

    require(instance_map.ndim == 2, "border_weights(instance_map)", f"shape {tuple(instance_map.shape)}", "(H, W)")
    require(sigma > 0 and w0 >= 0, "border_weights", f"w0 {w0} and sigma {sigma}", "w0 >= 0 and sigma > 0")
    numbers = instance_map.detach().cpu().long()
    count = int(numbers.max()) if numbers.numel() else 0
    require(
        not numbers.numel() or int(numbers.min()) >= 0, "border_weights(instance_map)", "a number below 0", "0 or more"
    )
    if count > numbers.numel():
        # Numbers far apart, such as panoptic ids: in their order, but dense.
        found, numbers = torch.cat([numbers.new_zeros(1), numbers.flatten()]).unique(return_inverse=True)
        count, numbers = len(found) - 1, numbers[1:].reshape(instance_map.shape)
    cells = numbers.to(torch.int32).contiguous().numpy()
    reach = math.ceil(_REACH * sigma)
    squares = np.empty((2, *cells.shape), np.int64)
    two_nearest(cells, count, reach, squares)
    nearest, second = np.sqrt(np.maximum(squares, 0))
    term = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    term[(squares[1] < 0) | (cells != 0)] = 0
    return torch.from_numpy(term).to(instance_map.device)
