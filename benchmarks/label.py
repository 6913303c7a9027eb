"""`crnn label`: crops labelled by any recogniser, ours or another's, as data to train on.

It stands beside the peers, for only benchmarks knows these.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.peers import PEERS, PeerRecogniser, open_peer
from crnn.checkpoint import write_atomically
from crnn.commands import parse_options, refuse_writing_over, sentence, write_run
from crnn.ctc import Reading
from crnn.data_export import named_as_files
from crnn.progress import with_progress
from crnn.read import escaped
from crnn.recogniser import Recogniser, load
from data.importers.rows import is_inside
from data.lines import StoredLines, line_name, open_lines
from data.lmdb_lines import Entry, write_lmdb
from data.picture_files import is_picture_name
from data.tsv_files import write_tsv

PROG = "crnn label"
CHUNK = 256
"""Pictures that are open together, so that lines of one width find each other."""


@dataclass(frozen=True)
class LabelOptions:
    """What `crnn label` takes.

    Attributes:
        source: an LMDB, or a folder or zip of pictures; labels that it has are not looked at.
        reader: a checkpoint, an exported file, or a recogniser of others: tesseract, easyocr, pp-ocr-v4, ... (see
            crnn bench --peers).
        out: NAME.lmdb, NAME.zip or a folder: pictures and labels, for --data; NAME.tsv: names and labels alone, as
            labels.tsv of a folder of pictures has them.
        min_confidence: lines that the recogniser reads less surely are left out. Each recogniser's confidence is of its
            own making, so look at OUT.confidence.tsv first.
        batch: pictures of one width that are read at once.
        threads: of the recogniser's arithmetic.
        device: cpu, cuda, cuda:1 or mps; for model files.
    """

    source: Annotated[Path, tyro.conf.Positional]
    reader: Annotated[str, tyro.conf.arg(name="with", metavar="MODEL|PEER")]
    out: Path
    min_confidence: float = 0.0
    batch: int = 32
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min-confidence is {self.min_confidence}; give a number from 0 to 1")
        for flag, value in (("--batch", self.batch), ("--threads", self.threads)):
            if value < 1:
                raise ValueError(f"{flag} is {value}; give at least 1")


@dataclass
class Told:
    """What became of the lines.

    rows: name, text and confidence of every line that was read, as they go into OUT.confidence.tsv.
    """

    rows: list[str]
    kept: int = 0
    unsure: int = 0
    empty: int = 0
    broken: int = 0


def main(argv: list[str]) -> int:
    options = parse_options(
        LabelOptions, argv, PROG, "Label pictures with a recogniser, for training; each label's confidence is kept."
    )
    told = label(options)
    counts = {name: getattr(told, name) for name in ("kept", "unsure", "empty", "broken")}
    write_run(options.out, f"{PROG} {shlex.join(argv)}", options, counts)
    left_out = ", ".join(f"{counts[name]} {name}" for name in ("unsure", "empty", "broken") if counts[name])
    print(f"{options.out}: {told.kept} lines labelled" + (f"; left out: {left_out}" if left_out else ""))
    return 0


def label(options: LabelOptions) -> Told:
    """Reads the source, writes options.out and the confidences beside it, and returns what became of the lines.

    Raises ValueError where no line is left, and as open_lines, load and open_peer do.
    """
    refuse_writing_over(options.out, [options.source])
    source = open_lines(options.source)
    if options.out.suffix == ".tsv" and options.out.exists():
        raise FileExistsError(f"{options.out} is there already; choose another --out or remove it")
    reader = opened(options)
    told = Told([])
    entries = labelled(source, reader, options, told)
    match options.out.suffix.lower():
        case ".tsv":
            write_rows(options.out, entries)
        case ".lmdb":
            write_lmdb(options.out, entries)
        case _:
            write_tsv(options.out, named_as_files(entries, have_file_names(source)))
    content = "".join(told.rows).encode()
    write_atomically(confidence_path(options.out), lambda file: file.write(content))
    return told


def opened(options: LabelOptions) -> Recogniser | PeerRecogniser:
    """The model file or peer of --with; ValueError tells both where it is neither."""
    if options.reader in PEERS:
        return open_peer(options.reader, options.threads)
    if not Path(options.reader).exists():
        raise ValueError(
            f"--with {options.reader} is no model file, nor one of {', '.join(PEERS)}; give one of these or a path"
        )
    return load(options.reader, options.threads, options.device)


def confidence_path(out: Path) -> Path:
    """Beside out: crops.lmdb.confidence.tsv for crops.lmdb."""
    return out.with_name(out.name + ".confidence.tsv")


def labelled(
    source: StoredLines, reader: Recogniser | PeerRecogniser, options: LabelOptions, told: Told
) -> Iterator[Entry]:
    """The lines whose reading is to be their label, with their groups; what became of the others goes to told."""
    entries: list[Entry] = []
    pictures = []
    for index in with_progress(range(len(source)), "labelling", len(source)):
        try:
            entry, picture = source.entry(index), source[index].picture
            entry = replace(entry, key=line_name(entry.key, source.path))  # by which lines are held out
        except (OSError, ValueError) as error:
            told.broken += 1
            print(f"{PROG}: {sentence(error)}", file=sys.stderr)
        else:
            entries.append(entry)
            pictures.append(picture)
        if len(pictures) == CHUNK or index == len(source) - 1:
            for entry, reading in zip(entries, reader.read(pictures, options.batch), strict=True):
                if (text := worth_keeping(entry, reading, options.min_confidence, told)) is not None:
                    yield Entry(entry.encoded, text, entry.key, None, entry.group)
            entries, pictures = [], []


def worth_keeping(entry: Entry, reading: Reading, least: float, told: Told) -> str | None:
    """The label of a line, or None where it is left out; told is brought up to date."""
    text = " ".join(reading.text.split())
    told.rows.append(f"{escaped(entry.key)}\t{text}\t{reading.confidence:.4f}\n")
    if not text:
        told.empty += 1
    elif reading.confidence < least:
        told.unsure += 1
    else:
        told.kept += 1
        return text
    return None


def have_file_names(source: StoredLines) -> bool:
    """Whether every line is called as a picture below a folder can be, and no two the same."""
    keys = source.keys()
    names = [line_name(key, source.path) for key in keys]
    return len(set(names)) == len(names) and all(is_picture_name(name) and is_inside(name) for name in names)


def write_rows(path: Path, entries: Iterator[Entry]) -> None:
    """name<TAB>text of every line, with a third column for groups where one has any; ValueError where there is none."""
    rows = [(entry.key, entry.text or "", entry.group) for entry in entries]
    unfit = next((name for name, _, _ in rows if any(mark in name for mark in "\t\n\r")), None)
    if unfit is not None:
        raise ValueError(f"TSV cannot hold the name {unfit!r}; rename the file, or give --out NAME.lmdb")
    if not rows:
        raise ValueError(f"there are no lines to write to {path}; lower --min-confidence or check the source")
    grouped = any(group is not None for _, _, group in rows)
    text = "".join("\t".join((name, label, group or "")[: 3 if grouped else 2]) + "\n" for name, label, group in rows)
    write_atomically(path, lambda file: file.write(text.encode()))
