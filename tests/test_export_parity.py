"""What an exported file is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from data.lines import Line
from data.picture import InputSpec
from export.parity import Batch, Expected, Gate, Parity, compare, expect, reads_enough, require, require_same, widened

CHARSET = Charset.of("ab")
GATE = Gate(1e-4, "largest", 1.0)
PICTURE = np.zeros((1, 3, 32, 16), np.float32)


def spell(*classes: int) -> NDArray[np.float32]:
    """Log-probabilities (1, T, 3) of a path, nearly certain."""
    logits = np.full((1, len(classes), 3), 0.01, np.float32)
    logits[0, np.arange(len(classes)), list(classes)] = 0.98
    return np.log(logits)


AB, AA = spell(1, 0, 2, 0), spell(1, 0, 1, 0)


def line(log_probs: Batch = AB, text: str = "ab", label: str | None = "ab", compared: bool = True) -> Expected:
    return Expected(PICTURE, log_probs, (0, log_probs.shape[1]), text, label, compared)


def unlabelled(confidence: float) -> Expected:
    return replace(line(label=None), confidence=confidence)


def always(log_probs: Batch) -> Callable[[Batch], Batch]:
    return lambda pictures: np.repeat(log_probs, len(pictures), axis=0)


def judge(given: Batch, *lines: Expected, gate: Gate = GATE, company: bool = False) -> Parity:
    return compare(always(given), lines or (line(),), CHARSET, gate, company)


def test_the_same_numbers_hold() -> None:
    parity = judge(AB)
    assert parity.failures == []
    require(parity, "s.onnx")


def test_numbers_past_the_tolerance_are_refused_and_told() -> None:
    with pytest.raises(ValueError, match=r"s\.onnx .*0\.0003 where 0\.0001 is allowed"):
        require(judge(AB + np.float32(3e-4)), "s.onnx")


def test_what_float32_leaves_open_widens_the_tolerance_and_never_narrows_it() -> None:
    parity = judge(AB + np.float32(3e-4))
    assert widened(parity, 1.1e-4).failures == []
    assert widened(parity, 0.9e-4).failures == ["log-probabilities differ by 0.0003 where 0.00027 is allowed"]
    assert widened(parity, 1e-6).gate == GATE


def test_a_little_past_the_tolerance_with_few_lines_more_are_asked_for_before_a_report() -> None:
    with pytest.raises(
        ValueError, match=r"is not kept: .* check on more lines \(--data, --lines\); where that fails too"
    ):
        require(judge(AB + np.float32(1.5e-4)), "s.onnx")
    with pytest.raises(ValueError, match=r"\); this is a fault of the export, so please report it"):
        require(judge(AB + np.float32(3e-4)), "s.onnx")


def test_another_text_is_refused_even_within_the_tolerance() -> None:
    assert judge(AA, gate=Gate(100, "largest", 1.0)).failures == [
        "0 of 1 texts are the network's where 100.0% are asked for"
    ]


def test_some_texts_may_differ_where_the_format_allows_it() -> None:
    other = line(AA, "aa", "aa")
    parity = judge(AB, line(), line(), line(), other, gate=Gate(100, "largest", 0.75))
    assert parity.same_share == 0.75
    assert parity.failures == []


def test_one_text_of_few_may_differ_though_it_is_more_than_the_share() -> None:
    other = line(AA, "aa", "aa")
    parity = judge(AB, *[line()] * 15, other, gate=Gate(100, "largest", 0.95))
    assert parity.same_share < 0.95
    assert parity.failures == []


def test_two_texts_of_few_are_refused_and_more_lines_asked_for_before_a_report() -> None:
    lines = [*[line()] * 14, *[line(AA, "aa", "aa")] * 2]
    with pytest.raises(
        ValueError, match=r"14 of 16 texts .*; check on more lines \(--data, --lines\); where that fails"
    ):
        require(judge(AB, *lines, gate=Gate(100, "largest", 0.95)), "s.onnx")


def test_a_text_that_the_network_has_wrong_may_become_another() -> None:
    wrong = line(AB, "ab", label="bb")
    parity = judge(AB, *[line()] * 2, replace(wrong, log_probs=AA, text="aa"), gate=Gate(100, "largest", 1.0))
    assert (parity.same, parity.lines, parity.same_right, parity.right_network) == (2, 3, 2, 2)
    assert parity.failures == []


def test_without_labels_a_text_counts_where_the_network_is_sure_of_it() -> None:
    parity = judge(AA, unlabelled(0.9), unlabelled(0.7), gate=Gate(100, "largest", 1.0))
    assert (parity.labelled, parity.same, parity.sure_network, parity.same_sure) == (0, 0, 1, 0)
    assert (parity.same_share, parity.lost) == (0, 0.5)
    assert judge(AB, unlabelled(0.9)).lost == 0


def test_without_labels_guesses_that_become_other_guesses_are_no_loss() -> None:
    parity = judge(AA, unlabelled(0.3), gate=Gate(100, "largest", 1.0))
    assert parity.lost == 0
    assert parity.judged_by == "numbers alone"
    assert parity.failures == []


def test_numbers_alone_decide_where_the_network_reads_under_half() -> None:
    parity = judge(AA, line(label="b"), gate=Gate(100, "largest", 1.0))
    assert parity.judged_by == "numbers alone"
    assert parity.failures == []
    assert parity.to_json()["judged_by"] == "numbers alone"


def test_the_relative_measure_is_the_error_beside_the_spread() -> None:
    parity = judge(AB + np.float32(0.1))
    assert parity.relative == pytest.approx(0.1 / AB.std(), rel=1e-4)
    assert judge(AB + np.float32(0.1), gate=Gate(0.2, "relative", 1.0)).failures == []
    assert judge(AB + np.float32(0.9), gate=Gate(0.2, "relative", 1.0)).failures


def test_no_number_is_not_a_small_difference() -> None:
    broken = AB.copy()
    broken[0, 3, 2] = np.nan
    assert judge(broken, gate=Gate(1e9, "largest", 0.0)).failures
    assert judge(broken, gate=Gate(1e9, "relative", 0.0)).failures


def test_an_output_of_another_length_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 3\).*\(1, 4, 3\)"):
        judge(spell(1, 0, 2))


def test_a_file_that_answers_differently_the_second_time_is_refused() -> None:
    answers = iter(range(100))

    def forgetful(pictures: Batch) -> Batch:
        return AB + np.float32(1e-6 * next(answers))

    parity = compare(forgetful, [line()] * 11, CHARSET, GATE, company=False)
    assert (parity.repeated, parity.unlike) == (2, 2)
    assert parity.failures == ["2 of 2 lines read differently the second time"]


def test_lines_are_read_in_company_too_where_the_format_allows_it() -> None:
    def wrong_in_company(pictures: Batch) -> Batch:
        return np.repeat(AB, len(pictures), axis=0) + np.float32(len(pictures) > 1)

    assert not compare(wrong_in_company, [line()] * 3, CHARSET, GATE, company=False).failures
    parity = compare(wrong_in_company, [line()] * 3, CHARSET, GATE, company=True)
    assert parity.failures
    assert [(case.batch, case.lines) for case in parity.cases] == [(1, 3), (3, 3)]


def seen(lines: list[Line], spec: InputSpec) -> tuple[Expected, ...]:
    return expect(lambda pictures: np.repeat(spell(*[1] * (pictures.shape[-1] // 4)), 1, axis=0), lines, CHARSET, spec)


def line_of_width(width: int, text: str | None = None) -> Line:
    return Line(np.zeros((32, width, 3), np.uint8), text, "k")


def test_widths_grow_and_then_shrink() -> None:
    lines = [line_of_width(width) for width in (40, 200, 80, 400, 120, 96)]
    widths = [one.picture.shape[-1] for one in seen(lines, InputSpec())]
    turn = widths.index(max(widths))
    assert widths[: turn + 1] == sorted(widths[: turn + 1])
    assert widths[turn:] == sorted(widths[turn:], reverse=True)
    assert 1 < turn < len(widths) - 2
    assert {40, 64, 80, 96, 120, 128, 200, 320, 400} == set(widths)


def test_a_line_brought_to_another_width_counts_in_numbers_alone() -> None:
    found = seen([line_of_width(40, "A")], InputSpec())
    assert [(one.picture.shape[-1], one.compared) for one in found if one.compared] == [(40, True)]
    assert len(found) == 4


def test_widths_stay_within_what_the_model_takes() -> None:
    fixed = InputSpec(min_width=96, max_width=96, narrow="margins")
    assert {one.picture.shape[-1] for one in seen([line_of_width(40), line_of_width(400)], fixed)} == {96}


def test_labels_are_compared_as_the_charset_writes_them() -> None:
    lower = Charset.from_texts(["ab"], "lower")
    found = expect(lambda pictures: spell(*[1] * 10), [line_of_width(40, "AB")], lower, InputSpec(max_width=40))
    assert found[-1].label == "ab"


def test_the_file_that_is_kept_must_be_the_one_that_was_proven() -> None:
    require_same(always(AB), always(AB), line(), "s.onnx")
    with pytest.raises(ValueError, match=r"s\.onnx reads differently once the figures of its check are written"):
        require_same(always(AA), always(AB), line(), "s.onnx")


def test_half_of_the_labelled_lines_read_right_are_enough() -> None:
    right, wrong = line(), line(label="b")
    assert reads_enough([right, wrong])
    assert not reads_enough([right, wrong, wrong])
    assert not reads_enough([wrong, line(compared=False)])


def test_half_of_the_unlabelled_lines_read_surely_are_enough() -> None:
    assert reads_enough([unlabelled(0.9), unlabelled(0.2)])
    assert not reads_enough([unlabelled(0.9), unlabelled(0.2), unlabelled(0.2)])
