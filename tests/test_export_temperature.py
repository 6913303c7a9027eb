"""Confidences of exported files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, ModelInfo
from crnn.ctc import greedy, tempered
from crnn.recogniser import Recogniser
from data.lines import Line
from data.picture import InputSpec
from export.temperature import fit_temperature

CHARSET = Charset.of("abcdefgh")
INFO = ModelInfo(CHARSET, InputSpec(), CrnnSizes("resnet18", 0.25, 8, 8, 1, True, 0, CHARSET.classes))


class Planned:
    """A runtime that gives to a picture of one grey, v, the log-probabilities of place v."""

    def __init__(self, log_probs: NDArray[np.float32], info: ModelInfo = INFO) -> None:
        self.log_probs, self.info, self.path = log_probs, info, Path("planned.onnx")
        self.threads, self.parameters = 1, 0

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        spec = self.info.input_spec
        places = np.rint((pictures[:, 0, 0, 0] - spec.offset) / spec.scale).astype(int)
        return self.log_probs[places]


def log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def grey(value: int, text: str = "") -> Line:
    return Line(np.full((32, 64, 3), value, np.uint8), text, str(value))


def lines_as_sure_as_they_are_right(count: int = 250) -> tuple[NDArray[np.float64], list[Line]]:
    """One column a line, whose label is drawn from its own probabilities (the blank has none)."""
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 1.5, (count, 1, CHARSET.classes))
    scores[:, :, 0] = -20
    log_probs = log_softmax(scores)
    drawn = [generator.choice(CHARSET.classes, p=np.exp(own[0]) / np.exp(own[0]).sum()) for own in log_probs]
    return log_probs, [grey(i, CHARSET.decode([number])) for i, number in enumerate(drawn)]


@pytest.mark.parametrize("too_sure", [0.6, 1.0, 2.5])
def test_the_temperature_undoes_how_much_too_sure_a_file_is(too_sure: float) -> None:
    log_probs, lines = lines_as_sure_as_they_are_right()
    given = log_softmax(log_probs * too_sure).astype(np.float32)
    found = fit_temperature(Planned(given), INFO, lines)
    assert found.value == pytest.approx(too_sure, rel=0.25)
    assert found.loss_after is not None
    assert found.loss_before is not None
    assert found.loss_after <= found.loss_before + 1e-4


def test_a_file_that_reads_all_lines_right_keeps_its_confidences() -> None:
    log_probs, lines = lines_as_sure_as_they_are_right()
    texts = [greedy(own, CHARSET).text for own in log_probs]
    right = [replace(line, text=text) for line, text in zip(lines, texts, strict=True)]
    found = fit_temperature(Planned(log_probs.astype(np.float32)), INFO, right)
    assert (found.value, found.lines, found.right) == (1.0, 250, 250)
    assert "250 of 250 lines" in found.why_not


def test_too_few_lines_say_nothing() -> None:
    log_probs, lines = lines_as_sure_as_they_are_right()
    assert fit_temperature(Planned(log_probs.astype(np.float32)), INFO, lines[:99]).value == 1.0
    assert fit_temperature(Planned(log_probs.astype(np.float32)), INFO, []).value == 1.0


def test_a_tempered_column_is_the_softmax_of_its_divided_logarithms() -> None:
    log_probs = log_softmax(np.random.default_rng(1).normal(0, 3, (2, 5, 4)))
    powers = np.exp(log_probs) ** (1 / 1.7)
    assert np.allclose(np.exp(tempered(log_probs, 1.7)), powers / powers.sum(-1, keepdims=True))
    assert tempered(log_probs, 1.0) is log_probs


def test_a_temperature_changes_how_sure_a_reading_is_and_not_what_it_says() -> None:
    log_probs = log_softmax(np.random.default_rng(2).normal(0, 3, (3, 16, CHARSET.classes))).astype(np.float32)
    pictures = [grey(value).picture for value in range(3)]
    plain = Recogniser(Planned(log_probs)).read(pictures)
    warm = Recogniser(Planned(log_probs, replace(INFO, temperature=2.0))).read(pictures)
    assert [reading.text for reading in warm] == [reading.text for reading in plain]
    assert all(a.confidence < b.confidence for a, b in zip(warm, plain, strict=True))
    expected = greedy(
        np.log(np.exp(log_probs[0]) ** 0.5 / (np.exp(log_probs[0]) ** 0.5).sum(-1, keepdims=True)), CHARSET
    )
    assert warm[0].confidence == pytest.approx(expected.confidence, rel=1e-5)
