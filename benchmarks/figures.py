"""What `crnn bench` counts in the lines that models read: accuracy with intervals, rare characters, differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.confidence import confidence_figures
from benchmarks.confusions import confusions
from benchmarks.intervals import bootstrap_interval
from crnn.score import Frequency, character_recall, fold36, score

LISTED_CONFUSIONS = 50
"""For one model."""


@dataclass(frozen=True)
class LineResult:
    """How one model read one line.

    label, text: as they are compared: the label in the case the model's charset writes, both without case where
        that was asked for.
    covered: whether the charset holds all the label's characters; where not, the line cannot be read right.
    """

    key: str
    label: str
    text: str
    confidence: float
    covered: bool

    @property
    def right(self) -> bool:
        return self.text == self.label

    @property
    def right36(self) -> bool | None:
        """None where the label has nothing of 0-9 and a-z."""
        folded = fold36(self.label)
        return fold36(self.text) == folded if folded else None


Lines = dict[str, list[LineResult]]
"""Name of a set -> its lines as one model read them, in the set's order."""

Groups = dict[Frequency, frozenset[str]]
"""Characters by how frequent they are."""


def by_frequency(lines: Sequence[LineResult], groups: Groups, seed: int) -> dict[str, Any]:
    """How many of the labels' characters were read in their place, by group.

    macro: mean over characters, each counting once. outside: characters that belong to no group.
    """
    whole = character_recall([line.text for line in lines], [line.label for line in lines])
    each = [character_recall([line.text], [line.label]) for line in lines]
    found: dict[str, Any] = {"macro": number(whole.macro)}
    for name, characters in groups.items():
        pairs = [(own.occurrences(characters), sum(own.read[c] for c in characters)) for own in each]
        counting = [pair for pair in pairs if pair[0]]
        found[name] = {
            "characters": sum(whole.held[c] > 0 for c in characters),
            "held": whole.occurrences(characters),
            "read": number(whole.share(characters)),
            "interval": share_interval(counting, seed) if counting else None,
        }
    found["outside"] = whole.held.total() - sum(found[name]["held"] for name in groups)
    return found


def sureness(lines: Sequence[LineResult]) -> dict[str, Any] | None:
    """How sure and how right a model was; see benchmarks.confidence."""
    return confidence_figures([line.confidence for line in lines], [line.right for line in lines])


def share_interval(pairs: Sequence[tuple[int, int]], seed: int) -> tuple[float, float]:
    """Interval of sum of read / sum of held over lines' (held, read), lines drawn with all their characters.

    A ratio of two sums, so each line's value is its part in the ratio's change, to first order (linearisation).
    """
    held, right = np.array(pairs, np.float64).T
    whole = right.sum() / held.sum()
    return bootstrap_interval((whole + (right - whole * held) / held.mean()).tolist(), seed)


def set_figures(read: dict[str, Lines], model: str, set_name: str, groups: Groups, seed: int) -> dict[str, Any]:
    """Accuracy of one model on one set with intervals, and what differs from the first model, line by line.

    same_text: lines that another model reads with the very same text.
    """
    lines = read[model][set_name]
    sums = score([line.text for line in lines], [line.label for line in lines])
    first = next(iter(read))
    others = {name: read[name][set_name] for name in read if name != model}
    return {
        "model": model,
        "set": set_name,
        "lines": sums.lines,
        "exact": sums.exact,
        "exact_interval": bootstrap_interval([line.right for line in lines], seed),
        "acc36": number(sums.acc36),
        "acc36_interval": interval36(lines, seed),
        "acc36_lines": sums.lines36,
        "cer": number(sums.cer),
        "characters": by_frequency(lines, groups, seed),
        "uncovered_lines": sum(not line.covered for line in lines),
        "difference": None if model == first else difference(lines, read[first][set_name], first, seed),
        "same_text": {n: sum(a.text == b.text for a, b in zip(lines, o, strict=True)) for n, o in others.items()},
    }


def difference(lines: list[LineResult], first: list[LineResult], name: str, seed: int) -> dict[str, Any]:
    """Exact accuracy less that of the first model; the interval is of paired lines, since both read the same."""
    pairs = [a.right - b.right for a, b in zip(lines, first, strict=True)]
    return {"to": name, "exact": float(np.mean(pairs)), "exact_interval": bootstrap_interval(pairs, seed)}


def interval36(lines: list[LineResult], seed: int) -> tuple[float, float] | None:
    counting = [line.right36 for line in lines if line.right36 is not None]
    return bootstrap_interval(counting, seed) if counting else None


def number(value: float) -> float | None:
    """JSON has no nan."""
    return None if np.isnan(value) else value


def list_confusions(lines: Lines) -> list[dict[str, Any]]:
    found = confusions((line.label, line.text) for own in lines.values() for line in own)
    return [{"label": pair.label, "read": pair.read, "count": n} for pair, n in found[:LISTED_CONFUSIONS]]
