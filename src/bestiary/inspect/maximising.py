"""The picture that excites a unit most.

Mahendran, Vedaldi: Visualizing Deep Convolutional Neural Networks Using Natural Pre-Images, IJCV 2016.

Maximised over pictures x is

    activation(x) / scale - bound_weight * R_alpha(x) - variation_weight * R_TV(x)
    R_alpha(x) = mean over pixels of (|x| / B)^alpha,  |x| the length of the pixel's colour, grey being 0
    R_TV(x)    = mean over pixels of ((right - here)^2 + (below - here)^2)^(beta / 2) / V^beta, summed over colours

with the picture shifted by a random number of pixels at each step (jitter) and kept in its domain by projection.

Not as the paper: all steps go one length along the gradient with momentum, and the length falls to nothing over the
climb; B and V are told on the scale 0..1 of pictures; the scale of the activation is found on noise, so that one set of
weights serves all layers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.inspect.layers import Tap, Unit, channel_of, find_layer, frozen
from bestiary.records import require

MOMENTUM = 0.9


@dataclass(frozen=True)
class Prior:
    """What pictures are expected to be like.

    Attributes:
        bound_weight: of R_alpha.
        alpha: its exponent; a large one leaves small contrasts alone.
        bound: B, length of a colour that costs 1.
        variation_weight: of R_TV.
        beta: its exponent; 1 allows edges, 2 prefers ramps.
        variation: V, difference of neighbours that costs 1.
        jitter: largest shift of a step, pixels.
    """

    bound_weight: int | float = 1.0
    alpha: int | float = 6.0
    bound: int | float = 0.5
    variation_weight: int | float = 0.1
    beta: int | float = 2.0
    variation: int | float = 0.08
    jitter: int = 4

    def __post_init__(self) -> None:
        fits = min(self.bound_weight, self.variation_weight, self.jitter) >= 0
        require(fits, "Prior", self, "weights and jitter from 0")
        positive = min(self.alpha, self.bound, self.beta, self.variation) > 0
        require(positive, "Prior", self, "exponents, bound and variation above 0")


@dataclass(frozen=True)
class Box:
    """Pictures whose values lie in an interval."""

    low: int | float = 0.0
    high: int | float = 1.0

    @property
    def grey(self) -> int | float:
        """The middle: what the prior takes for nothing."""
        return (self.low + self.high) / 2

    def project(self, picture: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 C H W"]:
        """The nearest picture of the domain."""
        return picture.clamp(self.low, self.high)


@dataclass(frozen=True)
class Ball:
    """Pictures of at most this Euclidean length, grey being 0."""

    radius: int | float = 1.0

    @property
    def grey(self) -> int | float:
        """0."""
        return 0.0

    def project(self, picture: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 C H W"]:
        """The nearest picture of the domain."""
        length = picture.norm()
        return picture * (self.radius / length) if length > self.radius else picture


@dataclass(frozen=True, eq=False)
class Maximised:
    """The picture found.

    Attributes:
        picture: in the domain.
        activation: of the unit on it.
        variation: R_TV of it, for `beta` 2 and V 1: mean squared difference of neighbours, summed over colours.
        objective: at each step, before it; with line search it never falls.
    """

    picture: Float[Tensor, "C H W"]
    activation: float
    variation: float
    objective: tuple[float, ...]


def maximise(
    net: nn.Module,
    layer: str,
    unit: Unit,
    size: tuple[int, int, int],
    *,
    prepare: Callable[[Tensor], Tensor] | None = None,
    prior: Prior | None = None,
    domain: Box | Ball | None = None,
    steps: int = 128,
    rate: int | float = 0.05,
    line_search: bool = False,
    seed: int = 0,
) -> Maximised:
    """Climb from faint noise to a picture that excites the unit. A unit that no noise wakes stays silent.

    Args:
        net: left as it was.
        layer: path or name; empty for the network's output, whose units are the categories.
        unit: a channel (its mean over the map), or a channel with a position.
        size: (C, H, W) of the picture.
        prepare: from pictures to the network's input: a system's `normalize`; nothing if None.
        prior: weights; `Prior()` if None.
        domain: 0..1 if None.
        steps: how many.
        rate: length of the first steps, as the mean change of a value; with line search the first that is tried.
        line_search: climb along the gradient without jitter, each step as long as still raises the objective: it
            never falls. Ends early where no step raises it.
        seed: of the noise and the shifts: the same gives the same picture.

    Raises:
        UsageError: no such layer or unit.
        RecordError: sizes, steps or rate that cannot be.
    """
    require(len(size) == 3 and min(size) > 0, "maximise(size)", size, "(C, H, W), all from 1")
    require(steps >= 1 and rate > 0, "maximise(steps, rate)", (steps, rate), "at least 1 step, a rate above 0")
    prior, domain = prior or Prior(), domain or Box()
    generator = torch.Generator().manual_seed(seed)
    tap, clean = Tap(net, [find_layer(net, layer)]), prepare or (lambda x: x)

    def activation(picture: Tensor) -> Tensor:
        return _value(tap(clean(picture))[0], unit)

    noise = torch.randn(1, *size, generator=generator)
    with frozen(net), torch.enable_grad():
        start = _start(activation, noise, domain)
        scale = _scale(activation, start, generator)

        def objective(picture: Tensor) -> Tensor:
            value = activation(picture) / scale if scale else activation(picture)
            return value.sum() - _penalty(picture - domain.grey, prior)

        climb = _by_line_search if line_search else _by_momentum
        picture, curve = climb(objective, start, domain, steps, rate, prior.jitter, generator)
        reached = float(activation(picture).detach().sum())
    centred = picture - domain.grey
    return Maximised(picture[0], reached, float(total_variation(centred, 2.0)), tuple(curve))


def total_variation(picture: Float[Tensor, "B C H W"], beta: int | float) -> Float[Tensor, ""]:
    """Mean over pixels of (squared difference to the right + to below)^(beta / 2), summed over colours, of V = 1."""
    right = torch.diff(picture, dim=3, append=picture[..., -1:])
    below = torch.diff(picture, dim=2, append=picture[..., -1:, :])
    squares = right.square() + below.square()
    # The root has no gradient at 0.
    energy = squares if beta == 2 else (squares + 1e-12) ** (beta / 2)
    return energy.sum(1).mean()


def _penalty(centred: Tensor, prior: Prior) -> Tensor:
    lengths = centred.square().sum(1)
    bound = ((lengths + 1e-12) / prior.bound**2) ** (prior.alpha / 2)
    variation = total_variation(centred, prior.beta) / prior.variation**prior.beta
    return prior.bound_weight * bound.mean() + prior.variation_weight * variation


def _value(maps: Tensor, unit: Unit) -> Tensor:
    """The unit on each picture, `[B]`."""
    channel, *position = (unit,) if isinstance(unit, int) else unit
    fits = maps.ndim >= 2 and 0 <= channel < maps.shape[1] and len(position) in (0, maps.ndim - 2)
    fits = fits and all(0 <= p < n for p, n in zip(position, maps.shape[2:], strict=False))
    if not fits:
        raise UsageError(f"got unit {unit}, wanted a channel, or (channel, y, x), of {tuple(maps.shape[1:])}")
    chosen = maps[(slice(None), channel_of(unit), *position)]
    return chosen.flatten(1).mean(1) if chosen.ndim > 1 else chosen


def _start(activation: Callable[[Tensor], Tensor], noise: Tensor, domain: Box | Ball) -> Tensor:
    """Faint noise, or stronger where a rectified unit would be silent and show no way up."""
    start = noise
    for strength in (0.02, 0.1, 0.3, 1.0):
        start = domain.project(domain.grey + strength * noise)
        leaf = start.clone().requires_grad_(True)
        (uphill,) = torch.autograd.grad(activation(leaf).sum(), leaf, allow_unused=True)
        if uphill is not None and bool(uphill.any()):
            break
    return start


def _scale(activation: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator) -> float:
    """Spread of the activation over pictures of smooth noise; 0 if it never changes."""
    with torch.no_grad():
        coarse = torch.rand(8, start.shape[1], *(max(2, n // 8) for n in start.shape[2:]), generator=generator)
        noise = torch.nn.functional.interpolate(coarse, size=start.shape[2:], mode="bilinear")
        values = activation(noise)
    return float(values.std())


Objective = Callable[[Tensor], Tensor]


def _by_momentum(
    objective: Objective,
    start: Tensor,
    domain: Box | Ball,
    steps: int,
    rate: int | float,
    jitter: int,
    generator: torch.Generator,
) -> tuple[Tensor, list[float]]:
    picture, speed, curve = start.clone(), torch.zeros_like(start), []
    for step in range(steps):
        leaf = picture.requires_grad_(True)
        dy, dx = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
        value = objective(leaf.roll((dy, dx), (2, 3)))
        (uphill,) = torch.autograd.grad(value, leaf)
        speed = MOMENTUM * speed + (1 - MOMENTUM) * _of_unit_size(uphill)
        picture = domain.project(picture.detach() + rate * (1 - step / steps) * speed)
        curve.append(float(value.detach()))
    return picture, curve


def _of_unit_size(uphill: Tensor) -> Tensor:
    """The gradient at a root mean square of 1."""
    return uphill / uphill.norm().clamp(min=1e-20) * uphill.numel() ** 0.5


def _by_line_search(
    objective: Objective,
    start: Tensor,
    domain: Box | Ball,
    steps: int,
    rate: int | float,
    jitter: int,
    generator: torch.Generator,
) -> tuple[Tensor, list[float]]:
    picture, length, curve = start.clone(), rate, []
    for _ in range(steps):
        leaf = picture.requires_grad_(True)
        value = objective(leaf)
        (uphill,) = torch.autograd.grad(value, leaf)
        picture, before = picture.detach(), float(value.detach())
        curve.append(before)
        direction = _of_unit_size(uphill)
        with torch.no_grad():
            for _ in range(30):
                tried = domain.project(picture + length * direction)
                if float(objective(tried)) > before:
                    picture, length = tried, length * 2
                    break
                length /= 2
            else:
                break  # no step raises it
    return picture, curve
