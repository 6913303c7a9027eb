"""A growing charset: figures from readings, and what the tables say."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.extend_charset import FIFTY, FIVE
from benchmarks.extend_charset_tables import (
    TEST_SETS,
    by_character,
    change,
    extend_table,
    pooled_interval,
    shares,
    trade_table,
)
from benchmarks.markdown import NOT_RUN

LINES = [("5€", "5€"), ("a€b", "aeb"), ("no", "n0"), ("€€", "€c")]
ADDED = {"five": FIVE, "fifty": FIFTY}


def test_shares_are_by_occurrence() -> None:
    found = shares(LINES, "€")
    assert found["held"] == 4
    assert found["signs"] == 0.5
    assert found["letters"] == pytest.approx(4 / 5)
    assert by_character(LINES, "€n") == {"€": [4, 2], "n": [1, 1]}


def test_the_interval_is_over_lines_and_holds_the_share() -> None:
    low, high = pooled_interval([LINES * 20, LINES * 20], "€")
    assert low < 0.5 < high
    right = [(label, label) for label, _ in LINES]
    assert high <= 1
    assert pooled_interval([[("€", "€")] * 9], "€") == [1.0, 1.0]
    assert pooled_interval([right], "€")[0] > 0


def test_a_change_is_paired_line_by_line() -> None:
    before = [("a", "a"), ("b", "c"), ("d", "d"), ("e", "e")]
    after = [("a", "a"), ("b", "b"), ("d", "e"), ("e", "e")]
    found = change([after], before)
    assert found["before"] == found["after"] == 0.75
    assert found["difference"] == 0
    assert found["interval"][0] < 0 < found["interval"][1]
    assert change([before, before], before)["interval"] == [0.0, 0.0]


def test_a_change_is_the_mean_over_runs() -> None:
    before = [("a", "b"), ("b", "b")]
    assert change([[("a", "a"), ("b", "b")], before], before)["difference"] == 0.25


def test_what_was_not_run_says_so() -> None:
    arms = {"five": {"told": "a", "characters": 5}, "fifty": {"told": "b", "characters": 50}}
    nothing: dict[str, Any] = {"arms": arms, "real": {"lines_de": {"told": "c"}}}
    assert extend_table(nothing).count("not run") == 3


def test_the_table_gives_points_with_their_interval() -> None:
    old = {"difference": -0.003, "interval": [-0.011, 0.004]}
    arm: dict[str, Any] = {
        "characters": 5,
        "told": "anchor and rehearsal",
        "new": [0.9, 0.92], "new_mean": 0.91, "new_clean": 0.97, "new_interval": [0.88, 0.94], "minutes": [4.0, 6.0],
        "old": dict.fromkeys(("old", *TEST_SETS), old),
    }  # fmt: skip
    real = arm | {"add": "äöü", "new": 0.5, "minutes": 7.2}
    del real["new_mean"], real["new_clean"]
    rows = extend_table({"arms": {"five": arm}, "real": {"lines_de": real}}).splitlines()
    change_cell = "-0.3 (-1.1 to 0.4)"
    cells = " | ".join([change_cell] * 3)
    assert rows[2] == f"| 5, drawn | anchor and rehearsal | 91.0 (88.0 to 94.0) | 97.0 | {cells} | 5 |"
    assert rows[-1] == f"| 3, half of lines_de | anchor and rehearsal | 50.0 (88.0 to 94.0) |  | {cells} | 7 |"


def test_what_biases_buy_and_cost_is_told_for_every_nat_and_for_what_was_taken() -> None:
    first = {"moved": -1.0, "taken": False, "cost": 0.002, "five": 0.8, "five-clean": 0.9, "old": 0.001}
    first |= dict.fromkeys(TEST_SETS, -0.002)
    rows = [first | {"moved": shift, "taken": shift == -0.5} for shift in (-1.0, -0.75, -0.5, 0.0)]
    told = trade_table({"added": ADDED, "trade": {"five": rows, "fifty": []}}).splitlines()
    assert told[2] == "| 5 | -1 | 0.2 | 80.0 | 90.0 | +0.1 | -0.2 | -0.2 |"
    assert [row.split(" | ")[1] for row in told[2:]] == ["-1", "-0.5 (taken)", "+0"]
    assert trade_table({"added": ADDED, "trade": {"five": [], "fifty": []}}) == NOT_RUN
