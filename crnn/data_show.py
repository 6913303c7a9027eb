"""`crnn data show`: a contact sheet of a source of lines, with labels and keys, as PNG or HTML."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import tyro

from crnn.checkpoint import write_atomically
from crnn.commands import refuse_writing_into
from crnn.progress import with_progress
from data.contact_page import contact_page
from data.contact_sheet import contact_sheet
from data.lines import Line, LineSource, StoredLines, line_name, open_lines

T = TypeVar("T")


@dataclass(frozen=True)
class ShowOptions:
    """What `crnn data show` takes. ValueError in one sentence where options contradict each other."""

    source: tyro.conf.Positional[str] = ""
    """An LMDB, a folder or zip of pictures, or synth; left out with --report, the sets that it is about."""
    out: Path = Path("sheet.png")
    """The sheet to write: .png, or .html to filter lines and to mark some of them."""
    count: int = 60
    """Lines on the sheet."""
    seed: int = 0
    """Which lines are drawn, and which texts with synth."""
    first: bool = False
    """The first lines instead of lines drawn at random."""
    keys: Path | None = None
    """A file of keys, one a line: only these lines, up to --count."""
    report: Path | None = None
    """What crnn data check --json printed: only the lines of a finding, up to --count."""
    finding: str | None = None
    """The finding of --report, such as suspicious."""
    columns_drawn: bool = False
    """Mark under each picture where its characters lie, for lines that know it (PNG)."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; give at least 1")
        if self.out.suffix.lower() not in (".png", ".html"):
            raise ValueError(f"--out {self.out} ends in neither .png nor .html; give a name that does")
        if self.columns_drawn and self.out.suffix.lower() != ".png":
            raise ValueError(f"--columns-drawn is for PNG and --out is {self.out}; leave one out")
        if (self.report is None) != (self.finding is None):
            raise ValueError("--report and --finding belong together; give both or none")
        if self.report is not None and self.keys is not None:
            raise ValueError("--report and --keys both choose lines; give one of them")
        if not self.source and self.report is None:
            raise ValueError("no source was given; give an LMDB, a folder, a zip, or synth")
        if self.source == "synth" and (self.report is not None or self.keys is not None):
            raise ValueError("synth is drawn, not stored, so it has no keys; leave --keys and --report out")


class Shown(NamedTuple):
    """note: what the report says of the line."""

    line: Line
    note: str


class Found(NamedTuple):
    """A line that a report names."""

    source: str
    key: str
    detail: str
    label: str | None


def main(argv: list[str]) -> int:
    options = tyro.cli(
        ShowOptions, args=argv, prog="crnn data show", description="Draw a contact sheet of lines, labels and keys."
    )
    refuse_writing_into(options.out, [options.source] if options.source else [], "--out")
    if options.report is not None:
        shown, of = reported(options)
        title = f"{options.finding} in {options.source or options.report}"
    else:
        source, indices, of = chosen(options)
        shown = [Shown(opened(source, i, options.source), "") for i in with_progress(indices, "opening", len(indices))]
        title = options.source
    write_sheet(options, shown, title, f"{len(shown)} {of}")
    print(f"{options.out}: {len(shown)} {of}")
    return 0


