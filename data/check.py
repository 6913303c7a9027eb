"""What is wrong with lines, or odd: one rule each, by name, with the key of every line that it finds."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from data.duplicates import correlation
from data.lines import Picture, required_columns
from data.lmdb_lines import Entry
from data.picture import InputSpec, natural_width


class Kind(NamedTuple):
    """error: nothing good comes of such a line; else a remark, for the user to judge. meaning: of one line or set."""

    error: bool
    meaning: str


KINDS = {
    "broken-picture": Kind(True, "the picture or what is stored with it does not decode whole"),
    "no-label": Kind(True, "the label is empty or missing, though others of the set have one"),
    "outside-charset": Kind(True, "the label holds characters that the charset does not"),
    "invisible-characters": Kind(True, "the label holds control, format or undefined characters"),
    "mixed-scripts": Kind(True, "a word of the label holds a letter that only looks as if it were of its script"),
    "too-few-columns": Kind(True, "the label needs more columns than its picture gives (length and repeats)"),
    "contradiction": Kind(True, "the same picture as another line with another label"),
    "leak": Kind(True, "the same picture and label as a line of the other set"),
    "duplicate": Kind(False, "the same picture and label as an earlier line"),
    "upright": Kind(
        False, "three characters or more on a picture higher than 1.5 times its width: text that is turned"
    ),
    "turned": Kind(False, "the model reads the label once the picture is turned"),
    "suspicious": Kind(False, "the model is sure of another text"),
    "letter-spaced": Kind(False, "the label spells its words with spaces (T H E)"),
    "odd-spaces": Kind(False, "spaces at the ends of the label, several in a row, or other than U+0020"),
    "not-nfc": Kind(False, "the label is not in NFC, to which every reader brings it"),
    "tiny": Kind(False, "a picture lower than 8 or narrower than 4 pixels"),
    "huge": Kind(False, "a picture higher than 512 pixels, most of which resizing throws away"),
    "long": Kind(False, "wider than the model takes at its height; it will be squeezed"),
    "one-case": Kind(False, "a set whose labels are all upper or all lower case, whatever the print shows"),
    "unlabelled": Kind(False, "a set without any label"),
}
"""What a check can find; the order is that of its report."""

LEAST_HEIGHT, LEAST_WIDTH, GREATEST_HEIGHT = 8, 4, 512
UPRIGHT = 1.5
SAME_PICTURE, SAME_PICTURE_OTHER_LABEL = 0.9, 0.95
"""Least correlation of two pictures that count as one; with unequal labels the more careful bound holds."""
ONE_CASE_SHARE, ONE_CASE_LETTERS = 0.995, 200
"""A set is of one case where so large a share of at least so many cased letters is."""

INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # they shape Arabic and Indic scripts
REPLACEMENT = "\ufffd"
LOOK_LATIN = frozenset("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοАВЕЅІЈКМНОРСТУХаеорсухіјѕһԁԛԝ")
LATIN_LOOKS = frozenset("ABCEHIJKMNOPSTXYZacdehijopqswxy")
"""Greek and Cyrillic letters whose usual form is that of a Latin one, and those Latin ones."""
WORD = re.compile(r"\w+")
LETTER_SPACED = re.compile(r"(?:^|\s)[^\W\d_](?:\s[^\W\d_]){2,}(?=\s|$)|^[^\W\d_]\s[^\W\d_]$")
"""Three letters or more, each alone, or a label of two."""
ODD_SPACES = re.compile(r"^\s|\s$|\s\s|[^\S ]")


@dataclass(frozen=True)
class Finding:
    """What one rule found about one line, or with key "" about a set.

    key: the line's name, without its source. index: its number in the source, -1 for a set. other: the line that it
    is like. weight: the greater, the earlier in a report.
    """

    kind: str
    source: str
    key: str
    detail: str
    label: str | None = None
    index: int = -1
    other: str = ""
    weight: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What lines are held against.

    normalise: label -> label as it is learnt. outside: label -> its characters outside the charset; None where no
    charset is given. spec: how pictures enter the model that is to learn them. pixels_per_column, extra_columns: it has
    width / pixels_per_column + extra_columns columns.
    """

    normalise: Callable[[str], str] = str
    outside: Callable[[str], str] | None = None
    spec: InputSpec = field(default_factory=InputSpec)
    pixels_per_column: int = 4
    extra_columns: int = 0

    def about(self, entry: Entry, size: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
        """(kind, detail) of all that can be said of one line alone; size: (height, width), None where it is broken."""
        if size is not None:
            yield from self._about_size(*size, entry.text)
        if entry.text:
            yield from self._about_label(entry.text)

    def _about_size(self, height: int, width: int, label: str | None) -> Iterator[tuple[str, str]]:
        shape = f"{width} x {height} pixels"
        if height < LEAST_HEIGHT or width < LEAST_WIDTH:
            yield "tiny", shape
        if height > GREATEST_HEIGHT:
            yield "huge", shape
        if width * self.spec.height > self.spec.max_width * height:
            yield "long", f"{shape}, {width / height:.0f} times as wide as high"
        if height > UPRIGHT * width and len(label or "") >= 3:
            yield "upright", shape
        needed = required_columns(self.normalise(label or ""))
        have = natural_width(height, width, self.spec) // self.pixels_per_column + self.extra_columns
        if needed > have:
            yield "too-few-columns", f"needs {needed} columns, {shape} give {have}"

    def _about_label(self, label: str) -> Iterator[tuple[str, str]]:
        outside = self.outside(label) if self.outside is not None else ""
        if outside:
            yield "outside-charset", named(outside)
        if invisible := "".join(dict.fromkeys(c for c in label if is_invisible(c))):
            yield "invisible-characters", named(invisible)
        if mixed := "".join(dict.fromkeys(c for word in WORD.findall(label) for c in foreign_letters(word))):
            yield "mixed-scripts", named(mixed)
        if match := LETTER_SPACED.search(label):
            yield "letter-spaced", repr(match[0].strip())
        if ODD_SPACES.search(label):
            yield "odd-spaces", repr(label)
        if not unicodedata.is_normalized("NFC", label):
            yield "not-nfc", f"{len(label)} code points, {len(unicodedata.normalize('NFC', label))} in NFC"


def is_invisible(character: str) -> bool:
    """Whether a character shows nothing that could be read, or is the mark of a broken encoding."""
    return (unicodedata.category(character) in INVISIBLE and character not in JOINERS) or character == REPLACEMENT


def foreign_letters(word: str) -> str:
    """The letters of a word that only look as if they were of the script of most; "" for a word of one script."""
    latin = [c for c in word if unicodedata.name(c, "").startswith("LATIN ")]
    others = [c for c in word if c.isalpha() and c not in latin]
    if not latin or not others:
        return ""
    few, alike = (others, LOOK_LATIN) if len(latin) >= len(others) else (latin, LATIN_LOOKS)
    return "".join(c for c in few if c in alike)


def named(characters: str) -> str:
    """Characters with their numbers, for some look like others or like nothing: 'é' U+00E9."""
    return ", ".join(f"{c!r} U+{ord(c):04X}" for c in characters)


class Tally:
    """What a set is like as a whole, counted line by line."""

    def __init__(self) -> None:
        self.lines = self.labelled = self.upper = self.lower = 0
        self.outside: Counter[str] = Counter()

    def add(self, label: str | None, outside: Callable[[str], str] | None, normalise: Callable[[str], str]) -> None:
        self.lines += 1
        if not label:
            return
        self.labelled += 1
        self.upper += sum(c.isupper() for c in label)
        self.lower += sum(c.islower() for c in label)
        if outside is not None and (missing := outside(label)):
            self.outside.update(c for c in normalise(label) if c in missing)

    def about(self, source: str) -> Iterator[Finding]:
        """What can be said of the whole set."""
        if not self.labelled:
            yield Finding("unlabelled", source, "", f"{self.lines} lines")
        letters = self.upper + self.lower
        for case, count in (("upper", self.upper), ("lower", self.lower)):
            if letters >= ONE_CASE_LETTERS and count >= ONE_CASE_SHARE * letters:
                share = f"{count} of {letters} letters are {case} case"
                yield Finding("one-case", source, "", f"{share}; if the print is not, train with --case lower or upper")


def pair_kind(
    one: Picture, other: Picture, label: str | None, other_label: str | None, same_label: bool, across: bool
) -> str:
    """The kind of a pair of lines whose hashes agree, once the pictures are compared; "" where they are two pictures.

    same_label: without case and spaces. across: the lines are of two sets that should share none.
    """
    alike = correlation(one, other)
    if same_label:
        return "" if alike < SAME_PICTURE else "leak" if across else "duplicate"
    return "contradiction" if alike >= SAME_PICTURE_OTHER_LABEL and label and other_label else ""
