"""How well texts were read: exactly, blind to case and punctuation, by edits, and character by character.

Sums and counts are kept, means are taken at the end.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import editdistance

_NOT_36 = re.compile("[^0-9a-z]")

Frequency = Literal["many", "medium", "few"]

FEW = 0.2
"""Of an even share of all characters: what is rarer than this is one of few. See frequency_groups."""


@dataclass(frozen=True)
class Score:
    """Sums over lines, so that scores of several sets add up exactly.

    lines: all. right: texts equal to their labels.
    lines36, right36: the same after fold36, without the lines whose folded label is empty.
    edits: edit distances, characters: label lengths, both over NFC.
    """

    lines: int = 0
    right: int = 0
    lines36: int = 0
    right36: int = 0
    edits: int = 0
    characters: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.lines + other.lines,
            self.right + other.right,
            self.lines36 + other.lines36,
            self.right36 + other.right36,
            self.edits + other.edits,
            self.characters + other.characters,
        )

    @property
    def exact(self) -> float:
        """Share of lines read without any difference, 0..1; nan without lines."""
        return _share(self.right, self.lines)

    @property
    def acc36(self) -> float:
        """Share of lines read right when only 0-9 and a-z count, 0..1; nan where no label has any of them."""
        return _share(self.right36, self.lines36)

    @property
    def cer(self) -> float:
        """Character error rate: edits per label character; can exceed 1; nan without characters."""
        return _share(self.edits, self.characters)


def score(texts: Sequence[str], labels: Sequence[str]) -> Score:
    """The score of texts against labels, pair by pair; labels in the case the charset writes (Charset.normalise)."""
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts were to be scored against {len(labels)} labels; give one text for each")
    lines36 = right36 = right = edits = characters = 0
    for text, label in zip(_nfc(texts), _nfc(labels), strict=True):
        right += text == label
        folded = fold36(label)
        lines36 += bool(folded)
        right36 += bool(folded) and fold36(text) == folded
        edits += editdistance.eval(text, label)
        characters += len(label)
    return Score(len(labels), right, lines36, right36, edits, characters)


def fold36(text: str) -> str:
    """Lower case, and everything but 0-9 and a-z removed: the usual score of scene text (acc36)."""
    return _NOT_36.sub("", text.lower())


class Pair(NamedTuple):
    """One place of an alignment.

    label: the character of the label; "" where the reading holds one too many.
    read: the character that was read; "" where it is missing.
    """

    label: str
    read: str


def aligned(label: str, read: str) -> list[Pair]:
    """Label and reading side by side with the fewest differences (Levenshtein), from left to right.

    Where several alignments are as short, one with substitutions is preferred to missing and added characters.
    """
    costs = [list(range(len(read) + 1))]  # edit distances of all prefixes
    for i, expected in enumerate(label, start=1):
        above, row = costs[-1], [i]
        for j, given in enumerate(read, start=1):
            row.append(min(above[j - 1] + (expected != given), above[j] + 1, row[j - 1] + 1))
        costs.append(row)
    i, j = len(label), len(read)
    found: list[Pair] = []
    while i or j:
        here = costs[i][j]
        if i and j and here == costs[i - 1][j - 1] + (label[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            found.append(Pair(label[i], read[j]))
        elif i and here == costs[i - 1][j] + 1:
            i -= 1
            found.append(Pair(label[i], ""))
        else:
            j -= 1
            found.append(Pair("", read[j]))
    return found[::-1]


@dataclass(frozen=True)
class CharacterRecall:
    """Sums over lines by character, so that those of several sets add up exactly.

    held: how often labels hold each character. read: how often it was read in its place, which the fewest edits
    between label and reading tell.
    """

    held: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: CharacterRecall) -> CharacterRecall:
        return CharacterRecall(self.held + other.held, self.read + other.read)

    def occurrences(self, characters: Iterable[str]) -> int:
        """How often labels hold any of these."""
        return sum(self.held[c] for c in characters)

    def share(self, characters: Iterable[str]) -> float:
        """Of all occurrences of these characters, how many were read, 0..1; nan where there is none."""
        characters = list(characters)
        return _share(sum(self.read[c] for c in characters), self.occurrences(characters))

    @property
    def macro(self) -> float:
        """Mean of the shares of single characters, each that occurs counting once; nan without characters."""
        held = [c for c, times in self.held.items() if times]
        return sum(self.read[c] / self.held[c] for c in held) / len(held) if held else float("nan")


def character_recall(texts: Iterable[str], labels: Iterable[str]) -> CharacterRecall:
    """Of texts against labels, pair by pair; labels in the case the charset writes (Charset.normalise)."""
    held: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for text, label in zip(texts, labels, strict=True):
        text, label = unicodedata.normalize("NFC", text), unicodedata.normalize("NFC", label)
        held.update(label)
        read.update(label if text == label else [p.label for p in aligned(label, text) if p.label == p.read])
    return CharacterRecall(held, read)


def frequency_groups(counts: Mapping[str, float]) -> dict[Frequency, frozenset[str]]:
    """Characters by how often a training set holds them: character -> count, 0 allowed.

    many: an even share of all characters (their sum over the number of classes) or more; few: less than FEW of it;
    medium: between. Shares and not counts as in image classification (over 100, under 20): lines that are drawn have no
    number, and in English text and receipts these groups are about a third of printable ASCII each.
    """
    even = sum(counts.values()) / max(1, len(counts))
    few = frozenset(c for c, times in counts.items() if times < FEW * even or not times)
    many = frozenset(c for c, times in counts.items() if times >= even) - few
    return {"many": many, "medium": frozenset(counts) - many - few, "few": few}


def _nfc(texts: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", text) for text in texts]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
