"""Text and font -> coverage mask with the columns of each character, drawn by FreeType."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import freetype
import numpy as np
from numpy.typing import NDArray

from data.synthesis.fonts import Font, glyph_bitmap, glyph_bitmap_numbered, open_face
from data.synthesis.shaping import needs_shaping, shape

Mask = NDArray[np.uint8]

EM = 44
"""Pixels an em at which synthetic lines are drawn before they are warped to the picture's size: one size keeps the
cache of glyphs small."""

_FACES_KEPT = 1000


@dataclass(frozen=True)
class Drawn:
    """A text drawn upright, cropped to its ink.

    mask: uint8 (height, width), 255 where ink covers the pixel.
    columns: float32 (len(text), 2): left and right edge of each advance box in pixels of the mask; the first and
        last may lie outside it by their side bearings.
    baseline: row of the baseline below the mask's top.
    line_top, line_bottom: rows of the font's capital height and descender, the height of a line's box.
    """

    mask: Mask
    columns: NDArray[np.float32]
    baseline: int
    line_top: int
    line_bottom: int


class _SizedFace:
    """A face at one size with the glyphs and kerning pairs met so far."""

    def __init__(self, font: Font, size: int) -> None:
        self.face: Any = open_face(font.path, font.index)
        self.face.set_pixel_sizes(0, size)
        self.characters = frozenset(font.characters)
        self.kerned = bool(self.face.has_kerning)
        self.glyphs: dict[str, tuple[Mask, int, int, float]] = {}
        self.pairs: dict[str, float] = {}
        self.numbered: dict[int, tuple[Mask, int, int, float]] = {}
        first = next((c for c in font.characters if c.isalpha()), font.characters[-1])
        self.capital = self.glyph("H" if "H" in self.characters else first)[2]
        metrics = self.face.size
        self.descent = max(1, -int(metrics.descender) // 64)

    def glyph(self, character: str) -> tuple[Mask, int, int, float]:
        found = self.glyphs.get(character)
        if found is None:
            found = glyph_bitmap(self.face, character)
            self.glyphs[character] = found
        return found

    def glyph_numbered(self, number: int) -> tuple[Mask, int, int, float]:
        found = self.numbered.get(number)
        if found is None:
            found = self.numbered[number] = glyph_bitmap_numbered(self.face, number)
        return found

    def kerning(self, pair: str) -> float:
        if not self.kerned:
            return 0.0
        found = self.pairs.get(pair)
        if found is None:
            found = self.face.get_kerning(pair[0], pair[1], freetype.FT_KERNING_UNFITTED).x / 64
            self.pairs[pair] = found
        return found


_faces: OrderedDict[tuple[str, int, int], _SizedFace] = OrderedDict()


def sized_face(font: Font, size: int) -> _SizedFace:
    """The face from this process's cache, which forgets the longest unused."""
    key = (font.path, font.index, size)
    found = _faces.get(key)
    if found is None:
        found = _SizedFace(font, size)
        _faces[key] = found
        if len(_faces) > _FACES_KEPT:
            _faces.popitem(last=False)
    else:
        _faces.move_to_end(key)
    return found


def draw(text: str, font: Font, size: int, spacing: float = 0.0) -> Drawn:
    """Draws text at size pixels an em, spacing more pixels after each character.

    Kerning comes from the font's kern table; pairs that only a GPOS table kerns are set unkerned. Texts that need
    shaping are laid out by HarfBuzz, without spacing, which would tear their letters apart.
    Raises ValueError where the font lacks a character or the text leaves no ink.
    """
    face = sized_face(font, size)
    if not face.characters.issuperset(text):
        missing = "".join(sorted(set(text) - face.characters))
        raise ValueError(f"the font {font.family} {font.style} ({font.path}) has no {missing!r}; choose another font")
    if needs_shaping(text):
        return _draw_shaped(text, font, size)
    placed: list[tuple[Mask, int, int]] = []
    edges: list[tuple[float, float]] = []
    pen = 0.0
    last = len(text) - 1
    for position, character in enumerate(text):
        pixels, bearing, rise, advance = face.glyph(character)
        step = advance
        if position < last:
            step += face.kerning(text[position : position + 2]) + spacing
        if pixels.size:
            placed.append((pixels, round(pen) + bearing, -rise))
        # Negative spacing must not turn a narrow character's box inside out.
        step = max(step, 1.0)
        edges.append((pen, pen + step))
        pen += step
    return _assembled(text, font, face, placed, edges)


def _draw_shaped(text: str, font: Font, size: int) -> Drawn:
    face = sized_face(font, size)
    shaped = shape(text, font.path, font.index, size)
    placed = []
    for number, x, y in shaped.glyphs:
        pixels, bearing, rise, _ = face.glyph_numbered(number)
        if pixels.size:
            placed.append((pixels, round(x) + bearing, -round(y) - rise))
    return _assembled(text, font, face, placed, shaped.edges)


def _assembled(
    text: str,
    font: Font,
    face: _SizedFace,
    placed: Sequence[tuple[Mask, int, int]],
    edges: Sequence[tuple[float, float]],
) -> Drawn:
    """Glyphs at (x, y) of their upper left corners, laid over each other."""
    if not placed:
        raise ValueError(f"the text {text!r} leaves no ink in {font.family} {font.style}; draw a text that can be seen")
    left, top = min(x for _, x, _ in placed), min(y for _, _, y in placed)
    right = max(x + pixels.shape[1] for pixels, x, _ in placed)
    bottom = max(y + pixels.shape[0] for pixels, _, y in placed)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for pixels, x, y in placed:
        target = mask[y - top : y - top + pixels.shape[0], x - left : x - left + pixels.shape[1]]
        np.maximum(target, pixels, out=target)
    columns = np.array(edges, np.float32) - np.float32(left)
    return Drawn(mask, columns, -top, -face.capital - top, face.descent - top)
