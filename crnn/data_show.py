"""`crnn data show`: a contact sheet of a source of lines, with labels and keys."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import tyro

from crnn.checkpoint import write_atomically
from crnn.commands import parse_options
from crnn.progress import with_progress
from data.contact_sheet import contact_sheet
from data.lines import Line, LineSource, open_lines


@dataclass(frozen=True)
class ShowOptions:
    """What `crnn data show` takes."""

    source: tyro.conf.Positional[str]
    """An LMDB, a folder or zip of pictures, or synth."""
    out: Path = Path("sheet.png")
    """The PNG to write."""
    count: int = 60
    """Lines on the sheet."""
    seed: int = 0
    """Which lines are drawn, and which texts with synth."""
    first: bool = False
    """The first lines instead of lines drawn at random."""
    columns_drawn: bool = False
    """Mark under each picture where its characters lie, for lines that know it."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; give at least 1")


def main(argv: list[str]) -> int:
    options = parse_options(ShowOptions, argv, "crnn data show", "Draw a contact sheet of lines, labels and keys.")
    source, total = open_source(options)
    indices = chosen(total, options)
    lines = [opened(source, index, options) for index in with_progress(indices, "opening", len(indices))]
    of = f"of {total} lines" if options.source != "synth" else f"synthetic lines, seed {options.seed}"
    sheet = contact_sheet(lines, options.source, f"{len(lines)} {of}", options.columns_drawn)
    encoded = cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes()
    write_atomically(options.out, lambda file: file.write(encoded) and None)
    print(f"{options.out}: {len(lines)} {of}")
    return 0


def open_source(options: ShowOptions) -> tuple[LineSource, int]:
    """The source and how many lines there are to choose from; of an endless one, as many as are shown."""
    if options.source != "synth":
        stored = open_lines(options.source)
        return stored, len(stored)
    from data.synthesis.source import SynthesisOptions, SynthesisSource

    return SynthesisSource(SynthesisOptions(), options.seed), options.count


def opened(source: LineSource, index: int, options: ShowOptions) -> Line:
    """The line, its key without the source's path, which the title tells."""
    line = source[index]
    return replace(line, key=line.key.removeprefix(f"{options.source}/").removesuffix(f" of {options.source}"))


def chosen(total: int, options: ShowOptions) -> list[int]:
    """Indices of the lines to show, in order."""
    count = min(options.count, total)
    return list(range(count)) if options.first else sorted(random.Random(options.seed).sample(range(total), count))
