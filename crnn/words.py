"""Known words before unknown ones: a doubtful word gives way to a listed one that the picture bears out nearly as well.

The greedy reading stays, but for words that are not listed. Of the texts that a prefix beam search finds in such a
word's columns, the most probable listed one takes its place where the best one is less than a bonus above it: a
recogniser weighed against a prior of words, as in Graves and Jaitly 2014, with one number for a language model.
Numbers, codes and what a picture shows clearly stay as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from crnn.charset import Charset
from crnn.ctc import LogProbs, Reading, Span, aligned_reading, greedy_batch, prefix_beams

BEAM, TOP = 16, 6
"""Texts kept in view for a word, and characters tried in a column."""

LEAST_LETTERS = 2

ENGLISH = Path(str(files("data.synthesis"))) / "words.txt"
"""The list that comes with the package, which synthesis writes too."""


@dataclass(frozen=True)
class KnownWords:
    """Which words are known, and what that is worth; numbers in nats, found by benchmarks.known_words.

    listed: from listed_words, without case.
    per_letter, most: a listed word may be less probable by per_letter for each of its letters, by most at most, than
        the text that it replaces: a short word is more easily listed by chance.
    surer: share of this bonus by which the logarithm of the odds of a listed word's characters rises, for being listed
        is evidence too: without it confidences are too low.
    """

    listed: frozenset[str]
    per_letter: float = 1.0
    most: float = 6.0
    surer: float = 0.5

    def __contains__(self, word: str) -> bool:
        """Whether the word is listed, signs around it aside; of one with hyphens, whether every part is."""
        whole = bare(word)
        return whole in self.listed or all(part in self.listed for part in whole.split("-"))

    def bonus(self, word: str) -> float:
        """In nats."""
        return min(self.most, self.per_letter * len(bare(word)))


@cache
def english_words() -> frozenset[str]:
    """Those of ENGLISH, without case."""
    return listed_words(ENGLISH.read_text(encoding="utf-8").splitlines())


def listed_words(entries: Iterable[str]) -> frozenset[str]:
    """Every word of the entries, without case and without signs around it."""
    words = (bare(word) for entry in entries for word in entry.split())
    return frozenset(word for word in words if len(word) >= LEAST_LETTERS)


def read_words(log_probs: LogProbs, charset: Charset, known: KnownWords) -> list[Reading]:
    """greedy_batch, its unlisted words weighed against listed ones: (N, T, K) -> N readings.

    A word that was replaced has spans and confidences of its own best alignment; then all listed words are surer.
    """
    readings = greedy_batch(log_probs, charset)
    return [with_words(line, reading, charset, known) for line, reading in zip(log_probs, readings, strict=True)]


def with_words(log_probs: LogProbs, reading: Reading, charset: Charset, known: KnownWords) -> Reading:
    """One line's (T, K) and greedy reading -> the reading with listed words."""
    text, spans, confidences = reading.text, list(reading.spans), list(reading.character_confidences)
    for match in reversed(list(re.finditer(r"[^ ]+", text))):
        word, (start, end) = match[0], match.span()
        if not any(c.isalpha() for c in word):
            continue
        own = confidences[start:end]
        if word not in known:
            first = spans[start - 1].end if start else 0
            last = spans[end].start if end < len(text) else len(log_probs)
            better = listed_reading(log_probs[first:last], charset, known)
            if better is None:
                continue
            word, own = better.text, list(better.character_confidences)
            text = text[:start] + word + text[end:]
            spans[start:end] = [Span(first + span.start, first + span.end) for span in better.spans]
        confidences[start:end] = [raised(confidence, known.surer * known.bonus(word)) for confidence in own]
    return replace(
        reading, text=text, spans=tuple(spans), character_confidences=tuple(confidences),
        confidence=min(confidences, default=reading.confidence),
    )  # fmt: skip


def listed_reading(columns: LogProbs, charset: Charset, known: KnownWords) -> Reading | None:
    """The most probable listed word of these columns (T, K); None where none comes close enough."""
    second, first = np.partition(columns, -2, axis=-1)[:, -2:].T  # (T,)
    if (first - second).min() > known.most:
        return None  # any other text costs more than that in one column at least
    ranked = prefix_beams(columns, BEAM, None, TOP)
    for classes, score in ranked:
        word = charset.decode(classes)
        if word in known and ranked[0][1] - score < known.bonus(word):
            return aligned_reading(columns, classes, charset)
    return None


def raised(confidence: float, nats: float) -> float:
    """A probability whose odds are e^nats times as great."""
    return confidence / (confidence + (1 - confidence) * math.exp(-nats))


def bare(word: str) -> str:
    """Without case, and without what is neither letter nor digit before and behind."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", word).casefold()
