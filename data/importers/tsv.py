"""Labels in a TSV file: one `picture<TAB>text` a line, or `picture<TAB>text<TAB>group`, UTF-8."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

from data.importers.rows import Label, LabelsAt, name_inside, text_lines

LABELS = "labels.tsv"


class LabelFile(NamedTuple):
    """labels: picture name -> text as it is written, in the order of the file. groups: of those that have one."""

    labels: dict[str, str]
    groups: dict[str, str]


def parse_label_file(content: bytes, origin: str) -> LabelFile:
    """What a label file says; ValueError as by tsv_labels, and where a name comes twice."""
    labels: dict[str, str] = {}
    groups: dict[str, str] = {}
    for name, text, place, group in tsv_labels(LabelsAt(origin, lambda: io.BytesIO(content))):
        name = name_inside(name, place)
        if name in labels:
            raise ValueError(f"{place} labels {name} a second time; keep one of the two")
        labels[name] = text
        if group is not None:
            groups[name] = group
    return LabelFile(labels, groups)


def tsv_labels(file: LabelsAt) -> Iterator[Label]:
    """The labels one by one; a byte order mark and CRLF are fine.

    The first row tells whether there is a column of groups; the group of a row may be left empty.
    Raises ValueError naming origin and the line where the number of tabs is another, or the bytes are not UTF-8.
    """
    tabs = 0
    for number, row in text_lines(file):
        place = f"line {number} of {file.origin}"
        name, *fields = row.split("\t")
        tabs = tabs or min(max(len(fields), 1), 2)
        if len(fields) != tabs:
            form = "picture<TAB>text" + ("<TAB>group" if tabs == 2 else "")
            raise ValueError(f"{place} has {len(fields)} tabs ({row[:60]!r}); write {form}")
        yield Label(name, fields[0], place, (fields[1] or None) if tabs == 2 else None)
