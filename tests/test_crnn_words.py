"""Doubtful words give way to listed ones; numbers, clear pictures and listed words stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from crnn.charset import Charset
from crnn.ctc import LogProbs, greedy
from crnn.words import KnownWords, english_words, listed_words, raised, with_words

CHARSET = Charset.of("abcdefghijklmnopqrstuvwxyz0123456789.,()- ")
KNOWN = KnownWords(listed_words(["house", "the", "on", "of", "oak", "well known"]))
SURE = 0.9


def line(text: str, doubts: dict[int, Sequence[tuple[str, float]]] | None = None) -> LogProbs:
    """(T, K): a column a character, then a blank; at the places of doubts the classes have these probabilities."""
    probabilities = np.full((2 * len(text), CHARSET.classes), 1e-9)
    probabilities[1::2, 0] = SURE
    for place, character in enumerate(text):
        for shown, probability in (doubts or {}).get(place, [(character, SURE)]):
            probabilities[2 * place, CHARSET.characters.index(shown) + 1] = probability
    return np.log(probabilities)


def read(log_probs: LogProbs) -> str:
    return with_words(log_probs, greedy(log_probs, CHARSET), CHARSET, KNOWN).text


def doubt(shown: str, other: str, nats: float) -> list[tuple[str, float]]:
    """Two characters, the first so much more probable."""
    return [(shown, 0.5), (other, 0.5 * math.exp(-nats))]


def test_a_doubtful_word_becomes_the_listed_one() -> None:
    assert read(line("hause", {1: doubt("a", "o", 2.0)})) == "house"


def test_what_the_picture_shows_clearly_stays() -> None:
    assert read(line("hause", {1: doubt("a", "o", 6.5)})) == "hause"


def test_a_short_word_must_be_nearer_than_a_long_one() -> None:
    assert read(line("om", {1: doubt("m", "n", 3.0)})) == "om"
    assert read(line("hause", {1: doubt("a", "o", 3.0)})) == "house"


def test_a_listed_word_is_not_exchanged_for_another() -> None:
    assert read(line("on", {1: doubt("n", "f", 0.1)})) == "on"


def test_a_number_stays_though_a_word_is_near() -> None:
    assert read(line("0", {0: doubt("0", "o", 0.1)})) == "0"
    log_probs = line("00", {0: doubt("0", "o", 0.1), 1: doubt("0", "n", 0.1)})
    assert read(log_probs) == "00"


def test_a_digit_among_letters_is_doubtful_too() -> None:
    assert read(line("h0use", {1: doubt("0", "o", 2.0)})) == "house"


def test_signs_around_a_word_are_no_part_of_it() -> None:
    assert read(line("(hause),", {2: doubt("a", "o", 2.0)})) == "(house),"


def test_of_a_word_with_hyphens_every_part_is_listed() -> None:
    assert "Oak-House" in KNOWN
    assert "oak-hause" not in KNOWN


@pytest.mark.parametrize("word", ["house's", "houses'", "OAKN'T", "the\u2019ll", "2nd", "x-house"])
def test_an_ending_an_ordinal_and_a_letter_before_a_hyphen_are_known(word: str) -> None:
    assert word in KnownWords(KNOWN.listed | {"houses"})


@pytest.mark.parametrize("word", ["hause's", "2nt", "x", "x-", "'s", "-", "'"])
def test_what_is_left_without_its_ending_must_be_listed(word: str) -> None:
    assert word not in KNOWN


def test_a_listed_letter_stays_and_no_letter_takes_the_place_of_a_word() -> None:
    known = KnownWords(frozenset({"i", "in"}))
    doubtful = line("i ", {1: [(" ", 0.5), ("n", 0.45)]})
    assert with_words(doubtful, greedy(doubtful, CHARSET), CHARSET, known).text.strip() == "i"
    letter = line("il", {1: [("l", 0.5)]})
    letter[2, 0] = math.log(0.45)
    assert with_words(letter, greedy(letter, CHARSET), CHARSET, known).text == "il"


def test_a_word_is_not_exchanged_for_one_with_a_space() -> None:
    log_probs = line("xhouse", {0: doubt("x", " ", 0.5)})
    assert read(log_probs) == "xhouse"


def test_columns_that_rule_classes_out_altogether_do_no_harm() -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.where(np.exp(line("hause", {1: doubt("a", "o", 2.0)})) < 1e-6, 0, 1) * 0.5)
    log_probs[2, CHARSET.characters.index("o") + 1] = math.log(0.2)
    assert read(log_probs) == "house"


def test_every_word_of_a_line_is_judged_by_itself_and_the_others_keep_their_places() -> None:
    log_probs = line("the hause 17", {5: doubt("a", "o", 2.0)})
    before = greedy(log_probs, CHARSET)
    after = with_words(log_probs, before, CHARSET, KNOWN)
    assert after.text == "the house 17"
    assert after.spans == before.spans
    assert after.character_confidences[-2:] == before.character_confidences[-2:]


def test_a_longer_listed_word_brings_its_own_spans() -> None:
    log_probs = line("hose 17", {})
    log_probs[3, 0] = math.log(0.5)  # between o and s: a u, nearly as probable as the blank
    log_probs[3, CHARSET.characters.index("u") + 1] = math.log(0.4)
    after = with_words(log_probs, greedy(log_probs, CHARSET), CHARSET, KNOWN)
    assert after.text == "house 17"
    assert [span.start for span in after.spans] == [0, 2, 3, 4, 6, 8, 10, 12]
    assert len(after.character_confidences) == len(after.text)


def test_a_listed_word_is_surer_than_its_picture_and_an_unlisted_one_is_not() -> None:
    listed, unlisted = (greedy(line(text), CHARSET) for text in ("house", "hxuse"))
    raised_odds = SURE / (1 - SURE) * math.exp(0.5 * KNOWN.bonus("house"))
    found = with_words(line("house"), listed, CHARSET, KNOWN)
    assert found.confidence == pytest.approx(raised_odds / (1 + raised_odds))
    assert with_words(line("hxuse"), unlisted, CHARSET, KNOWN) == unlisted


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_certainty_stays_certainty(certain: float) -> None:
    assert raised(certain, 3.0) == certain


def test_a_line_without_text_stays_empty() -> None:
    log_probs = np.log(np.full((4, CHARSET.classes), 1e-9))
    log_probs[:, 0] = 0.0
    assert with_words(log_probs, greedy(log_probs, CHARSET), CHARSET, KNOWN) == greedy(log_probs, CHARSET)


def test_a_list_may_hold_case_signs_and_several_words_an_entry() -> None:
    assert listed_words(["Straße,", "New York", "", "...", "x"]) == {"strasse", "new", "york", "x"}


def test_a_list_is_composed_and_keeps_the_vowel_signs_at_its_ends() -> None:
    assert listed_words(["cafe\u0301", "हिन्दी"]) == {"caf\xe9", "हिन्दी"}


def test_the_english_list_knows_words_without_case() -> None:
    assert {"house", "january", "don't"} <= english_words()
