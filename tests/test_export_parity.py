"""What an exported file is held against."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from data.picture import InputSpec
from export.parity import Batch, Case, Parity, compare, drawn_batches, real_batches, require

CHARSET = Charset.of("ab")


def spell(*classes: int) -> NDArray[np.float32]:
    """Log-probabilities (1, T, 3) of a path, nearly certain."""
    logits = np.full((1, len(classes), 3), 0.01, np.float32)
    logits[0, np.arange(len(classes)), list(classes)] = 0.98
    return np.log(logits)


def always(log_probs: NDArray[np.float32]) -> object:
    return lambda pictures: log_probs


PICTURES = np.zeros((1, 3, 32, 16), np.float32)


def test_the_same_numbers_hold() -> None:
    parity = compare(always(spell(1, 0, 2, 0)), always(spell(1, 0, 2, 0)), [PICTURES], CHARSET, 1e-4)  # type: ignore[arg-type]
    assert parity.holds
    assert parity.cases == (Case(16, 1, 0.0, 0),)
    require(parity, "s.onnx")


def test_numbers_past_the_tolerance_are_refused_and_told() -> None:
    given = spell(1, 0, 2, 0) + np.float32(3e-4)
    parity = compare(always(spell(1, 0, 2, 0)), always(given), [PICTURES], CHARSET, 1e-4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"s\.onnx .*0\.0003 where 0\.0001 is allowed, and 0 of 1 texts"):
        require(parity, "s.onnx")


def test_another_text_is_refused_even_within_the_tolerance() -> None:
    parity = compare(always(spell(1, 0, 2, 0)), always(spell(1, 0, 1, 0)), [PICTURES], CHARSET, 100.0)  # type: ignore[arg-type]
    assert parity.differing_texts == 1
    assert not parity.holds


def test_no_number_is_not_a_small_difference() -> None:
    broken = spell(1, 0, 2, 0)
    broken[0, 3, 2] = np.nan
    parity = compare(always(spell(1, 0, 2, 0)), always(broken), [PICTURES], CHARSET, 1e9)  # type: ignore[arg-type]
    assert not parity.holds


def test_an_output_of_another_length_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 3\).*\(1, 4, 3\)"):
        compare(always(spell(1, 0, 2, 0)), always(spell(1, 0, 2)), [PICTURES], CHARSET, 1e-4)  # type: ignore[arg-type]


def test_shapes_grow_and_shrink_with_two_batch_sizes_at_three_widths() -> None:
    shapes = [batch.shape for batch in drawn_batches(InputSpec(), seed=0)]
    widths = [shape[-1] for shape in shapes]
    assert widths == [64, 128, 320, 320, 128, 64]
    assert {(shape[0], shape[-1]) for shape in shapes} == {(n, w) for n in (1, 3) for w in (64, 128, 320)}


def test_widths_stay_within_what_the_model_takes() -> None:
    fixed = InputSpec(min_width=96, max_width=96)
    assert {batch.shape[-1] for batch in drawn_batches(fixed, seed=0)} == {96}
    assert {batch.shape[0] for batch in drawn_batches(fixed, seed=0)} == {1, 3}


def test_the_same_seed_draws_the_same_lines() -> None:
    def drawn(seed: int) -> list[Batch]:
        return list(drawn_batches(InputSpec(channels=1), seed))

    assert all(np.array_equal(a, b) for a, b in zip(drawn(4), drawn(4), strict=True))
    assert not np.array_equal(drawn(4)[0], drawn(5)[0])
    assert drawn(4)[0].shape == (1, 1, 32, 64)


def test_real_lines_are_read_at_their_natural_width() -> None:
    pictures = [np.zeros((20, 90, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)]
    assert [batch.shape for batch in real_batches(pictures, InputSpec())] == [(1, 3, 32, 144), (1, 3, 32, 32)]


def test_many_lines_of_one_shape_are_told_as_one() -> None:
    cases = (Case(64, 1, 1e-6, 0), Case(64, 3, 3e-6, 0), Case(64, 1, 2e-6, 1))
    told = Parity(1e-4, cases).to_json()
    assert told["cases"] == [
        {"width": 64, "batch": 1, "difference": 2e-6, "differing_texts": 1},
        {"width": 64, "batch": 3, "difference": 3e-6, "differing_texts": 0},
    ]
    assert told["pictures"] == 5
    assert told["difference"] == 3e-6
