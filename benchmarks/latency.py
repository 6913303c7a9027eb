"""How long one line takes: single pictures, one after the other, in rounds that visit every model in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]
"""One picture: float32 (1, C, height, width) where it is prepared, uint8 (height, width, 3) where it is not."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of wall clock for one line.

    milliseconds: every single timing, round by round.
    """

    milliseconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        return float(np.percentile(self.milliseconds, 50))

    @property
    def p95(self) -> float:
        """Over lines of all widths: long lines and disturbances of the machine both lie here."""
        return float(np.percentile(self.milliseconds, 95))

    @property
    def mean(self) -> float:
        return float(np.mean(self.milliseconds))


def measure(
    calls: Sequence[Callable[[Picture], object]],
    pictures: Sequence[Sequence[Picture]],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Times every call on its pictures, len(calls) results.

    A picture is given to one model after the other before the next picture is taken, and who begins moves on
    with every round: what slows the machine down for a while then hits all models alike. Before the first
    round every call sees every picture once untimed, so that each width is allocated and cached.

    calls: what is timed, one a model: a picture -> anything.
    pictures: for each call the same lines in the same order, prepared as that model wants them.
    clock: seconds.
    """
    if len(calls) != len(pictures) or not calls:
        raise ValueError(f"{len(calls)} models and pictures for {len(pictures)} were given; give both for each model")
    lines = len(pictures[0])
    if not lines or any(len(own) != lines for own in pictures):
        raise ValueError("latency needs the same lines, at least one, for every model; give --latency-lines 1 or more")
    if rounds < 1:
        raise ValueError(f"{rounds} rounds of latency were asked for; give at least 1")
    for call, own in zip(calls, pictures, strict=True):
        for picture in own:
            call(picture)
    timings: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for line in range(lines):
            for step in range(len(calls)):
                model = (turn + step) % len(calls)
                start = clock()
                calls[model](pictures[model][line])
                timings[model].append((clock() - start) * 1000)
    return [Latency(tuple(own)) for own in timings]
