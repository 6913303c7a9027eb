"""Confidences that mean something: one temperature a file, fitted on lines that the model did not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crnn.checkpoint import ModelInfo
from crnn.ctc import LogProbs, greedy, tempered
from crnn.recogniser import without_margins
from crnn.runtimes import Runtime
from data.lines import Line
from data.picture import prepare

LEAST_LINES, LEAST_OF_EACH = 100, 10
"""Lines in all, and of those read right and read wrong, below which nothing is fitted."""
BOUNDS = (0.25, 8.0)
PRECISION = 0.01
"""Of the temperature's logarithm."""
SUREST = 1e-6
"""A confidence counts as no nearer to 0 or 1, so that one sure mistake is not all there is."""


@dataclass(frozen=True)
class Temperature:
    """value: what log-probabilities are divided by; 1 where nothing was fitted, and why_not then says why.

    lines, right: that it was fitted on, and of them those read right. loss_before, loss_after: mean -ln of the
    confidence of right lines and of its complement for wrong ones, at temperature 1 and at value; None where nothing
    was fitted.
    """

    value: float
    lines: int
    right: int
    loss_before: float | None = None
    loss_after: float | None = None
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fit_temperature(runtime: Runtime, info: ModelInfo, lines: Sequence[Line]) -> Temperature:
    """The temperature at which a line's confidence says best whether its reading is right.

    lines: labelled. It minimises the mean cross-entropy between confidence and right or wrong (Guo et al. 2017 fit a
    classifier's in this way), by golden section between BOUNDS. The best path's text stays what it is at any of them.
    """
    read = [column_log_probs(runtime, info, line) for line in lines]
    charset = info.charset
    right = [
        greedy(own, charset).text == charset.normalise(line.text or "") for own, line in zip(read, lines, strict=True)
    ]
    count, fine = len(lines), sum(right)
    if count < LEAST_LINES or min(fine, count - fine) < LEAST_OF_EACH:
        reason = f"{fine} of {count} lines are read right; it takes {LEAST_LINES}, and {LEAST_OF_EACH} of each kind"
        return Temperature(1.0, count, fine, why_not=reason)

    def loss(temperature: float) -> float:
        return cross_entropy([greedy(tempered(own, temperature), charset).confidence for own in read], right)

    value = round(lowest(loss, *BOUNDS), 3)
    before, after = loss(1.0), loss(value)
    return Temperature(value, count, fine, round(before, 5), round(after, 5))


def column_log_probs(runtime: Runtime, info: ModelInfo, line: Line) -> LogProbs:
    """(T, K) of one line, blank where it shows margin alone."""
    log_probs = runtime(prepare(line.picture, info.input_spec)[None])
    shown: LogProbs = without_margins(log_probs, [(line.picture.shape[0], line.picture.shape[1])], info)[0]
    return shown


def cross_entropy(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean -ln of the confidence where a reading is right, of its complement where it is wrong."""
    sure = np.clip(np.asarray(confidences, np.float64), SUREST, 1 - SUREST)
    return float(-np.log(np.where(right, sure, 1 - sure)).mean())


def lowest(value: Callable[[float], float], least: float, most: float) -> float:
    """Where a function of one minimum is least, by golden section on the logarithm of its argument."""
    shrink = (math.sqrt(5) - 1) / 2
    low, high = math.log(least), math.log(most)
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    at_left, at_right = value(math.exp(left)), value(math.exp(right))
    while high - low > PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - shrink * (high - low)
            at_left = value(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + shrink * (high - low)
            at_right = value(math.exp(right))
    return math.exp((low + high) / 2)