def chosen(options: ShowOptions) -> tuple[LineSource, list[int], str]:
    """The source, the lines of it to show, in order, and what they are part of."""
    if options.source == "synth":
        from data.synthesis.source import SynthesisOptions, SynthesisSource

        drawn = SynthesisSource(SynthesisOptions(), options.seed)
        return drawn, list(range(options.count)), f"synthetic lines, seed {options.seed}"
    stored = open_lines(options.source)
    if options.keys is None:
        return stored, some(range(len(stored)), options), f"of {len(stored)} lines"
    try:
        wanted = [row for row in options.keys.read_text(encoding="utf-8-sig").splitlines() if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"{options.keys} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    numbers = numbers_of(stored, wanted, str(options.keys))
    return stored, some(numbers, options), f"of {len(numbers)} lines of {options.keys}"


def reported(options: ShowOptions) -> tuple[list[Shown], str]:
    """The lines of a finding, each with what the report says of it."""
    lines = [found for found in read_report(options) if not options.source or found.source == options.source]
    if not lines:
        raise ValueError(f"{options.report} has no {options.finding} of a line of {options.source or 'any set'}")
    picked = some(lines, options)
    sources = {name: open_lines(name, absent_pictures=True) for name in dict.fromkeys(found.source for found in picked)}
    refuse_writing_into(options.out, sources, "--out")
    numbers = {
        name: dict(zip(keys, numbers_of(source, keys, str(options.report)), strict=True))
        for name, source in sources.items()
        for keys in [[found.key for found in picked if found.source == name]]
    }
    shown = [
        Shown(opened_if_whole(sources[found.source], numbers[found.source][found.key], found), found.detail)
        for found in with_progress(picked, "opening", len(picked))
    ]
    return shown, f"of {len(lines)} {options.finding}"


def read_report(options: ShowOptions) -> list[Found]:
    """The lines of the finding; ValueError where the file is no report, or has no such finding."""
    assert options.report is not None
    try:
        findings = json.loads(options.report.read_text(encoding="utf-8"))["findings"]
        known = {
            kind: [
                Found(line["source"], line["key"], line["detail"], line["label"])
                for line in found["lines"]
                if line["key"]
            ]
            for kind, found in findings.items()
        }
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{options.report} is no report ({error!r}); give what crnn data check --json printed"
        ) from error
    if options.finding not in known:
        raise ValueError(f"{options.report} has no finding {options.finding!r}; it has {', '.join(known) or 'none'}")
    return known[options.finding]


def numbers_of(source: StoredLines, keys: Sequence[str], origin: str) -> list[int]:
    """Where these keys are, with the path of their source or without it; ValueError for one that is not there."""
    places = {line_name(key, source.path): number for number, key in enumerate(source.keys())}
    names = [line_name(key, source.path) for key in keys]
    missing = next((key for key, name in zip(keys, names, strict=True) if name not in places), None)
    if missing is not None:
        raise ValueError(f"{origin} names {missing!r}, which is not in {source.path}; give keys of its lines")
    return [places[name] for name in names]


def some(lines: Sequence[T], options: ShowOptions) -> list[T]:
    """At most --count of them, in their order."""
    if options.first or len(lines) <= options.count:
        return list(lines[: options.count])
    return [lines[i] for i in sorted(random.Random(options.seed).sample(range(len(lines)), options.count))]


def opened(source: LineSource, index: int, path: str) -> Line:
    """The line, its key without the source's path, which the title tells."""
    line = source[index]
    return replace(line, key=line.key.removeprefix(f"{path}/").removesuffix(f" of {path}"))


def opened_if_whole(source: LineSource, index: int, found: Found) -> Line:
    """The line of a finding; where its picture cannot be read, a crossed square stands for it."""
    try:
        return opened(source, index, found.source)
    except (OSError, ValueError):
        crossed = np.full((32, 32, 3), 235, np.uint8)
        for ends in (((4, 4), (27, 27)), ((4, 27), (27, 4))):
            cv2.line(crossed, *ends, (200, 30, 30), 2, cv2.LINE_AA)
        return Line(crossed, found.label, found.key)


def write_sheet(options: ShowOptions, shown: Sequence[Shown], title: str, subtitle: str) -> None:
    if options.out.suffix.lower() == ".html":
        page = contact_page([s.line for s in shown], [s.note for s in shown], title, subtitle)
        encoded = page.encode(errors="backslashreplace")  # a file's name need not be UTF-8
        write_atomically(options.out, lambda file: file.write(encoded) and None)
        return
    lines = [replace(line, key=f"{line.key}  {note}" if note else line.key) for line, note in shown]
    sheet = contact_sheet(lines, title, subtitle, options.columns_drawn)
    encoded = cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes()
    write_atomically(options.out, lambda file: file.write(encoded) and None)
