"""Student and twins on real pictures: what is counted, and what the tables say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.readings import right36_lines
from benchmarks.real_pair import (
    LONGER,
    RATES,
    TEST_SETS,
    RealPairOptions,
    best_twins,
    difference,
    real_differences_table,
    real_table,
    real_time_table,
    twin_path,
)

Json = dict[str, Any]


def model(*curve: tuple[int, float], acc36: float = 0.5) -> Json:
    return {
        "parameters": 1_380_000,
        "acc36": dict.fromkeys(TEST_SETS, acc36),
        "lines": curve[-1][0],
        "seconds": 60.0 * len(curve),
        "curve": [{"lines": lines, "seconds": 60.0 * (i + 1), "accuracy": a} for i, (lines, a) in enumerate(curve)],
    }


def results(student: Json, twin: Json) -> Json:
    apart = {name: {"difference": 0.02, "interval": [-0.01, 0.05]} for name in TEST_SETS}
    return {
        "models": {"teacher": student, "student": student, "twin": twin},
        "rates": {"twin": {"0.001": 0.4, "0.002": 0.6, "0.004": 0.5}},
        "differences": {"twin": apart},
    }


def test_letters_and_digits_are_counted_and_lines_without_any_are_not() -> None:
    assert right36_lines([("It's", "ITS"), ("a-1", "a1!"), ("--", "--"), ("ab", "ac")]) == [True, True, False]


def test_a_difference_is_paired_line_by_line() -> None:
    student = [("a", "a"), ("b", "b"), ("c", "x"), ("d", "d")]
    other = [("a", "a"), ("b", "x"), ("c", "x"), ("d", "d")]
    found = difference(student, other)
    assert found["difference"] == pytest.approx(0.25)
    assert found["interval"][0] == 0.0
    assert difference(student, student)["interval"] == (0.0, 0.0)


def test_a_twin_is_compared_once_every_rate_was_tried_and_then_the_best(tmp_path: Path) -> None:
    options = RealPairOptions(out=tmp_path)

    def ended(rate: float, times: int, accuracy: float) -> None:
        path = twin_path(options, "twin", rate, times)
        path.touch()
        path.with_suffix(".run.json").write_text(json.dumps({"result": {"accuracy": accuracy}}))

    for number, rate in enumerate(RATES[1]):
        assert best_twins(options) == {}
        ended(rate, 1, 0.5 - abs(number - 1) / 10)
    assert best_twins(options) == {"twin": twin_path(options, "twin", RATES[1][1], 1)}
    for rate in RATES[LONGER]:
        ended(rate, LONGER, rate)
    assert best_twins(options)[f"twin-x{LONGER}"] == twin_path(options, "twin", max(RATES[LONGER]), LONGER)


def test_the_table_says_what_each_model_learnt_from() -> None:
    shown = real_table(results(model((100, 0.6), (200, 0.8)), model((100, 0.1), (200, 0.7), acc36=0.25)))
    assert "| twin, column-aligned loss | 1.38 | 25.0 |" in shown
    assert shown.splitlines()[-1].endswith("| 200 | 2 |")


def test_a_difference_keeps_the_signs_of_its_interval() -> None:
    shown = real_differences_table(results(model((100, 0.6)), model((100, 0.6))))
    assert "+2.0 (-1.0 to +5.0)" in shown


def test_time_is_told_where_the_student_comes_to_the_twins_end() -> None:
    student = model((100, 0.6), (200, 0.8))
    shown = real_time_table(results(student, model((100, 0.5), (200, 0.6))))
    assert shown.splitlines()[-1].endswith("| 60.0 | +10.0 | 200 | 2 | 100 | 1 |")
    assert "| 0.002 |" in shown


def test_a_student_that_never_comes_there_is_told_so() -> None:
    shown = real_time_table(results(model((100, 0.2), (200, 0.3)), model((100, 0.5), (200, 0.6))))
    assert shown.splitlines()[-1].endswith("| never |  |")
