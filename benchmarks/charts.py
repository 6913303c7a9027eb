"""Accuracy as SVG drawn here: points against size or time, logarithmic across, or curves over epochs; all are named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 34, 44
FONT = 12
CHARACTER = 0.62 * FONT
"""Pixels that a character of a bold label takes at most, nearly, in the fonts of the page."""


@dataclass(frozen=True)
class Point:
    """x: above 0. y, low, high: shares, 0..1; low and high end the interval. kind: a CSS class, and the mark's form."""

    name: str
    x: float
    y: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Common area in square pixels."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)


PLOT = Box(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)


def scatter(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """The picture as an <svg> element; its colours come from the CSS of the page around it."""
    x_low, x_high = x_range([p.x for p in points])
    y_ticks = share_ticks(min(p.low for p in points), max(p.high for p in points))

    def across(x: float) -> float:
        return PLOT.left + math.log(x / x_low) / math.log(x_high / x_low) * (PLOT.right - PLOT.left)

    def down(y: float) -> float:
        return PLOT.bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (PLOT.bottom - PLOT.top)

    titles = f"{escape(y_title)}, {escape(x_title)}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{titles}">']
    for y in y_ticks:
        parts.append(line("grid", PLOT.left, down(y), PLOT.right, down(y)))
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{y * 100:g}</text>')
    for x in log_ticks(x_low, x_high):
        parts.append(line("grid", across(x), PLOT.top, across(x), PLOT.bottom))
        parts.append(f'<text class="tick" x="{across(x):.1f}" y="{PLOT.bottom + 17}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text class="axis" x="{PLOT.right}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_title)}</text>')
    parts.append(f'<text class="axis" x="{LEFT - 30}" y="16">{escape(y_title)}</text>')
    places = [(across(p.x), down(p.y)) for p in points]
    bars = [Box(x - 4, down(p.high), x + 4, down(p.low)) for (x, _), p in zip(places, points, strict=True)]
    for (x, y), bar, p in zip(places, bars, points, strict=True):
        told = f"{p.name}: {p.y * 100:.1f} % ({p.low * 100:.1f} to {p.high * 100:.1f}) at {p.x:.3g}"
        parts.append(
            f'<g class="point {escape(p.kind)}"><title>{escape(told)}</title>'
            f"{line('interval', x, bar.top, x, bar.bottom)}{mark(x, y, p.kind)}</g>"
        )
    for (x, y), box, p in zip(places, place_labels([p.name for p in points], places, bars), points, strict=True):
        near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if math.hypot(near_x - x, near_y - y) > 14:
            parts.append(line("leader", x, y, near_x, near_y))
        anchor, at = "middle", (box.left + box.right) / 2
        if box.left > x:
            anchor, at = "start", box.left + 2
        elif box.right < x:
            anchor, at = "end", box.right - 2
        base = box.bottom - 4
        parts.append(f'<text class="name" x="{at:.1f}" y="{base:.1f}" text-anchor="{anchor}">{escape(p.name)}</text>')
    return "".join(parts) + "</svg>"


@dataclass(frozen=True)
class Curve:
    """ys[i] is the mean at (i + 1) * every, between lows[i] and highs[i]; shares."""

    name: str
    ys: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    every: float = 1


MOST_FIFTHS = 9
NAMES_WIDTH, NAME_HEIGHT = 150, FONT + 3
"""Pixels right of the curves for their names, and of one."""


def curves(drawn: Sequence[Curve], x_title: str, y_title: str, lowest: float = 0.0, unit: int = 1) -> str:
    """Curves with bands as an <svg> element, named at their ends; what lies below lowest is cut off and says so.

    unit: what one to the right stands for.
    """
    right = PLOT.right - NAMES_WIDTH
    ticks = share_ticks(max(lowest, min(min(c.lows) for c in drawn)), max(max(c.highs) for c in drawn))
    first, last = min(c.every for c in drawn), max(len(c.ys) * c.every for c in drawn)

    def across(x: float) -> float:
        return PLOT.left + (x - first) / max(1, last - first) * (right - PLOT.left)

    def down(y: float) -> float:
        return PLOT.bottom - (y - ticks[0]) / (ticks[-1] - ticks[0]) * (PLOT.bottom - PLOT.top)

    def corners(ys: Sequence[float], every: float) -> list[str]:
        return [f"{across((i + 1) * every):.1f},{down(y):.1f}" for i, y in enumerate(ys)]

    titles = f"{escape(y_title)}, {escape(x_title)}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{titles}">']
    frame = f'<rect x="{PLOT.left}" y="{PLOT.top}" width="{right - PLOT.left}" height="{PLOT.bottom - PLOT.top}"/>'
    parts.append(f'<clipPath id="plot">{frame}</clipPath>')
    for y in ticks:
        parts.append(line("grid", PLOT.left, down(y), right, down(y)))
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{y * 100:g}</text>')
    for x in count_ticks(first, last):
        told = f'y="{PLOT.bottom + 17}" text-anchor="middle">{x * unit:,}</text>'
        parts.append(f'<text class="tick" x="{across(x):.1f}" {told}')
    parts.append(f'<text class="axis" x="{right}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_title)}</text>')
    parts.append(f'<text class="axis" x="{LEFT - 30}" y="16">{escape(y_title)}</text>')
    for number, curve in enumerate(drawn):
        band = " ".join(corners(curve.lows, curve.every) + corners(curve.highs, curve.every)[::-1])
        told = f"<title>{escape(curve.name)}: {curve.ys[-1] * 100:.1f} % at the end</title>"
        parts.append(
            f'<g class="curve kind{number}" clip-path="url(#plot)">{told}'
            f'<polygon points="{band}"/><polyline points="{" ".join(corners(curve.ys, curve.every))}"/></g>'
        )
    ends = [min(down(c.ys[-1]), PLOT.bottom) for c in drawn]
    for number, base in zip(range(len(drawn)), spread(ends, NAME_HEIGHT, PLOT.bottom), strict=True):
        below = " (below)" if drawn[number].ys[-1] < ticks[0] else ""
        named = escape(drawn[number].name) + below
        parts.append(f'<text class="name kind{number}" x="{right + 8:.1f}" y="{base + 4:.1f}">{named}</text>')
    return "".join(parts) + "</svg>"


def spread(places: Sequence[float], apart: float, greatest: float) -> list[float]:
    """The places, moved as little as it takes from the greatest down so that they lie apart."""
    moved = dict[int, float]()
    limit = greatest
    for i in sorted(range(len(places)), key=lambda i: -places[i]):
        moved[i] = min(places[i], limit)
        limit = moved[i] - apart
    return [moved[i] for i in range(len(places))]


CURVE_COLOURS = "".join(
    f".kind{i} polyline{{stroke:{colour}}}.kind{i} polygon,text.kind{i}{{fill:{colour}}}"
    for i, colour in enumerate(("#0b6e99", "#c4532d", "#3d8b40", "#8a5fb0", "#5f6b76", "#b08900", "#c0392b"))
)
"""CSS of up to seven curves."""
CURVE_STYLE = ".curve polyline{fill:none;stroke-width:2}.curve polygon{stroke:none;opacity:.18}" + CURVE_COLOURS
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#33404d}.tick,.axis{fill:#66737f}.name{font-weight:600}"
    ".grid{stroke:#e3e8ec}.interval{stroke:#9fb0bd;stroke-width:2}.leader{stroke:#c3ced6}"
    ".network{fill:#0b6e99}.file{fill:#c4532d}.peer{fill:#5f6b76}" + CURVE_STYLE + "</style>"
)
"""For a picture that stands outside the report, whose page has the colours otherwise."""


