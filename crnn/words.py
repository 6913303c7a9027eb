"""Known words before unknown ones: a doubtful word gives way to a listed one that the picture bears out nearly as well.

The greedy reading stays, but for words that are not known. Of the texts that a prefix beam search finds in such a
word's columns, the most probable known one takes its place where the most probable of all is less than a bonus above
it: a recogniser weighed against a prior of words, as in Graves and Jaitly 2014, with one number for a language model.
Numbers stay as they are, and so does what a picture shows more clearly than the bonus.
"""

from __future__ import annotations

import math
import re
import unicodedata
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

ENDING = re.compile(r"(?:n['\u2019]t|['\u2019](?:s|t|d|m|ll|re|ve))$")
"""Of contractions and possessives: their stem is what a list holds."""
ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)")

ENGLISH = Path(str(files("data.synthesis"))) / "words.txt"
"""The list that comes with the package, which synthesis writes too."""


@dataclass(frozen=True)
class KnownWords:
    """Which words are known, and what that is worth; numbers in nats, found by benchmarks.known_words.

    listed: from listed_words, without case.
    per_letter, most: a known word may be less probable than the most probable text by per_letter for each of its
        letters, by most at most: a short word is more easily known by chance.
    surer: share of this bonus by which the logarithm of the odds of a known word's characters rises, for being known
        is evidence too: without it confidences are too low.
    """

    listed: frozenset[str]
    per_letter: float = 1.0
    most: float = 4.0
    surer: float = 0.5

    def __contains__(self, word: str) -> bool:
        """Whether the word is listed, signs around it and its ending aside; an ordinal is known too.

        Of a word with hyphens every part must be listed, or be one letter.
        """
        whole = bare(word)
        if whole in self.listed or ORDINAL.fullmatch(whole):
            return True
        parts = ENDING.sub("", whole).split("-")
        return all(part in self.listed or (len(part) == 1 < len(parts)) for part in parts)

    def bonus(self, word: str) -> float:
        """In nats."""
        return min(self.most, self.per_letter * len(bare(word)))


@cache
def english_words() -> frozenset[str]:
    """Those of ENGLISH, without case."""
    return listed_words(ENGLISH.read_text(encoding="utf-8").splitlines())


def listed_words(entries: Iterable[str]) -> frozenset[str]:
    """Every word of the entries, without case and without signs around it."""
    return frozenset(word for entry in entries for part in entry.split() if (word := bare(part)))


def read_words(log_probs: LogProbs, charset: Charset, known: KnownWords) -> list[Reading]:
    """greedy_batch, its unknown words weighed against known ones: (N, T, K) -> N readings.

    A word that was replaced has spans and confidences of its own best alignment; then all known words are surer.
    """
    readings = greedy_batch(log_probs, charset)
    return [with_words(line, reading, charset, known) for line, reading in zip(log_probs, readings, strict=True)]


def with_words(log_probs: LogProbs, reading: Reading, charset: Charset, known: KnownWords) -> Reading:
    """One line's (T, K) and greedy reading -> the reading with known words."""
    text, spans, confidences = reading.text, list(reading.spans), list(reading.character_confidences)
    for match in reversed(list(re.finditer(r"[^ ]+", text))):
        word, (start, end) = match[0], match.span()
        if not any(c.isalpha() for c in word):
            continue
        own = confidences[start:end]
        if word not in known:
            first = spans[start - 1].end if start else 0
            last = spans[end].start if end < len(text) else len(log_probs)
            better = known_reading(log_probs[first:last], charset, known)
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


def known_reading(columns: LogProbs, charset: Charset, known: KnownWords) -> Reading | None:
    """The most probable known word of these columns (T, K), of two letters or more; None where none comes close enough.

    Where no column has a second class within the bonus nothing is searched: texts whose probability comes from many
    faint columns are passed over for the sake of speed.
    """
    second, first = np.partition(columns, -2, axis=-1)[:, -2:].T  # (T,)
    if (first - second).min() > known.most:
        return None
    ranked = prefix_beams(columns, BEAM, None, TOP)
    for classes, score in ranked:
        word = charset.decode(classes)
        near = ranked[0][1] - score < known.bonus(word)
        if near and " " not in word and len(bare(word)) > 1 and word in known:
            return aligned_reading(columns, classes, charset)
    return None


def raised(confidence: float, nats: float) -> float:
    """A probability whose odds are e^nats times as great."""
    return confidence / (confidence + (1 - confidence) * math.exp(-nats))


def bare(word: str) -> str:
    """Composed (NFC), without case, and without punctuation, symbols and spaces before and behind."""
    word = unicodedata.normalize("NFC", word)
    inner = [place for place, character in enumerate(word) if unicodedata.category(character)[0] not in "PSZC"]
    return word[inner[0] : inner[-1] + 1].casefold() if inner else ""
