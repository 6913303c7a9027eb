"""CTC decoding: best path, prefix beam search with an optional lexicon, forced alignment; numpy only, pure.

Log-probabilities come as (T, K), T columns and K classes; class 0 is the blank. A path gives every column a
class; its text is what remains when repeats are merged and blanks are taken out (Graves et al. 2006).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.charset import BLANK, Charset

LogProbs = NDArray[np.floating[Any]]
"""Natural logarithms of probabilities, (T, K) or (N, T, K)."""


@dataclass(frozen=True)
class Span:
    """Columns start to end, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """What was read in one line.

    confidence: the smallest of the characters' confidences, in 0..1. One doubtful character makes the text
        wrong however sure the others are: a mean hides it, and a product or a geometric mean moves with the
        length, where the minimum lets one threshold serve short words and long lines. A reading without
        characters has the smallest probability of the blank over the columns.
    spans: the columns each character took.
    character_confidences: of each character, its largest probability within its span.
    turned: degrees counter-clockwise by which the picture was turned before it was read: 0, 90 or 270.
    """

    text: str
    confidence: float
    spans: tuple[Span, ...]
    character_confidences: tuple[float, ...]
    turned: int = 0


def best_path(log_probs: LogProbs) -> NDArray[np.intp]:
    """The most probable class of every column: (..., T, K) -> (..., T)."""
    return np.asarray(np.argmax(log_probs, axis=-1), dtype=np.intp)


def spike_columns(log_probs: LogProbs) -> NDArray[np.bool_]:
    """Where the best path shows its characters: (N, T, K) -> (N, T), true at the most probable column of each.

    Two models that share an encoder agree where their spikes stand in the same columns.
    """
    classes, best, starts = _runs(log_probs)
    if not len(starts):
        return np.zeros(log_probs.shape[:2], dtype=np.bool_)
    lengths = np.diff(np.append(starts, classes.size))
    at_peak = np.flatnonzero(best == np.repeat(np.maximum.reduceat(best, starts), lengths))
    run_of_column = np.repeat(np.arange(len(starts)), lengths)
    _, first = np.unique(run_of_column[at_peak], return_index=True)
    peaks = at_peak[first]  # one a run, the first where several columns are equally probable
    spikes = np.zeros(classes.size, dtype=np.bool_)
    spikes[peaks[classes[peaks] != BLANK]] = True
    return spikes.reshape(log_probs.shape[:2])  # (N, T)


def blank_outside(log_probs: LogProbs, first: int, end: int) -> LogProbs:
    """(T, K) with the blank, and nothing else, in the columns before first and from end on."""
    if first == 0 and end == len(log_probs):
        return log_probs
    certain = np.full_like(log_probs, -np.inf)
    certain[:, BLANK] = 0
    certain[first:end] = log_probs[first:end]
    return certain


def tempered(log_probs: LogProbs, temperature: float) -> LogProbs:
    """(..., T, K) divided by a temperature and normalised again (Guo et al. 2017): the best path stays what it was.

    Above 1 confidences become smaller, below 1 greater; 1 gives what was given.
    """
    if temperature == 1:
        return log_probs
    scaled = log_probs.astype(np.float64) / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)


def greedy(log_probs: LogProbs, charset: Charset) -> Reading:
    """The text of the best path: (T, K) -> Reading. A span is the run of columns that show the character."""
    return greedy_batch(log_probs[None], charset)[0]


def greedy_batch(log_probs: LogProbs, charset: Charset) -> list[Reading]:
    """greedy for many lines of one width at once: (N, T, K) -> N readings."""
    _check_classes(log_probs, charset)
    lines, columns = log_probs.shape[:2]
    classes, best, starts = _runs(log_probs)
    if not len(starts):
        return [Reading("", 0.0, (), ())] * lines
    ends = np.append(starts[1:], classes.size)
    confidences = _probabilities(np.maximum.reduceat(best, starts))
    shown = classes[starts] != BLANK
    first_run = np.searchsorted(np.flatnonzero(shown), np.searchsorted(starts, np.arange(lines + 1) * columns))
    characters = np.array(list(charset.characters))[classes[starts[shown]] - BLANK - 1].tolist()
    offsets = (starts[shown] % columns).tolist()
    lengths = (ends - starts)[shown].tolist()
    confidences = confidences[shown].tolist()
    readings = []
    for line in range(lines):
        own = slice(first_run[line], first_run[line + 1])
        text = "".join(characters[own])
        spans = tuple(Span(o, o + n) for o, n in zip(offsets[own], lengths[own], strict=True))
        readings.append(_reading(log_probs[line], text, spans, tuple(confidences[own])))
    return readings


