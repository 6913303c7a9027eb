"""`crnn export`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest

from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint, save_checkpoint
from crnn.model import Crnn
from crnn.recogniser import load
from crnn.runtimes import open_runtime
from data.lines import Picture
from data.picture import InputSpec
from export.calibration import Quantisation, calibrate, gridded_values
from export.command import ExportJob, ExportOptions, export, main, out_paths, summary
from export.graph import read_graph
from export.operators import Graph, Linear
from export.report import Written
from export.sensitivity import Search
from export.targets import TARGETS, Target, TargetName


@pytest.fixture
def write(labelled_folder: Path) -> Callable[..., dict[str, Any]]:
    """A function: checkpoint, format, --out -> what the JSON beside the file holds; checked on four drawn words."""

    def written(checkpoint: Path, target: TargetName, out: Path, **options: Any) -> dict[str, Any]:
        chosen = {"data": (str(labelled_folder),), "calibration_lines": 2, "lines": 2} | options
        (report,) = export(ExportOptions(checkpoint, (target,), out, **chosen), "crnn export ...")
        return report

    return written


def test_the_file_reads_as_the_checkpoint_does(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], draw_word: Callable[[str], Picture]
) -> None:
    checkpoint = random_checkpoint()
    write(checkpoint, "onnx", out := checkpoint.with_name("s.onnx"))
    pictures = [draw_word(text) for text in ("Milk", "a rather long line of text", "i")]
    given, expected = load(out, threads=1).read(pictures), load(checkpoint, threads=1).read(pictures)
    assert [reading.text for reading in given] == [reading.text for reading in expected]
    assert any(reading.text for reading in given)


def test_what_was_measured_travels_in_the_file_and_lies_beside_it(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any]
) -> None:
    checkpoint = random_checkpoint()
    report = write(checkpoint, "onnx", out := checkpoint.with_name("s.onnx"))
    info = open_runtime(out, threads=1).info
    assert json.loads(out.with_name("s.onnx.json").read_text()) == report
    assert info.parity == report["parity"]
    assert 0 < info.parity["difference"] < info.parity["tolerance"] == 1e-4
    assert {64, 128, 320} <= {case["width"] for case in info.parity["cases"]}
    assert report["bytes"] == out.stat().st_size
    assert report["command"] == "crnn export ..."
    assert replace(info, parity={}, target="") == load_checkpoint(checkpoint).info


def test_every_format_says_what_it_is_and_how_it_is_to_be_read(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], tmp_path: Path
) -> None:
    checkpoint = random_checkpoint()
    for name in ExportOptions(checkpoint, ("all",)).targets():
        target = TARGETS[name]
        width = {"fixed_width": 128} if target.fixed_width else {}
        report = write(checkpoint, name, out := tmp_path / f"s{target.suffix}", **width)
        info = open_runtime(out, threads=1).info
        assert info.target == report["target"] == name
        assert info.one_line_at_a_time == target.one_line_at_a_time
        assert (info.input_spec.min_width == info.input_spec.max_width == 128) == target.fixed_width


def test_a_fixed_width_says_what_it_costs(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], tmp_path: Path
) -> None:
    report = write(random_checkpoint(), "tflite-fixed", tmp_path / "s.tflite", fixed_width=128)
    assert report["right_at_natural_widths"] == 0  # of a network that was not trained
    assert "right 0 of 2 (network 0; 0 at natural widths)" in summary(report)


def test_only_the_file_and_its_json_are_written(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], tmp_path: Path
) -> None:
    write(random_checkpoint(), "onnx-int8", tmp_path / "new" / "s.onnx")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["s.onnx", "s.onnx.json"]


def write_a_little_wrong(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """The right file but for the classifier's bias, which is a hundredth too large for one class."""
    operators = list(graph.operators)
    classifier = operators[-2]
    assert isinstance(classifier, Linear)
    bias = classifier.bias.copy()
    bias[5] += 1e-2
    operators[-2] = replace(classifier, bias=bias)
    return TARGETS_AS_THEY_ARE["onnx"].write(replace(graph, operators=tuple(operators)), info, quantisation)


TARGETS_AS_THEY_ARE = dict(TARGETS)


def test_a_file_that_reads_differently_is_refused_and_nothing_is_left(
    random_checkpoint: Callable[..., Path],
    write: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], write=write_a_little_wrong))
    with pytest.raises(ValueError, match=r"does not read as the network does .* where 0\.0001 is allowed"):
        write(random_checkpoint(), "onnx", tmp_path / "out" / "s.onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_network_is_as_far_from_itself_in_float64_as_float32_lets_it(
    random_checkpoint: Callable[..., Path], labelled_folder: Path
) -> None:
    job = ExportJob(ExportOptions(random_checkpoint(), data=(str(labelled_folder),), lines=2), "crnn export ...")
    assert 0 < job.rounding(job.expected(job.info.input_spec)) < 1e-4


