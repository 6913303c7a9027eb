"""crnn data export: what was imported comes out again, picture for picture, and comes in as the same lines."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from crnn.cli import main
from data.folder_lines import FolderLines
from data.lines import Picture, open_lines
from data.lmdb_lines import Entry, LmdbLines, write_lmdb

NAMES = ["images/000000.png", "images/000001.png", "images/000002.png", "images/000003.png"]
WORDS = ["Milk", "2.50", "Total", "book"]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def encoded(draw_word: Callable[[str], Picture]) -> bytes:
    return cv2.imencode(".jpg", draw_word("word"))[1].tobytes()


@pytest.mark.parametrize("name", ["out", "out.zip", "out.lmdb"])
def test_a_set_that_went_in_comes_out_the_same(tmp_path: Path, labelled_folder: Path, name: str) -> None:
    assert run("data", "import", labelled_folder, "--out", tmp_path / "x.lmdb") == 0
    assert run("data", "export", tmp_path / "x.lmdb", "--out", tmp_path / name) == 0
    source, out = FolderLines(labelled_folder), open_lines(tmp_path / name)
    assert [out.entry(i) for i in range(4)] == [source.entry(i) for i in range(4)]
    assert not list(tmp_path.glob(".*"))


def test_a_zip_of_the_same_lines_has_the_same_bytes(tmp_path: Path, labelled_folder: Path) -> None:
    for name in ("a.zip", "b.zip"):
        assert run("data", "export", labelled_folder, "--out", tmp_path / name) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert sorted(archive.namelist()) == [*NAMES, "labels.tsv"]


@pytest.mark.parametrize("keys", [["a", "b"], ["a.png", "a.png"], ["a.png", "../b.png"], ["a.png", "/b.png"]])
def test_lines_without_names_of_files_are_numbered(tmp_path: Path, encoded: bytes, keys: list[str]) -> None:
    write_lmdb(tmp_path / "x.lmdb", [Entry(encoded, text, key) for key, text in zip(keys, "xy", strict=True)])
    assert run("data", "export", tmp_path / "x.lmdb", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/labels.tsv").read_text() == "images/000000001.jpg\tx\nimages/000000002.jpg\ty\n"
    assert (tmp_path / "out/images/000000002.jpg").read_bytes() == encoded


def test_a_set_is_not_written_over_itself(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "export", labelled_folder, "--out", tmp_path / "x.zip") == 0
    before = (tmp_path / "x.zip").read_bytes()
    assert run("data", "export", tmp_path / "x.zip", "--out", tmp_path / "x.zip") == 1
    assert run("data", "import", tmp_path / "x.zip", "--out", tmp_path / "y.lmdb") == 0
    assert run("data", "import", tmp_path / "y.lmdb", "--out", tmp_path / "y.lmdb", "--drop-bad") == 1
    assert capsys.readouterr().err.count("is what is read here") == 2
    assert (tmp_path / "x.zip").read_bytes() == before
    assert len(LmdbLines(tmp_path / "y.lmdb")) == 4


def test_a_file_is_not_taken_for_a_folder_to_export_to(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("mine")
    assert run("data", "export", labelled_folder, "--out", tmp_path / "notes") == 1
    assert "notes is a file; choose another --out" in capsys.readouterr().err
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_set_may_have_the_name_that_held_out_lines_would_have(tmp_path: Path, labelled_folder: Path) -> None:
    source = tmp_path / "words.validation.lmdb"
    assert run("data", "import", labelled_folder, "--out", source, "--drop-bad") == 0
    assert run("data", "import", source, "--out", tmp_path / "words.lmdb") == 0
    assert run("data", "import", source, "--out", tmp_path / "words.lmdb", "--validation", "0.5") == 1


def test_groups_are_a_third_column(tmp_path: Path, encoded: bytes) -> None:
    entries = [Entry(encoded, "x", "a.jpg", group="page 1"), Entry(encoded, "y", "b.jpg")]
    write_lmdb(tmp_path / "x.lmdb", entries)
    assert run("data", "export", tmp_path / "x.lmdb", "--out", tmp_path / "out.zip") == 0
    out = FolderLines(tmp_path / "out.zip")
    assert list(out.groups()) == ["page 1", None]
    assert list(out.texts()) == ["x", "y"]


def test_columns_go_into_an_lmdb(tmp_path: Path, encoded: bytes) -> None:
    columns = np.array([[0.1, 0.4]], np.float32)
    write_lmdb(tmp_path / "x.lmdb", [Entry(encoded, "x", "a", columns)])
    assert run("data", "export", tmp_path / "x.lmdb", "--out", tmp_path / "y.lmdb") == 0
    read = LmdbLines(tmp_path / "y.lmdb")[0].columns
    assert read is not None
    assert np.array_equal(read, columns)


def test_pictures_without_labels_come_out_without_labels(tmp_path: Path, encoded: bytes) -> None:
    write_lmdb(tmp_path / "x.lmdb", [Entry(encoded, None, "a.jpg")])
    for name in ("out", "out.zip"):
        assert run("data", "export", tmp_path / "x.lmdb", "--out", tmp_path / name) == 0
        assert list(FolderLines(tmp_path / name).texts()) == [None]


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (Entry(b"", None, "b.jpg"), "b.jpg has no label, unlike the lines before it; TSV holds either kind alone"),
        (
            Entry(b"", "two\nlines", "b.jpg"),
            "b.jpg is labelled 'two\\nlines', which TSV cannot hold; export to an LMDB",
        ),
        (Entry(b"", "a\tb", "b.jpg"), "b.jpg is labelled 'a\\tb', which TSV cannot hold"),
        (Entry(b"", "end\r", "b.jpg"), "which TSV cannot hold"),
        (Entry(b"", "x", "b.jpg", group="g"), "b.jpg has the group g, and the first line has none"),
    ],
)
@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_what_tsv_cannot_hold_is_refused_and_nothing_is_left(
    tmp_path: Path, encoded: bytes, capsys: pytest.CaptureFixture[str], second: Entry, sentence: str, name: str
) -> None:
    write_lmdb(tmp_path / "x.lmdb", [Entry(encoded, "x", "a.jpg"), second])
    assert run("data", "export", tmp_path / "x.lmdb", "--out", tmp_path / name) == 1
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.lmdb"]


def test_a_folder_that_holds_something_is_left_alone(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/note.txt").write_text("mine")
    assert run("data", "export", labelled_folder, "--out", tmp_path / "mine") == 1
    assert "mine is a folder that is not empty; choose another --out" in capsys.readouterr().err
    assert (tmp_path / "mine/note.txt").read_text() == "mine"


def test_a_picture_that_is_missing_stops_the_export(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(labelled_folder / NAMES[3], tmp_path / "elsewhere.png")
    assert run("data", "export", labelled_folder, "--out", tmp_path / "out.zip") == 1
    assert f"there is no {NAMES[3]} in {labelled_folder}" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()
