"""Which characters are taken for which: label and reading aligned by the fewest edits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


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


def edits(label: str, read: str) -> list[Pair]:
    """The places where an alignment differs."""
    return [pair for pair in aligned(label, read) if pair.label != pair.read]


def confusions(lines: Iterable[tuple[str, str]]) -> list[tuple[Pair, int]]:
    """How often each edit occurs over (label, reading), the most frequent first, ties in character order.

    Lines with more edits than half the label's length are left out: where nearly everything is wrong, which
    characters stand side by side is chance.
    """
    counts: Counter[Pair] = Counter()
    for label, read in lines:
        if label != read and len(found := edits(label, read)) <= len(label) / 2:
            counts.update(found)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
