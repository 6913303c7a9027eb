"""Pictures with the text that was read in them, for looking at."""

from __future__ import annotations

import io
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from crnn.checkpoint import write_atomically
from crnn.ctc import Reading
from crnn.recogniser import turned
from data.lines import Picture

LEAST_HEIGHT = 96
"""Pixels: a lower picture is enlarged by a whole number, so that the bounds are seen."""
MOST_WIDTH = 16_384
"""Pixels to which one is enlarged at most."""
FONT_PIXELS = 32
MARGIN = 8
BOUNDS, TEXT, NOTE, PAPER = (220, 30, 60), (0, 0, 0), (110, 110, 110), (255, 255, 255)


def write_drawing(path: Path, picture: Picture, reading: Reading, spans: list[tuple[float, float]]) -> None:
    """Writes the drawing as PNG; spans as crnn.recogniser.pixel_spans gives them."""
    encoded = io.BytesIO()
    draw_reading(turned(picture, reading.turned), reading, spans).save(encoded, "PNG")
    write_atomically(path, lambda file: file.write(encoded.getvalue()) and None)


def draw_reading(picture: Picture, reading: Reading, spans: list[tuple[float, float]]) -> Image.Image:
    """The picture, enlarged, with bounds between its characters; below it the text and the confidence."""
    height, width = picture.shape[:2]
    factor = max(1, min(-(-LEAST_HEIGHT // height), MOST_WIDTH // width))
    text, note = shown(reading.text), f"{reading.confidence:.3f}"
    font, small = font_of(FONT_PIXELS), font_of(FONT_PIXELS // 2)
    across = max(width * factor, round(font.getlength(text)), round(small.getlength(note)))
    below = height * factor + 2 * MARGIN
    canvas = Image.new("RGB", (across + 2 * MARGIN, below + 2 * FONT_PIXELS + MARGIN), PAPER)
    enlarged = Image.fromarray(picture).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    canvas.paste(enlarged, (MARGIN, MARGIN))
    pen = ImageDraw.Draw(canvas)
    for bound in bounds(spans):
        x = MARGIN + round(bound * factor)
        pen.line([(x, MARGIN // 2), (x, below - MARGIN // 2)], BOUNDS, 1)
    pen.text((MARGIN, below), text, TEXT, font)
    pen.text((MARGIN, below + FONT_PIXELS + MARGIN), note, NOTE, small)
    return canvas


def bounds(spans: list[tuple[float, float]]) -> list[float]:
    """Pixels where characters end and begin: half-way between neighbours, and the outer edges of first and last."""
    if not spans:
        return []
    middles = [(before[1] + after[0]) / 2 for before, after in pairwise(spans)]
    return [spans[0][0], *middles, spans[-1][1]]


def shown(text: str) -> str:
    """The text with what the font cannot draw written as [U+4E2D], for a box would say nothing."""
    known = known_characters()
    return "".join(c if ord(c) in known else f"[U+{ord(c):04X}]" for c in text)


@cache
def known_characters() -> frozenset[int]:
    """Code points that the font has."""
    return frozenset(FT2Font(str(font_path())).get_charmap())


@cache
def font_of(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_path()), pixels, layout_engine=ImageFont.Layout.BASIC)


def font_path() -> Path:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
