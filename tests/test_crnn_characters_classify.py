"""Classifying crops: what is printed, what lies in the folder, and what is said of what does not fit."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from crnn.characters import classify_cli
from crnn.characters.checkpoint import (
    CharacterCheckpoint,
    CharacterInfo,
    CharacterSizes,
    LearntClass,
    Memory,
    load_characters,
    save_characters,
)
from crnn.characters.classify import Named as Found
from crnn.characters.classify import copy_crops, file_name, folder_name
from crnn.characters.classify_cli import ClassifyOptions
from crnn.characters.crops import crop_spec, squared
from crnn.characters.few_shot import FewShotInfo, FewShotModel, save_few_shot
from crnn.characters.learn_cli import main as learn
from crnn.characters.model import CharacterModel, build_losses, embedded
from crnn.characters.regions import MatchingOptions
from crnn.commands import run_command
from crnn.info import main as info
from crnn.read import main as read
from data.folder_lines import FolderLines


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file of A, a and o with random weights; o has few training crops."""
    torch.manual_seed(3)
    sizes = CharacterSizes("plain", 0.25, 8, 1)
    made = CharacterModel(sizes, build_losses({"cross-entropy": 1.0}, 8, [200, 50, 5], {}))
    known = CharacterInfo(
        ("A", "a", "o"), (200, 50, 5), crop_spec(32, 1), sizes, {"cross-entropy": 1.0}, provenance={"command": "drawn"}
    )
    save_characters(tmp_path / "m.pt", CharacterCheckpoint(known, made.state_dict(), torch.eye(3, 8)))
    return tmp_path / "m.pt"


def run(source: Path, model: Path, out: Path, *more: str) -> int:
    return classify_cli.main([str(source), "--model", str(model), "--out", str(out), "--threads", "1", *more])


def test_every_crop_has_a_row_a_copy_and_a_place_on_a_sheet(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = crops_folder(A=4, a=3, o=2), tmp_path / "out"
    assert run(folder, model, out) == 0
    rows = [row.split("\t") for row in (out / "classes.tsv").read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows] == list(FolderLines(folder).keys())
    for path, label, confidence in rows:
        assert 1 / 3 <= float(confidence) <= 1
        copy = out / "crops" / folder_name(label) / f"images_{Path(path).name}"
        assert copy.read_bytes() == Path(path).read_bytes()
    assert len(list((out / "crops").rglob("*.png"))) == 9
    assert {p.stem for p in (out / "sheets").iterdir()} == {folder_name(row[1]) for row in rows}
    assert cv2.imread(str(out / "least-sure.png")).shape[1] == 1600
    assert "9 crops" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"crops", "m.pt", "out"}


