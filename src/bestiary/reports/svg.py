"""Small line plots as inline SVG, whose colours are the page's own (light, dark and print) and whose texts a screen
reader finds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44
STYLES = 8
"""Line styles that the page's sheet knows, `.s0` to `.s7`: colour, and dashes from the fifth on."""


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        name: for the legend.
        points: x and y; points that are not finite break the line.
        style: 0..7 as in the page's sheet, or -1 for the strong line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0

    @property
    def css(self) -> str:
        """Class of the line and of its swatch in the legend."""
        return "strong" if self.style < 0 else f"s{self.style % STYLES}"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, about `wanted` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    description: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    x_powers: bool = False,
) -> str:
    """An SVG element.

    Args:
        description: what the plot shows, for those who do not see it.
        x_range, y_range: ends of the axes; those of the points, widened to round numbers, if not given.
        y_label: may be empty.
        diagonal: draw the line where x is y.
        x_powers: x are powers of ten: the axis is marked at whole powers, with the numbers themselves.
    """
    finite = [p for line in lines for p in line.points if math.isfinite(p[0]) and math.isfinite(p[1])]
    x_low, x_high = x_range or _span([x for x, _ in finite], widen=False)
    y_low, y_high = y_range or _span([y for _, y in finite], widen=True)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">']
    for y in ticks(y_low, y_high):
        _, py = place(x_low, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{_number(y)}</text>')
    powers = range(math.ceil(x_low), math.floor(x_high) + 1)
    marks = [float(p) for p in powers] if x_powers else ticks(x_low, x_high, 6)
    for x in marks:
        mark = f"{10**x:,.0f}" if x_powers else _number(x)
        px, _ = place(x, y_low)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark}</text>')
    if diagonal:
        low, high = max(x_low, y_low), min(x_high, y_high)
        (ax, ay), (bx, by) = place(low, low), place(high, high)
        parts.append(f'<line class="diagonal" x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    if y_label:
        middle = (HEIGHT - BOTTOM) / 2
        turned = f'transform="rotate(-90 13 {middle})"'
        parts.append(f'<text class="label" x="13" y="{middle}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    # Later lines lie on top: the strong one last.
    for line in sorted(lines, key=lambda line: line.style < 0):
        parts += _strokes(
            line, [place(x, y) if math.isfinite(x) and math.isfinite(y) else None for x, y in line.points]
        )
    return "".join([*parts, "</svg>"])


def _strokes(line: Line, points: Sequence[tuple[float, float] | None]) -> list[str]:
    """The line's unbroken runs, a lone point as a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    drawn = []
    for run in runs:
        if len(run) == 1:
            drawn.append(f'<circle class="dot {line.css}" cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="3"/>')
        elif run:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            title = f"<title>{escape(line.name)}</title>"
            drawn.append(f'<polyline class="line {line.css}" points="{path}">{title}</polyline>')
    return drawn


def _span(values: Sequence[float], widen: bool) -> tuple[float, float]:
    """Ends of an axis that holds `values`."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    if not widen:
        return low, high
    margin = 0.06 * (high - low)
    return (0.0 if 0 <= low < 0.5 * high else low - margin), high + margin


def _number(value: float) -> str:
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.0e}"
