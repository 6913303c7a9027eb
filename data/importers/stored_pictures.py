"""Sets that hold their pictures themselves: an LMDB of the field, and parquet files as Hugging Face writes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from data.importers.rows import Row, Survey
from data.lmdb_lines import LmdbLines

BATCH_ROWS = 64
TEXT_COLUMNS = ("text", "label")
SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class LmdbSet:
    """The lines of an LMDB in the keys of deep-text-recognition-benchmark, which are ours; see LmdbLines."""

    path: Path

    @property
    def origin(self) -> str:
        return str(self.path)

    @cached_property
    def lines(self) -> LmdbLines:
        return LmdbLines(self.path)

    def survey(self) -> Survey:
        if not len(self.lines):
            raise ValueError(f"{self.path} is an LMDB of no lines; give one that holds some")
        return Survey(len(self.lines), _stamp(self.path / "data.mdb" if self.path.is_dir() else self.path))

    def rows(self) -> Iterator[Row]:
        for index in range(len(self.lines)):
            entry = self.lines.entry(index)
            name = entry.key.removesuffix(f" of {self.path}")  # where it has no key: the number alone
            yield Row(name, entry.text, "", partial(_given, entry.encoded), entry.columns, entry.group)


@dataclass(frozen=True)
class ParquetSet:
    """The rows of parquet files: `image` of bytes, or of a struct with `bytes`; `text` or `label`.

    ValueError in one sentence where pyarrow is missing, a file is cut off, or its columns are others. A name is the
    file and the number of the row, for the paths within need not differ.
    """

    paths: tuple[Path, ...]

    @property
    def origin(self) -> str:
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    def survey(self) -> Survey:
        counts = [_opened(path)[0].metadata.num_rows for path in self.paths]
        if not sum(counts):
            raise ValueError(f"{self.origin} holds no rows; give pictures and their labels")
        stamps = "\n".join(f"{path.name} {_stamp(path)}" for path in self.paths)
        return Survey(sum(counts), hashlib.sha256(stamps.encode()).hexdigest())

    def rows(self) -> Iterator[Row]:
        for path in self.paths:
            file, text_column = _opened(path)
            number = 0
            for batch in _batches(path, file, text_column):
                texts = batch.column(text_column).to_pylist()
                for i, picture in enumerate(batch.column("image")):
                    number += 1
                    place = f"row {number} of {path}"
                    yield Row(f"{path.name}/{number:09d}", texts[i], place, partial(_picture, picture))


def parquet_files(folder: Path) -> tuple[Path, ...]:
    """The parquet files at the top of a folder; ValueError where they are of several splits, as train and test."""
    paths = tuple(sorted(folder.glob("*.parquet")))
    splits = sorted({SHARD.sub("", path.stem) for path in paths})
    if len(splits) > 1:
        raise ValueError(
            f"{folder} holds several parquet files ({', '.join(splits)}), which may be training and test; "
            "give one of them, or the shards of one in a folder of their own"
        )
    return paths


def _opened(path: Path) -> tuple[Any, str]:
    """The file, and the name of its column of texts."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(f"{path} is read with pyarrow, which is not installed; pip install pyarrow") from error
    file = _whole(path, lambda: parquet.ParquetFile(path))
    types = {field.name: str(field.type) for field in file.schema_arrow}
    texts = [name for name in TEXT_COLUMNS if types.get(name) in ("string", "large_string", "string_view")]
    image = types.get("image", "")
    if not texts or not (image in ("binary", "large_binary") or (image.startswith("struct<") and "bytes: " in image)):
        columns = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise ValueError(
            f"{path} has the columns {columns}; give one with an image of bytes and a string named "
            f"{' or '.join(TEXT_COLUMNS)}"
        )
    return file, texts[0]


def _batches(path: Path, file: Any, text_column: str) -> Iterator[Any]:
    batches = file.iter_batches(BATCH_ROWS, columns=["image", text_column])
    while (batch := _whole(path, lambda: next(batches, None))) is not None:
        yield batch


def _whole(path: Path, read: Callable[[], Any]) -> Any:
    """What read gives; ValueError naming path where the file is damaged."""
    arrow = import_module("pyarrow")
    try:
        return read()
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a whole parquet file ({reason}); copy it again") from error


def _picture(value: Any) -> bytes:
    stored = value.as_py()
    if isinstance(stored, dict):
        path, stored = stored.get("path"), stored["bytes"]
        if stored is None and path:
            raise FileNotFoundError(f"it names {path} and holds no bytes; store the pictures themselves")
    if stored is None:
        raise FileNotFoundError("it holds no picture; add one, or remove the row")
    return bytes(stored)


def _given(encoded: bytes) -> bytes:
    return encoded


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
