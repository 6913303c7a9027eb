"""The example all tests share: two columns, three classes (blank, a, b), and what every text is worth.

    column     blank    a     b
    0            0.6   0.4   0.0
    1            0.6   0.4   0.0

The four paths and their texts: blank blank "" 0.36; blank a "a" 0.24; a blank "a" 0.24; a a "a" 0.16. The single
best path is blank blank, so best-path decoding reads nothing. Summed over its three paths, "a" has 0.64: a search over
texts reads "a". A lexicon without "a" leaves "" alone. The best alignment of "a" takes one column with 0.4, the first,
since of two equally good ones the later blank is preferred. "b" is never shown; "aa" would need three columns.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from crnn.charset import BLANK, Charset
from crnn.ctc import (
    Lexicon,
    LogProbs,
    Span,
    align,
    beam_search,
    beam_search_batch,
    best_path,
    blank_outside,
    greedy,
    greedy_batch,
    prefix_beams,
    spike_columns,
)

AB = Charset.of("ab")
A, B = AB.encode("ab")


def logarithms(probabilities: list[list[float]]) -> LogProbs:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


EXAMPLE = logarithms([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]])


def random_columns(columns: int, classes: int, seed: int) -> LogProbs:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(classes), columns)).astype(np.float32)


def path_of(classes: list[int], total: int, sure: float = 0.9) -> LogProbs:
    """Log-probabilities (T, K) whose best path is given, each column sure of it."""
    probabilities = np.full((len(classes), total), (1 - sure) / (total - 1), np.float32)
    probabilities[np.arange(len(classes)), classes] = sure
    return np.log(probabilities)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(number for number, _ in itertools.groupby(path) if number != BLANK)


def summed_over_paths(log_probs: LogProbs) -> dict[tuple[int, ...], float]:
    """The probability of every text, from every path one by one."""
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        probability = math.exp(sum(float(log_probs[t, number]) for t, number in enumerate(path)))
        sums[collapsed(path)] = sums.get(collapsed(path), 0.0) + probability
    return sums


def test_the_best_path_of_the_example_reads_nothing() -> None:
    reading = greedy(EXAMPLE, AB)
    assert (reading.text, reading.spans, reading.character_confidences) == ("", (), ())
    assert reading.confidence == pytest.approx(0.6)


def test_the_beam_search_of_the_example_reads_a() -> None:
    assert dict(prefix_beams(EXAMPLE)) == {(A,): pytest.approx(math.log(0.64)), (): pytest.approx(math.log(0.36))}
    reading = beam_search(EXAMPLE, AB)
    assert (reading.text, reading.spans) == ("a", (Span(0, 1),))
    assert reading.confidence == pytest.approx(0.4)


def test_a_lexicon_without_a_leaves_the_example_empty() -> None:
    assert beam_search(EXAMPLE, AB, lexicon=Lexicon(["b", "ab"], AB)).text == ""
    assert beam_search(EXAMPLE, AB, lexicon=Lexicon(["b", "a"], AB)).text == "a"


def test_the_alignment_of_the_example_takes_the_first_column() -> None:
    assert align(EXAMPLE, [A]) == [Span(0, 1)]


def test_the_alignment_names_what_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match="2 characters need 3 columns, and the line has 2"):
        align(EXAMPLE, [A, A])
    with pytest.raises(ValueError, match="probability is zero"):
        align(EXAMPLE, [B])
    assert align(EXAMPLE, []) == []


def test_a_planted_path_is_found_by_the_alignment() -> None:
    planted = [0, 1, 1, 0, 1, 2, 2, 2, 0, 0, 3, 1]  # characters 1 1 2 3 1
    log_probs = path_of(planted, 4)
    expected = [Span(1, 3), Span(4, 5), Span(5, 8), Span(10, 11), Span(11, 12)]
    assert align(log_probs, [1, 1, 2, 3, 1]) == expected
    assert greedy(log_probs, Charset.of("abc")).spans == tuple(expected)


@pytest.mark.parametrize("seed", range(8))
def test_no_path_of_the_text_is_better_than_the_alignment(seed: int) -> None:
    log_probs = random_columns(6, 3, seed)
    text = [A, A, B]
    spans = align(log_probs, text)
    taken = np.full(6, BLANK)
    for span, number in zip(spans, text, strict=True):
        taken[span.start : span.end] = number
    assert collapsed(tuple(taken.tolist())) == tuple(text)
    best = max(
        sum(float(log_probs[t, number]) for t, number in enumerate(path))
        for path in itertools.product(range(3), repeat=6)
        if collapsed(path) == tuple(text)
    )
    assert log_probs[np.arange(6), taken].sum() == pytest.approx(best, abs=1e-5)


def test_equal_neighbours_are_two_characters_only_with_a_blank_between() -> None:
    assert greedy(path_of([A, A, B], 3), AB).text == "ab"
    assert greedy(path_of([A, 0, A], 3), AB).text == "aa"
    assert beam_search(path_of([A, A, B], 3), AB).text == "ab"
    assert beam_search(path_of([A, 0, A], 3), AB).text == "aa"


def test_one_doubtful_character_shows_in_the_confidence_of_a_long_line() -> None:
    log_probs = path_of([A, B] * 20, 3, sure=0.99)
    log_probs[7] = np.log([0.2, 0.25, 0.55])
    reading = greedy(log_probs, AB)
    assert reading.text == "ab" * 20
    assert reading.confidence == pytest.approx(0.55)
    assert reading.character_confidences[6] == pytest.approx(0.99)
    assert beam_search(log_probs, AB).confidence == pytest.approx(0.55)


def test_rounded_outputs_above_one_give_confidences_of_at_most_one() -> None:
    log_probs = np.array([[-9.0, 0.02, -9.0]], np.float32)
    assert greedy(log_probs, AB).confidence == 1.0


def test_a_batch_is_decoded_as_each_of_its_lines_alone() -> None:
    charset = Charset.of("abcdefgh ")
    generator = np.random.default_rng(3)
    log_probs = np.log(generator.dirichlet(np.full(charset.classes, 0.2), (12, 20)) + 1e-9).astype(np.float32)
    log_probs[4, :, BLANK] = 0.0  # a line of blanks among the others
    log_probs[5] = path_of([3] * 20, charset.classes)  # one character, from edge to edge, beside
    together = greedy_batch(log_probs, charset)
    assert together == [greedy(line, charset) for line in log_probs]
    assert together[4].text == ""
    assert together[5].spans == (Span(0, 20),)
    for line, reading in zip(log_probs, together, strict=True):
        path = best_path(line)
        assert charset.decode(collapsed(tuple(path.tolist()))) == reading.text
        for character, span in zip(reading.text, reading.spans, strict=True):
            assert set(path[span.start : span.end]) == set(charset.encode(character))


def test_a_batch_without_lines_or_columns_gives_no_text() -> None:
    assert greedy_batch(np.zeros((0, 5, 3), np.float32), AB) == []
    assert [r.text for r in greedy_batch(np.zeros((2, 0, 3), np.float32), AB)] == ["", ""]


@pytest.mark.parametrize("seed", range(12))
def test_a_wide_beam_gives_every_text_the_sum_over_its_paths(seed: int) -> None:
    log_probs = random_columns(1 + seed % 6, 3, seed)
    found = prefix_beams(log_probs, beam=10_000)
    expected = summed_over_paths(log_probs)
    assert {classes: math.exp(value) for classes, value in found} == {
        classes: pytest.approx(value, abs=1e-6) for classes, value in expected.items()
    }
    assert found[0][0] == max(expected, key=lambda classes: expected[classes])


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_with_a_lexicon_finds_the_best_of_its_texts(seed: int) -> None:
    log_probs = random_columns(5, 3, seed)
    sums = summed_over_paths(log_probs)
    allowed = ["", "ab", "ba", "bb"]
    best = max(allowed, key=lambda text: sums.get(tuple(AB.encode(text)), 0.0))
    assert beam_search(log_probs, AB, beam=1000, lexicon=Lexicon(allowed, AB)).text == best


def test_a_narrow_beam_keeps_as_many_texts_as_it_was_told() -> None:
    log_probs = random_columns(30, 20, 1)
    assert len(prefix_beams(log_probs, beam=5)) == 5


def test_only_the_most_probable_classes_of_a_column_extend_a_text() -> None:
    log_probs = random_columns(10, 12, 2)
    best = {int(np.argmax(column[1:])) + 1 for column in log_probs}
    for classes, _ in prefix_beams(log_probs, beam=50, top=1):
        assert set(classes) <= best


def test_a_lexicon_corrects_a_misread_word() -> None:
    charset = Charset.of("acehlotux ")
    log_probs = path_of(charset.encode("hexlo"), charset.classes, sure=0.6)
    log_probs[2, charset.encode("l")] = np.log(0.2)
    log_probs = np.insert(log_probs, 3, path_of([BLANK], charset.classes), axis=0)
    assert greedy(log_probs, charset).text == "hexlo"
    assert beam_search(log_probs, charset, lexicon=Lexicon(["hello", "hotel", "hexa"], charset)).text == "hello"


def test_lexicon_entries_may_follow_each_other_after_single_spaces() -> None:
    charset = Charset.of("neworkyz ")
    lexicon = Lexicon(["new", "york", "new zoo"], charset)
    for text in ("new york", "york new new", "new zoo york", "new"):
        log_probs = path_of([n for c in charset.encode(text) for n in (c, BLANK)], charset.classes)
        assert beam_search(log_probs, charset, lexicon=lexicon).text == text
    for text in ("newyork", "new  york", " new", "zoo", "ne"):
        log_probs = path_of([n for c in charset.encode(text) for n in (c, BLANK)], charset.classes)
        assert beam_search(log_probs, charset, lexicon=lexicon).text != text


def test_without_a_space_in_the_charset_a_lexicon_gives_one_entry() -> None:
    log_probs = path_of([A, B, BLANK, A, B], 3)
    assert beam_search(log_probs, AB, lexicon=Lexicon(["ab"], AB)).text == "ab"


def test_a_lexicon_has_its_answer_ready_however_narrow_the_beam() -> None:
    charset = Charset.named("ascii")
    lexicon = Lexicon(["quite", "another", "word"], charset)
    reading = beam_search(random_columns(12, charset.classes, 4), charset, beam=1, lexicon=lexicon)
    assert reading.text in ("", "quite", "another", "word", *("quite word", "word quite", "word word", "quite quite"))


def test_lexicon_entries_take_the_case_of_the_charset_and_unreadable_ones_are_told() -> None:
    charset = Charset.named("alphanumeric-lower", "lower")
    lexicon = Lexicon(["Milk", "Käse", " bread ", ""], charset)
    assert lexicon.left_out == ("käse",)
    log_probs = path_of([n for c in charset.encode("milk") for n in (c, BLANK)], charset.classes)
    assert beam_search(log_probs, charset, lexicon=lexicon).text == "milk"
    with pytest.raises(ValueError, match=r"no entry written with the charset's characters alone \(1 were left out\)"):
        Lexicon(["Käse"], charset)


def test_outputs_of_another_charset_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 classes, but the charset's 3 characters and the blank make 4"):
        greedy(EXAMPLE, Charset.of("abc"))
    with pytest.raises(ValueError, match="has 3 classes"):
        beam_search(EXAMPLE, Charset.of("abc"))


def test_a_beam_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="beam is 0"):
        prefix_beams(EXAMPLE, beam=0)


def test_beam_search_of_a_batch_is_that_of_each_line() -> None:
    log_probs = np.stack([random_columns(8, 3, seed) for seed in range(3)])
    assert beam_search_batch(log_probs, AB, beam=4) == [beam_search(line, AB, beam=4) for line in log_probs]


def test_spikes_stand_where_each_character_is_most_probable() -> None:
    log_probs = path_of([0, A, A, A, 0, B, A, A], 3, sure=0.6)
    log_probs[2] = np.log([0.1, 0.8, 0.1])
    spikes = spike_columns(log_probs[None])
    assert np.flatnonzero(spikes[0]).tolist() == [2, 5, 6]  # of two equal columns the first
    assert not spike_columns(path_of([0, 0], 3)[None]).any()
    assert spike_columns(np.zeros((1, 0, 3), np.float32)).shape == (1, 0)


def test_columns_outside_are_certainly_blank_and_the_others_as_they_were() -> None:
    log_probs = np.log(np.full((5, 3), 1 / 3, np.float32))
    cut = blank_outside(log_probs, 1, 4)
    assert np.array_equal(cut[1:4], log_probs[1:4])
    assert np.exp(cut[[0, 4]]).tolist() == [[1, 0, 0]] * 2
    assert blank_outside(log_probs, 0, 5) is log_probs
