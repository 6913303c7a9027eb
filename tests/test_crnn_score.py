from __future__ import annotations

import math

import pytest

from crnn.score import CharacterRecall, Score, character_recall, fold36, frequency_groups, score


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


def test_a_character_is_read_where_the_alignment_puts_it_beside_itself() -> None:
    found = character_recall(["hel1o", "", "xab"], ["hello", "ab", "ab"])
    assert dict(found.held) == {"h": 1, "e": 1, "l": 2, "o": 1, "a": 2, "b": 2}
    assert dict(found.read) == {"h": 1, "e": 1, "l": 1, "o": 1, "a": 1, "b": 1}
    assert found.occurrences("lz") == 2
    assert found.share("lo") == pytest.approx(2 / 3)
    assert found.macro == pytest.approx((1 + 1 + 1 / 2 + 1 + 1 / 2 + 1 / 2) / 6)


def test_the_macro_recall_is_a_mean_over_characters_and_not_over_occurrences() -> None:
    found = character_recall(["aaaaaaaaa", ""], ["aaaaaaaaa", "b"])
    assert found.share("ab") == pytest.approx(0.9)
    assert found.macro == pytest.approx(0.5)


def test_recalls_of_two_sets_add_up_to_the_recall_of_both() -> None:
    first, second = (["ab", "c"], ["ac", "c"]), (["dd", "e"], ["de", "e"])
    together = character_recall([*first[0], *second[0]], [*first[1], *second[1]])
    assert character_recall(*first) + character_recall(*second) == together
    assert math.isnan(CharacterRecall().macro)
    assert math.isnan(together.share("z"))


def test_characters_are_grouped_by_their_share_of_the_training_set() -> None:
    counts = {"e": 50, "t": 30, "a": 20, "x": 4, "q": 3, "z": 0}  # an even share is 107 / 6 = 17.8, a fifth of it 3.6
    groups = frequency_groups(counts)
    assert groups == {"many": frozenset("eta"), "medium": frozenset("x"), "few": frozenset("qz")}
    assert frequency_groups({c: 1000 * n for c, n in counts.items()}) == groups


def test_equally_frequent_characters_are_many_and_unseen_ones_few() -> None:
    assert frequency_groups({"a": 3, "b": 3})["many"] == frozenset("ab")
    assert frequency_groups({"a": 0, "b": 0})["few"] == frozenset("ab")
    assert frequency_groups({}) == {"many": frozenset(), "medium": frozenset(), "few": frozenset()}
