"""What a bonus gains is counted line by line, without case on real sets alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.known_words import Line, bonuses, rules_table, set_figures, shares_table
from crnn.charset import Charset

CHARSET = Charset.of("Hhouseac")
LISTED = frozenset({"house"})


def line(label: str, shown: str, other: str = "", nats: float = 0.0) -> Line:
    """Sure columns but for the third character, which may as well be another, so much less probable."""
    log_probs = np.full((2 * len(shown), CHARSET.classes), -20.0)
    log_probs[1::2, 0] = math.log(0.9)
    for place, character in enumerate(shown):
        log_probs[2 * place, CHARSET.characters.index(character) + 1] = math.log(0.6)
    if other:
        log_probs[4, CHARSET.characters.index(other) + 1] = math.log(0.6) - nats
    return Line(label, log_probs)


LINES = [line("HOUSE", "hoase", "u", 3.0), line("coach", "coach")]


def test_a_word_that_a_bonus_reaches_is_a_line_gained() -> None:
    found = set_figures(LINES, CHARSET, LISTED, folded=True)
    assert (found["lines"], found["best_path"]) == (2, 0.5)
    gained = {rule: row["difference"] for rule, row in found["rules"].items()}
    assert (gained["2 nats"], gained["4 nats"], gained["1 nats a letter, at most 4"]) == (0.0, 0.5, 0.5)


def test_drawn_lines_are_compared_with_case() -> None:
    found = set_figures(LINES, CHARSET, LISTED, folded=False)
    assert found["rules"]["4 nats"]["difference"] == 0.0


def test_a_constant_bonus_does_not_grow_with_the_word() -> None:
    constant = bonuses(LISTED)["4 nats"]
    assert constant.bonus("it") == constant.bonus("house") == 4.0


def test_tables_tell_the_gain_and_what_confidences_are_off() -> None:
    own = {
        "lines": 2, "best_path": 0.5, "rules": {"4 nats": {"difference": 0.25, "interval": (0.1, 0.4)}},
        "calibration": {"best path": 0.05, "0.5": 0.02},
    }  # fmt: skip
    results = {"sets": {"iiit5k_train": own, "codes": own}}
    header, _, plain, gained = rules_table(results).splitlines()
    assert "iiit5k_train, acc36 (2) | codes, exact (2)" in header
    assert plain == "| best path | 50.0 | 50.0 |"
    assert gained.startswith("| 4 nats | +25.0 (")
    assert shares_table(results).splitlines()[-1] == "| 0.5 of the bonus | 2.0 | 2.0 |"


def test_what_confidences_are_off_is_of_the_share_that_they_rise_by() -> None:
    found = set_figures([line("house", "house")], CHARSET, LISTED, folded=True)["calibration"]
    assert found["best path"] == found["0"] == pytest.approx(0.4)
    assert found["1"] == pytest.approx(1 - 0.6 / (0.6 + 0.4 * math.exp(-4)))
