"""Scripts in which neighbours change a character's glyph or place: which they are, and their layout by HarfBuzz."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from types import ModuleType
from typing import Any

SHAPED_BLOCKS = (
    (0x300, 0x36F), (0x590, 0x8FF), (0x900, 0xFFF), (0x1000, 0x109F), (0x1700, 0x18AF), (0x1900, 0x1CFF),
    (0x1DC0, 0x1DFF), (0xA880, 0xAAFF), (0xABC0, 0xABFF), (0xFE20, 0xFE2F),
)  # fmt: skip
"""Combining marks; Hebrew, Arabic, Syriac, the Indic scripts, Thai, Lao, Tibetan, Myanmar, Khmer, Mongolian."""


@dataclass(frozen=True)
class Shaped:
    """A text laid out upright, in pixels, x to the right and y upwards from the start of the baseline.

    glyphs: (glyph number, x, y) of each glyph's origin.
    edges: (left, right) of each character; those that share a glyph or a base share its width evenly.
    """

    glyphs: tuple[tuple[int, float, float], ...]
    edges: tuple[tuple[float, float], ...]


def needs_shaping(text: str) -> bool:
    """Whether a character of the text is drawn rightly only by a shaper."""
    return any(first <= code <= last for code in map(ord, text) if code >= 0x300 for first, last in SHAPED_BLOCKS)


def require_shaper(characters: str) -> None:
    """ValueError where characters need shaping and uharfbuzz is not installed."""
    if needs_shaping(characters):
        _harfbuzz("".join(c for c in characters if needs_shaping(c)))


def shape(text: str, path: str, index: int, size: int) -> Shaped:
    """Lays the text out, from right to left where its script runs so; ValueError where the font lacks a glyph.

    Directions are those of the Unicode bidirectional algorithm for one line without explicit marks: numbers and Latin
    words within a text that runs to the left run to the right.
    """
    harfbuzz = _harfbuzz(text)
    font = _font(path, index, size)
    glyphs: list[tuple[int, float, float]] = []
    edges: list[tuple[float, float]] = [(0.0, 0.0)] * len(text)
    pen = 0.0
    for start, end, leftwards in directed_runs(text):
        buffer = harfbuzz.Buffer()
        buffer.add_codepoints(list(map(ord, text)), start, end - start)
        buffer.direction = "rtl" if leftwards else "ltr"
        buffer.guess_segment_properties()
        harfbuzz.shape(font, buffer)
        boxes: dict[int, tuple[float, float]] = {}
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            if info.codepoint == 0:
                raise ValueError(f"the font {path} has no glyph for a character of {text!r}; choose another font")
            glyphs.append((info.codepoint, pen + position.x_offset / 64, position.y_offset / 64))
            after = pen + position.x_advance / 64
            left, right = boxes.get(info.cluster, (pen, after))
            boxes[info.cluster] = min(left, pen), max(right, after)
            pen = after
        firsts = [*sorted(boxes), end]
        for first, following in pairwise(firsts):
            left, right = boxes[first]
            step = (right - left) / (following - first)
            for number in range(first, following):
                place = following - 1 - number if leftwards else number - first
                edges[number] = left + place * step, left + (place + 1) * step
    return Shaped(tuple(glyphs), tuple(edges))


def directed_runs(text: str) -> list[tuple[int, int, bool]]:
    """(start, end, runs to the left) of the parts of a text of one direction, in the order in which they are seen."""
    levels = _levels(text)
    runs: list[tuple[int, int, int]] = []
    for level, places in groupby(range(len(text)), key=levels.__getitem__):
        start, *rest = places
        runs.append((start, start + len(rest) + 1, level))
    ordered: list[tuple[int, int, int]] = []
    # Rule L2 for levels 0 to 2: what lies between parts of level 0 is seen in reverse.
    for between, group in groupby(runs, key=lambda run: run[2] > 0):
        part = list(group)
        ordered += part[::-1] if between else part
    return [(start, end, level == 1) for start, end, level in ordered]


def _levels(text: str) -> list[int]:
    """0: to the right; 1: to the left; 2: to the right within what runs to the left."""
    kinds = [unicodedata.bidirectional(c) for c in text]
    base = next((kind != "L" for kind in kinds if kind in ("L", "R", "AL")), False)
    sides: list[bool | None] = []  # the side that a neutral neighbour sees: numbers after letters of the left count so
    numbers: set[int] = set()
    strong = base
    for position, kind in enumerate(kinds):
        side: bool | None = None
        if kind in ("L", "R", "AL"):
            side = strong = kind != "L"
        elif kind in ("EN", "AN") or _belongs_to_number(kinds, position):
            side = strong
            if strong:
                numbers.add(position)
        elif kind == "NSM" and sides:
            side = sides[-1]
        sides.append(side)
    levels = []
    for position, side in enumerate(sides):
        leftwards = side if side is not None else _neutral(sides, position, base)
        levels.append(2 if position in numbers else 1 if leftwards else 2 if base else 0)
    return levels


def _belongs_to_number(kinds: list[str], position: int) -> bool:
    """A separator between two digits, or a sign of currency or per cent beside one."""
    before = kinds[position - 1] if position else ""
    after = kinds[position + 1] if position + 1 < len(kinds) else ""
    numbers = ("EN", "AN")
    if kinds[position] in ("ES", "CS"):
        return before in numbers and after in numbers
    return kinds[position] == "ET" and (before in numbers or after in numbers)


def _neutral(sides: list[bool | None], position: int, base: bool) -> bool:
    """The side of both neighbours where they agree, else that of the line."""
    before = next((side for side in sides[position::-1] if side is not None), base)
    after = next((side for side in sides[position:] if side is not None), base)
    return before if before == after else base


@lru_cache(256)
def _font(path: str, index: int, size: int) -> Any:
    harfbuzz = _harfbuzz("")
    font = harfbuzz.Font(harfbuzz.Face(harfbuzz.Blob.from_file_path(path), index))
    font.scale = (size * 64, size * 64)
    return font


def _harfbuzz(text: str) -> ModuleType:
    try:
        import uharfbuzz
    except ImportError:
        raise ValueError(
            f"{text[:20]!r} needs a shaper, for its characters change with their neighbours; install the extra "
            "pocket-crnn[shaping]"
        ) from None
    module: ModuleType = uharfbuzz
    return module
