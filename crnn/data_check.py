"""`crnn data check`: what is wrong with sets of lines, each finding with its key; on request the set without it."""

from __future__ import annotations

import json
import shlex
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import accumulate
from math import exp
from pathlib import Path
from typing import Annotated, Any

import tyro

from crnn.charset import Case, Charset, normalise
from crnn.checkpoint import write_atomically
from crnn.commands import parse_options, refuse_writing_over, sentence, write_run
from crnn.progress import with_progress
from crnn.recogniser import Recogniser, load
from data.check import KINDS, Finding, Rules, Tally, named, pair_kind
from data.duplicates import Prints
from data.lines import Picture, StoredLines, line_name, open_lines
from data.lmdb_lines import Entry, LmdbWriter
from data.picture import decode_whole

WINDOW = 256
"""Lines that are open together while a model reads them."""


@dataclass(frozen=True)
class CheckOptions:
    """What `crnn data check` takes. ValueError in one sentence where options contradict each other."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """LMDBs, folders or zips; they are checked as one set."""
    against: tuple[str, ...] = ()
    """Sets that should share no picture with these, such as the test sets: what is in both is an error here."""
    charset: str | None = None
    """Characters a label may hold: a name (ascii, digits, ...), a UTF-8 file, or chars:... ; any where not given."""
    case: Case = "keep"
    """Case in which labels will be learnt."""
    model: Annotated[Path | None, tyro.conf.arg(name="with")] = None
    """A model file that reads every line: where it is sure of another text the label is suspicious."""
    odds: float = 20.0
    """Least factor, for each character that differs, by which the model holds its reading for more probable."""
    count_as_error: tuple[str, ...] = ()
    """Remarks that count as errors, such as duplicate or suspicious: in the exit status, and for --fix."""
    count_as_remark: tuple[str, ...] = ()
    """Errors that do not."""
    shown: int = 5
    """Lines listed for each finding; --json lists all."""
    fix: Path | None = None
    """An LMDB to write: the lines without an error. What was left out and why is listed beside it."""
    threads: int | None = None
    """Threads of the model's arithmetic; left out: the runtime's own choice."""
    device: str = "cpu"
    """Of the model: cpu, cuda, cuda:1 or mps."""
    json: bool = False
    """Print everything as JSON, which crnn data show --report takes."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("no set was given; give LMDBs, folders or zips of lines")
        for name in (*self.count_as_error, *self.count_as_remark):
            if name not in KINDS:
                raise ValueError(f"there is no finding {name!r}; known are {', '.join(KINDS)}")
        if not self.odds > 1:
            raise ValueError(f"--odds is {self.odds}; give a number above 1")

    def is_error(self, kind: str) -> bool:
        return kind in self.count_as_error or (KINDS[kind].error and kind not in self.count_as_remark)


@dataclass(frozen=True)
class Opened:
    """One line of a source: what is stored and the picture, or what is wrong with it."""

    index: int
    entry: Entry | None
    picture: Picture | None
    error: str


@dataclass
class Checked:
    """What a check has found. tallies: of each source, in order. not_compared: lines that the model could not judge."""

    findings: list[Finding] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    not_compared: int = 0


def main(argv: list[str]) -> int:
    """0 where nothing is wrong, 1 where an error was found; remarks leave it 0."""
    options = parse_options(CheckOptions, argv, "crnn data check", "Tell what is wrong with sets of lines.")
    if options.fix is not None:
        refuse_writing_over(options.fix, [*options.sources, *options.against], "--fix")
    sources = [open_lines(name, absent_pictures=True) for name in options.sources]
    against = [open_lines(name) for name in options.against]
    recogniser = load(options.model, options.threads, options.device) if options.model is not None else None
    checked = check(sources, against, options, recogniser)
    result = as_json(checked, options)
    unwritten = None
    if options.fix is not None:
        try:
            result["written"] = fix(options, sources, checked.findings)
            write_run(options.fix, "crnn data check " + shlex.join(argv), options, {"written": result["written"]})
        except (OSError, ValueError) as error:
            unwritten = error  # what was found is told all the same
    print(json.dumps(result, ensure_ascii=False, indent=1) if options.json else report(result, options))
    if unwritten is not None:
        raise unwritten
    return 1 if result["errors"] else 0