def standalone(svg: str) -> str:
    """A picture as a file of its own, on white."""
    opening, _, rest = svg.partition(">")
    named = opening.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" ')
    return f'{named}>{STYLE}<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{rest}\n'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def mark(x: float, y: float, kind: str) -> str:
    """A disc for networks, a square for recognisers of others, a diamond for exported files."""
    if kind == "network":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    if kind == "peer":
        return f'<path d="M{x - 5:.1f} {y - 5:.1f}h10v10h-10z"/>'
    return f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'


def place_labels(names: Sequence[str], places: Sequence[tuple[float, float]], bars: Sequence[Box]) -> list[Box]:
    """Where each name goes: as near its point as it can without covering another name, a mark or an interval.

    Names are placed one by one; among spots that cover equally little, the nearest is taken.
    """
    taken = [*bars, *(Box(x - 7, y - 7, x + 7, y + 7) for x, y in places)]
    boxes: list[Box] = []
    for name, place in zip(names, places, strict=True):
        spots = candidates(len(name) * CHARACTER + 4, *place)
        best = min(spots, key=lambda spot: (round(sum(spot[1].overlap(other) for other in taken)), spot[0]))[1]
        boxes.append(best)
        taken.append(best)
    return boxes


def candidates(length: float, x: float, y: float) -> Iterable[tuple[float, Box]]:
    """(distance, box) of a label around a point, on widening rings, kept inside the plot."""
    height = FONT + 5
    for distance in range(10, 150, 7):
        for angle in range(0, 360, 15):
            side, rise = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            left = x + side * distance - length * (1 - side) / 2
            top = y - rise * distance - height * (1 + rise) / 2
            left = min(max(left, PLOT.left + 2), PLOT.right - length)
            top = min(max(top, PLOT.top), PLOT.bottom - height - 2)
            yield distance, Box(left, top, left + length, top + height)


def x_range(values: Sequence[float]) -> tuple[float, float]:
    """Least and greatest with room at the sides; at least a factor of 3 apart."""
    low, high = min(values), max(values)
    room = max(1.25, math.sqrt(3 * low / high))
    return low / room, high * room


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between low and high; only powers of ten where that is plenty."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def count_ticks(first: float, last: float) -> list[int]:
    """The first of few, and every fifth; of many the even ones, of which there are four to nine."""
    if last <= MOST_FIFTHS * 5:
        return sorted({1, *range(5, int(last) + 1, 5)})
    step = next(s for power in range(9) for s in (10**power, 2 * 10**power, 5 * 10**power) if last / s <= MOST_FIFTHS)
    return [x for x in range(step, int(last) + 1, step) if x >= first]


def share_ticks(low: float, high: float) -> list[float]:
    """Even steps within 0..1 that reach around low and high."""
    step = next(s for s in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6 or s == 0.2)
    first, last = max(0, math.floor(low / step - 0.3)), min(round(1 / step), math.ceil(high / step + 0.3))
    return [i * step for i in range(first, max(last, first + 1) + 1)]
