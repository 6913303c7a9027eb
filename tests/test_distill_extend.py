"""A charset that grows: what is new is learnt, what was known stays, what cannot work is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crnn import fit as fit_module
from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint, save_checkpoint
from crnn.commands import FitOptions
from crnn.model import Crnn, Outputs, read_lines
from crnn.objectives.line_characters import aligned_characters
from crnn.objectives.recognition import DeviceBatch, ctc_loss
from data.lines import is_held_out, open_lines
from data.lmdb_lines import Entry, write_lmdb
from data.synthesis.fonts import plain_font_file
from data.synthesis.source import SynthesisOptions, SynthesisSource
from distill import extend as extend_module
from distill.extend import Anchored, Steady, extend
from distill.extend_cli import ExtendOptions
from distill.extend_lines import HELD_GIVEN, extended, held_out, sources, synthesis_of, unlabelled
from distill.new_rows import NEAR, near_new
from export.lines import held_out_lines, open_pair

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


def test_the_encoder_stays_as_it_is_unless_it_may_learn(model: Path) -> None:
    before = load_checkpoint(model).weights
    after = load_checkpoint(extend(options(model, train_encoder=False), "crnn extend-charset")).weights
    learnt = extend(options(model, out=model.with_name("learnt.pt")), "crnn extend-charset")
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
    taken = next(cost for cost in result["costs"] if cost["shift"] == result["biases_moved"])
    assert taken["new_read"] == pytest.approx(result["end"]["new_read"])
    told = load_checkpoint(out).info.provenance["new_biases"]
    assert (told["moved"], told["costs"]) == (result["biases_moved"], result["costs"])


def test_it_learns_from_given_lines_alone(model: Path, lines: Path) -> None:
    grown = extend(options(model, add="+", data=(str(lines),), drawn=False), "crnn extend-charset")
    assert "+" in load_checkpoint(grown).info.charset.characters
    assert len(open_lines(str(lines))) == 16


def test_what_is_not_rehearsed_is_still_measured(model: Path) -> None:
    out = extend(options(model, rehearse=()), "crnn extend-charset")
    assert json.loads(out.with_suffix(".run.json").read_text())["result"]["end"]["old_lines"] == 6


def test_unlabelled_pictures_are_held_to_what_was_read_there(model: Path, lines: Path) -> None:
    """Their labels hold the new character, and outside the charset: nothing of that is learnt."""
    given = options(model, unlabelled=(f"{lines}:2",), rehearse=())
    old = Crnn.from_checkpoint(load_checkpoint(model))
    known, spec = load_checkpoint(model).info.charset, load_checkpoint(model).info.input_spec
    pictures, held = unlabelled(given, old, known, spec)
    assert pictures.weights == (2.0,)
    assert set(pictures.training[0].texts()) == {None}
    read = read_lines(old, list(held.lines), known, spec)
    assert [line.text for line in held.lines] == [reading.text for reading in read]
    assert held.sure == [reading.confidence for reading in read]
    assert len(held.lines) + len(pictures.training[0]) == 16
    result = json.loads(extend(given, "crnn extend-charset").with_suffix(".run.json").read_text())["result"]
    assert result["unlabelled"]["lines"] == len(held.lines) > 0
    assert 0 <= result["unlabelled"]["changed"] <= len(held.lines)


def test_the_grown_model_can_teach_and_be_exported_from_what_its_file_tells(
    model: Path, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(model, load_checkpoint(model).with_provenance(synth={"longest": 4}))
    given = options(model, unlabelled=(str(lines),))
    told = load_checkpoint(extend(given, "crnn extend-charset")).info.provenance
    assert told["data"] == ["synth"]
    assert told["extended"]["unlabelled"] == [str(lines)]
    assert told["synth"] == {"longest": 4}
    assert told["validation"] == "0.05"
    capsys.readouterr()
    assert len(held_out_lines("", load_checkpoint(given.out).info, given.out, 4)) == 4
    assert capsys.readouterr().err == ""


def test_what_the_model_was_validated_on_is_left_alone_where_its_own_lines_are_rehearsed(
    model: Path, lines: Path
) -> None:
    told = {"data": ["synth:0.5", f"{lines}:0.5"], "validation": "0.3", "group_by": r"(\d+)$"}
    save_checkpoint(model, load_checkpoint(model).with_provenance(**told))
    before = load_checkpoint(model)
    assert held_out(options(model, rehearse=("synth", str(lines))), before) == ("0.3", r"(\d+)$")
    assert held_out(options(model, rehearse=(str(lines),), data=("other",)), before) == ("0.3", None)
    assert held_out(options(model, rehearse=("other", str(lines))), before) == ("0.05", None)
    assert held_out(options(model), before) == ("0.05", None)
    save_checkpoint(model, before.with_provenance(validation="held.lmdb"))
    assert held_out(options(model, rehearse=(str(lines),)), load_checkpoint(model)) == ("0.05", None)


def test_ranges_that_are_lost_are_told(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load_checkpoint(model)
    save_checkpoint(model, replace(before, info=replace(before.info, ranges={"a": (0.0, 1.0)})))
    extend(options(model), "crnn extend-charset")
    assert "learnt ranges of activations by --quantise-aware" in capsys.readouterr().err


def test_where_no_line_with_a_new_character_is_held_out_that_is_said(
    model: Path, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    encoded = cv2.imencode(".png", open_lines(lines)[0].picture)[1].tobytes()
    kept, held = (
        next(str(key) for key in range(99) if is_held_out(f"training/{key}", HELD_GIVEN) == side)
        for side in (False, True)
    )
    write_lmdb(lines.with_name("all.lmdb"), [Entry(encoded, "1+", held)])
    with pytest.raises(ValueError, match=r"a share of 0\.2 holds out every line of .*all\.lmdb; give more lines"):
        extend(options(model, add="+", data=(str(lines.with_name("all.lmdb")),), drawn=False), "crnn extend-charset")
    write_lmdb(lines.with_name("few.lmdb"), [Entry(encoded, "1+", kept)])
    given = options(model, add="+", data=(str(lines.with_name("few.lmdb")),), drawn=False, examples=1)
    out = extend(given, "crnn extend-charset")
    told = capsys.readouterr()
    assert "no line with a new character is held out" in told.out
    assert "--validation" not in told.err
    assert "NaN" not in out.with_suffix(".run.json").read_text()


def test_lines_that_are_left_out_are_told(model: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    picture = cv2.imencode(".png", np.full((32, 64, 3), 255, np.uint8))[1].tobytes()
    entries = [Entry(picture, text, f"line {i}") for i, text in enumerate(["1+", "1+~"] * 8)]
    write_lmdb(lines.with_name("some.lmdb"), entries)
    extend(options(model, data=(str(lines.with_name("some.lmdb")),)), "crnn extend-charset")
    assert "some.lmdb are left out: 8 (outside the charset)" in capsys.readouterr().err


def test_drawn_characters_are_measured_beside_many_given_lines(model: Path, lines: Path) -> None:
    given = options(model, data=(str(lines),), validation_lines=4)
    before = load_checkpoint(model)
    with_new, _ = sources(given, before, extended(before.info.charset, "+x", model), ["+", "x"])
    assert len(with_new.validation) == 4
    assert any("x" in (line.text or "") for line in with_new.validation)


def test_too_few_unlabelled_pictures_are_refused(model: Path, tmp_path: Path) -> None:
    import cv2

    picture = cv2.imencode(".png", np.full((32, 64, 3), 255, np.uint8))[1].tobytes()
    write_lmdb(tmp_path / "one.lmdb", [Entry(picture, "a", "line")])
    with pytest.raises(ValueError, match="holds too few pictures"):
        extend(options(model, unlabelled=(str(tmp_path / "one.lmdb"),)), "crnn extend-charset")


def test_unlabelled_pictures_without_an_anchor_are_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="learnt from through the anchor, and --anchor is 0"):
        options(model, unlabelled=("pictures",), anchor=0.0)


def anchored_batch(old: Crnn) -> tuple[DeviceBatch, Outputs]:
    """Two lines of 16 columns, the second with the new class 5, and probabilities by chance."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(2, 3, 32, 64, generator=generator)
    with torch.no_grad():
        outputs = old(pictures)
    batch = DeviceBatch(
        pictures, torch.tensor([[1, 2], [5, 2]]), torch.tensor([2, 2]), torch.full((2, 16), -1),
        torch.zeros(2, 2, dtype=torch.int64),
    )  # fmt: skip
    log_probs = torch.randn(2, 16, old.sizes.classes + 1, generator=generator).log_softmax(-1)
    return batch, outputs._replace(log_probs=log_probs)


