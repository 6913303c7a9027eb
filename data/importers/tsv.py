"""Labels in a TSV file: one `picture<TAB>text` a line, UTF-8."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

from data.lmdb_lines import Entry
from data.picture_files import PictureFiles

LABELS = "labels.tsv"


def parse_labels(content: bytes, origin: str) -> dict[str, str]:
    """Picture name -> text in NFC, in the order of the file; a byte order mark and CRLF are fine.

    Raises ValueError naming origin and the line where there is not exactly one tab, a name comes twice, or the bytes
    are not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} of {origin} is not UTF-8; save the file as UTF-8") from error
    labels: dict[str, str] = {}
    # Not splitlines(): a label may hold characters that Unicode counts as line breaks.
    for number, row in enumerate(text.split("\n"), start=1):
        row = row.removesuffix("\r")
        if not row:
            continue
        name, tab, label = row.partition("\t")
        if not tab or "\t" in label:
            raise ValueError(
                f"line {number} of {origin} has {row.count(chr(9))} tabs ({row[:60]!r}); write picture<TAB>text"
            )
        if name in labels:
            raise ValueError(f"line {number} of {origin} labels {name} a second time; keep one of the two")
        labels[name] = unicodedata.normalize("NFC", label)
    return labels


def tsv_entries(files: PictureFiles, labels: Mapping[str, str | None]) -> Iterator[Entry]:
    """The labelled pictures in the order of labels; FileNotFoundError where one is not among the files."""
    for name, text in labels.items():
        yield Entry(files.read(name), text, name)
