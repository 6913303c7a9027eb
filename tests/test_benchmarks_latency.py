"""Timing with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.latency import Latency, measure


class Clock:
    """Seconds that pass only where a model says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, seconds: Callable[[int], float]) -> Callable[[np.ndarray], None]:
        def call(picture: np.ndarray) -> None:
            self.calls.append(name)
            self.now += seconds(picture.shape[-1])

        return call


PICTURES = [np.zeros((1, 3, 32, width), np.float32) for width in (32, 64, 256)]


def test_every_timing_is_kept_in_milliseconds() -> None:
    clock = Clock()
    slow, fast = measure(
        [clock.model("slow", lambda width: width / 1000), clock.model("fast", lambda width: 0.001)],
        [PICTURES, PICTURES],
        rounds=2,
        clock=clock,
    )
    assert slow.milliseconds == pytest.approx([32, 64, 256] * 2)
    assert fast.milliseconds == pytest.approx([1] * 6)


def test_percentiles_are_in_order() -> None:
    latency = Latency(tuple(float(i) for i in range(100)))
    assert latency.p50 == pytest.approx(49.5)
    assert latency.p50 <= latency.p95 <= max(latency.milliseconds)
    assert latency.mean == pytest.approx(49.5)


def test_models_take_turns_and_who_begins_moves_on() -> None:
    clock = Clock()
    models = [clock.model(name, lambda width: 0.001) for name in "abc"]
    measure(models, [PICTURES[:1]] * 3, rounds=3, clock=clock)
    assert "".join(clock.calls[3:]) == "abc" + "bca" + "cab"


def test_the_first_visit_of_every_picture_is_not_timed() -> None:
    clock, seen = Clock(), set[int]()

    def call(picture: np.ndarray) -> None:
        clock.now += 0.001 if picture.shape[-1] in seen else 9.0
        seen.add(picture.shape[-1])

    (latency,) = measure([call], [PICTURES], rounds=1, clock=clock)
    assert max(latency.milliseconds) == pytest.approx(1)


def test_models_that_were_given_different_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="the same lines"):
        measure([len, len], [PICTURES, PICTURES[:1]])
    with pytest.raises(ValueError, match="at least one"):
        measure([len], [[]])
    with pytest.raises(ValueError, match="0 rounds"):
        measure([len], [PICTURES], rounds=0)
