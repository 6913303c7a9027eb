"""Which format a set is in: said by the user, or told from what is there by the rules of open_set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from data.importers.icdar import LINE, icdar_labels
from data.importers.json_labels import NAME_KEYS, doctr_labels, jsonl_labels, mmocr_labels
from data.importers.rows import (
    TEXT_SUFFIX,
    Label,
    LabelledPictures,
    LabelsAt,
    LineSet,
    TextBesidePictures,
    UnlabelledPictures,
    name_inside,
)
from data.importers.stored_pictures import LmdbSet, ParquetSet, parquet_files
from data.importers.tsv import LABELS, tsv_labels
from data.picture_files import PictureFiles

Format = Literal["tsv", "icdar", "mmocr", "jsonl", "doctr", "gt-files", "lmdb", "parquet"]
"""tsv is PaddleOCR's too; jsonl MMOCR's and Hugging Face's; gt-files kraken's and ocropus'; lmdb is the field's."""

LABEL_READERS: dict[str, Callable[[LabelsAt], Iterator[Label]]] = {
    "tsv": tsv_labels,
    "icdar": icdar_labels,
    "mmocr": mmocr_labels,
    "jsonl": jsonl_labels,
    "doctr": doctr_labels,
}
KNOWN_LABELS = (LABELS, "labels.json", "gt.txt")
LABEL_SUFFIXES = (".tsv", ".txt", ".json", ".jsonl")
HEAD = 1 << 16
FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")')
DOCTR_PICTURES = "images/"


def open_set(
    source: Path, pictures: Path | None = None, format: Format | None = None, unlabelled: bool = False
) -> LineSet:
    """The set at source: a folder, a zip, a label file, an LMDB or a parquet file.

    pictures: folder or zip that a label file's names are relative to, where it is not the file's own folder.
    format: where not given it is told by these rules, of which the first that holds is taken.
        A folder with data.mdb, or a file that begins like one, is an LMDB; a file that begins with PAR1 is parquet.
        A folder or zip has at its top labels.tsv, labels.json or gt.txt, which is its label file; or holds texts named
        *.gt.txt at any depth; or (folders) parquet files at its top; or one other file at its top that ends in .tsv,
        .txt, .json or .jsonl, which is its label file. Several such are refused.
        The format of a label file is told from its beginning, see label_format.
    unlabelled: every picture of a folder or zip, whatever label files there are.
    Raises FileNotFoundError or ValueError in one sentence where nothing fits.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a folder, a zip, a label file, an LMDB or parquet")
    stored = format if format in ("lmdb", "parquet") else None if format else _stored_format(source)
    if stored == "lmdb":
        return LmdbSet(source)
    if stored == "parquet":
        return ParquetSet(_parquet_paths(source))
    if source.is_file() and not _is_zip(source):
        if format == "gt-files":
            raise ValueError(f"{source} is a file; --format gt-files takes a folder or zip of a.png and a{TEXT_SUFFIX}")
        file = LabelsAt(str(source), lambda: source.open("rb"))
        return _labelled(PictureFiles(pictures or source.parent), file, format)
    files = PictureFiles(source)
    if unlabelled:
        return UnlabelledPictures(files)
    if format == "gt-files":
        return TextBesidePictures(files)
    name = next((name for name in KNOWN_LABELS if files.has(name)), "")
    if not name and format is None:
        if any(name.endswith(TEXT_SUFFIX) for name in files.walk()):
            return TextBesidePictures(files)
        if source.is_dir() and (paths := parquet_files(source)):
            return ParquetSet(paths)
    name = name or _only_label_file(files)
    return _labelled(files, LabelsAt(files.key(name), partial(files.opened, name)), format)


def label_format(file: LabelsAt) -> Format:
    """Of a label file, told from its beginning: JSON where it opens with a brace, else by its first line with text.

    JSON is jsonl where the first line is an object with the name of a picture, mmocr where the first key is data_list
    or metainfo, else doctr. A line with a tab is tsv, one of the form `picture, "text"` icdar.
    Raises ValueError naming the line where it is none of these.
    """
    with file.open() as content:
        head = content.read(HEAD).decode("utf-8", "replace").removeprefix("\ufeff")
    if head.lstrip().startswith("{"):
        return _json_format(head.lstrip())
    lines = head.split("\n")
    number, line = next(((n, line) for n, line in enumerate(lines, start=1) if line.strip()), (1, ""))
    if "\t" in line:
        return "tsv"
    if LINE.fullmatch(line.removesuffix("\r")):
        return "icdar"
    raise ValueError(
        f'line {number} of {file.origin} is {line[:60]!r}, neither picture<TAB>text nor picture, "text" nor JSON; '
        "correct it, or say the format with --format"
    )


def _json_format(head: str) -> Format:
    try:
        first = json.loads(head.partition("\n")[0])
    except (json.JSONDecodeError, RecursionError):
        first = None
    if isinstance(first, dict) and any(key in first for key in NAME_KEYS):
        return "jsonl"
    match = FIRST_KEY.match(head)
    if match and match[1].strip('"') in ("data_list", "metainfo"):
        return "mmocr"
    return "doctr"


def _labelled(files: PictureFiles, file: LabelsAt, format: Format | None) -> LabelledPictures:
    format = format or label_format(file)
    reader = LABEL_READERS[format]
    below = DOCTR_PICTURES if format == "doctr" and _is_below_images(files, next(reader(file), None)) else ""
    return LabelledPictures(files, file, reader, below)


def _is_below_images(files: PictureFiles, first: Label | None) -> bool:
    """Whether names are relative to images/, which docTR is given beside labels.json."""
    return first is not None and files.has(DOCTR_PICTURES + name_inside(first.name, first.place))


def _stored_format(source: Path) -> Format | None:
    if source.is_dir():
        return "lmdb" if (source / "data.mdb").exists() else None
    with source.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"PAR1"):
        return "parquet"
    return "lmdb" if head[16:20] == (0xBEEFC0DE).to_bytes(4, "little") else None


def _is_zip(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or source.suffix.lower() == ".zip"


def _parquet_paths(source: Path) -> tuple[Path, ...]:
    if source.is_file():
        return (source,)
    paths = parquet_files(source)
    if not paths:
        raise ValueError(f"{source} holds no parquet file at its top; give the file, or the folder it lies in")
    return paths


def _only_label_file(files: PictureFiles) -> str:
    """The one file at the top that may hold labels; ValueError where there are none or several."""
    found = [name for name in files.walk() if "/" not in name and name.lower().endswith(LABEL_SUFFIXES)]
    deeper = next((name for name in files.walk() if name.endswith("/" + LABELS)), None)
    if not found and deeper is not None:
        raise ValueError(
            f"{files.path} holds {deeper}, and {LABELS} must lie at its top; give the folder that it lies in"
        )
    if not found:
        raise ValueError(
            f"{files.path} holds no {LABELS}; add it, give --labels, or import without labels by --unlabelled"
        )
    if len(found) > 1:
        raise ValueError(f"{files.path} holds {', '.join(found)}; say by --labels which of them names the pictures")
    return found[0]
