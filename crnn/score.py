"""How well texts were read: exactly, blind to case and punctuation, and by characters; means are taken at the end."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import editdistance

_NOT_36 = re.compile("[^0-9a-z]")


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


def _nfc(texts: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", text) for text in texts]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