def check(
    sources: Sequence[StoredLines],
    against: Sequence[StoredLines],
    options: CheckOptions,
    recogniser: Recogniser | None = None,
) -> Checked:
    """Opens every line once and keeps its hash alone; then looks again at those that seem to be one picture."""
    checked, prints, rules = Checked(), Prints(), rules_of(options, recogniser)
    for source in against:
        for line in opened(source, "hashing"):
            prints.add(line.picture, line.entry.text if line.entry else None)
    others = len(prints)
    for source in sources:
        tally, found, waiting = Tally(), list[Finding](), list[Opened]()
        for line in opened(source, "checking"):
            text = line.entry.text if line.entry else None
            prints.add(line.picture, text)
            tally.add(text, rules.outside, rules.normalise)
            found += line_findings(source, line, rules)
            if recogniser is not None and text and line.picture is not None:
                waiting.append(line)
                if len(waiting) == WINDOW:
                    found += read_findings(source, waiting, recogniser, options.odds, checked)
                    waiting = []
        if recogniser is not None:
            found += read_findings(source, waiting, recogniser, options.odds, checked)
        # Where no line has a label none is missing.
        checked.findings += [finding for finding in found if tally.labelled or finding.kind != "no-label"]
        checked.findings += tally.about(str(source.path))
        checked.tallies[str(source.path)] = tally
    checked.findings += pair_findings(prints, others, [*against, *sources])
    return checked


def rules_of(options: CheckOptions, recogniser: Recogniser | None) -> Rules:
    """The charset asked for, and the columns of the model that is given, or of one with the default input."""
    charset = Charset.from_spec(options.charset, options.case) if options.charset is not None else None
    normalised = charset.normalise if charset is not None else partial(normalise, case=options.case)
    outside = charset.missing if charset is not None else None
    if recogniser is None:
        return Rules(normalised, outside)
    info = recogniser.info
    return Rules(normalised, outside, info.input_spec, info.pixels_per_column, info.sizes.extra_columns)


def opened(source: StoredLines, doing: str) -> Iterator[Opened]:
    """Every line of a source with its picture decoded; what cannot be read is told, not raised."""
    for index in with_progress(range(len(source)), f"{doing} {source.path.name}", len(source)):
        entry = None
        try:
            entry = source.entry(index)
            yield Opened(index, entry, decode_whole(entry.encoded, entry.key), "")
        except (ValueError, OSError) as error:
            yield Opened(index, entry, None, sentence(error))


def line_findings(source: StoredLines, line: Opened, rules: Rules) -> Iterator[Finding]:
    """What is wrong with one line by itself."""
    text = line.entry.text if line.entry else None
    key = line_name(line.entry.key if line.entry else source.keys()[line.index], source.path)
    found = partial(Finding, source=str(source.path), key=key, label=text, index=line.index)
    if line.error:
        yield found("broken-picture", detail=line.error)
    if line.entry is not None:
        if not (text or "").strip():
            yield found("no-label", detail="")
        size = line.picture.shape[:2] if line.picture is not None else None
        for kind, detail in rules.about(line.entry, size):
            yield found(kind, detail=detail)


def read_findings(
    source: StoredLines, lines: Sequence[Opened], recogniser: Recogniser, odds: float, checked: Checked
) -> Iterator[Finding]:
    """Where the model is sure of another text than the label."""
    from crnn.disagreement import disagreements

    charset = recogniser.info.charset
    pairs = [(line, line.entry, line.picture) for line in lines if line.entry is not None and line.picture is not None]
    labels = [unicodedata.normalize("NFC", entry.text or "") for _, entry, _ in pairs]
    checked.not_compared += sum(bool(charset.missing(label)) for label in labels)
    pictures = [picture for _, _, picture in pairs]
    for (line, entry, _), found in zip(pairs, disagreements(recogniser, pictures, labels, odds), strict=True):
        if found is None:
            continue
        detail = f"reads {found.text!r}" + (f" turned by {found.turned} degrees" if found.turned else "")
        if found.lies:
            kind = "turned"
        else:
            kind, detail = "suspicious", f"{detail}, {exp(min(found.nats, 700)):.3g} to 1 for each character"
        key = line_name(entry.key, source.path)
        yield Finding(kind, str(source.path), key, detail, entry.text, line.index, weight=found.nats)


def pair_findings(prints: Prints, others: int, sources: Sequence[StoredLines]) -> Iterator[Finding]:
    """Lines that are the same picture as an earlier one; the first `others` lines are of the sets of --against."""
    starts = list(accumulate((len(source) for source in sources), initial=0))

    def place(number: int) -> tuple[StoredLines, int]:
        at = bisect_right(starts, number) - 1
        return sources[at], number - starts[at]

    for pair in prints.pairs(others):
        (one, i), (other, j) = place(pair.first), place(pair.second)
        first, second = one.entry(i), other.entry(j)
        kind = pair_kind(
            decode_whole(first.encoded, first.key),
            decode_whole(second.encoded, second.key),
            first.text,
            second.text,
            pair.same_label,
            pair.first < others,
        )
        found = [(other, j, second, one, first)]
        if kind == "contradiction" and pair.first >= others:
            found.append((one, i, first, other, second))  # nobody knows which of the two is wrong
        for source, index, entry, like, like_entry in found if kind else ():
            name = f"{line_name(like_entry.key, like.path)} of {like.path}"
            detail = f"like {name}" + (f", labelled {like_entry.text!r}" if kind == "contradiction" else "")
            key = line_name(entry.key, source.path)
            yield Finding(kind, str(source.path), key, detail, entry.text, index, name)