def test_a_refused_file_leaves_the_earlier_one_as_it_was(
    random_checkpoint: Callable[..., Path],
    write: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(random_checkpoint(), "onnx", out := tmp_path / "s.onnx")
    before = [path.read_bytes() for path in (out, tmp_path / "s.onnx.json")]
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], write=write_a_little_wrong))
    with pytest.raises(ValueError, match="is not kept"):
        write(random_checkpoint(), "onnx", out)
    assert [path.read_bytes() for path in (out, tmp_path / "s.onnx.json")] == before


def test_a_refused_format_does_not_keep_the_others_from_being_written(
    random_checkpoint: Callable[..., Path],
    labelled_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], write=write_a_little_wrong))
    given = ["--model", random_checkpoint(), "--data", labelled_folder, "--out", tmp_path / "phone", "--json"]
    assert main([*map(str, given), "--to", "onnx", "tflite"]) == 1
    told = capsys.readouterr()
    assert [report["target"] for report in json.loads(told.out)] == ["tflite"]
    assert re.fullmatch(r"(?s)crnn export: .*resnet18\.onnx does not read as the network does .*\n", told.err)
    assert sorted(path.name for path in (tmp_path / "phone").iterdir()) == ["resnet18.tflite", "resnet18.tflite.json"]


def test_a_fixed_width_that_cannot_be_is_refused_before_other_formats_are_written(
    random_checkpoint: Callable[..., Path], labelled_folder: Path, tmp_path: Path
) -> None:
    options = ExportOptions(random_checkpoint(), ("all",), tmp_path / "phone", (str(labelled_folder),), fixed_width=100)
    with pytest.raises(ValueError, match="--fixed-width is 100; give a multiple of 8"):
        next(export(options))
    assert not (tmp_path / "phone").exists()