def _runs(log_probs: LogProbs) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.intp]]:
    """(N, T, K) -> the best classes (N*T,), their log-probabilities (N*T,), and where each run of one class starts."""
    if log_probs.ndim != 3:
        raise ValueError(f"log-probabilities of shape {log_probs.shape} were given; (N, T, K) is expected")
    path = best_path(log_probs)  # (N, T)
    best = np.take_along_axis(log_probs, path[..., None], axis=-1)  # (N, T, 1)
    begins = np.ones(path.shape, dtype=np.bool_)
    begins[:, 1:] = path[:, 1:] != path[:, :-1]
    return path.ravel(), best.ravel(), np.flatnonzero(begins)


def _probabilities(log_probs: LogProbs) -> NDArray[np.float64]:
    """exp, held within 0..1: an output of rounded numbers can exceed it by a hair."""
    return np.exp(np.minimum(log_probs.astype(np.float64), 0))


def _reading(log_probs: LogProbs, text: str, spans: tuple[Span, ...], confidences: tuple[float, ...]) -> Reading:
    if confidences:
        confidence = min(confidences)
    else:
        confidence = float(_probabilities(log_probs[:, BLANK]).min(initial=1.0)) if len(log_probs) else 0.0
    return Reading(text, confidence, spans, confidences)


def _check_classes(log_probs: LogProbs, charset: Charset) -> None:
    if log_probs.shape[-1] != charset.classes:
        raise ValueError(
            f"the output has {log_probs.shape[-1]} classes, but the charset's {len(charset.characters)} characters "
            f"and the blank make {charset.classes}; decode with the charset of the same model file"
        )


