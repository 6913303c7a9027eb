"""`crnn data export`: any set of lines as pictures with labels.tsv, in a folder or zip, or as an LMDB."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from crnn.commands import parse_options, refuse_writing_over, write_run
from crnn.progress import with_progress
from data.importers.formats import Format, open_set
from data.importers.rows import Label, LineSet, count_names, is_inside
from data.importers.screening import picture_of
from data.lmdb_lines import Entry, write_lmdb
from data.picture_files import is_picture_name
from data.tsv_files import picture_suffix, write_tsv


@dataclass(frozen=True)
class ExportOptions:
    """What `crnn data export` takes."""

    source: tyro.conf.Positional[Path]
    """An LMDB, or any other set that crnn data import takes."""
    out: Path
    """NAME.zip: a zip; NAME.lmdb: an LMDB; anything else: a folder, which must be new or empty."""
    format: Format | None = None
    """Of the source; where not given it is told from what is there, as by crnn data import."""
    unlabelled: bool = False
    """Take every picture and no label."""


def main(argv: list[str]) -> int:
    options = parse_options(
        ExportOptions, argv, "crnn data export", "Write a set of lines as pictures with labels.tsv, or as an LMDB."
    )
    refuse_writing_over(options.out, [options.source])
    lines = open_set(options.source, None, options.format, options.unlabelled)
    total = lines.survey().rows
    if options.out.suffix.lower() == ".lmdb":
        count = write_lmdb(options.out, with_progress(entries_of(lines, options.unlabelled), "exporting", total))
    else:
        entries = named_as_files(entries_of(lines, options.unlabelled), have_file_names(lines))
        count = write_tsv(options.out, with_progress(entries, "exporting", total))
    write_run(options.out, "crnn data export " + shlex.join(argv), options, {"lines": count})
    print(f"{options.out}: {count} lines")
    return 0


def entries_of(lines: LineSet, unlabelled: bool) -> Iterator[Entry]:
    """The rows with their pictures, as they are."""
    for row in lines.rows():
        text, columns = (None, None) if unlabelled else (row.text, row.columns)
        yield Entry(picture_of(row), text, row.name, columns, row.group)


def have_file_names(lines: LineSet) -> bool:
    """Whether every row is called as a picture below a folder can be, and no two the same."""
    if not all(is_picture_name(row.name) and is_inside(row.name) for row in lines.rows()):
        return False
    return count_names(lambda: (Label(row.name, "", row.place) for row in lines.rows()))[1] is None


def named_as_files(entries: Iterator[Entry], keep: bool) -> Iterator[Entry]:
    """The entries under their own names, or numbered in images/ with the suffix of their format."""
    for number, entry in enumerate(entries, start=1):
        name = entry.key if keep else f"images/{number:09d}{picture_suffix(entry.encoded, entry.key)}"
        yield Entry(entry.encoded, entry.text, name, entry.columns, entry.group)
