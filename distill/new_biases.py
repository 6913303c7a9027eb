"""Biases of new classes: so low before training that old lines read as before, and after it as high as these allow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint
from crnn.ctc import LogProbs, greedy_batch
from crnn.model import Crnn, line_log_probs
from data.lines import Line

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
    """What new classes cost old lines with their biases moved by shift: a share of each set, see costs_of_shifts."""

    shift: float
    shares: tuple[float, ...]


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


def costs_of_shifts(written: Checkpoint, held: Sequence[HeldLines], added: Sequence[int]) -> list[Cost]:
    """For each of SHIFTS: how much less of each set is read exactly than if the new classes could not be read at all.

    A share of the lines, each counted by how sure its text is. Sets without lines are left out; no set, no costs.
    Against what the old model reads there it would be measured too kindly: held-out lines of what was rehearsed gain
    by training, others do not.
    """
    charset, model = written.info.charset, Crnn.from_checkpoint(written)
    found: list[list[float]] = []  # set by set, the share that is read at each shift
    for lines, sure in held:
        batches = [
            ([charset.normalise(lines[i].text or "") for i in some], [sure[i] for i in some], log_probs)
            for some, log_probs in line_log_probs(model, lines, written.info.input_spec)
        ]
        if batches:
            found.append([_read(batches, charset, added, shift) for shift in (-np.inf, *SHIFTS)])
    if not found:
        return []
    return [Cost(shift, tuple(row[0] - row[i] for row in found)) for i, shift in enumerate(SHIFTS, 1)]


def _read(
    batches: Sequence[tuple[list[str], list[float], LogProbs]], charset: Charset, added: Sequence[int], shift: float
) -> float:
    """The share of lines that is read exactly with these classes moved. A batch: labels, how sure, (N, T, K)."""
    right = 0.0
    for labels, sure, log_probs in batches:
        moved = log_probs.copy()
        moved[..., list(added)] += shift
        readings = greedy_batch(moved, charset)
        right += sum(s for s, label, reading in zip(sure, labels, readings, strict=True) if reading.text == label)
    return right / sum(sum(sure) for _, sure, _ in batches)


def allowed(found: Sequence[Cost], may_lose: float) -> float:
    """The largest shift up to which new classes cost no set more than may_lose; the lowest one where all cost more.

    0 where nothing was found: nothing is known then.
    """
    fitting = itertools.takewhile(lambda cost: max(cost.shares) <= may_lose + 1e-9, found)  # + rounding of shares
    return max((cost.shift for cost in fitting), default=found[0].shift if found else 0.0)


def moved(written: Checkpoint, added: Sequence[int], shift: float) -> Checkpoint:
    """The model with the biases of these classes moved."""
    bias = written.weights["classifier.bias"].clone()
    bias[list(added)] += shift
    return replace(written, weights={**written.weights, "classifier.bias": bias})