class Lexicon:
    """The entries a reading may hold: one of them, or several with single spaces between, or nothing.

    Entries are brought to the charset's NFC and case and must be met to the letter. An entry may itself hold
    spaces ("New York"). Where the charset has no space, a reading is one entry. A state is the set of nodes
    of the entries' trie where a prefix may stand.

    left_out: the entries with characters outside the charset, which could never be read.
    """

    def __init__(self, entries: Iterable[str], charset: Charset) -> None:
        """ValueError where no entry is left."""
        self._classes = charset.classes
        self._space = charset.encode(" ")[0] if " " in charset.characters else None
        self._children: list[dict[int, int]] = [{}]  # node -> class -> node; node 0 is the root
        self._entry_ends: set[int] = set()
        self._masks: dict[frozenset[int], tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
        left_out = []
        for entry in entries:
            entry = charset.normalise(entry).strip()
            if charset.missing(entry):
                left_out.append(entry)
            elif entry:
                self._add(charset.encode(entry))
        self.left_out = tuple(left_out)
        if not self._entry_ends:
            raise ValueError(
                "the lexicon has no entry written with the charset's characters alone "
                f"({len(left_out)} were left out); give one in the model's own characters"
            )

    def _add(self, classes: Sequence[int]) -> None:
        node = 0
        for number in classes:
            if number not in self._children[node]:
                self._children[node][number] = len(self._children)
                self._children.append({})
            node = self._children[node][number]
        self._entry_ends.add(node)

    @property
    def start(self) -> frozenset[int]:
        """The state before the first character."""
        return frozenset((0,))

    def follow(self, state: frozenset[int], number: int) -> frozenset[int]:
        """The state after one more character; empty where no entry goes on so."""
        nodes = {self._children[node][number] for node in state if number in self._children[node]}
        if number == self._space and self.finished(state):
            nodes.add(0)
        return frozenset(nodes)

    def finished(self, state: frozenset[int]) -> bool:
        """Whether an entry ends here."""
        return not self._entry_ends.isdisjoint(state)

    def masks(self, state: frozenset[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which classes may come next, and which of them finish an entry: two of (K,)."""
        if state not in self._masks:
            allowed, finishing = np.zeros((2, self._classes), dtype=np.bool_)
            numbers = {number for node in state for number in self._children[node]}
            if self._space is not None and self.finished(state):
                numbers.add(self._space)
            for number in numbers:
                allowed[number] = True
                finishing[number] = self.finished(self.follow(state, number))
            self._masks[state] = allowed, finishing
        return self._masks[state]


def beam_search(
    log_probs: LogProbs, charset: Charset, beam: int = 16, lexicon: Lexicon | None = None, top: int | None = None
) -> Reading:
    """The most probable text over all its paths, by prefix beam search: (T, K) -> Reading.

    beam, lexicon, top: see prefix_beams. Spans and confidences are those of the text's best alignment, so they
    mean the same as in greedy.
    """
    _check_classes(log_probs, charset)
    ranked = prefix_beams(log_probs, beam, lexicon, top)
    classes = ranked[0][0] if ranked else ()  # none where every path the lexicon allows has probability zero
    return aligned_reading(log_probs, classes, charset)


def aligned_reading(log_probs: LogProbs, classes: Sequence[int], charset: Charset) -> Reading:
    """These classes as the line's reading, with spans and confidences of their best alignment; errors as in align."""
    spans = tuple(align(log_probs, classes))
    confidences = tuple(
        float(_probabilities(log_probs[span.start : span.end, number]).max())
        for span, number in zip(spans, classes, strict=True)
    )
    return _reading(log_probs, charset.decode(classes), spans, confidences)


def beam_search_batch(
    log_probs: LogProbs, charset: Charset, beam: int = 16, lexicon: Lexicon | None = None, top: int | None = None
) -> list[Reading]:
    """beam_search line by line: (N, T, K) -> N readings."""
    return [beam_search(line, charset, beam, lexicon, top) for line in log_probs]


@dataclass(frozen=True, eq=False)
class _Prefix:
    """A node of the tree of prefixes; the empty one has no parent and the blank as its last class."""

    parent: _Prefix | None
    last: int
    state: frozenset[int]  # in the lexicon; empty without one
    children: dict[int, _Prefix]

    def extended(self, number: int, lexicon: Lexicon | None) -> _Prefix:
        if number not in self.children:
            state = lexicon.follow(self.state, number) if lexicon else self.state
            self.children[number] = _Prefix(self, number, state, {})
        return self.children[number]

    def classes(self) -> tuple[int, ...]:
        backwards = []
        prefix = self
        while prefix.parent is not None:
            backwards.append(prefix.last)
            prefix = prefix.parent
        return tuple(reversed(backwards))


def prefix_beams(
    log_probs: LogProbs, beam: int = 16, lexicon: Lexicon | None = None, top: int | None = None
) -> list[tuple[tuple[int, ...], float]]:
    """Class sequences with the logarithm of their probability, the most probable first: (T, K) -> at most beam.

    Each prefix carries the probability of its paths that end in a blank and of those that end in its last
    character (Hannun et al. 2014, without a language model). A beam wide enough to hold every prefix is exact.

    beam: prefixes kept after each column. With a lexicon, that many finished and that many unfinished ones,
        so that there is always a finished one to return; the empty one counts as finished.
    top: only so many classes of a column, the most probable, extend a prefix; None: all.
    """
    if beam < 1 or (top is not None and top < 1):
        raise ValueError(f"beam is {beam} and top is {top}; each must be at least 1")
    prefixes = [_Prefix(None, BLANK, lexicon.start if lexicon else frozenset(), {})]
    finished = np.array([True])  # (B,)
    by_blank, by_character = np.zeros(1), np.full(1, -np.inf)  # (B,)
    for column in log_probs.astype(np.float64):  # (K,)
        alive, classes = len(prefixes), len(column)
        last = np.array([prefix.last for prefix in prefixes])  # (B,)
        total = np.logaddexp(by_blank, by_character)  # (B,)
        grown = np.broadcast_to(total[:, None], (alive, classes)).copy()  # (B, K)
        grown[np.arange(alive), last] = by_blank  # a repeat needs a blank between
        grown += _most_probable(column, top)
        grown[:, BLANK] = -np.inf
        finishing = np.ones((alive, classes), dtype=np.bool_)  # (B, K)
        if lexicon is not None:
            masks = [lexicon.masks(prefix.state) for prefix in prefixes]
            grown[~np.stack([allowed for allowed, _ in masks])] = -np.inf
            finishing = np.stack([finishes for _, finishes in masks])
        stays_blank = total + column[BLANK]  # (B,)
        stays_character = np.where(last == BLANK, -np.inf, by_character + column[last])  # (B,)
        rows = {id(prefix): row for row, prefix in enumerate(prefixes)}
        for row, prefix in enumerate(prefixes):
            if prefix.parent is not None and id(prefix.parent) in rows:  # its parent grows into it: one prefix, not two
                growth = rows[id(prefix.parent)], prefix.last
                stays_character[row] = np.logaddexp(stays_character[row], grown[growth])
                grown[growth] = -np.inf
        scores = np.concatenate([np.logaddexp(stays_blank, stays_character), grown.ravel()])  # (B + B*K,)
        finishes = np.concatenate([finished, finishing.ravel()])
        chosen = np.concatenate([_largest(scores, finishes, beam), _largest(scores, ~finishes, beam)])
        stay, grow = chosen[chosen < alive], chosen[chosen >= alive]
        prefixes = [prefixes[i] for i in stay] + [
            prefixes[i // classes].extended(int(i % classes), lexicon) for i in grow - alive
        ]
        finished = finishes[np.concatenate([stay, grow])]
        by_blank = np.concatenate([stays_blank[stay], np.full(len(grow), -np.inf)])
        by_character = np.concatenate([stays_character[stay], scores[grow]])
    total = np.logaddexp(by_blank, by_character)
    ranked = _largest(total, finished, beam)
    return [(prefixes[i].classes(), float(total[i])) for i in ranked]


def _most_probable(column: NDArray[np.float64], top: int | None) -> NDArray[np.float64]:
    """The column (K,) with -inf where a character is not among the top most probable ones."""
    if top is None or top >= len(column) - 1:
        return column
    characters = column.copy()
    characters[BLANK] = -np.inf
    out = np.full_like(column, -np.inf)
    best = np.argpartition(characters, -top)[-top:]
    out[best] = column[best]
    return out


def _largest(scores: NDArray[np.float64], eligible: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """Indices of the count largest finite scores among the eligible, the largest first."""
    indices = np.flatnonzero(eligible & (scores > -np.inf))
    if len(indices) > count:
        indices = indices[np.argpartition(scores[indices], -count)[-count:]]
    return indices[np.argsort(-scores[indices], kind="stable")]


def align(log_probs: LogProbs, classes: Sequence[int]) -> list[Span]:
    """The columns each character takes on the most probable path that reads these classes (Viterbi).

    log_probs: (T, K). classes: without blanks. Blanks between characters belong to no span.
    ValueError where T is too small for the classes, or every such path has probability zero.
    """
    columns, count = len(log_probs), len(classes)
    needed = count + sum(a == b for a, b in pairwise(classes))
    if columns < needed:
        raise ValueError(f"{count} characters need {needed} columns, and the line has {columns}; give a wider picture")
    if not count:
        return []
    # states: blank, first character, blank, second character, ..., blank
    states = np.full(2 * count + 1, BLANK, dtype=np.intp)  # (S,)
    states[1::2] = classes
    may_skip = np.zeros(len(states), dtype=np.bool_)  # over the blank before, from another character
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probs[:, states].astype(np.float64)  # (T, S)
    score = np.full(len(states), -np.inf)
    score[:2] = emitted[0, :2]
    steps = np.zeros((columns, len(states)), dtype=np.int8)  # by how many states the best path came forward
    for t in range(1, columns):
        candidates = np.full((3, len(states)), -np.inf)
        candidates[0] = score
        candidates[1, 1:] = score[:-1]
        candidates[2, 2:] = np.where(may_skip[2:], score[:-2], -np.inf)
        steps[t] = candidates.argmax(axis=0)
        score = candidates.max(axis=0) + emitted[t]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    if score[state] == -np.inf:
        raise ValueError(f"no path of these {columns} columns reads the {count} characters; their probability is zero")
    bounds: list[list[int]] = [[] for _ in range(count)]
    for t in range(columns - 1, -1, -1):
        if state % 2:
            bounds[state // 2].append(t)
        state -= int(steps[t, state])
    return [Span(taken[-1], taken[0] + 1) for taken in bounds]
