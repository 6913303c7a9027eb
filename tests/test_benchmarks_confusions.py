"""Which characters are taken for which."""

from __future__ import annotations

import itertools

import editdistance

from benchmarks.confusions import confusions, edits
from crnn.score import Pair, aligned


def test_a_substitution_names_both_characters() -> None:
    assert edits("hello", "hel1o") == [Pair("l", "1")]


def test_a_missing_and_an_added_character_stand_against_nothing() -> None:
    assert edits("book", "bok") == [Pair("o", "")]
    assert edits("bok", "book") == [Pair("", "o")]


def test_substitution_is_preferred_to_missing_and_added() -> None:
    assert edits("ab", "ba") == [Pair("a", "b"), Pair("b", "a")]


def test_an_alignment_spells_both_texts_and_is_as_short_as_the_edit_distance() -> None:
    texts = ["".join(letters) for n in range(4) for letters in itertools.product("ab", repeat=n)]
    for label, read in itertools.product(texts, texts):
        pairs = aligned(label, read)
        assert "".join(pair.label for pair in pairs) == label
        assert "".join(pair.read for pair in pairs) == read
        assert len(edits(label, read)) == editdistance.eval(label, read)


def test_the_most_frequent_confusion_comes_first() -> None:
    lines = [("hello", "hel1o"), ("long", "1ong"), ("same", "same"), ("2.50", "2,50")]
    assert confusions(lines) == [(Pair("l", "1"), 2), (Pair(".", ","), 1)]


def test_lines_that_are_mostly_wrong_do_not_count() -> None:
    assert confusions([("abcd", "wxyz"), ("", "xyz")]) == []
