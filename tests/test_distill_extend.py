"""A charset that grows: what is new is learnt, what was known stays, what cannot work is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from crnn import fit as fit_module
from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint
from crnn.commands import FitOptions
from crnn.fit import read_lines
from crnn.model import Crnn, Outputs
from crnn.objectives.recognition import DeviceBatch
from data.lines import open_lines
from data.lmdb_lines import Entry, write_lmdb
from data.synthesis.source import SynthesisOptions, SynthesisSource
from distill import extend as extend_module
from distill.extend import Anchored, Steady, drawable_of, extend, extended, new_rows
from distill.extend_cli import ExtendOptions

FIT = FitOptions(until=("2",), batch_lines=4, workers=0, warm_up=1, threads=1, validate_every=1, save_every=1)


@pytest.fixture
def model(random_checkpoint: Callable[..., Path]) -> Path:
    return random_checkpoint(charset=Charset.of("0123456789abcdef "))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """An LMDB of drawn lines that hold a plus sign."""
    import cv2

    source = SynthesisSource(SynthesisOptions("0123+", 2, 6, fonts="all", including="+", strength=0), 3, 16)
    entries = [
        Entry(cv2.imencode(".png", source[i].picture)[1].tobytes(), source[i].text, f"line {i}", None)
        for i in range(len(source))
    ]
    write_lmdb(tmp_path / "plus.lmdb", entries)
    return tmp_path / "plus.lmdb"


def options(model: Path, **changes: Any) -> ExtendOptions:
    made = ExtendOptions(model, "+x", model.with_name("grown.pt"), fit=FIT, validation_lines=6, examples=3)
    return replace(made, **changes)


def test_the_grown_model_knows_old_and_new_characters(model: Path) -> None:
    grown = load_checkpoint(extend(options(model), "crnn extend-charset"))
    assert grown.info.charset.characters == "+0123456789abcdefx "
    assert grown.weights["classifier.weight"].shape[0] == 20
    assert grown.info.provenance["extended"]["added"] == "+x"


def test_it_starts_with_the_old_classes_bit_for_bit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Crnn] = []

    def stop(network: Crnn, *_: object) -> None:
        seen.append(network)
        raise KeyboardInterrupt

    monkeypatch.setattr(extend_module, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        extend(options(model), "crnn extend-charset")
    before = load_checkpoint(model)
    charset = Charset.of("+0123456789abcdefx ")
    rows = [0, *(charset.characters.index(c) + 1 for c in before.info.charset.characters)]
    after = seen[0].state_dict()
    assert torch.equal(after["classifier.weight"][rows], before.weights["classifier.weight"])
    assert torch.equal(after["classifier.bias"][rows], before.weights["classifier.bias"])
    others = [name for name in before.weights if not name.startswith("classifier.")]
    assert all(torch.equal(after[name], before.weights[name]) for name in others)


def test_no_line_that_set_the_biases_is_read_otherwise_at_the_start(model: Path) -> None:
    before = load_checkpoint(model)
    known, charset = before.info.charset, extended(before.info.charset, "+", model)
    old = Crnn.from_checkpoint(before)
    drawn = SynthesisSource(SynthesisOptions(known.characters, 2, 6), 1)
    new = SynthesisSource(SynthesisOptions(charset.characters, 2, 6, including="+"), 1)
    old_lines = [drawn[i] for i in range(8)]
    weights, biases = new_rows(old, known, charset, [new[i] for i in range(4)], old_lines, before.info.input_spec)
    grown = Crnn(replace(before.info.sizes, classes=charset.classes)).eval()
    merged = dict(before.weights)
    for name, made in (("classifier.weight", weights), ("classifier.bias", biases)):
        merged[name] = torch.cat([merged[name][:1], made, merged[name][1:]])  # "+" sorts before all others
    grown.load_state_dict(merged)
    readings = [read_lines(old, old_lines, known, before.info.input_spec)]
    readings.append(read_lines(grown, old_lines, charset, before.info.input_spec))
    assert [r.text for r in readings[0]] == [r.text for r in readings[1]]


def test_the_encoder_stays_as_it_is_unless_it_may_learn(model: Path) -> None:
    before = load_checkpoint(model).weights
    after = load_checkpoint(extend(options(model), "crnn extend-charset")).weights
    learnt = extend(options(model, out=model.with_name("learnt.pt"), train_encoder=True), "crnn extend-charset")
    encoder = [name for name in before if name.startswith("encoder.")]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert not all(torch.equal(before[name], load_checkpoint(learnt).weights[name]) for name in encoder)


def test_statistics_of_normalisation_do_not_move(model: Path) -> None:
    before = load_checkpoint(model).weights
    after = load_checkpoint(extend(options(model), "crnn extend-charset")).weights
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)


def test_the_old_model_stays_as_it_is(model: Path) -> None:
    before = model.read_bytes()
    extend(options(model), "crnn extend-charset")
    assert model.read_bytes() == before


def test_the_run_file_tells_old_and_new_characters_before_and_after(model: Path) -> None:
    out = extend(options(model), "crnn extend-charset")
    result = json.loads(out.with_suffix(".run.json").read_text())["result"]
    assert set(result["start"]["characters"]) == set(result["end"]["characters"]) == {"+", "x"}
    assert result["end"]["old_lines"] == result["end"]["new_lines"] == 6
    assert result["start"]["old_exact_before"] == result["end"]["old_exact_before"]


def test_it_learns_from_given_lines_alone(model: Path, lines: Path) -> None:
    grown = extend(options(model, add="+", data=(str(lines),), drawn=False), "crnn extend-charset")
    assert "+" in load_checkpoint(grown).info.charset.characters
    assert len(open_lines(str(lines))) == 16


def test_the_anchor_is_measured_on_lines_without_a_new_character(model: Path) -> None:
    old = Crnn.from_checkpoint(load_checkpoint(model))
    objective = Anchored(old, [5], 2.0)
    with torch.no_grad():
        outputs = old(torch.randn(2, 3, 32, 64))
    moved = Outputs(outputs.features, outputs.encoded + torch.tensor([0.0, 3.0])[:, None, None], outputs.log_probs)
    batch = DeviceBatch(
        torch.randn(2, 3, 32, 64), torch.tensor([[1, 2], [5, 2]]), torch.tensor([2, 2]), torch.full((2, 16), -1),
        torch.zeros(2, 2, dtype=torch.int64),
    )  # fmt: skip
    with torch.no_grad():
        taught = old(batch.pictures[:1]).encoded
    terms = objective(moved, batch, 0)
    expected = (moved.encoded[:1] - taught).square().sum(-1).mean()
    assert terms["anchor"] == pytest.approx(float(expected), rel=1e-5)
    assert terms["loss"] == pytest.approx(float(terms["ctc"] + 2 * expected), rel=1e-5)


def test_normalisation_is_in_eval_mode_while_the_rest_trains(model: Path) -> None:
    network = Steady(load_checkpoint(model).info.sizes).train()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert network.encoder.training


@pytest.mark.parametrize(
    ("add", "sentence"),
    [("3", "knows '3' already"), ("++", "more than once"), ("", "is empty"), ("\t", "space of another kind")],
)
def test_characters_that_cannot_be_added_are_refused(add: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        extended(Charset.of("0123"), add, Path("m.pt"))


def test_a_character_that_nothing_shows_is_refused_by_name(model: Path) -> None:
    with pytest.raises(ValueError, match="no font and no line of --data shows '\U0001f9ff'"):
        extend(options(model, add="\U0001f9ff"), "crnn extend-charset")
    assert drawable_of(["\U0001f9ff"], {}) == ""


def test_the_model_itself_is_not_overwritten(model: Path) -> None:
    with pytest.raises(ValueError, match="is the model itself"):
        extend(options(model, out=model, overwrite=True), "crnn extend-charset")


def test_an_interrupted_run_goes_on_to_the_same_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = options(model, fit=replace(FIT, until=("3",)))
    uncut = load_checkpoint(extend(replace(halves, out=model.with_name("uncut.pt")), "crnn extend-charset"))
    state = fit_module._State.save

    def save_and_stop(self: Any, progress: Any) -> None:
        state(self, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module._State, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        extend(halves, "crnn extend-charset")
    monkeypatch.setattr(fit_module._State, "save", state)
    resumed = load_checkpoint(extend(replace(halves, resume=True), "crnn extend-charset"))
    assert all(torch.equal(uncut.weights[name], resumed.weights[name]) for name in uncut.weights)
