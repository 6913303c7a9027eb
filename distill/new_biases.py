"""Biases of new classes: so low before training that old lines read as before, and after it as high as these allow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint
from crnn.ctc import LogProbs, greedy_batch
from crnn.model import Crnn, line_log_probs
from crnn.score import character_recall
from data.lines import Line
from data.picture import InputSpec

MAY_CHANGE, TAIL, LEAST_MARGIN = 0.003, 20, 1.0
"""Of steady_biases: the student that ships then reads 1 of 1,000 held-out lines otherwise before any training where
five signs were added, and 3 where fifty were; one margin of 1 for each row made it 2 and 38."""

SHIFTS = tuple(0.25 * step for step in range(-16, 17))
"""By how much the biases of new classes may be moved after training: nats, up to odds of 55 to 1 either way."""


class HeldLines(NamedTuple):
    """Lines of old characters that nothing learnt from. sure: how probable it is that a text is right, 1 for labels."""

    lines: Sequence[Line]
    sure: Sequence[float]


class Cost(NamedTuple):
    """What new classes cost old lines with their biases moved by shift: a share of each set, see costs_of_shifts.

    new_read: the share of new characters that is read then, None where no line shows one.
    """

    shift: float
    shares: tuple[float, ...]
    new_read: float | None = None


def steady_biases(largest: Tensor) -> Tensor:
    """Biases (A,) of new rows with which the rows together change about MAY_CHANGE of all readings of old lines.

    largest: (lines, A), the bias up to which no column of a line is read as the new character. The lowest of them over
    some lines is not low enough for others, the less so the more rows there are. Below their lowest TAIL they are
    taken to fall off exponentially, by the mean of these (the tail of most distributions; Pickands, Ann. Statist. 3,
    1975), and the bias goes where a row's part of MAY_CHANGE is left: at least LEAST_MARGIN below the lowest.
    """
    lines, rows = largest.shape
    lowest = largest.topk(min(TAIL, lines), dim=0, largest=False).values  # (TAIL, A), ascending
    fall = (lowest[-1] - lowest).sum(0) / max(1, len(lowest) - 1)  # (A,)
    times = math.log(max(1.0, len(lowest) * rows / (MAY_CHANGE * lines)))
    return torch.minimum(lowest[-1] - times * fall, lowest[0] - LEAST_MARGIN)


def costs_of_shifts(
    written: Checkpoint, held: Sequence[HeldLines], added: Sequence[int], held_new: Sequence[Line] = ()
) -> list[Cost]:
    """For each of SHIFTS: how much less of each set is read exactly than if the new classes could not be read at all.

    A share of the lines, each counted by how sure its text is. Sets without lines are left out; no set, no costs.
    Against what the old model reads there it would be measured too kindly: held-out lines of what was rehearsed gain
    by training, others do not. held_new: labelled lines in which new characters are counted.
    """
    charset, spec, model = written.info.charset, written.info.input_spec, Crnn.from_checkpoint(written)
    lost: list[list[float]] = []  # set by set, at each shift; one at a time, for with many classes a set is large
    for own in held:
        if own.lines:
            seen = _Seen.of(model, charset, spec, own)
            most = seen.right(charset, added, -np.inf)
            lost.append([most - seen.right(charset, added, shift) for shift in SHIFTS])
    if not lost:
        return []
    seen = _Seen.of(model, charset, spec, HeldLines(held_new, [1.0] * len(held_new)))
    characters = [charset.characters[number - 1] for number in added]
    recalls = [character_recall(seen.texts(charset, added, shift), seen.labels) for shift in SHIFTS]
    new_read = [recall.share(characters) if recall.occurrences(characters) else None for recall in recalls]
    return [Cost(*row) for row in zip(SHIFTS, zip(*lost, strict=True), new_read, strict=True)]


@dataclass(frozen=True)
class _Seen:
    """What a model says of lines, (N, T, K) of those of one width at a time; labels, and how sure they are, by line."""

    log_probs: list[LogProbs]
    labels: list[str]
    sure: list[float]

    @classmethod
    def of(cls, model: Crnn, charset: Charset, spec: InputSpec, held: HeldLines) -> _Seen:
        log_probs, order = list[LogProbs](), list[int]()
        for some, batch in line_log_probs(model, held.lines, spec):
            log_probs.append(batch)
            order += some
        labels = [charset.normalise(held.lines[i].text or "") for i in order]
        return cls(log_probs, labels, [held.sure[i] for i in order])

    def texts(self, charset: Charset, added: Sequence[int], shift: float) -> list[str]:
        """What is read in each line with these classes moved."""
        texts: list[str] = []
        for batch in self.log_probs:
            moved = batch.copy()
            moved[..., list(added)] += shift
            texts += [reading.text for reading in greedy_batch(moved, charset)]
        return texts

    def right(self, charset: Charset, added: Sequence[int], shift: float) -> float:
        """The share of lines that is read exactly with these classes moved, each counted by how sure its label is."""
        pairs = zip(self.sure, self.labels, self.texts(charset, added, shift), strict=True)
        return sum(sure for sure, label, text in pairs if text == label) / sum(self.sure)


def allowed(found: Sequence[Cost], may_lose: float) -> float:
    """The largest shift up to which new classes cost no set more than may_lose; the lowest one where all cost more.

    0 where nothing was found: nothing is known then.
    """
    fitting = itertools.takewhile(lambda cost: max(cost.shares) <= may_lose + 1e-9, found)  # + rounding of shares
    return max((cost.shift for cost in fitting), default=found[0].shift if found else 0.0)


def with_costs(written: Checkpoint, costs: Sequence[Cost], shift: float) -> Checkpoint:
    """The model with what was found of its new biases, and how far they were moved, among what its file tells."""
    return written.with_provenance(new_biases={"moved": shift, "costs": [cost._asdict() for cost in costs]})


def found_costs(written: Checkpoint) -> tuple[list[Cost], float] | None:
    """What with_costs put into a file; None where that is nothing. ValueError where it is damaged."""
    told = written.info.provenance.get("new_biases")
    if told is None:
        return None
    try:
        costs = [Cost(row["shift"], tuple(row["shares"]), row["new_read"]) for row in told["costs"]]
        taken = float(told["moved"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"what the model file says of its biases is damaged ({error!r}); take another copy") from error
    return (costs, taken) if costs else None


def moved(written: Checkpoint, added: Sequence[int], shift: float) -> Checkpoint:
    """The model with the biases of these classes moved."""
    bias = written.weights["classifier.bias"].clone()
    bias[list(added)] += shift
    return replace(written, weights={**written.weights, "classifier.bias": bias})
