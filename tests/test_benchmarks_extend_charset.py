"""The benchmark of a growing charset: what is added, and which arms there are."""

from __future__ import annotations

from benchmarks.extend_charset import ARMS, BASES, FIFTY, FIVE, KNOWN_SIGNS, LEAST, REAL_SETS, lacking
from crnn.charset import Charset, sorted_characters
from data.synthesis.texts import PRINTABLE


def test_no_new_character_is_one_that_printable_models_know() -> None:
    assert len(FIVE) == 5
    assert len(FIFTY) == 50
    assert not set(FIFTY) & set(PRINTABLE)
    assert set(KNOWN_SIGNS) <= set(PRINTABLE)
    assert Charset.of(FIFTY, "lower").characters == sorted_characters(FIFTY)


def test_every_arm_and_every_real_set_is_run_with_some_base_and_once() -> None:
    orders = [base.order for base in BASES.values()]
    assert set().union(*orders) == {*ARMS, *REAL_SETS}
    assert all(len(order) == len(set(order)) for order in orders)


def test_what_is_rebalanced_comes_after_what_was_trained() -> None:
    for base in BASES.values():
        for at, name in enumerate(base.order):
            trained = ARMS[name].rebalanced if name in ARMS else name.split("-")[0] if REAL_SETS[name] else None
            assert trained is None or trained in base.order[:at]
    for arm in ARMS.values():
        assert arm.rebalanced is None or set(arm.seeds) <= set(ARMS[arm.rebalanced].seeds)


def test_a_base_without_pictures_has_no_arm_that_leaves_them_out() -> None:
    assert [name for name, base in BASES.items() if "five-no-pictures" in base.order] == ["shipped"]
    assert [name for name, base in BASES.items() if base.unlabelled] == ["shipped"]


def test_plain_fine_tuning_has_neither_anchor_nor_rehearsal() -> None:
    for name in ("five-plain", "fifty-plain"):
        assert not ARMS[name].rehearse
        assert ARMS[name].flags == ("--anchor", "0")


def test_characters_are_added_where_the_charset_lacks_them_and_they_are_not_too_rare() -> None:
    texts = ["ÄAbc d"] * LEAST + ["ß"] * (LEAST - 1) + [None]
    assert lacking(texts, Charset("abc ", "lower")) == "dä"
    assert lacking(texts, Charset("abc ")) == "AdÄ"