def test_the_anchor_is_the_divergence_from_the_old_model_where_no_new_character_is(model: Path) -> None:
    old = Crnn.from_checkpoint(load_checkpoint(model))
    batch, made = anchored_batch(old)
    terms = Anchored(old, [5], 2.0)(made, batch, 0)
    with torch.no_grad():
        told = old(batch.pictures).log_probs
    near = near_new(made.log_probs, batch.classes, batch.lengths, torch.tensor([[False, False], [True, False]]))
    apart = []
    for i, column in (~near).nonzero().tolist():
        pairs = [(p, made.log_probs[i, column, k + (k >= 5)]) for k, p in enumerate(told[i, column])]
        apart.append(sum(float(p.exp() * (p - q)) for p, q in pairs))
    ctc = ctc_loss(made.log_probs, batch)
    assert terms["anchor"] == pytest.approx(sum(apart) / len(apart), rel=1e-4)
    assert terms["loss"] == pytest.approx(float(ctc + 2 * terms["anchor"]), rel=1e-5)


def test_the_anchor_is_zero_at_the_old_model_with_classes_that_are_never_read(model: Path) -> None:
    old = Crnn.from_checkpoint(load_checkpoint(model))
    batch, made = anchored_batch(old)
    with torch.no_grad():
        told = old(batch.pictures).log_probs
    never = torch.full_like(told[..., :1], -50.0)
    same = made._replace(log_probs=torch.cat([told[..., :5], never, told[..., 5:]], -1))
    assert Anchored(old, [5], 1.0)(same, batch, 0)["anchor"] == pytest.approx(0, abs=1e-6)
    likely = same._replace(log_probs=torch.cat([told[..., :5], never + 50, told[..., 5:]], -1).log_softmax(-1))
    assert Anchored(old, [5], 1.0)(likely, batch, 0)["anchor"] > 0.5