def test_labelled_crops_give_figures(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = crops_folder(A=4, a=3, o=2, z=2)
    run(folder, model, tmp_path / "out", "--json", "--no-copies")
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    rows = [row.split("\t")[1] for row in (tmp_path / "out" / "classes.tsv").read_text().splitlines()]
    right = [a == b for a, b in zip(FolderLines(folder).texts(), rows, strict=True)]
    assert figures["accuracy"] == pytest.approx(sum(right) / 9, abs=1e-4)
    assert (figures["labelled"], figures["foreign"], figures["foreign_labels"]) == (11, 2, ["z"])
    assert [group["classes"] for group in figures["by_frequency"].values()] == [1, 1, 1]
    assert figures["retrieval"]["queries"] == 11
    assert sum(pair["taken"] + pair["back"] for pair in figures["look_alikes"]) == 9 - sum(right)
    assert not (tmp_path / "out" / "crops").exists()


def test_crops_that_are_all_foreign_have_retrieval_and_no_accuracy(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run(crops_folder(x=3, y=3), model, tmp_path / "out", "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["accuracy"] is None
    assert 0 <= figures["retrieval"]["recall_at_1"] <= 1
    run(tmp_path / "crops", model, tmp_path / "again")
    assert "6 crops have labels that the model does not know: x, y" in capsys.readouterr().out


def test_crops_without_labels_are_classified_without_figures(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = crops_folder(A=2, a=2)
    (folder / "labels.tsv").unlink()
    assert run(folder, model, tmp_path / "out", "--json") == 0
    assert "accuracy" not in json.loads(capsys.readouterr().out)
    assert not (tmp_path / "out" / "wrong.png").exists()


def test_nearest_centre_takes_the_centre_of_the_greatest_cosine(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path]
) -> None:
    folder = crops_folder(A=5, a=5, o=5)
    run(folder, model, tmp_path / "out", "--by", "nearest-centre", "--embeddings", str(tmp_path / "e.npz"))
    stored = np.load(tmp_path / "e.npz")
    assert stored["embeddings"].shape == (15, 8)
    assert stored["labels"].tolist() == ["A"] * 5 + ["a"] * 5 + ["o"] * 5
    rows = [row.split("\t") for row in (tmp_path / "out" / "classes.tsv").read_text().splitlines()]
    for row, embedding in zip(rows, stored["embeddings"], strict=True):
        cosines = [float(e) / float(np.linalg.norm(embedding)) for e in embedding[:3]]  # the centres are unit vectors
        assert row[1] == "Aao"[int(np.argmax(cosines))]
        whole = sum(math.exp(16 * c) for c in cosines)
        assert float(row[2]) == pytest.approx(math.exp(16 * max(cosines)) / whole, abs=2e-3)


def test_a_class_that_was_learnt_later_is_named_by_its_centre(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, known = crops_folder(z=1), load_characters(model)
    network = CharacterModel.from_checkpoint(known)
    found = embedded(network, [squared(FolderLines(folder)[0].picture, known.info.input_spec)], known.info.input_spec)
    assert known.centres is not None
    centre = torch.nn.functional.normalize(torch.from_numpy(found))
    learnt = LearntClass(1, "support", 0.001, "memory", "2025-01-01")
    grown = replace(known.info, classes=(*known.info.classes, "z"), learnt=(learnt,))
    memory = Memory(torch.randn(12, 8).half(), torch.arange(12) % 3)
    made = replace(known, info=grown, centres=torch.cat([known.centres, centre]), memory=memory)
    save_characters(model, made)
    run(folder, model, tmp_path / "out", "--json")
    figures = json.loads(capsys.readouterr().out)
    assert (figures["by"], figures["accuracy"], figures["foreign"]) == ("classifier", 1.0, 0)
    assert [group["classes"] for group in figures["by_frequency"].values()] == [0, 0, 1]
    save_characters(model, replace(made, info=replace(grown, bias=1e6)))
    run(folder, model, tmp_path / "biased", "--json")
    assert json.loads(capsys.readouterr().out)["accuracy"] == 0


def test_a_model_whose_training_has_not_ended_has_no_centres(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path]
) -> None:
    save_characters(model, replace(load_characters(model), centres=None))
    with pytest.raises(ValueError, match="no class centres yet"):
        run(crops_folder(A=1), model, tmp_path / "out", "--by", "nearest-centre")
    assert run(tmp_path / "crops", model, tmp_path / "out") == 0


def test_a_picture_that_does_not_decode_is_named_and_the_others_are_classified(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = crops_folder(A=3)
    (folder / "images" / "0001.png").write_bytes(b"no picture")
    assert run(folder, model, tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "0001.png does not decode" in captured.err
    assert "1 pictures could not be read" in captured.out
    assert len((tmp_path / "out" / "classes.tsv").read_text().splitlines()) == 2


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path, model: Path, crops_folder: Callable[..., Path]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another --out"):
        run(crops_folder(A=1), model, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_failure_leaves_no_folder_that_looks_whole(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crnn.characters.classify.copy_crops", full)
    with pytest.raises(OSError, match=r"out could not be written \(No space left on device\)"):
        run(crops_folder(A=1), model, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"crops", "m.pt"}


def test_a_place_that_cannot_be_written_is_named_before_any_crop_is_classified(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", read_only)
    monkeypatch.setattr("crnn.characters.classify.classified_crops", None)
    with pytest.raises(OSError, match=r"--out .*out cannot be written \(Read-only file system\); choose another"):
        run(crops_folder(A=1), model, tmp_path / "out")


def test_a_folder_within_what_is_read_is_refused_for_its_copies_would_be_read_too(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path]
) -> None:
    folder = crops_folder(A=1)
    with pytest.raises(ValueError, match=r"--out .*sorted lies in .*crops, whose crops the copies would join"):
        run(folder, model, folder / "sorted")
    assert not (folder / "sorted").exists()


def test_a_crop_whose_name_is_not_utf_8_is_classified_and_copied_like_others(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path]
) -> None:
    folder = crops_folder(A=2)
    (folder / "labels.tsv").unlink()
    os.rename(os.fsencode(folder / "images" / "0000.png"), os.fsencode(folder / "images") + b"/caf\xe9.png")
    assert run(folder, model, tmp_path / "out", "--embeddings", str(tmp_path / "e.npz")) == 0
    assert sorted(p.name for p in (tmp_path / "out" / "crops").rglob("*.png")) == ["images_0001.png", "images_caf_.png"]
    assert "caf\\udce9.png" in (tmp_path / "out" / "classes.tsv").read_text(encoding="utf-8")


def test_what_is_no_character_model_is_refused_in_one_sentence(
    tmp_path: Path,
    crops_folder: Callable[..., Path],
    random_checkpoint: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(crops_folder(A=1)), "--model", str(random_checkpoint()), "--out", str(tmp_path / "out")]
    assert run_command("crnn characters classify", classify_cli.main, arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_exported_file_is_named_as_one_with_what_belongs_there(
    tmp_path: Path, crops_folder: Callable[..., Path]
) -> None:
    (tmp_path / "s.onnx").write_bytes(b"\x08\x08whatever")
    with pytest.raises(
        ValueError, match=r"s\.onnx is an exported file; give a model \(\.pt\) of crnn characters train"
    ):
        run(crops_folder(A=1), tmp_path / "s.onnx", tmp_path / "out")


def test_crnn_read_refuses_a_character_model_and_crnn_info_tells_what_it_is(
    tmp_path: Path, model: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("crnn read", read, [str(crops_folder(A=1)), "--model", str(model)]) == 1
    assert "tells single characters apart and reads no lines" in capsys.readouterr().err
    assert info([str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["target"], facts["classes"], facts["counts"]) == ("character model", "Aao", [200, 50, 5])
    assert info([str(model)]) == 0
    told = capsys.readouterr().out
    assert "character model" in told
    assert "5 to 200" in told


def test_names_of_folders_differ_on_every_file_system() -> None:
    labels = [
        "a",
        "A",
        "/",
        "\\",
        ".",
        "..",
        " ",
        ":",
        "con",
        "ß",
        "ss",
        "é",
        "e\u0301",
        "Å",
        "垃",
        "😀",
        "x" * 300,
        "x" * 299,
    ]
    names = [folder_name(label) for label in labels]
    assert len({name.casefold() for name in names}) == len(labels)
    assert names[:3] == ["a_U+0061", "A_U+0041", "_U+002F"]
    for name in names:
        assert len(name.encode()) < 200
        assert not set(name) & set('/\\:*?"<>| ')
        assert not name.endswith(".")


def test_copies_of_one_name_get_numbers_and_strange_names_plain_ones(
    tmp_path: Path, crops_folder: Callable[..., Path]
) -> None:
    folder = crops_folder(A=2)
    (folder / "labels.tsv").unlink()
    (folder / "images_0000.png").write_bytes((folder / "images" / "0001.png").read_bytes())
    source = FolderLines(folder)
    copy_crops(tmp_path / "sorted", source, [Found(i, "A", 1.0) for i in range(3)])
    names = {p.name for p in (tmp_path / "sorted" / "A_U+0041").iterdir()}
    assert names == {"images_0000.png", "images_0000-2.png", "images_0001.png"}
    assert file_name("/é/a b.JPG", b"") == "__a_b.jpg"
    assert file_name("line 7 of x.lmdb", b"\x89PNG...") == "line_7_of_x_lmdb.png"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"few": 30, "many": 10}, "overlap"),
        ({"sheet": 0}, "--sheet is 0"),
        ({"embeddings": Path("e.npy")}, "does not end in .npz"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ClassifyOptions(Path("crops"), Path("m.pt"), Path("out"), **changes)


@pytest.fixture
def few_shot(tmp_path: Path) -> Path:
    """A few-shot model with random weights."""
    torch.manual_seed(3)
    save_few_shot(
        tmp_path / "few.pt", FewShotModel(FewShotInfo(crop_spec(32, 1), 0.125, MatchingOptions("global"))), {}
    )
    return tmp_path / "few.pt"


def test_a_few_shot_model_names_crops_by_the_support(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = crops_folder(A=1, a=1, o=1), tmp_path / "out"
    assert run(folder, few_shot, out, "--support", str(folder), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["by"], figures["accuracy"]) == ("support", 1.0)  # each is nearest to itself


def test_folders_named_after_classes_of_the_support_are_labels(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = crops_folder(A=2, a=2)
    (folder / "labels.tsv").unlink(missing_ok=True)
    names = sorted(folder.rglob("*.png"))
    for number, name in enumerate(names):
        place = tmp_path / "sorted" / "Aa"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(name.read_bytes())
    source = tmp_path / "sorted"
    assert run(source, few_shot, tmp_path / "out", "--support", str(source), "--json") == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == len(names)


def test_one_picture_of_one_class_is_a_support(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path]
) -> None:
    folder = crops_folder(A=1)
    assert run(folder, few_shot, tmp_path / "out", "--support", str(folder)) == 0
    assert (tmp_path / "out" / "classes.tsv").read_text(encoding="utf-8").split("\t")[1] == "A"


def test_a_support_crop_that_cannot_be_read_is_named_and_the_others_serve(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = crops_folder(A=2, a=2)
    support = tmp_path / "support"
    for name, label in (("x.png", "A"), ("y.png", "a"), ("cut.png", "a")):
        (support / label).mkdir(parents=True, exist_ok=True)
        first = next(folder.rglob("*.png")).read_bytes()
        (support / label / name).write_bytes(first[:60] if name == "cut.png" else first)
    assert run(folder, few_shot, tmp_path / "out", "--support", str(support)) == 1
    assert "cut.png" in capsys.readouterr().err


def test_a_class_of_the_support_that_loses_all_its_crops_is_named(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path]
) -> None:
    support = tmp_path / "support"
    (support / "z").mkdir(parents=True)
    (support / "z" / "cut.png").write_bytes(b"\x89PNG")
    (support / "A").mkdir()
    (support / "A" / "x.png").write_bytes(next(crops_folder(A=1).rglob("*.png")).read_bytes())
    with pytest.raises(ValueError, match=r"no crop of 'z' in .*support can be read"):
        run(support, few_shot, tmp_path / "out", "--support", str(support))


def test_a_few_shot_model_asks_for_its_support(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=r"few\.pt is a few-shot model .* show it a few crops of each with --support"):
        run(crops_folder(A=2), few_shot, tmp_path / "out")


def test_a_few_shot_model_refuses_another_way_to_tell_classes_apart(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path]
) -> None:
    folder = crops_folder(A=2)
    with pytest.raises(ValueError, match=r"few\.pt is a few-shot model, .* by the support alone; leave out --by"):
        run(folder, few_shot, tmp_path / "out", "--support", str(folder), "--by", "nearest-centre")


def test_a_model_with_classes_refuses_a_support(tmp_path: Path, model: Path, crops_folder: Callable[..., Path]) -> None:
    folder = crops_folder(A=2)
    with pytest.raises(ValueError, match=r"no region attention, which --support needs; .*crnn characters learn"):
        run(folder, model, tmp_path / "out", "--support", str(folder))


def test_info_tells_what_a_few_shot_model_is(few_shot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info([str(few_shot)]) == 0
    assert "a support names them" in capsys.readouterr().out


def test_reading_lines_with_a_few_shot_model_is_refused(
    few_shot: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("crnn read", read, ["--model", str(few_shot), str(labelled_folder)]) == 1
    assert "crnn characters classify" in capsys.readouterr().err


def test_learning_with_a_few_shot_model_is_refused(
    tmp_path: Path, few_shot: Path, crops_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--support", str(crops_folder(A=1)), "--model", str(few_shot), "--out", str(tmp_path / "grown.pt")]
    assert run_command("crnn characters learn", learn, arguments) == 1
    assert "few-shot model and has no classes of its own" in capsys.readouterr().err
