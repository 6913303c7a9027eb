"""Biases of new classes: old lines bound them, before training and after it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, load_checkpoint
from crnn.model import Crnn, read_lines
from data.lines import Line
from data.synthesis.source import SynthesisOptions, SynthesisSource
from distill.new_biases import (
    LEAST_MARGIN,
    MAY_CHANGE,
    SHIFTS,
    TAIL,
    Cost,
    HeldLines,
    allowed,
    costs_of_shifts,
    moved,
    steady_biases,
)


def least_slack(lines: int, rows: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    """What largest is where a row's bias has an exponential tail: the least of several columns."""
    slack = torch.empty(lines, 20, rows).exponential_(1 / scale, generator=torch.Generator().manual_seed(seed))
    return 40 - slack.max(1).values


@pytest.mark.parametrize("rows", [5, 50])
def test_rows_together_change_the_allowed_share_of_lines_that_they_were_not_set_on(rows: int) -> None:
    others = least_slack(10_000, rows, seed=0)
    tries = [steady_biases(least_slack(1000, rows, seed)) for seed in range(1, 11)]
    changed = statistics.fmean(float((biases > others).any(1).float().mean()) for biases in tries)
    assert MAY_CHANGE / 2 < changed < MAY_CHANGE * 2


def test_biases_are_lower_the_more_rows_there_are() -> None:
    largest = least_slack(1000, 50, seed=1)
    assert (steady_biases(largest)[:5] < steady_biases(largest[:, :5])).all()


@pytest.mark.parametrize("lines", [1, 2, TAIL, 100_000])
def test_biases_are_a_margin_below_the_lowest_whatever_the_number_of_lines(lines: int) -> None:
    largest = least_slack(lines, 2, seed=3, scale=0.01)
    biases = steady_biases(largest)
    assert biases.isfinite().all()
    assert (biases <= largest.min(0).values - LEAST_MARGIN).all()


@pytest.fixture
def written(random_checkpoint: Callable[..., Path]) -> Checkpoint:
    return load_checkpoint(random_checkpoint(charset=Charset.of("0123456789abcdef ")))


ADDED = [15, 16]
"""The classes of e and f, as if they were new."""


def read(written: Checkpoint, lines: list[Line]) -> list[str]:
    charset, spec = written.info.charset, written.info.input_spec
    return [reading.text for reading in read_lines(Crnn.from_checkpoint(written), lines, charset, spec)]


@pytest.fixture
def old_lines(written: Checkpoint) -> list[Line]:
    """Lines whose text is what is read there without e and f."""
    source = SynthesisSource(SynthesisOptions("0123", 2, 6), 3, 16)
    lines = [source[i] for i in range(16)]
    return [
        replace(line, text=text) for line, text in zip(lines, read(moved(written, ADDED, -1e9), lines), strict=True)
    ]


def held(lines: list[Line], sure: float = 1.0) -> HeldLines:
    return HeldLines(lines, [sure] * len(lines))


def test_costs_are_the_lines_that_new_classes_take(written: Checkpoint, old_lines: list[Line]) -> None:
    found = costs_of_shifts(written, [held(old_lines)], ADDED)
    assert [cost.shift for cost in found] == list(SHIFTS)
    labels = [line.text for line in old_lines]
    for cost in found[::8]:
        texts = read(moved(written, ADDED, cost.shift), old_lines)
        assert cost.shares == (pytest.approx(sum(a != b for a, b in zip(texts, labels, strict=True)) / 16),)
    assert found[0].shares < found[-1].shares


def test_a_line_counts_by_how_sure_its_text_is(written: Checkpoint, old_lines: list[Line]) -> None:
    never = [replace(line, text="0" * 40) for line in old_lines]
    doubted = HeldLines([*old_lines, *never], [0.9] * 16 + [0.1] * 16)
    costs = zip(
        costs_of_shifts(written, [doubted], ADDED), costs_of_shifts(written, [held(old_lines)], ADDED), strict=True
    )
    assert all(some.shares[0] == pytest.approx(0.9 * all_of_it.shares[0]) for some, all_of_it in costs)


def test_sets_without_lines_cost_nothing_and_nothing_is_moved_then(written: Checkpoint, old_lines: list[Line]) -> None:
    assert len(costs_of_shifts(written, [held([]), held(old_lines)], ADDED)[0].shares) == 1
    assert costs_of_shifts(written, [held([]), held([])], ADDED) == []
    assert allowed([], 0.5) == 0


@pytest.mark.parametrize(("may_lose", "shift"), [(0.001, -1.0), (0.003, 0.0), (0.01, 1.0), (0.0, -1.0)])
def test_biases_go_as_high_as_every_set_allows(may_lose: float, shift: float) -> None:
    found = [Cost(-1.0, (0.002, 0.0)), Cost(0.0, (0.002, 3 / 1000)), Cost(1.0, (0.004, 0.01)), Cost(2.0, (0.0, 0.02))]
    assert allowed(found, may_lose) == shift


@pytest.mark.parametrize("lost", range(1, 40))
def test_as_many_lines_may_be_lost_as_the_share_says_whatever_the_rounding(lost: int) -> None:
    shares = (800 / 1000 - (800 - lost) / 1000,)
    assert allowed([Cost(0.0, shares), Cost(1.0, (1.0,))], lost / 1000) == 0


def test_only_the_biases_of_new_classes_are_moved(written: Checkpoint) -> None:
    before = written.weights["classifier.bias"].clone()
    bias = moved(written, ADDED, -1.5).weights["classifier.bias"]
    assert torch.equal(written.weights["classifier.bias"], before)
    assert (bias - before)[ADDED].tolist() == pytest.approx([-1.5, -1.5])
    assert (bias - before).count_nonzero() == 2
