"""`crnn data make`: synthetic lines into an LMDB, with the columns of their characters."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from crnn.commands import parse_options, write_run
from crnn.progress import with_progress
from data.lmdb_lines import write_lmdb
from data.synthesis.bake import baked
from data.synthesis.source import SynthesisOptions, SynthesisSource


@dataclass(frozen=True)
class MakeOptions:
    """What `crnn data make` takes; ValueError in one sentence for what is out of bounds."""

    out: Path
    """The LMDB folder to write; one that is there is replaced once the new one is whole."""
    count: int = 10_000
    """Lines to draw."""
    seed: int = 1
    """Of texts and pictures: item i of a seed is always the same line."""
    quality: int | None = None
    """Of JPEG pictures, 1 to 100; lossless PNG where not given."""
    workers: int | None = None
    """Processes that draw; one a core, at most 8, where not given. The result does not depend on it."""
    json: bool = False
    """Print the counts as JSON."""
    synth: Annotated[SynthesisOptions, tyro.conf.arg(name="")] = field(default_factory=SynthesisOptions)
    """What the lines look like and say."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; give at least 1")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"--quality is {self.quality}; give 1 to 100, or leave it out for PNG")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; give at least 1")


def main(argv: list[str]) -> int:
    options = parse_options(MakeOptions, argv, "crnn data make", "Draw synthetic lines into an LMDB.")
    source = SynthesisSource(options.synth, options.seed, options.count)
    entries = baked(source, options.count, options.quality, options.workers or min(8, os.cpu_count() or 1))
    lines = write_lmdb(options.out, with_progress(entries, "drawing", options.count))
    write_run(options.out, "crnn data make " + shlex.join(argv), options, {"lines": lines, "fonts": len(source.fonts)})
    if options.json:
        print(json.dumps({"written": {str(options.out): lines}, "fonts": len(source.fonts)}))
    else:
        print(f"{options.out}: {lines} lines from {len(source.fonts)} fonts")
    return 0
