"""Lines written as pictures and labels.tsv, into a folder or a zip, as FolderLines and other programs read them."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from data.importers.tsv import LABELS
from data.lmdb_lines import Entry

SIGNATURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"BM", ".bmp"),
    (b"GIF8", ".gif"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"P4", ".pbm"),
    (b"P1", ".pbm"),
    (b"P5", ".pgm"),
    (b"P2", ".pgm"),
    (b"P6", ".ppm"),
    (b"P3", ".ppm"),
    (b"\0\0\0\x0cjP", ".jp2"),
)


def write_tsv(path: Path, entries: Iterable[Entry]) -> int:
    """Writes the lines, each under its key as the picture's name, and returns their number.

    A path that ends in .zip becomes a zip, else a folder; both are written under a hidden name and moved when whole.
    A third column holds the groups where the first line has one. Lines without label are written only where none has
    one, without labels.tsv. Columns of characters are left out, for TSV has no place for them.
    Raises FileExistsError where path is a folder that is not empty; ValueError naming the line that TSV cannot hold;
    OSError naming path where it cannot be written.
    """
    is_zip = path.suffix.lower() == ".zip"
    if path.is_dir() and (is_zip or any(path.iterdir())):
        raise FileExistsError(f"{path} is a folder that is not empty; choose another --out")
    if not is_zip and path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another --out, or one that ends in .zip or .lmdb")
    part = path.parent / f".{path.name}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        count = _write_zip(part, entries) if is_zip else _write_folder(part, entries)
        if not count:
            raise ValueError(f"there are no lines to write to {path}; check the source")
        os.replace(part, path)
    finally:
        _remove(part)
    return count


def picture_suffix(encoded: bytes, key: str) -> str:
    """The suffix of a picture's format, told from its first bytes; ValueError naming key where it is none known."""
    suffix = next((suffix for signature, suffix in SIGNATURES if encoded.startswith(signature)), None)
    if suffix is None:
        raise ValueError(f"{key} does not begin like a picture ({len(encoded)} bytes); replace or remove it")
    return suffix


def _write_folder(folder: Path, entries: Iterable[Entry]) -> int:
    folder.mkdir()

    def put(name: str, encoded: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded)

    with (folder / LABELS).open("w", encoding="utf-8", newline="\n") as labels:
        count = _write_lines(entries, put, labels)
        empty = not labels.tell()
    if empty:
        (folder / LABELS).unlink()
    return count


def _write_zip(path: Path, entries: Iterable[Entry]) -> int:
    with zipfile.ZipFile(path, "w") as archive, tempfile.TemporaryFile() as rows:

        def put(name: str, encoded: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), encoded)  # with the date 1980: the same lines give the same bytes

        labels = io.TextIOWrapper(rows, encoding="utf-8", newline="\n")
        count = _write_lines(entries, put, labels)
        labels.flush()
        if rows.tell():
            rows.seek(0)
            with archive.open(zipfile.ZipInfo(LABELS), "w", force_zip64=True) as member:
                shutil.copyfileobj(rows, member)
        labels.detach()
    return count


def _write_lines(entries: Iterable[Entry], put: Callable[[str, bytes], None], labels: io.TextIOBase) -> int:
    count, labelled, grouped = 0, False, False
    for count, entry in enumerate(entries, start=1):
        if count == 1:
            labelled, grouped = entry.text is not None, entry.group is not None
        if labelled != (entry.text is not None):
            raise ValueError(
                f"{entry.key} has {'no' if labelled else 'a'} label, unlike the lines before it; TSV holds either "
                "kind alone, so export to an LMDB"
            )
        put(entry.key, entry.encoded)
        if labelled:
            fields = [entry.key, unicodedata.normalize("NFC", entry.text or "")] + [entry.group or ""] * grouped
            _check_fields(fields, entry, grouped)
            labels.write("\t".join(fields) + "\n")
    return count


def _check_fields(fields: list[str], entry: Entry, grouped: bool) -> None:
    if any(mark in field for field in fields for mark in "\t\n\0") or fields[-1].endswith("\r"):
        raise ValueError(f"{entry.key} is labelled {entry.text!r}, which TSV cannot hold; export to an LMDB")
    if entry.group is not None and not grouped:
        raise ValueError(
            f"{entry.key} has the group {entry.group}, and the first line has none, so that TSV has no column for it; "
            "export to an LMDB"
        )


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)