def test_an_untrained_network_is_judged_by_numbers_alone_and_that_is_said(
    random_checkpoint: Callable[..., Path], labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = random_checkpoint()
    assert main(["--model", str(checkpoint), "--data", str(labelled_folder), "--to", "onnx-int8", "onnx"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert all("numbers alone were compared" in line for line in printed)
    report = json.loads(checkpoint.with_name("resnet18.int8.onnx.json").read_text())
    assert report["parity"]["judged_by"] == "numbers alone"
    assert report["search"].startswith("none")
    onnx.checker.check_model(onnx.load(checkpoint.with_name("resnet18.int8.onnx")))


def test_the_report_counts_what_stayed_float(random_checkpoint: Callable[..., Path], write: Callable[..., Any]) -> None:
    checkpoint = random_checkpoint()
    report = write(checkpoint, "onnx-int8-portable", checkpoint.with_name("s.onnx"))
    assert {row["weights"] for row in report["summary"]} == {"int8 per channel", "none"}
    lstm = next(row for row in report["summary"] if row["kind"] == "Lstm")
    assert (lstm["operators"], lstm["activations"], bool(lstm["reason"])) == (2, "float32", True)
    assert sum(row["operators"] for row in report["summary"]) == len(report["operators"])


def test_an_int8_file_that_stayed_mostly_float_says_so(
    random_checkpoint: Callable[..., Path],
    write: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = random_checkpoint()

    def found(job: ExportJob, target: Target, info: ModelInfo, path: Path) -> Search:
        return Search(tuple(o.output for o in job.graph.operators if not isinstance(o, Linear)), (0.25, 0.0), ())

    monkeypatch.setattr(ExportJob, "keep_in_float", found)
    write(checkpoint, "tflite-int8", checkpoint.with_name("s.tflite"))
    told = capsys.readouterr().err
    assert re.search(r"s\.tflite keeps 9\d% of its weights in float.* lose 25\.0% of 2 calibration lines", told)


def with_ranges(path: Path, factor: float) -> Path:
    """The checkpoint with recorded ranges, factor times those of two pictures of noise."""
    checkpoint = load_checkpoint(path)
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    noise = np.random.default_rng(1).uniform(-1, 1, (1, 3, 32, 128)).astype(np.float32)
    found = calibrate(graph, [noise])
    ranges = {name: (found[name].low * factor, found[name].high * factor) for name in gridded_values(graph)}
    save_checkpoint(path, Checkpoint(replace(checkpoint.info, ranges=ranges), checkpoint.weights))
    return path


def test_ranges_of_quantisation_aware_training_are_kept_to(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any]
) -> None:
    checkpoint = with_ranges(random_checkpoint(), 1.25)
    report = write(checkpoint, "onnx-int8", out := checkpoint.with_name("s.onnx"))
    assert report["ranges_from"] == "quantisation-aware training"
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    low, high = load_checkpoint(checkpoint).info.ranges["backbone.stages.conv1"]
    assert stored["backbone.stages.conv1.scale"] == pytest.approx((high - low) / 255)


def test_ranges_that_lack_a_value_are_refused_with_its_name(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any]
) -> None:
    path = with_ranges(random_checkpoint(), 1.0)
    checkpoint = load_checkpoint(path)
    ranges = dict(checkpoint.info.ranges)
    del ranges["backbone.stages.conv1"]
    save_checkpoint(path, Checkpoint(replace(checkpoint.info, ranges=ranges), checkpoint.weights))
    with pytest.raises(ValueError, match=r"no range for backbone\.stages\.conv1"):
        write(path, "onnx-int8", path.with_name("s.onnx"))


def test_every_target_has_its_entry() -> None:
    assert list(TARGETS) == list(get_args(TargetName))
    every = ExportOptions(Path("s.pt"), to=("all", "onnx")).targets()
    assert [*every, "ncnn", "mnn"] == list(TARGETS)  # whose packages are no dependencies


def test_no_two_formats_write_the_same_file() -> None:
    assert len({target.suffix for target in TARGETS.values()}) == len(TARGETS)


def test_a_file_goes_beside_the_checkpoint_into_a_folder_or_where_out_says(tmp_path: Path) -> None:
    model = tmp_path / "runs" / "s.pt"
    assert out_paths(model, ["onnx"], None) == [tmp_path / "runs" / "s.onnx"]
    assert out_paths(model, ["onnx-int8", "tflite"], tmp_path) == [tmp_path / "s.int8.onnx", tmp_path / "s.tflite"]
    assert out_paths(model, ["onnx-int8"], tmp_path / "x.onnx") == [tmp_path / "x.onnx"]


def test_a_name_whose_runtime_would_not_be_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.onnx"):
        out_paths(tmp_path / "s.pt", ["onnx-int8"], tmp_path / "s.model")


def test_one_file_for_several_formats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.onnx").write_text("")
    with pytest.raises(ValueError, match="2 formats are to be written; give a folder"):
        out_paths(tmp_path / "s.pt", ["onnx", "tflite"], tmp_path / "s.onnx")


def test_a_model_of_one_width_keeps_it_and_how_pictures_reach_it(
    write: Callable[..., dict[str, Any]], random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = random_checkpoint()
    made = load_checkpoint(model)
    save_checkpoint(model, replace(made, info=replace(made.info, input_spec=InputSpec(min_width=96, max_width=96))))
    write(model, "tflite-fixed", tmp_path / "s.tflite")
    assert open_runtime(tmp_path / "s.tflite").info.input_spec == InputSpec(min_width=96, max_width=96)
    with pytest.raises(ValueError, match=r"--fixed-width is 128, and .* takes 96 pixels alone"):
        write(model, "tflite-fixed", tmp_path / "s.tflite", fixed_width=128)


def test_a_fixed_width_that_pictures_cannot_have_is_refused(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--fixed-width is 100; give a multiple of 8"):
        write(random_checkpoint(), "tflite-fixed", tmp_path / "s.tflite", fixed_width=100)


def test_a_fixed_width_where_no_format_has_one_is_refused(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--fixed-width has no part in onnx; leave it out"):
        write(random_checkpoint(), "onnx", tmp_path / "s.onnx", fixed_width=128)


def test_an_exported_file_is_told_from_a_damaged_checkpoint(write: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "s.int8.onnx").write_bytes(b"whatever")
    with pytest.raises(ValueError, match=r"s\.int8\.onnx is an exported file; give the checkpoint"):
        write(tmp_path / "s.int8.onnx", "onnx", tmp_path / "t.onnx")


def test_a_place_that_cannot_be_written_is_named(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"s\.onnx cannot be written .*--out"):
        write(random_checkpoint(), "onnx", tmp_path / "file" / "s.onnx")


def test_reading_an_exported_file_gives_numbers_that_are_probabilities(
    random_checkpoint: Callable[..., Path], write: Callable[..., Any]
) -> None:
    checkpoint = random_checkpoint("mobilenet_v3_small")
    write(checkpoint, "onnx", out := checkpoint.with_suffix(".onnx"))
    log_probs = open_runtime(out, threads=1)(np.zeros((2, 3, 32, 40), np.float32))
    assert log_probs.shape == (2, 10, 96)
    assert np.allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)
