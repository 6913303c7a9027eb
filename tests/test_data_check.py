"""Each rule finds what it is for, and leaves good lines alone."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from data.check import KINDS, Rules, Tally, foreign_letters, pair_kind
from data.lines import Picture
from data.lmdb_lines import Entry
from data.picture import decode_whole

ROOMY = (32, 400)
"""A size in which every label of these tests has columns enough."""


def found(label: str | None, size: tuple[int, int] | None = ROOMY, rules: Rules | None = None) -> dict[str, str]:
    return dict((rules or Rules()).about(Entry(b"", label, "k"), size))


@pytest.mark.parametrize(
    "label", ["Total", "2.50", "A 4", "R & D", "Straße", "ſuß", "ὀφθαλμός", "Привет", "½", "T-H-E", "1 2 3"]
)
def test_a_good_label_is_not_remarked_on(label: str) -> None:
    assert found(label) == {}


@pytest.mark.parametrize(
    ("label", "kind", "detail"),
    [
        ("a\u200bb", "invisible-characters", r"'\u200b' U+200B"),
        ("a\tb", "invisible-characters", r"'\t' U+0009"),
        ("caf\ufffd", "invisible-characters", "U+FFFD"),
        ("\ue000", "invisible-characters", "U+E000"),
        ("Mіlk", "mixed-scripts", "'і' U+0456"),
        ("ΤOTAL", "mixed-scripts", "'Τ' U+03A4"),
        ("Пpивет", "mixed-scripts", "'p' U+0070"),
        ("T H E", "letter-spaced", "'T H E'"),
        ("in T H E end", "letter-spaced", "'T H E'"),
        ("N O", "letter-spaced", "'N O'"),
        (" a", "odd-spaces", "' a'"),
        ("a  b", "odd-spaces", "'a  b'"),
        ("a\u00a0b", "odd-spaces", r"'a\xa0b'"),
        ("cafe\u0301", "not-nfc", "5 code points, 4 in NFC"),
    ],
)
def test_a_label_that_is_odd_is_named_with_what_is_odd(label: str, kind: str, detail: str) -> None:
    findings = found(label)
    assert detail in findings[kind]


def test_joiners_that_shape_a_script_are_no_invisible_characters() -> None:
    assert "invisible-characters" not in found("می\u200cخواهم")


def test_a_word_of_another_script_is_no_mixture() -> None:
    assert foreign_letters("Τέλος") == ""
    assert found("Total ΤΟ") == {}
    assert found("ἠκολȣθȣν") == {}  # a Latin letter, but none that looks Greek


def test_characters_outside_the_charset_are_named_once_each() -> None:
    rules = Rules(outside=lambda label: "".join(sorted(set(label) - set("abc"))))
    assert found("abxyx", rules=rules) == {"outside-charset": "'x' U+0078, 'y' U+0079"}
    assert found("cab", rules=rules) == {}


@pytest.mark.parametrize(
    ("label", "size", "kinds"),
    [
        ("abcdefgh", (32, 32), set()),  # 8 columns
        ("abcdefghi", (32, 32), {"too-few-columns"}),
        ("aabbccdd", (32, 32), {"too-few-columns"}),
        ("abc", (60, 40), set()),
        ("abc", (61, 40), {"upright"}),
        ("ab", (61, 40), set()),
        ("a", (7, 40), {"tiny"}),
        ("a", (40, 3), {"tiny"}),
        ("a", (513, 400), {"huge"}),
        ("a", (32, 2048), set()),
        ("a", (32, 2080), {"long"}),
        (None, (32, 2080), {"long"}),
    ],
)
def test_sizes_are_held_against_label_and_model(label: str | None, size: tuple[int, int], kinds: set[str]) -> None:
    assert set(found(label, size)) == kinds


def test_columns_are_counted_for_the_label_as_it_is_learnt() -> None:
    assert found("AaBbCcDd", (32, 32)) == {}
    assert "too-few-columns" in found("AaBbCcDd", (32, 32), Rules(normalise=str.lower))


def test_a_picture_that_was_cut_off_is_broken(draw_word: Callable[[str], Picture]) -> None:
    for suffix in (".png", ".jpg"):
        encoded = cv2.imencode(suffix, draw_word("Total"))[1].tobytes()
        assert decode_whole(encoded, "k").shape == draw_word("Total").shape
        with pytest.raises(ValueError, match="k does not decode"):
            decode_whole(encoded[: len(encoded) * 2 // 3], "k")


def tallied(labels: list[str | None]) -> Tally:
    tally = Tally()
    for label in labels:
        tally.add(label, lambda label: "".join(sorted(set(label) - set("abcABC"))), str)
    return tally


@pytest.mark.parametrize(
    ("labels", "kinds"),
    [
        (["ABC"] * 100, ["one-case"]),
        (["abc"] * 100, ["one-case"]),
        (["ABC"] * 98 + ["abc"] * 2, []),
        (["ABC"] * 5, []),
        (["123"] * 100, []),
        ([None, "", None], ["unlabelled"]),
    ],
)
def test_a_set_of_one_case_or_without_labels_is_told_as_a_whole(labels: list[str | None], kinds: list[str]) -> None:
    assert [finding.kind for finding in tallied(labels).about("s")] == kinds


def test_characters_outside_the_charset_are_counted() -> None:
    assert tallied(["axxb", "x", "yc", None]).outside == {"x": 3, "y": 1}


def test_two_lines_are_one_picture_only_where_the_pixels_agree(draw_word: Callable[[str], Picture]) -> None:
    one, other = draw_word("Total"), draw_word("Trial")
    lighter = (one // 2 + 100).astype(np.uint8)
    assert pair_kind(one, lighter, "Total", "TOTAL", True, False) == "duplicate"
    assert pair_kind(one, lighter, "Total", "TOTAL", True, True) == "leak"
    assert pair_kind(one, lighter, "Total", "Tctal", False, False) == "contradiction"
    assert pair_kind(one, lighter, "Total", None, False, False) == ""
    assert pair_kind(one, other, "Total", "Total", True, True) == ""
    assert pair_kind(one, other, "Total", "Trial", False, False) == ""


def test_every_kind_has_a_meaning() -> None:
    assert all(kind.meaning for kind in KINDS.values())
