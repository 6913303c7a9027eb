"""Which operators stay float."""

from __future__ import annotations

import pytest

from export.sensitivity import search

COSTS = {"stem": 3.0, "middle": 1.0, "lstm": 2.0}
LOST = {"stem": 0.03, "middle": 0.001, "lstm": 0.01}


def drop(kept: frozenset[str]) -> float:
    return sum(lost for name, lost in LOST.items() if name not in kept)


def test_nothing_is_kept_in_float_where_int8_reads_as_well() -> None:
    found = search(list(COSTS), lambda kept: -0.002, COSTS.__getitem__, most=0.0)
    assert found.kept == ()
    assert found.drops == (-0.002,)


def test_no_cost_is_measured_where_none_is_needed() -> None:
    def cost(name: str) -> float:
        raise AssertionError(name)

    assert search(list(COSTS), drop, cost, most=0.05).costs == ()


def test_the_most_costly_is_kept_first_and_no_more_than_needed() -> None:
    found = search(list(COSTS), drop, COSTS.__getitem__, most=0.02)
    assert found.kept == ("stem",)
    assert found.drops == pytest.approx((0.041, 0.011))
    assert [name for name, _ in found.costs] == ["stem", "lstm", "middle"]


def test_more_follow_until_the_drop_is_allowed() -> None:
    assert search(list(COSTS), drop, COSTS.__getitem__, most=0.002).kept == ("stem", "lstm")


def test_a_drop_that_remains_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"loses 14\.10%.*all 3 operators.*10\.00%.*allows 1\.00%"):
        search(list(COSTS), lambda kept: drop(kept) + 0.1, COSTS.__getitem__, most=0.01)
