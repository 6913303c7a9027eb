"""`crnn export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

from crnn.checkpoint import ModelInfo, load_checkpoint
from crnn.recogniser import load
from crnn.runtimes import open_runtime
from data.lines import Picture
from export.command import ExportOptions, export_model, main, out_paths
from export.operators import Graph, Linear
from export.targets import TARGETS, TargetName


def test_the_file_reads_as_the_checkpoint_does(
    random_checkpoint: Callable[..., Path], draw_word: Callable[[str], Picture]
) -> None:
    checkpoint = random_checkpoint()
    out = export_model(checkpoint, "onnx", checkpoint.with_name("s.onnx"))
    pictures = [draw_word(text) for text in ("Milk", "a rather long line of text", "i")]
    given, expected = load(out, threads=1).read(pictures), load(checkpoint, threads=1).read(pictures)
    assert [reading.text for reading in given] == [reading.text for reading in expected]
    assert any(reading.text for reading in given)


def test_what_was_measured_travels_in_the_file_and_lies_beside_it(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = random_checkpoint()
    out = export_model(checkpoint, "onnx", checkpoint.with_name("s.onnx"), command="crnn export ...")
    beside = json.loads(out.with_name("s.onnx.json").read_text())
    info = open_runtime(out, threads=1).info
    assert info.parity == beside["parity"]
    assert 0 < info.parity["difference"] < info.parity["tolerance"] == 1e-4
    assert {(case["width"], case["batch"]) for case in info.parity["cases"]} == {
        (width, batch) for width in (64, 128, 320) for batch in (1, 3)
    }
    assert info.parity["differing_texts"] == 0
    assert beside["bytes"] == out.stat().st_size
    assert beside["command"] == "crnn export ..."
    assert replace(info, parity={}) == load_checkpoint(checkpoint).info


def test_only_the_file_and_its_json_are_written(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    export_model(random_checkpoint(), "onnx", tmp_path / "new" / "s.onnx")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["s.onnx", "s.onnx.json"]


def write_a_little_wrong(graph: Graph, info: ModelInfo, path: Path) -> None:
    """The right file but for the classifier's bias, which is a hundredth too large for one class."""
    operators = list(graph.operators)
    classifier = operators[-2]
    assert isinstance(classifier, Linear)
    bias = classifier.bias.copy()
    bias[5] += 1e-2
    operators[-2] = replace(classifier, bias=bias)
    TARGETS_AS_THEY_ARE["onnx"].write(replace(graph, operators=tuple(operators)), info, path)


TARGETS_AS_THEY_ARE = dict(TARGETS)


def test_a_file_that_reads_differently_is_refused_and_nothing_is_left(
    random_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], write=write_a_little_wrong))
    with pytest.raises(ValueError, match=r"does not read as the network does .* where 0\.0001 is allowed"):
        export_model(random_checkpoint(), "onnx", tmp_path / "out" / "s.onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_refused_file_leaves_the_earlier_one_as_it_was(
    random_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export_model(random_checkpoint(), "onnx", tmp_path / "s.onnx")
    before = [path.read_bytes() for path in (out, tmp_path / "s.onnx.json")]
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], write=write_a_little_wrong))
    with pytest.raises(ValueError, match="is not kept"):
        export_model(random_checkpoint(), "onnx", out)
    assert [path.read_bytes() for path in (out, tmp_path / "s.onnx.json")] == before


def test_real_lines_take_part_in_the_check(
    random_checkpoint: Callable[..., Path], labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = random_checkpoint()
    assert main(["--model", str(checkpoint), "--data", str(labelled_folder), "--lines", "3", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["parity"]["pictures"] == 12 + 3
    assert report["file"] == str(checkpoint.with_suffix(".onnx"))


def test_the_command_says_what_it_wrote_and_how_close_it_is(
    random_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(random_checkpoint()), "--to", "onnx", "--out", str(tmp_path / "s.onnx")]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "s.onnx") in printed
    assert "12 pictures in 6 batches read as the network reads them" in printed
    onnx.checker.check_model(onnx.load(tmp_path / "s.onnx"))


def test_every_target_has_its_entry() -> None:
    assert list(TARGETS) == list(get_args(TargetName))
    assert ExportOptions(Path("s.pt"), to=("all", "onnx")).targets() == list(TARGETS)


def test_a_file_goes_beside_the_checkpoint_into_a_folder_or_where_out_says(tmp_path: Path) -> None:
    model = tmp_path / "runs" / "s.pt"
    assert out_paths(model, ["onnx"], None) == [tmp_path / "runs" / "s.onnx"]
    assert out_paths(model, ["onnx"], tmp_path) == [tmp_path / "s.onnx"]
    assert out_paths(model, ["onnx"], tmp_path / "x.onnx") == [tmp_path / "x.onnx"]


def test_a_name_whose_runtime_would_not_be_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.onnx"):
        out_paths(tmp_path / "s.pt", ["onnx"], tmp_path / "s.model")


def test_the_checkpoint_is_never_written_over(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = random_checkpoint()
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        export_model(checkpoint, "onnx", checkpoint)


def test_a_place_that_cannot_be_written_is_named(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"s\.onnx cannot be written .*--out"):
        export_model(random_checkpoint(), "onnx", tmp_path / "file" / "s.onnx")


def test_reading_an_exported_file_gives_numbers_that_are_probabilities(random_checkpoint: Callable[..., Path]) -> None:
    out = export_model(checkpoint := random_checkpoint("mobilenet_v3_small"), "onnx", checkpoint.with_suffix(".onnx"))
    log_probs = open_runtime(out, threads=1)(np.zeros((2, 3, 32, 40), np.float32))
    assert log_probs.shape == (2, 10, 96)
    assert np.allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)
