from __future__ import annotations

import math

import pytest

from crnn.score import Score, fold36, score


def test_folding_keeps_digits_and_letters_in_lower_case() -> None:
    assert fold36("Déjà-vu, No. 5!") == "djvuno5"
    assert fold36("...") == ""


def test_exact_counts_case_and_punctuation_and_acc36_does_not() -> None:
    result = score(["Total", "total:", "TOTAL", "tota1"], ["Total"] * 4)
    assert result.exact == pytest.approx(1 / 4)
    assert result.acc36 == pytest.approx(3 / 4)


def test_lines_whose_folded_label_is_empty_do_not_count_in_acc36() -> None:
    result = score(["$", "a"], ["...", "a"])
    assert (result.lines, result.lines36, result.acc36, result.exact) == (2, 1, 1.0, 0.5)


def test_the_character_error_rate_divides_all_edits_by_all_label_characters() -> None:
    result = score(["abc", "kitten", ""], ["abcd", "sitting", "x"])
    assert (result.edits, result.characters) == (1 + 3 + 1, 4 + 7 + 1)
    assert result.cer == pytest.approx(5 / 12)


def test_composed_and_decomposed_characters_are_the_same() -> None:
    result = score(["cafe\u0301"], ["caf\u00e9"])
    assert (result.exact, result.cer) == (1.0, 0.0)


def test_scores_of_two_sets_add_up_to_the_score_of_both() -> None:
    first, second = (["a", "b"], ["a", "c"]), (["dd", "", "f-"], ["de", "e", "f"])
    together = score([*first[0], *second[0]], [*first[1], *second[1]])
    assert score(*first) + score(*second) == together
    assert Score() + together == together


def test_a_score_without_lines_is_no_number() -> None:
    assert all(math.isnan(share) for share in (Score().exact, Score().acc36, Score().cer))


def test_texts_and_labels_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="2 texts were to be scored against 1 labels"):
        score(["a", "b"], ["a"])
