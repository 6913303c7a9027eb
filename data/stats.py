"""How long, wide and high the lines of a set are, and which characters its labels use."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.lines import StoredLines

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Stats:
    """lengths: characters of each label that is not empty; heights, widths: pixels of each picture, as stored."""

    lines: int
    lengths: NDArray[np.int32]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    characters: Counter[str] = field(default_factory=Counter)
    groups: int = 0

    def scaled_widths(self, height: int) -> NDArray[np.float64]:
        """Widths in pixels once each line is so high."""
        return np.asarray(self.widths * (height / self.heights))

    def rare(self, below: int) -> list[str]:
        """Characters that occur fewer times than below, the rarest first."""
        return [c for c, count in sorted(self.characters.items(), key=lambda item: (item[1], item[0])) if count < below]


def stats_of(sources: Sequence[StoredLines]) -> Stats:
    """Of several sources as one set, without decoding a picture; what a source raises passes through."""
    sizes, lengths = list[NDArray[np.int32]](), list[int]()
    characters: Counter[str] = Counter()
    groups = 0
    for source in sources:
        sizes.append(np.array(source.sizes(), np.int32).reshape(-1, 2))
        for text in source.texts():
            if text:
                lengths.append(len(text))
                characters.update(text)
        groups += len(set(source.groups()) - {None})
    heights, widths = np.concatenate(sizes).T
    return Stats(len(heights), np.array(lengths, np.int32), heights, widths, characters, groups)


def quantiles(values: NDArray[np.int32] | NDArray[np.float64]) -> list[float]:
    """Least, 5 %, median, 95 % and greatest; empty for no values."""
    return [float(value) for value in np.quantile(values, QUANTILES)] if len(values) else []


def script_of(character: str) -> str:
    """What a character is: the first word of its Unicode name for letters (LATIN, GREEK, ...), else its kind."""
    kind = unicodedata.category(character)[0]
    if kind == "L":
        return unicodedata.name(character, "unnamed").split()[0].capitalize()
    return {"N": "digits", "P": "punctuation", "S": "symbols", "M": "marks", "Z": "spaces"}.get(kind, "other")
