"""`crnn data import`: labelled pictures in a folder or a zip become an LMDB."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from crnn.charset import Case, Charset, normalise
from crnn.commands import parse_options, write_run
from crnn.progress import with_progress
from data.importers.screening import Screening, screened
from data.importers.tsv import LABELS, parse_labels, tsv_entries
from data.lines import is_held_out
from data.lmdb_lines import LmdbWriter
from data.picture_files import PictureFiles


@dataclass(frozen=True)
class ImportOptions:
    """What `crnn data import` takes. ValueError in one sentence where options contradict each other."""

    out: Path
    """The LMDB folder to write; one that is there is replaced once the new one is whole."""
    source: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder or zip that holds labels.tsv and the pictures it names."""
    labels: Path | None = None
    """Labels elsewhere: a UTF-8 file with one picture<TAB>text a line, names relative to --pictures."""
    pictures: Path | None = None
    """Folder or zip of the pictures; with --labels alone, the folder of the labels."""
    unlabelled: bool = False
    """Take every picture and no label, for distilling from pictures alone."""
    charset: str | None = None
    """Characters a label may hold: a name (ascii, digits, ...), a UTF-8 file, or chars:... ; any where not given."""
    case: Case = "keep"
    """Case of the stored labels; upper or lower for sets labelled in one case whatever the print."""
    drop_outside_charset: bool = False
    """Leave out and count lines whose label the charset does not hold, instead of stopping at the first."""
    drop_bad: bool = False
    """Leave out and count lines without label or with a broken picture, instead of stopping at the first."""
    validation: float = 0.0
    """Share of lines, drawn by a hash of the picture's name, that goes to a second LMDB."""
    validation_out: Path | None = None
    """The second LMDB; NAME.validation.lmdb beside --out where not given."""
    json: bool = False
    """Print the counts as JSON."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ValueError(f"--validation is {self.validation}; give a share from 0 to below 1")
        if self.source is not None and (self.labels is not None or self.pictures is not None):
            raise ValueError(f"{self.source} is given beside --labels or --pictures; give one or the other")
        if self.source is None and self.labels is None and self.pictures is None:
            raise ValueError(f"no pictures were given; give a folder or zip with {LABELS}, or --labels and --pictures")
        if self.unlabelled and (self.labels is not None or self.charset is not None):
            raise ValueError("--unlabelled stores no labels; leave out --labels and --charset")
        if self.validation and self.held_out_path == self.out:
            raise ValueError(f"--validation-out is {self.out} like --out; give another path")

    @property
    def held_out_path(self) -> Path:
        return self.validation_out or self.out.with_name(f"{self.out.stem}.validation{self.out.suffix or '.lmdb'}")


def main(argv: list[str]) -> int:
    options = parse_options(
        ImportOptions, argv, "crnn data import", "Store labelled pictures of a folder or zip in an LMDB."
    )
    files, labels = find_pictures(options)
    screening = screening_of(options)
    dropped: Counter[str] = Counter()
    characters: set[str] = set()
    with ExitStack() as stack:
        kept = stack.enter_context(LmdbWriter(options.out))
        held = stack.enter_context(LmdbWriter(options.held_out_path)) if options.validation else kept
        entries = with_progress(tsv_entries(files, labels), "importing", len(labels))
        for entry in screened(entries, screening, dropped, str(files.path)):
            (held if is_held_out(entry.key, options.validation) else kept).add(entry)
            characters.update(entry.text or "")
    written = {str(writer.path): writer.lines for writer in (kept, held)}
    ordered = "".join(sorted(characters))
    result = {"written": written, "left_out": dict(dropped), "characters": ordered}
    write_run(options.out, "crnn data import " + shlex.join(argv), options, result)
    print(json.dumps(result, ensure_ascii=False) if options.json else report(written, dropped, ordered))
    return 0


def find_pictures(options: ImportOptions) -> tuple[PictureFiles, Mapping[str, str | None]]:
    """The files, and a label (None with --unlabelled) for each picture to import."""
    place = options.source or options.pictures or Path(options.labels or ".").parent
    files = PictureFiles(place)
    if options.unlabelled:
        labels: Mapping[str, str | None] = dict.fromkeys(files.pictures())
    elif options.labels is not None:
        labels = parse_labels(options.labels.read_bytes(), str(options.labels))
    elif LABELS in files.names():
        labels = parse_labels(files.read(LABELS), files.key(LABELS))
    else:
        raise ValueError(f"{place} holds no {LABELS}; add it, give --labels, or import without labels by --unlabelled")
    if not labels:
        raise ValueError(f"{options.labels or place} names no picture; give pictures and their labels")
    return files, labels


def screening_of(options: ImportOptions) -> Screening:
    charset = Charset.from_spec(options.charset, options.case) if options.charset is not None else None
    return Screening(
        normalise=partial(normalise, case=options.case),
        outside=charset.missing if charset is not None else None,
        unlabelled=options.unlabelled,
        drop_bad=options.drop_bad,
        drop_outside_charset=options.drop_outside_charset,
    )


def report(written: Mapping[str, int], dropped: Counter[str], characters: str) -> str:
    """What was written and what was left out."""
    rows = [f"{path}: {lines} lines" for path, lines in written.items()]
    rows += [f"left out: {count} with {reason}" for reason, count in sorted(dropped.items())]
    rows += [f"{len(characters)} characters: {characters}"] if characters else []
    return "\n".join(rows)
