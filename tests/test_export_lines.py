"""Lines on which an export is calibrated and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, ModelInfo
from data.lines import hold_out, open_lines
from data.picture import InputSpec
from export.lines import choose_sources, draw_lines, held_out_lines


def info(characters: str = "Milk2.50Totalbook", **provenance: Any) -> ModelInfo:
    charset = Charset.from_texts([characters], "keep")
    sizes = CrnnSizes("resnet18", 0.25, 32, 16, 1, True, 0, charset.classes)
    return ModelInfo(charset, InputSpec(), sizes, provenance)


def folder_of(tmp_path: Path, *texts: str | None, name: str = "lines") -> Path:
    folder = tmp_path / name
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, text in enumerate(texts):
        path = f"images/{number:06d}.png"
        cv2.imwrite(str(folder / path), np.full((32, 64, 3), number, np.uint8))
        rows.append(f"{path}\t{text}\n")
    if any(text is not None for text in texts):
        (folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


def test_calibration_and_check_have_no_line_in_common(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *["Milk"] * 9)
    drawn = draw_lines([str(folder)], info(), 4, 4, seed=0)
    keys = [{line.key for line in lines} for lines in (drawn.calibration, drawn.check)]
    assert [len(own) for own in keys] == [4, 4]
    assert not keys[0] & keys[1]


def test_a_small_source_is_shared_out(tmp_path: Path) -> None:
    drawn = draw_lines([str(folder_of(tmp_path, *["Milk"] * 4))], info(), 200, 200, seed=0)
    assert [len(drawn.calibration), len(drawn.check)] == [2, 2]


def test_sources_take_part_by_their_weight(tmp_path: Path) -> None:
    one, other = (folder_of(tmp_path, *["Milk"] * 20, name=name) for name in ("one", "other"))
    drawn = draw_lines([f"{one}:3", str(other)], info(), 8, 8, seed=0)
    assert sum("one" in line.key for line in drawn.check) == 6
    assert len(drawn.check) == 8


def test_lines_without_labels_will_do(tmp_path: Path) -> None:
    drawn = draw_lines([str(folder_of(tmp_path, None, None, None))], info(), 1, 2, seed=0)
    assert [line.text for line in drawn.check] == [None, None]


def test_lines_are_drawn_where_none_are_stored() -> None:
    drawn = draw_lines(["synth"], info(), 2, 3, seed=0)
    assert [len(drawn.calibration), len(drawn.check)] == [2, 3]
    assert {line.text for line in drawn.calibration}.isdisjoint(line.text for line in drawn.check)
    assert not any(info().charset.missing(line.text or "") for line in drawn.check)


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lines"):
        draw_lines([str(folder_of(tmp_path))], info(), 2, 2, seed=0)


def test_a_single_line_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 1 lines, and calibration and check need one each"):
        draw_lines([str(folder_of(tmp_path, "Milk"))], info(), 2, 2, seed=0)


def test_lines_of_another_charset_are_refused_with_a_key(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "λόγος", "φίλος", "Milk", "ἄνθρωπος")
    with pytest.raises(ValueError, match=r"another charset than the model's.*images/00000\d\.png: .*own"):
        draw_lines([str(folder)], info(), 2, 2, seed=0)


def test_a_few_lines_outside_the_charset_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "Milk", "Milk", "Milk", "Café", "Milk", "Milk")
    assert draw_lines([str(folder)], info(), 3, 3, seed=0).left_out == 1
    assert "left out 1 lines" in capsys.readouterr().err


def test_a_picture_that_does_not_decode_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Milk", "Milk")
    (folder / "images" / "000001.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"000001\.png does not decode"):
        draw_lines([str(folder)], info(), 1, 1, seed=0)


def test_what_the_model_learnt_from_is_used_again(tmp_path: Path) -> None:
    recorded = f"{folder_of(tmp_path, 'Milk', 'Milk')}:0.5"
    assert choose_sources((), info(data=[recorded, "synth:0.5"]), Path("s.pt")) == (recorded, "synth:0.5")


def test_where_that_is_gone_lines_are_drawn_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_sources((), info(data=["gone.lmdb", "synth"]), Path("s.pt")) == ("synth",)
    assert "s.pt learnt from gone.lmdb, which is not there: synthetic lines are used" in capsys.readouterr().err


def test_what_is_asked_for_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_sources(("x.lmdb",), info(data=["gone.lmdb"]), Path("s.pt")) == ("x.lmdb",)
    assert not capsys.readouterr().err


def test_fonts_of_the_machine_that_trained_are_not_asked_for() -> None:
    synth = {"font_folders": ["/nowhere"], "longest": 5}
    drawn = draw_lines(["synth"], replace(info(), provenance={"synth": synth}), 1, 4, seed=0)
    assert all(len(line.text or "") <= 5 for line in drawn.check)


def test_the_same_seed_draws_the_same_lines(tmp_path: Path, labelled_folder: Path) -> None:
    def keys(seed: int) -> list[str]:
        return [line.key for line in draw_lines([str(labelled_folder)], info(), 2, 2, seed).check]

    assert keys(1) == keys(1)
    assert any(keys(seed) != keys(1) for seed in range(2, 8))


def test_the_lines_held_out_are_those_that_training_held_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *["Milk"] * 60)
    made = info(data=[str(folder)], validation="0.2", seed=3)
    held = held_out_lines("", made, Path("s.pt"), 100)
    assert {line.key for line in held} == set(hold_out(open_lines(folder), 0.2)[1].keys())
    assert 0 < len(held) < 30
    assert len(held_out_lines("", made, Path("s.pt"), 3)) == 3


def test_lines_that_are_named_take_the_place_of_those_held_out(tmp_path: Path) -> None:
    learnt, other = (folder_of(tmp_path, *["Milk"] * 20, name=name) for name in ("learnt", "other"))
    made = info(data=[str(learnt)], validation="0.2")
    assert len(held_out_lines(str(other), made, Path("s.pt"), 100)) == 20


def test_a_model_whose_sources_are_gone_has_no_lines_held_out_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = info(data=[str(tmp_path / "gone")], validation="0.2")
    assert held_out_lines("", made, Path("s.pt"), 100) == []
    assert "what s.pt was validated on is not there" in capsys.readouterr().err


def test_a_share_is_no_source_of_lines_held_out() -> None:
    with pytest.raises(ValueError, match=r"--validation is 0\.1; give a source of labelled lines"):
        held_out_lines("0.1", info(), Path("s.pt"), 100)


def test_a_validation_source_that_is_gone_leaves_none_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = info(data=["synth"], validation=str(tmp_path / "gone.lmdb"))
    assert held_out_lines("", made, Path("s.pt"), 100) == []
    assert "what s.pt was validated on is not there" in capsys.readouterr().err
