"""`crnn label` with a model of colours, so that every label is known: what is kept, what is left out, what for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.label import main
from benchmarks.peers import PEERS
from data.lines import Picture, open_lines
from data.lmdb_lines import Entry, write_lmdb


@pytest.fixture
def crops(tmp_path: Path, paint: Callable[[str], Picture]) -> Path:
    """Four pictures without labels: two that are read surely, one that is mixed and doubtful, one without text."""
    folder = tmp_path / "crops"
    folder.mkdir()
    doubtful = (paint("a.b.").astype(int) * 0.52 + paint("b.a.").astype(int) * 0.48).astype(np.uint8)
    for name, picture in {"one": paint("ab.c"), "two": paint("c.c."), "three": doubtful, "four": paint("....")}.items():
        cv2.imwrite(str(folder / f"{name}.png"), picture[:, :, ::-1])
    return folder


def labels(path: Path) -> dict[str, str | None]:
    source = open_lines(path)
    return {source.entry(i).key: source.entry(i).text for i in range(len(source))}


@pytest.mark.parametrize("out", ["read.lmdb", "read.zip", "read"])
def test_labelled_crops_are_a_source_of_lines(crops: Path, colour_reader: Path, tmp_path: Path, out: str) -> None:
    assert main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / out)]) == 0
    assert labels(tmp_path / out) == {"one.png": "abc", "three.png": "ab", "two.png": "cc"}


def test_pictures_are_stored_as_they_were(crops: Path, colour_reader: Path, tmp_path: Path) -> None:
    main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / "read.lmdb")])
    source = open_lines(tmp_path / "read.lmdb")
    for entry in map(source.entry, range(len(source))):
        assert bytes(entry.encoded) == (crops / entry.key).read_bytes()


def test_doubtful_lines_are_left_out_and_every_confidence_is_told(
    crops: Path, colour_reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "read.lmdb"
    assert main([str(crops), "--with", str(colour_reader), "--out", str(out), "--min-confidence", "0.9"]) == 0
    assert labels(out) == {"one.png": "abc", "two.png": "cc"}
    assert capsys.readouterr().out == f"{out}: 2 lines labelled; left out: 1 unsure, 1 empty\n"
    rows = [row.split("\t") for row in (tmp_path / "read.lmdb.confidence.tsv").read_text().splitlines()]
    told = {name: (text, float(confidence)) for name, text, confidence in rows}
    assert told["three.png"][0] == "ab"
    assert told["three.png"][1] < 0.9 < told["one.png"][1]
    assert set(told) == {"one.png", "two.png", "three.png", "four.png"}
    result = json.loads((tmp_path / "read.lmdb.run.json").read_text())["result"]
    assert result == {"kept": 2, "unsure": 1, "empty": 1, "broken": 0}


def test_a_table_beside_the_pictures_makes_their_folder_a_source(crops: Path, colour_reader: Path) -> None:
    main([str(crops), "--with", str(colour_reader), "--out", str(crops / "labels.tsv")])
    assert open_lines(crops).texts() == ["abc", "ab", "cc"]
    with pytest.raises(FileExistsError, match=r"labels\.tsv is there already"):
        main([str(crops), "--with", str(colour_reader), "--out", str(crops / "labels.tsv")])


def test_groups_stay_with_their_lines(colour_reader: Path, tmp_path: Path, paint: Callable[[str], Picture]) -> None:
    encoded = [cv2.imencode(".png", paint(text)[:, :, ::-1])[1].tobytes() for text in ("a.", "b.")]
    write_lmdb(
        tmp_path / "grouped.lmdb",
        [Entry(encoded[0], None, "receipts/1.png", group="first"), Entry(encoded[1], "wrong", "receipts/2.png")],
    )
    for out in ("read.lmdb", "read"):
        main([str(tmp_path / "grouped.lmdb"), "--with", str(colour_reader), "--out", str(tmp_path / out)])
        assert labels(tmp_path / out) == {"receipts/1.png": "a", "receipts/2.png": "b"}
        assert open_lines(tmp_path / out).groups() == ["first", None]
    main([str(tmp_path / "grouped.lmdb"), "--with", str(colour_reader), "--out", str(tmp_path / "read.tsv")])
    assert (tmp_path / "read.tsv").read_text() == "receipts/1.png\ta\tfirst\nreceipts/2.png\tb\t\n"


def test_lines_of_an_lmdb_without_keys_keep_the_names_that_hold_them_out(
    colour_reader: Path, tmp_path: Path, paint: Callable[[str], Picture],
    without_keys: Callable[[Path, Picture, int], Path],
) -> None:  # fmt: skip
    theirs = without_keys(tmp_path / "theirs.lmdb", paint("ab.c"), 2)
    main([str(theirs), "--with", str(colour_reader), "--out", str(tmp_path / "read.lmdb")])
    assert labels(tmp_path / "read.lmdb") == {"image-000000001": "abc", "image-000000002": "abc"}


def test_a_picture_that_does_not_decode_is_named_and_left_out(
    crops: Path, colour_reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (crops / "broken.png").write_bytes(b"no picture")
    assert main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / "read.lmdb")]) == 0
    said = capsys.readouterr()
    assert "broken.png does not decode" in said.err
    assert "1 broken" in said.out


def test_what_is_neither_a_model_nor_a_peer_is_told_the_peers(crops: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no model file, nor one of {', '.join(PEERS)}"):
        main([str(crops), "--with", "abbyy", "--out", str(tmp_path / "read.lmdb")])


def test_what_is_labelled_is_not_written_over(crops: Path, colour_reader: Path, tmp_path: Path) -> None:
    assert main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / "read.lmdb")]) == 0
    before = (tmp_path / "read.lmdb/data.mdb").read_bytes()
    for source in (crops, tmp_path / "read.lmdb"):
        with pytest.raises(ValueError, match="is what is read here"):
            main([str(source), "--with", str(colour_reader), "--out", str(source)])
    assert (tmp_path / "read.lmdb/data.mdb").read_bytes() == before


def test_where_no_line_is_sure_enough_nothing_is_written(crops: Path, colour_reader: Path, tmp_path: Path) -> None:
    for out in ("read.lmdb", "read.tsv"):
        with pytest.raises(ValueError, match="no lines"):
            main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / out), "--min-confidence", "1"])
        assert not (tmp_path / out).exists()


def test_a_name_that_tsv_cannot_hold_is_refused_there(
    crops: Path, colour_reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (crops / "one.png").rename(crops / "one\ttab.png")
    with pytest.raises(ValueError, match=r"TSV cannot hold the name 'one\\ttab\.png'; rename the file"):
        main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / "x.tsv")])
    assert main([str(crops), "--with", str(colour_reader), "--out", str(tmp_path / "x.lmdb")]) == 0
    assert "one\\ttab.png\tabc\t" in (tmp_path / "x.lmdb.confidence.tsv").read_text()