def test_columns_near_a_new_character_are_not_anchored(model: Path) -> None:
    old = Crnn.from_checkpoint(load_checkpoint(model))
    batch, made = anchored_batch(old)
    is_new = torch.tensor([[False, False], [True, False]])
    near = near_new(made.log_probs, batch.classes, batch.lengths, is_new)
    shown = aligned_characters(made.log_probs, batch.classes, batch.lengths)
    assert not near[0].any()
    for column in range(16):
        around = shown[1, max(0, column - NEAR) : column + NEAR + 1]
        assert bool(near[1, column]) == bool((around == 0).any())


def test_without_an_anchor_all_lines_have_ctc_alone(model: Path) -> None:
    old = Crnn.from_checkpoint(load_checkpoint(model))
    batch, made = anchored_batch(old)
    terms = Anchored(old, [5], 0.0)(made, batch, 0)
    assert terms["loss"] == pytest.approx(float(ctc_loss(made.log_probs, batch)))


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
    with pytest.raises(ValueError, match="no line of --data shows '\U0001f9ff', and none is drawn"):
        extend(options(model, add="\U0001f9ff"), "crnn extend-charset")


def test_characters_that_no_font_has_are_learnt_from_given_lines_beside_drawn_ones(model: Path, tmp_path: Path) -> None:
    import cv2

    picture = cv2.imencode(".png", np.full((32, 64, 3), 255, np.uint8))[1].tobytes()
    write_lmdb(tmp_path / "own.lmdb", [Entry(picture, "1\U0001fa77", f"line {i}") for i in range(20)])
    grown = extend(options(model, add="x\U0001fa77", data=(str(tmp_path / "own.lmdb"),)), "crnn extend-charset")
    info = load_checkpoint(grown).info
    assert {"x", "\U0001fa77"} <= set(info.charset.characters)
    drawn = open_pair("synth", info, 0)[0]  # what it is calibrated on, and taught from, by default
    assert "x" in "".join(drawn.texts()[i] or "" for i in range(200))


def test_the_fonts_that_are_asked_for_are_those_that_the_new_file_names(model: Path) -> None:
    folder = plain_font_file().parent
    fonts = ExtendOptions(model, "+", font_folders=(folder,))
    assert synthesis_of(fonts, load_checkpoint(model))["font_folders"] == [str(folder)]
    with pytest.raises(ValueError, match="--font-folders gone is no folder"):
        ExtendOptions(model, "+", font_folders=(Path("gone"),))


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


@pytest.mark.parametrize("at", ["costs_of_shifts", "changed"])  # before the biases are moved, and after
def test_a_run_that_is_cut_off_after_its_last_step_can_be_resumed(
    model: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    uncut = load_checkpoint(extend(options(model, out=model.with_name("uncut.pt")), "crnn extend-charset"))
    assert not model.with_name("uncut.resume.pt").exists()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extend_module, at, stop)
        with pytest.raises(KeyboardInterrupt):
            extend(options(model), "crnn extend-charset")
    resumed = load_checkpoint(extend(options(model, resume=True), "crnn extend-charset"))
    assert all(torch.allclose(uncut.weights[name], resumed.weights[name]) for name in uncut.weights)
    assert uncut.info.provenance["new_biases"] == resumed.info.provenance["new_biases"]


def test_an_exported_grown_model_reads_with_the_grown_charset(model: Path, lines: Path) -> None:
    from crnn.recogniser import load
    from export.command import ExportOptions, export

    grown = extend(options(model, validation_lines=2), "crnn extend-charset")
    out = grown.with_suffix(".onnx")
    (_,) = export(ExportOptions(grown, ("onnx-int8",), out, data=(str(lines),), calibration_lines=2, lines=2))
    assert load(out, threads=1).info.charset.characters == load_checkpoint(grown).info.charset.characters


def test_the_optimiser_without_a_learning_rate_works_with_the_defaults(model: Path) -> None:
    defaults = ExtendOptions(model, "+").fit
    fit = replace(FIT, optimiser="gradient-direction", warm_up=defaults.warm_up, learning_rate=defaults.learning_rate)
    assert extend(options(model, fit=fit), "crnn extend-charset").exists()
