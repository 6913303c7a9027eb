"""What the table beside peers says follows from the readings, and old figures are not taken for new ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import beside_peers
from benchmarks.beside_peers import (
    SETS,
    BesideOptions,
    bench,
    beside_picture,
    beside_table,
    card,
    error36,
    letter_spaced,
    speed_ratios,
)

Json = dict[str, Any]


def line(label: str, text: str, confidence: float = 1.0) -> Json:
    return {"label": label, "text": text, "confidence": confidence}


def test_letter_spaced_labels_are_counted_in_letters_alone() -> None:
    sets = {"iiit5k_test": [line("T H E", "the"), line("W H Y", "wny"), line("THE", "the")], "cute80": []}
    assert letter_spaced(sets) == [1, 2]


def test_confidences_are_judged_without_case() -> None:
    assert error36([line("TOTAL", "Total", 1.0), line("Milk", "Mild", 0.0), line("--", "x", 1.0)]) == 0
    assert error36([line("TOTAL", "Total", 0.25)]) == pytest.approx(0.75)


def results() -> Json:
    row = {"acc36": 0.5, "acc36_interval": [0.4, 0.6], "exact": 0.4, "exact_interval": [0.3, 0.5], "cer": 0.2}
    models = [{"name": name, "bytes": 1_500_000} for name in ("default.int8.onnx", "tesseract")]
    times = {"mean_ms": 2.0, "p50_ms": 1.0, "lines": 200, "rounds": 3}
    peer = times | {"mean_ms": 30.0}
    return {
        "models": models,
        "results": [row | {"model": "default.int8.onnx", "set": name, "lines": 10} for name in SETS],
        "letter_spaced": {"default.int8.onnx": [3, 28]},
        "times": {
            "time": {"default.int8.onnx": times, "tesseract": peer},
            "time-all": {"default.int8.onnx": times, "pp-ocr-v4": peer, "pp-ocr-v4-unpadded": peer},
        },
    }


def test_a_set_that_a_recogniser_did_not_read_is_not_run() -> None:
    ours, theirs = beside_table(results()).splitlines()[2:]
    assert ours == "| default, int8 (ships) | 1.50 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 3 of 28 | 2.0 |"
    assert theirs.count("not run") == len(SETS)


def test_speed_is_a_ratio_of_means() -> None:
    ours = speed_ratios(results()).splitlines()[2]
    assert ours == "| default, int8 (ships) | 2.0 | 15.0 | 15.0 |"


def test_only_a_recogniser_that_read_all_pictured_sets_is_in_the_picture() -> None:
    drawn = beside_picture(results(), "bytes")
    assert ">default<" in drawn
    assert "Tesseract" not in drawn


def test_figures_of_other_or_older_models_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(beside_peers, "run_stage", lambda result, module, arguments: ran.append(result))
    model, kept = tmp_path / "a.onnx", tmp_path / "ours.json"
    model.touch()
    plain, both = ["a.onnx"], ["a.onnx", "a.onnx +words"]
    for names, flags, age, remains in (
        (plain, [], -10, True), (["b.onnx"], [], -10, False), (plain, [], 10, False),
        (plain, ["--words"], -10, False), (both, ["--words"], -10, True),
    ):  # fmt: skip
        kept.write_text(json.dumps({"models": [{"name": name} for name in names]}))
        os.utime(model, (kept.stat().st_mtime + age,) * 2)
        bench(BesideOptions(out=tmp_path), "ours", flags, [model])
        assert kept.exists() == remains
    assert ran == [kept] * 5


def test_a_card_tells_of_both_ways_of_reading() -> None:
    found = results()
    found["results"] += [row | {"model": f"{row['model']} +words", "acc36": 0.75} for row in found["results"]]
    names = ("default.int8.onnx", "default.int8.onnx +words")
    found["calibration_error"] = {name: dict(zip(names, (0.04, 0.02), strict=True)) for name in SETS}
    _, _, plain, words, *_ = card(found, "default.int8.onnx").splitlines()
    assert plain == "| iiit5k_test | 10 | best path | 40.0 (30.0 to 50.0) | 50.0 (40.0 to 60.0) | 20.0 | 4.0 |"
    assert words == "| iiit5k_test | 10 | known words | 40.0 (30.0 to 50.0) | 75.0 (40.0 to 60.0) | 20.0 | 2.0 |"
