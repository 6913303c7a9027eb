import statistics

import pytest
import torch

from distill.new_rows import LEAST_MARGIN, MAY_CHANGE, TAIL, steady_biases


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
