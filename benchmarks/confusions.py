"""Which characters are taken for which: label and reading aligned by the fewest edits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crnn.score import Pair, aligned


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
