"""`crnn data make`: synthetic lines into an LMDB, with the columns of their characters."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from crnn.commands import options_from_json, parse_options, run_path, write_run
from crnn.progress import with_progress
from data.lmdb_lines import Entry, LmdbLines, write_lmdb
from data.synthesis.bake import baked
from data.synthesis.source import SynthesisOptions, SynthesisSource

_SHARD = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")
_FREE = frozenset({"out", "workers", "json", "shard", "join"})
"""Options that shards of one set may differ in."""


@dataclass(frozen=True)
class MakeOptions:
    """What `crnn data make` takes; ValueError in one sentence for what is out of bounds."""

    out: Path
    """The LMDB folder to write; one that is there is replaced once the new one is whole."""
    count: int = 10_000
    """Lines to draw, over all shards."""
    seed: int = 1
    """Of texts and pictures: item i of a seed is always the same line."""
    quality: int | None = None
    """Of JPEG pictures, 1 to 100; lossless PNG where not given."""
    workers: int | None = None
    """Processes that draw; one a core, at most 8, where not given. The result does not depend on it."""
    shard: str | None = None
    """Draw one part of the set only: 2/4 is the second of four, and for --out lines.lmdb goes to lines.2-of-4.lmdb.
    Shards may be drawn on any machines with the same fonts, in any order."""
    join: int | None = None
    """Draw nothing: put so many shards together to --out, the very LMDB that one run would have made."""
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
        if self.join is not None and self.join < 1:
            raise ValueError(f"--join is {self.join}; give the number of shards, at least 1")
        if self.shard is not None:
            if self.join is not None:
                raise ValueError("--shard and --join are given; draw the shards first, then join them")
            number, parts = self.part
            if number > parts or parts > self.count:
                raise ValueError(
                    f"--shard is {self.shard} with --count {self.count}; give I/N with I from 1 to N and N at most "
                    "the count"
                )

    @property
    def part(self) -> tuple[int, int]:
        """Number, from 1, and count of the shards; (1, 1) for a whole set."""
        if self.shard is None:
            return 1, 1
        found = _SHARD.fullmatch(self.shard)
        if found is None:
            raise ValueError(f"--shard is {self.shard!r}; give I/N, such as 2/4 for the second of four")
        return int(found[1]), int(found[2])


def main(argv: list[str]) -> int:
    options = parse_options(MakeOptions, argv, "crnn data make", "Draw synthetic lines into an LMDB.")
    if options.join is not None:
        return join(options, argv)
    number, parts = options.part
    first, end = (options.count * i // parts for i in (number - 1, number))
    out = options.out if options.shard is None else shard_path(options.out, number, parts)
    source = SynthesisSource(options.synth, options.seed, options.count)
    workers = options.workers or min(8, os.cpu_count() or 1)
    entries = baked(source, end - first, options.quality, workers, first)
    lines = write_lmdb(out, with_progress(entries, "drawing", end - first))
    write_run(out, "crnn data make " + shlex.join(argv), options, {"lines": lines, "fonts": len(source.fonts)})
    if options.json:
        print(json.dumps({"written": {str(out): lines}, "fonts": len(source.fonts)}))
    else:
        print(f"{out}: {lines} lines from {len(source.fonts)} fonts")
    return 0


def shard_path(out: Path, number: int, parts: int) -> Path:
    """lines.lmdb -> lines.2-of-4.lmdb."""
    return out.with_name(f"{out.stem}.{number}-of-{parts}{out.suffix}")


def join(options: MakeOptions, argv: list[str]) -> int:
    """The shards of --out become one LMDB, in order; ValueError where one is of another set."""
    parts = options.join or 1
    paths = [shard_path(options.out, number, parts) for number in range(1, parts + 1)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist; draw it with --shard {paths.index(missing[0]) + 1}/{parts}"
        )
    made_with = [_made_with(path) for path in paths]
    for path, fields in zip(paths, made_with, strict=True):
        changed = [name for name in fields if fields[name] != made_with[0].get(name)]
        if changed:
            raise ValueError(f"{path} and {paths[0]} were drawn with different {changed[0]}; draw one of them anew")
    drawn = made_with[0]
    asked = json.loads(json.dumps(asdict(options), default=str))
    usual = json.loads(json.dumps(asdict(MakeOptions(options.out)), default=str))
    for mine, theirs, default in ((asked, drawn, usual), (asked["synth"], drawn["synth"], usual["synth"])):
        for name, value in theirs.items():
            if name in mine and name != "synth" and mine[name] not in (value, default[name]):
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} is {mine[name]}, and the shards were drawn with {value}; leave it out")
    looks = options_from_json(SynthesisOptions, drawn["synth"])
    options = replace(options, count=drawn["count"], seed=drawn["seed"], quality=drawn["quality"], synth=looks)
    shards = [LmdbLines(path) for path in paths]
    total = sum(map(len, shards))
    lines = write_lmdb(options.out, with_progress(_stored(shards), "joining", total))
    result = {"lines": lines, "fonts": made_with[0]["fonts"], "drawn_with": made_with[0]}
    write_run(options.out, "crnn data make " + shlex.join(argv), options, result)
    if options.json:
        print(json.dumps({"written": {str(options.out): lines}, "fonts": result["fonts"]}))
    else:
        print(f"{options.out}: {lines} lines of {parts} shards")
    return 0


def _made_with(path: Path) -> dict[str, Any]:
    """What must be equal among the shards of a set, from the run file beside one."""
    try:
        run = json.loads(run_path(path).read_text(encoding="utf-8"))
        fields = {name: value for name, value in run["options"].items() if name not in _FREE}
        return fields | {"fonts": run["result"]["fonts"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(
            f"{run_path(path)} does not tell how {path} was drawn; copy it beside the shard, or draw the shard anew"
        ) from None


def _stored(shards: list[LmdbLines]) -> Iterator[Entry]:
    for shard in shards:
        for index in range(len(shard)):
            yield shard.entry(index)
