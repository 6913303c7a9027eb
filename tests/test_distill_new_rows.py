"""Rows of new classes: before any training they read some new characters, and old lines are read as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, load_checkpoint
from crnn.model import Crnn, read_lines
from crnn.recogniser import MODELS
from crnn.score import character_recall
from crnn.train import Sources
from data.lines import Line, open_lines
from data.lmdb_lines import Entry, write_lmdb
from data.synthesis.source import SynthesisOptions, SynthesisSource
from distill.extend_lines import extended
from distill.new_rows import chosen_examples, new_rows


@pytest.fixture
def model(random_checkpoint: Callable[..., Path]) -> Path:
    return random_checkpoint(charset=Charset.of("0123456789abcdef "))


def with_rows(before: Checkpoint, charset: Charset, weights: torch.Tensor, biases: torch.Tensor) -> Crnn:
    """The recogniser of before with the rows of one new class, wherever it sorts."""
    place = next(i for i, c in enumerate(charset.characters, 1) if c not in before.info.charset.characters)
    merged = dict(before.weights)
    for name, made in (("classifier.weight", weights), ("classifier.bias", biases)):
        merged[name] = torch.cat([merged[name][:place], made, merged[name][place:]])
    grown = Crnn(replace(before.info.sizes, classes=charset.classes)).eval()
    grown.load_state_dict(merged)
    return grown


def test_examples_are_found_however_late_a_stored_set_shows_them(tmp_path: Path) -> None:
    import cv2

    picture = cv2.imencode(".png", np.full((32, 64, 3), 255, np.uint8))[1].tobytes()
    texts = ["a"] * 150 + ["+", "a+"]
    write_lmdb(tmp_path / "late.lmdb", [Entry(picture, text, f"line {i}") for i, text in enumerate(texts)])
    of, charset = Sources((open_lines(tmp_path / "late.lmdb"),), (1.0,), [], {}), Charset.of("a+x")
    assert [line.text for line in chosen_examples(of, charset, ["+"], 2)] == ["+", "a+"]
    with pytest.raises(ValueError, match="no training line shows 'x'"):
        chosen_examples(of, charset, ["+", "x"], 2)


def test_no_line_that_set_the_biases_is_read_otherwise_at_the_start(model: Path) -> None:
    before = load_checkpoint(model)
    known, charset = before.info.charset, extended(before.info.charset, "+", model)
    old = Crnn.from_checkpoint(before)
    drawn = SynthesisSource(SynthesisOptions(known.characters, 2, 6), 1)
    new = SynthesisSource(SynthesisOptions(charset.characters, 2, 6, including="+"), 1)
    old_lines = [drawn[i] for i in range(8)]
    weights, biases = new_rows(old, known, charset, [new[i] for i in range(4)], old_lines, before.info.input_spec)
    grown = with_rows(before, charset, weights, biases)
    readings = [read_lines(old, old_lines, known, before.info.input_spec)]
    readings.append(read_lines(grown, old_lines, charset, before.info.input_spec))
    assert [r.text for r in readings[0]] == [r.text for r in readings[1]]


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_trained_recogniser_reads_some_of_the_new_characters_before_any_training(rehearsed: bool) -> None:
    before = load_checkpoint(MODELS / "tiny.pt")
    known, charset, spec = (
        before.info.charset,
        extended(before.info.charset, "£", Path("tiny.pt")),
        before.info.input_spec,
    )
    fields = SynthesisOptions(known.characters, 3, 8, strength=0)
    drawn, new = (
        SynthesisSource(fields, 1),
        SynthesisSource(replace(fields, characters=charset.characters, including="£"), 1),
    )
    old_lines = [drawn[i] for i in range(40)] if rehearsed else []
    made = new_rows(Crnn.from_checkpoint(before), known, charset, [new[i] for i in range(30)], old_lines, spec)
    shown = [new[i] for i in range(100, 140)]
    readings = read_lines(with_rows(before, charset, *made), shown, charset, spec)
    found = character_recall((r.text for r in readings), (charset.normalise(line.text or "") for line in shown))
    assert found.share("£") > 0.1


def test_examples_of_new_characters_alone_are_refused_where_there_is_no_old_line(model: Path) -> None:
    before = load_checkpoint(model)
    known, charset = before.info.charset, extended(before.info.charset, "+", model)
    plus = Line(np.full((32, 12, 3), 255, np.uint8), "+", "a")  # three columns, all of them near the only character
    old = Crnn.from_checkpoint(before)
    with pytest.raises(ValueError, match="reads nothing in lines of old characters"):
        new_rows(old, known, charset, [plus], [], before.info.input_spec)
