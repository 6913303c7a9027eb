"""Characters and class numbers."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from crnn.charset import BLANK, NAMED_CHARSETS, Case, Charset


def test_the_blank_is_class_0_and_the_first_character_class_1() -> None:
    charset = Charset.of("ab")
    assert BLANK == 0
    assert charset.encode("ab") == [1, 2]
    assert charset.classes == 3


def test_characters_are_sorted_and_the_space_is_last() -> None:
    assert Charset.of("b a!ä").characters == "!abä "
    assert Charset.named("ascii").characters[-1] == " "


def test_the_order_in_which_characters_are_given_changes_nothing() -> None:
    assert Charset.of("cab") == Charset.of(["b", "c", "a"]) == Charset.from_texts(["abba", "cab"])


def test_what_is_encoded_decodes_to_itself() -> None:
    charset = Charset.named("ascii")
    text = "Total: 2.50 (net)"
    assert charset.decode(charset.encode(text)) == text


def test_unsorted_characters_are_refused_where_order_counts() -> None:
    with pytest.raises(ValueError, match=r"not in order; make it with Charset\.of"):
        Charset("ba")


def test_a_character_that_comes_twice_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match="holds 'ac' more than once"):
        Charset.of("abcac")


def test_no_characters_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one character"):
        Charset.of("")


@pytest.mark.parametrize("character", ["\n", "\r", "\u2028", "\x1c", "\x85"])
def test_line_breaks_are_refused_for_model_files_list_a_character_a_line(character: str) -> None:
    with pytest.raises(ValueError, match="line breaks"):
        Charset.of("ab" + character)


def test_a_character_that_nfc_writes_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="not in NFC"):
        Charset.of("a\u212b")  # the sign for angstrom, which NFC writes as the letter


def test_decomposed_letters_are_refused_in_a_specification_and_in_a_file(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "aé")
    with pytest.raises(ValueError, match="not in NFC"):
        Charset.from_spec(f"chars:{decomposed}")
    (tmp_path / "set.txt").write_text(decomposed, encoding="utf-8")
    with pytest.raises(ValueError, match=r"set\.txt is not in NFC"):
        Charset.from_spec(str(tmp_path / "set.txt"))


def test_a_combining_mark_of_its_own_may_follow_a_letter_it_could_join() -> None:
    charset = Charset.from_texts(["q\u0302", "az"])  # no code point is a q with circumflex; sorted, z comes before it
    assert charset.characters == "aqz\u0302"
    assert charset.decode(charset.encode("q\u0302a")) == "q\u0302a"


def test_labels_are_brought_to_nfc() -> None:
    charset = Charset.of("éa")
    assert charset.encode(unicodedata.normalize("NFD", "aé")) == [1, 2]


def test_a_label_with_characters_outside_is_refused_with_its_key_and_all_of_them() -> None:
    charset = Charset.of("abc")
    assert charset.missing("abxay!") == "!xy"
    with pytest.raises(ValueError, match=r"images/7\.png: the label 'abxay!' holds '!xy'"):
        charset.encode("abxay!", "images/7.png")


def test_case_lower_teaches_lower_and_case_upper_upper() -> None:
    lower, upper = Charset.of("abcd", "lower"), Charset.of("ABCD", "upper")
    assert lower.decode(lower.encode("AbCd")) == "abcd"
    assert upper.decode(upper.encode("AbCd")) == "ABCD"
    assert Charset.of("abcd").missing("AbCd") == "AC"


@pytest.mark.parametrize(("characters", "case"), [("aB", "lower"), ("aB", "upper")])
def test_characters_that_the_case_makes_impossible_are_refused(characters: str, case: Case) -> None:
    with pytest.raises(ValueError, match="can never occur"):
        Charset.of(characters, case)


def test_case_never_changes_the_number_of_characters() -> None:
    assert Charset.of("AEß", "upper").normalise("aße") == "AßE"
    assert len(Charset.of("iİ", "lower").normalise("İi")) == 2


def test_a_named_charset_loses_what_the_case_makes_impossible() -> None:
    assert Charset.named("alphanumeric", "lower").characters == NAMED_CHARSETS["alphanumeric-lower"]


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(ValueError, match="case is 'title'; it can be keep, lower, upper"):
        Charset.of("ab", "title")  # type: ignore[arg-type]


def test_a_specification_is_a_name_the_characters_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_bytes("\ufeffb\r\na\nä \n".encode())
    assert Charset.from_spec("digits") == Charset.named("digits")
    assert Charset.from_spec("chars:ba").characters == "ab"
    assert Charset.from_spec(str(path)).characters == "abä "


def test_what_is_no_specification_is_told_the_three_forms(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no charset 'digit'; give one of digits, .*a file of characters, or chars:"):
        Charset.from_spec("digit")
    (tmp_path / "latin.txt").write_bytes(b"\xe4")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        Charset.from_spec(str(tmp_path / "latin.txt"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"known are {', '.join(NAMED_CHARSETS)}"):
        Charset.named("klingon")
