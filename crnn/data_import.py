"""`crnn data import`: labelled pictures in the formats of other programs become an LMDB."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from crnn.charset import Case, Charset, normalise
from crnn.commands import parse_options, refuse_writing_over, write_run
from crnn.progress import with_progress
from data.importers.formats import Format, open_set
from data.importers.rows import LineSet
from data.importers.screening import Screening, screened
from data.lines import group_of, is_held_out, split_name
from data.lmdb_lines import Entry, LmdbWriter


@dataclass(frozen=True)
class ImportOptions:
    """What `crnn data import` takes. ValueError in one sentence where options contradict each other."""

    out: Path
    """The LMDB folder to write; one that is there is replaced once the new one is whole."""
    source: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder or zip of pictures with their labels, a label file, an LMDB, or parquet."""
    format: Format | None = None
    """Of the labels; where not given it is told from what is there, by the rules of docs/data.md."""
    labels: Path | None = None
    """Label file elsewhere; the names in it are relative to --pictures."""
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
    """Leave out and count lines without label or with a broken or missing picture, instead of stopping at the first."""
    validation: float = 0.0
    """Share of lines, drawn by a hash of the picture's name or of its group, that goes to a second LMDB."""
    validation_out: Path | None = None
    """The second LMDB; NAME.validation.lmdb beside --out where not given."""
    group_by: str | None = None
    """Regular expression that finds a line's group (a receipt, page or writer) in its picture's name: its first
    bracket, or all it matches. No group is in both LMDBs. Groups that the source knows are kept where this is not given
    or ''."""
    json: bool = False
    """Print the counts as JSON."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ValueError(f"--validation is {self.validation}; give a share from 0 to below 1")
        if self.source is not None and (self.labels is not None or self.pictures is not None):
            raise ValueError(f"{self.source} is given beside --labels or --pictures; give one or the other")
        if self.source is None and self.labels is None and self.pictures is None:
            raise ValueError("no pictures were given; give a folder, zip or label file, or --labels and --pictures")
        if self.unlabelled and (self.labels is not None or self.charset is not None):
            raise ValueError("--unlabelled stores no labels; leave out --labels and --charset")
        if self.validation and self.held_out_path == self.out:
            raise ValueError(f"--validation-out is {self.out} like --out; give another path")

    @property
    def held_out_path(self) -> Path:
        return self.validation_out or self.out.with_name(f"{self.out.stem}.validation{self.out.suffix or '.lmdb'}")


def main(argv: list[str]) -> int:
    options = parse_options(
        ImportOptions, argv, "crnn data import", "Store labelled pictures of other programs' formats in an LMDB."
    )
    given = [place for place in (options.source, options.labels, options.pictures) if place is not None]
    refuse_writing_over(options.out, given)
    if options.validation:
        refuse_writing_over(options.held_out_path, given, "--validation-out")
    lines = find_lines(options)
    screening = screening_of(options)
    survey = lines.survey()
    if options.validation:
        refuse_empty_side(lines, options)
    with ExitStack() as stack:
        kept, held = open_writers(options, made_of(options, survey.digest), stack)
        done = Progress.from_note(kept.note)
        if done.rows:
            print(f"crnn data import: going on after {done.rows} lines of an import that was cut off", file=sys.stderr)
        if not kept.complete:
            rows = islice(lines.rows(), done.rows, None)
            entries = grouped(screened(rows, screening, done.left_out, lines.origin), options.group_by, lines.origin)
            store(with_progress(entries, "importing", survey.rows - done.rows), kept, held, done, options)
    written = {str(options.out): kept.lines} | ({str(options.held_out_path): done.held} if options.validation else {})
    ordered = "".join(sorted(done.characters))
    result = {"written": written, "left_out": dict(done.left_out), "characters": ordered}
    write_run(options.out, "crnn data import " + shlex.join(argv), options, result)
    print(json.dumps(result, ensure_ascii=False) if options.json else report(written, done.left_out, ordered))
    return 0


def find_lines(options: ImportOptions) -> LineSet:
    """The set that the options name."""
    place = options.source or options.labels or options.pictures
    assert place is not None  # one of them is given, or there were no options
    pictures = options.pictures if options.labels is not None else None
    return open_set(place, pictures, options.format, options.unlabelled)


def refuse_empty_side(lines: LineSet, options: ImportOptions) -> None:
    """ValueError where --validation leaves one of the two LMDBs without a line; no picture is read."""
    sides: set[bool] = set()
    groups: set[str | None] = set()
    for row in lines.rows():
        group = group_of(row.name, options.group_by, lines.origin) if options.group_by else row.group
        groups.add(group)
        sides.add(is_held_out(split_name(row.name, group), options.validation))
        if len(sides) == 2:
            return
    if sides:
        whole = "" if groups == {None} else f", whose groups ({len(groups)}) stay whole"
        raise ValueError(
            f"--validation {options.validation} holds out {'every' if True in sides else 'no'} line of "
            f"{lines.origin}{whole}; give another share, or a --group-by that finds other groups"
        )


def screening_of(options: ImportOptions) -> Screening:
    charset = Charset.from_spec(options.charset, options.case) if options.charset is not None else None
    return Screening(
        normalise=partial(normalise, case=options.case),
        outside=charset.missing if charset is not None else None,
        unlabelled=options.unlabelled,
        drop_bad=options.drop_bad,
        drop_outside_charset=options.drop_outside_charset,
    )


def made_of(options: ImportOptions, digest: str) -> str:
    """What two imports must share for one to go on where the other was cut off."""
    fields = dataclasses.asdict(options)
    fields.pop("json")
    for name in ("source", "labels", "pictures", "out", "validation_out"):
        fields[name] = fields[name] and str(fields[name].resolve())
    if options.charset is not None:  # a file's content may have changed
        fields["charset"] = Charset.from_spec(options.charset, options.case).characters
    return hashlib.sha256(json.dumps([fields, digest], sort_keys=True).encode()).hexdigest()


@dataclass
class Progress:
    """How far an import is: rows taken from the source, lines held out, rows left out by reason, characters met."""

    rows: int = 0
    held: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    characters: set[str] = field(default_factory=set)

    def note(self) -> str:
        fields = {"rows": self.rows, "held": self.held, "left_out": self.left_out}
        return json.dumps(fields | {"characters": "".join(sorted(self.characters))})

    @classmethod
    def from_note(cls, note: str) -> Progress:
        """Of the note of an interrupted writer; the beginning where it is empty."""
        if not note:
            return cls()
        fields = json.loads(note)
        return cls(fields["rows"], fields["held"], Counter(fields["left_out"]), set(fields["characters"]))


def open_writers(options: ImportOptions, made_of: str, stack: ExitStack) -> tuple[LmdbWriter, LmdbWriter | None]:
    """Of the kept lines and, with --validation, of those held out; both begin where an interrupted import got to."""
    kept = stack.enter_context(LmdbWriter(options.out, made_of=made_of))
    if not options.validation:
        return kept, None
    held = LmdbWriter(options.held_out_path, made_of=made_of)
    if kept.complete and not held.interrupted:  # cut off between the two moves into place
        held.discard()
        return kept, None
    stack.enter_context(held)
    held.rewind(Progress.from_note(kept.note).held)
    return kept, held


def grouped(entries: Iterable[Entry | None], pattern: str | None, origin: str) -> Iterator[Entry | None]:
    """The entries with the groups that the pattern finds in their names; as they are where there is no pattern."""
    for entry in entries:
        if entry is None or not pattern:
            yield entry
        else:
            yield dataclasses.replace(entry, group=group_of(entry.key, pattern, origin))


def store(
    entries: Iterable[Entry | None], kept: LmdbWriter, held: LmdbWriter | None, done: Progress, options: ImportOptions
) -> None:
    """Writes the entries, and with each transaction how far the import is.

    The held-out lines are committed first, so that what the note of the kept ones says of them is there.
    """
    for entry in entries:
        done.rows += 1
        if entry is None:
            continue
        name = split_name(entry.key, entry.group)
        (held if held is not None and is_held_out(name, options.validation) else kept).add(entry)
        done.characters.update(entry.text or "")
        if kept.full or (held is not None and held.full):
            if held is not None:
                held.commit()
                done.held = held.lines
            kept.commit(done.note())
    if held is not None:
        held.finish()
        done.held = held.lines
    kept.finish(done.note())


def report(written: Mapping[str, int], dropped: Counter[str], characters: str) -> str:
    """What was written and what was left out."""
    rows = [f"{path}: {lines} lines" for path, lines in written.items()]
    rows += [f"left out: {count} with {reason}" for reason, count in sorted(dropped.items())]
    rows += [f"{len(characters)} characters: {characters}"] if characters else []
    return "\n".join(rows)
