"""Parquet files with the bytes of pictures, as Hugging Face writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from data.importers.formats import open_set
from data.lines import Picture

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def encoded(draw_word: Callable[[str], Picture]) -> bytes:
    return cv2.imencode(".png", draw_word("word"))[1].tobytes()


def structs(values: list[bytes | None]) -> Any:
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    return arrow.array([{"bytes": value, "path": "crop.png"} for value in values], kind)


def written(path: Path, **columns: Any) -> Path:
    parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


def test_a_struct_of_bytes_and_path_or_bare_bytes_are_read(tmp_path: Path, encoded: bytes) -> None:
    texts = ["a", "b", "c"]
    as_struct = written(tmp_path / "s.parquet", image=structs([encoded] * 3), text=texts)
    as_bytes = written(tmp_path / "b.parquet", label=texts, image=[encoded] * 3, other=[1, 2, 3])
    for path in (as_struct, as_bytes):
        lines = open_set(path)
        rows = list(lines.rows())
        assert lines.survey().rows == 3
        assert [row.text for row in rows] == texts
        assert [row.read() for row in rows] == [encoded] * 3
        assert rows[2].name == f"{path.name}/000000003"


def test_the_shards_of_one_split_are_one_set_and_several_splits_are_refused(tmp_path: Path, encoded: bytes) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        written(tmp_path / f"{name}.parquet", image=structs([encoded] * 2), text=[name, "x"])
    texts = [row.text for row in open_set(tmp_path).rows()]
    assert texts == ["train-00000-of-00002", "x", "train-00001-of-00002", "x"]
    written(tmp_path / "test-00000-of-00001.parquet", image=structs([encoded]), text=["x"])
    with pytest.raises(ValueError, match=r"several parquet files \(test, train\), which may be training and test"):
        open_set(tmp_path)


def test_a_row_without_bytes_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "s.parquet", image=structs([None]), text=["a"])
    (row,) = open_set(path).rows()
    assert row.place == f"row 1 of {path}"
    with pytest.raises(FileNotFoundError, match=r"it names crop\.png and holds no bytes"):
        row.read()


def test_other_columns_are_refused_with_those_that_are_there(tmp_path: Path, encoded: bytes) -> None:
    for columns in ({"image": [encoded], "label": [1]}, {"picture": [encoded], "text": ["a"]}):
        path = written(tmp_path / "s.parquet", **columns)
        with pytest.raises(ValueError, match=r"s\.parquet has the columns \w+ \(\w+\), \w+ \(\w+\); give one with"):
            open_set(path).survey()


def test_a_file_that_was_cut_off_or_damaged_is_refused(tmp_path: Path, encoded: bytes) -> None:
    content = written(tmp_path / "s.parquet", image=[encoded] * 100, text=["a"] * 100).read_bytes()
    (tmp_path / "s.parquet").write_bytes(content[:-50])
    with pytest.raises(ValueError, match=r"s\.parquet is not a whole parquet file \(.*\); copy it again"):
        open_set(tmp_path / "s.parquet").survey()
    (tmp_path / "s.parquet").write_bytes(content[:4] + b"\xff" * 200 + content[204:])
    with pytest.raises(ValueError, match=r"s\.parquet is not a whole parquet file"):
        list(open_set(tmp_path / "s.parquet").rows())


def test_without_pyarrow_the_sentence_says_what_to_install(
    tmp_path: Path, encoded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "s.parquet", image=[encoded], text=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        ValueError, match=r"s\.parquet is read with pyarrow, which is not installed; pip install pyarrow"
    ):
        open_set(path).survey()


def test_without_rows_there_is_nothing_to_import(tmp_path: Path) -> None:
    path = written(tmp_path / "s.parquet", image=structs([]), text=arrow.array([], arrow.string()))
    with pytest.raises(ValueError, match=r"s\.parquet holds no rows"):
        open_set(path).survey()
