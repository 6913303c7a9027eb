"""Many lines on one picture: each with its label and key below it, and on request the columns of its characters."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import freetype
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.lines import Line, Picture
from data.synthesis.fonts import SUFFIXES, font_folders, open_face, plain_font_file

SHEET_WIDTH = 1600
MARGIN, GAP, PADDING = 24, 10, 8
PICTURE_HEIGHT = 56
MOST_ENLARGED = 3.0
LEAST_CARD_WIDTH = 96
LABEL_SIZE, KEY_SIZE = 15, 10
COLUMNS_HEIGHT, LABEL_HEIGHT, KEY_HEIGHT = 22, 25, 15

PAPER, CARD, EDGE = "#f3f2ee", "#ffffff", "#dbd9d2"
INK, FAINT = "#1c1c1c", "#8a877f"
STYLED = ("bold", "black", "heavy", "light", "thin", "italic", "oblique", "serif", "mono")
JOINERS = "\u200c\u200d"  # they shape Arabic and Indic scripts
CHARACTER_COLOURS = ("#c2410c", "#1d4ed8")


def contact_sheet(lines: Sequence[Line], title: str, subtitle: str = "", columns_drawn: bool = False) -> Picture:
    """uint8 (height, SHEET_WIDTH, 3): the lines in reading order, in rows of cards.

    A label's characters that DejaVu Sans lacks are drawn with a font of the machine that has them, else as U+ and
    their number. columns_drawn marks under a picture where each character lies, for lines that know it.
    """
    cards = [_card(line, columns_drawn) for line in lines]
    rows = list(_rows(cards))
    top = MARGIN + 44
    height = top + sum(_row_height(row) + GAP for row in rows) - GAP + MARGIN
    sheet = Image.new("RGB", (SHEET_WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    width = _draw_text(draw, MARGIN, MARGIN - 2, title, 22, INK)
    _draw_text(draw, MARGIN + width + 14, MARGIN + 5, subtitle, 14, FAINT)
    for row in rows:
        row_height, picture_room = _row_height(row), max(card.picture.height for card in row)
        left = MARGIN
        for card, width in zip(row, _widths(row, last=row is rows[-1]), strict=True):
            draw.rectangle((left, top, left + width - 1, top + row_height - 1), fill=CARD, outline=EDGE)
            _draw_card(sheet, card, left + PADDING, top + PADDING, width - 2 * PADDING, picture_room)
            left += width + GAP
        top += row_height + GAP
    return np.asarray(sheet)


@dataclass(frozen=True)
class _Card:
    line: Line
    picture: Image.Image
    text: str
    columns: bool
    width: int


def _card(line: Line, columns_drawn: bool) -> _Card:
    height, width = line.picture.shape[:2]
    room = SHEET_WIDTH - 2 * MARGIN - 2 * PADDING
    factor = min(PICTURE_HEIGHT / height, MOST_ENLARGED, room / width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    picture = Image.fromarray(line.picture).resize(size, Image.Resampling.LANCZOS)
    text = line.text if line.text is not None else "no label"
    columns = columns_drawn and line.columns is not None
    inner = min(max(size[0], _text_width(text, LABEL_SIZE), LEAST_CARD_WIDTH - 2 * PADDING), room)
    return _Card(line, picture, text, columns, inner + 2 * PADDING)


def _rows(cards: Iterable[_Card]) -> Iterator[list[_Card]]:
    """As many cards in a row as fit."""
    row: list[_Card] = []
    for card in cards:
        if row and sum(c.width + GAP for c in row) + card.width > SHEET_WIDTH - 2 * MARGIN:
            yield row
            row = []
        row.append(card)
    if row:
        yield row


def _widths(row: list[_Card], last: bool) -> list[int]:
    """The cards' widths, spread over the whole row unless it is the last."""
    widths = [card.width for card in row]
    spare = SHEET_WIDTH - 2 * MARGIN - sum(widths) - GAP * (len(row) - 1)
    if last:
        return widths
    return [width + spare * (i + 1) // len(row) - spare * i // len(row) for i, width in enumerate(widths)]


def _row_height(row: list[_Card]) -> int:
    columns = COLUMNS_HEIGHT if any(card.columns for card in row) else 0
    return PADDING + max(card.picture.height for card in row) + columns + LABEL_HEIGHT + KEY_HEIGHT + PADDING


def _draw_card(sheet: Image.Image, card: _Card, left: int, top: int, room: int, picture_room: int) -> None:
    """Picture, columns, label and key from top to bottom; labels of a row stand level."""
    draw = ImageDraw.Draw(sheet)
    sheet.paste(card.picture, (left, top + (picture_room - card.picture.height) // 2))
    top += picture_room
    if card.columns:
        _draw_columns(draw, card, left, top)
        top += COLUMNS_HEIGHT
    colour = INK if card.line.text is not None else FAINT
    _draw_text(draw, left, top + 6, _shortened(card.text, LABEL_SIZE, room, head=0.5), LABEL_SIZE, colour)
    key = _shortened(card.line.key, KEY_SIZE, room, head=0.0)
    _draw_text(draw, left, top + LABEL_HEIGHT + 1, key, KEY_SIZE, FAINT)


def _draw_columns(draw: ImageDraw.ImageDraw, card: _Card, left: int, top: int) -> None:
    """A bar from edge to edge of each character, and the character under its middle."""
    assert card.line.columns is not None
    for i, (character, (start, end)) in enumerate(zip(card.text, card.line.columns.tolist(), strict=True)):
        colour = CHARACTER_COLOURS[i % 2]
        x0, x1 = left + start * card.picture.width, left + end * card.picture.width
        draw.rectangle((x0, top + 2, max(x0, x1 - 1), top + 4), fill=colour)
        _draw_text(draw, round((x0 + x1 - _text_width(character, 12)) / 2), top + 7, character, 12, colour)


def _shortened(text: str, size: int, room: int, head: float) -> str:
    """The text, cut where it is wider than room pixels; head of what is kept is from its beginning."""
    if _text_width(text, size) <= room:
        return text

    def cut(kept: int) -> str:
        first = int(kept * head)
        return f"{text[:first]}…{text[len(text) - kept + first :]}"

    kept = bisect_right(range(1, len(text)), room, key=lambda kept: _text_width(cut(kept), size))
    return cut(kept)


def _draw_text(draw: ImageDraw.ImageDraw, left: int, top: int, text: str, size: int, colour: str) -> int:
    """Draws the text with the baseline of DejaVu, whatever font a character comes from; returns its width."""
    baseline = top + _font(plain_font_file(), size).getmetrics()[0]
    x = float(left)
    for file, run in _runs(text):
        font = _font(file, size)
        draw.text((x, baseline), run, font=font, fill=colour, anchor="ls")
        x += font.getlength(run)
    return round(x) - left


def _text_width(text: str, size: int) -> int:
    return round(sum(_font(file, size).getlength(run) for file, run in _runs(text)))


def _runs(text: str) -> Iterator[tuple[Path, str]]:
    """The text in pieces of one font each; characters that no font has, and invisible ones, as U+ and number."""
    pieces: list[tuple[Path, str]] = []
    for cluster in _clusters(text):
        file = font_with(cluster)
        if file is not None:
            pieces.append((file, cluster))
            continue
        for character in cluster:
            file = font_with(character)
            pieces.append((file, character) if file else (plain_font_file(), f"‹U+{ord(character):04X}›"))
    for file, run in groupby(pieces, key=lambda piece: piece[0]):
        yield file, "".join(piece for _, piece in run)


def _clusters(text: str) -> Iterator[str]:
    """Each character with the marks that stand on it, which have to come from the same font."""
    cluster = ""
    for character in text:
        if cluster and not unicodedata.combining(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


@cache
def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@cache
def font_with(characters: str) -> Path | None:
    """DejaVu Sans where it has all the characters, else the first font of this machine that has, else None.

    None too where one of them is invisible, so that it shows.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs", "Cf") and c not in JOINERS for c in characters):
        return None
    plain = plain_font_file()
    if _has(plain, characters):
        return plain
    return next((file for file in _machine_fonts() if _has(file, characters)), None)


@cache
def _machine_fonts() -> tuple[Path, ...]:
    """Every font file, plain upright faces first."""
    files = (file for folder in font_folders() for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    return tuple(sorted(files, key=lambda file: (any(word in file.stem.lower() for word in STYLED), file)))


def _has(file: Path, characters: str) -> bool:
    face = _face(file)
    return face is not None and all(face.get_char_index(character) for character in characters)


@cache
def _face(file: Path) -> freetype.Face | None:
    try:
        return open_face(str(file), 0)
    except ValueError:
        return None