def fix(options: CheckOptions, sources: Sequence[StoredLines], findings: Iterable[Finding]) -> dict[str, Any]:
    """Writes the lines without an error, labels stripped, and the list of the others; gives paths and counts."""
    assert options.fix is not None
    left_out: dict[tuple[str, int], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.key and options.is_error(finding.kind):
            left_out[finding.source, finding.index].append(finding)
    several, kept = len(sources) > 1, 0
    with LmdbWriter(options.fix) as writer:
        for source in sources:
            for index in with_progress(range(len(source)), f"writing {source.path.name}", len(source)):
                if (str(source.path), index) not in left_out:
                    entry = source.entry(index)
                    key = line_name(entry.key, source.path)  # by which the same lines are held out as of the source
                    key = f"{source.path}/{key}" if several else key
                    writer.add(replace(entry, key=key, text=entry.text and entry.text.strip()))
                    kept += 1
    listed = options.fix.with_name(options.fix.name + ".left-out.tsv")
    rows = [
        "\t".join((line_place(finding, several), finding.kind, finding.detail, finding.label or ""))
        for line in left_out.values()
        for finding in line
    ]
    content = "".join(escaped(row) + "\n" for row in rows).encode()
    write_atomically(listed, lambda file: file.write(content) and None)
    return {"lines": kept, "left_out": len(left_out), "lmdb": str(options.fix), "list": str(listed)}


def line_place(finding: Finding, several: bool) -> str:
    return f"{finding.source}/{finding.key}" if several else finding.key


def escaped(row: str) -> str:
    """One row of a list, whatever the labels hold."""
    return row.replace("\r", "\\r").replace("\n", "\\n")


def as_json(checked: Checked, options: CheckOptions) -> dict[str, Any]:
    """Everything that was found, errors first, in the order of KINDS; within a finding the surest first."""
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in checked.findings:
        by_kind[finding.kind].append(finding)
    kinds = sorted((kind for kind in KINDS if by_kind[kind]), key=lambda kind: not options.is_error(kind))
    outside: Counter[str] = Counter()
    for tally in checked.tallies.values():
        outside.update(tally.outside)
    counts = {is_error: sum(len(by_kind[k]) for k in kinds if options.is_error(k) == is_error) for is_error in (1, 0)}
    return {
        "sources": {path: {"lines": t.lines, "labelled": t.labelled} for path, t in checked.tallies.items()},
        "errors": counts[True],
        "remarks": counts[False],
        "findings": {
            kind: {
                "error": options.is_error(kind),
                "meaning": KINDS[kind].meaning,
                "count": len(by_kind[kind]),
                "lines": [
                    {name: value for name, value in asdict(finding).items() if name not in ("kind", "weight")}
                    for finding in sorted(by_kind[kind], key=lambda finding: -finding.weight)
                ],
            }
            for kind in kinds
        },
        "characters_outside": dict(outside.most_common()),
        "not_compared": checked.not_compared,
    }


def report(result: dict[str, Any], options: CheckOptions) -> str:
    """The findings for a person: how many, what they mean, and the first lines of each."""
    rows = [
        f"{path}: {counts['lines']} lines, {counts['labelled']} labelled" for path, counts in result["sources"].items()
    ]
    several = len(result["sources"]) > 1
    for kind, found in result["findings"].items():
        rows += ["", f"{'error' if found['error'] else 'remark'}  {kind}: {found['count']}  ({found['meaning']})"]
        for line in found["lines"][: options.shown]:
            place = f"{line['source']}/{line['key']}" if several and line["key"] else line["key"] or line["source"]
            label = "" if line["label"] is None else repr(line["label"])
            rows.append("  " + "  ".join(part for part in (place, label, line["detail"]) if part))
        if found["count"] > options.shown:
            rows.append(f"  ... and {found['count'] - options.shown} more; --json lists them all")
    if result["characters_outside"]:
        counted = ", ".join(f"{named(c)}: {count}" for c, count in result["characters_outside"].items())
        rows += ["", f"characters outside the charset: {counted}"]
    if result["not_compared"]:
        rows += ["", f"{result['not_compared']} labels hold characters that the model does not know; not compared"]
    rows += ["", f"{result['errors']} errors, {result['remarks']} remarks"]
    if "written" in result:
        written = result["written"]
        rows.append(
            f"{written['lmdb']}: {written['lines']} lines; {written['left_out']} left out, see {written['list']}"
        )
    return "\n".join(rows)
