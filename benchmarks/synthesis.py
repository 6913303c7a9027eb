"""Our synthesis beside other generators: `python -m benchmarks.synthesis`.

Lines per second on one core, in turns on the same texts; repeats among 100,000 lines; and a contact sheet of ours,
theirs and real crops. Pictures are made in memory and not encoded.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from PIL import Image

from benchmarks.demo import real_data
from benchmarks.markdown import table
from benchmarks.other_generators import ENVIRONMENTS, drawn, environment, job, timed
from benchmarks.stages import RESULTS, write_json
from data.contact_sheet import contact_sheet
from data.lines import Line, Picture, open_lines
from data.picture import decode_picture
from data.synthesis.source import SynthesisOptions, SynthesisSource

SHEET = RESULTS.parent / "synthesis_beside_others.png"
SHEET_WIDTH = 1000
REAL = ("iiit5k_test", "ic15_test", "sroie_test")


@dataclass(frozen=True)
class SynthesisBenchOptions:
    """Options of the comparison.

    Attributes:
        lines: timed lines of trdg in a round; ours draws ten times as many, SynthTIGER half.
        rounds: in turns; medians are kept.
        unique: lines that must all differ; 0 leaves this out.
        seed: of texts and pictures.
        environments: where the other generators are installed.
        out: the JSON of all figures.
        sheet: the contact sheet; another one, with real crops, lies beside the environments.
    """

    lines: int = 400
    rounds: int = 3
    unique: int = 100_000
    seed: int = 1
    environments: Path = ENVIRONMENTS
    out: Path = RESULTS / "synthesis.json"
    sheet: Path = SHEET


def main() -> int:
    """Times, counts, draws the sheet; 1 where a picture repeats or ours is not as fast as it should be."""
    options = tyro.cli(SynthesisBenchOptions, description=__doc__)
    cv2.setNumThreads(1)
    source = SynthesisSource(SynthesisOptions(), options.seed)
    numbers = f"--lines {options.lines} --rounds {options.rounds} --unique {options.unique} --seed {options.seed}"
    content: dict[str, Any] = {"command": f"python -m benchmarks.synthesis {numbers}"}
    content |= {"seed": options.seed, "speed": speeds(source, options)}
    if options.unique:
        content["repeats"] = {"lines": options.unique, "repeated": repeats(source, options.unique)}
    write_json(options.out, content)
    write_sheet(source, options)
    for name, row in content["speed"].items():
        print(name, row)
    print(content.get("repeats", ""))
    return int(
        bool(content.get("repeats", {}).get("repeated")) or content["speed"]["trdg"].get("ours_is_times", 99) < 15
    )


def speeds(source: SynthesisSource, options: SynthesisBenchOptions) -> dict[str, Any]:
    """Lines per second of CPU time of each, and how many times as fast ours is."""
    found: dict[str, list[float]] = {"ours": [], "trdg": [], "synthtiger": []}
    failed: dict[str, str] = {}
    given = job(source, 2000, options.seed) | {"warm_up": 50}
    warm_up(source)
    for number in range(options.rounds):
        found["ours"].append(lines_a_second(source, number * 10 * options.lines, 10 * options.lines))
        for name, count in (("trdg", options.lines), ("synthtiger", options.lines // 2)):
            if name in failed:
                continue
            try:
                row = timed(environment(name, options.environments), name, given | {"count": count})
            except OSError as error:
                failed[name] = str(error)
                continue
            found[name].append(row["lines"] / row["cpu_seconds"])
    ours = statistics.median(found["ours"])
    rows: dict[str, Any] = {}
    for name, values in found.items():
        rows[name] = {"not_run": failed[name]} if name in failed else figures(values, ours, name != "ours")
    return rows


def figures(values: Sequence[float], ours: float, other: bool) -> dict[str, Any]:
    """The median of the rounds and all of them."""
    middle = statistics.median(values)
    row: dict[str, Any] = {"lines_a_second": round(middle, 1), "rounds": [round(value, 1) for value in values]}
    return row | ({"ours_is_times": round(ours / middle, 1)} if other else {})


def warm_up(source: SynthesisSource) -> None:
    """Opens the fonts and fills the cache of glyphs, as a run of minutes has done."""
    for index in range(10**6, 10**6 + 2000):
        source[index]


def lines_a_second(source: SynthesisSource, first: int, count: int) -> float:
    """Of CPU time, in this process."""
    started = time.process_time()
    for index in range(first, first + count):
        source[index]
    return count / (time.process_time() - started)


def repeats(source: SynthesisSource, count: int) -> int:
    """How many of the first lines show a picture that an earlier one has shown."""
    seen: set[bytes] = set()
    for index in range(count):
        picture = source[index].picture
        seen.add(hashlib.blake2b(repr(picture.shape).encode() + picture.tobytes(), digest_size=16).digest())
    return count - len(seen)


def write_sheet(source: SynthesisSource, options: SynthesisBenchOptions) -> None:
    """Ours and trdg's below each other; where there are real crops, another one with those too, not for passing on."""
    given = job(source, 26, options.seed) | {"variety": True, "texts": [source.text(i) for i in range(26)]}
    entries = drawn(environment("trdg", options.environments), "trdg", given)
    theirs = [Line(decode_picture(e.encoded, e.key), e.text, e.key) for e in entries]
    parts = [
        contact_sheet(without_keys([source[i] for i in range(26)]), "pocket-crnn", "as drawn for training"),
        contact_sheet(without_keys(theirs), "TextRecognitionDataGenerator 1.8.0", "the same texts and fonts"),
    ]
    write_small_png(options.sheet, np.concatenate(parts))
    crops = [real_data() / f"{name}.zip" for name in REAL]
    if not all(path.exists() for path in crops):
        return
    real: list[Line] = []
    rng = np.random.default_rng(options.seed)
    for path in crops:
        lines = open_lines(path)
        real += [lines[int(i)] for i in rng.choice(len(lines), 9, replace=False)]
    parts.append(contact_sheet(without_keys(real), "real crops", "IIIT5K, ICDAR 2015, SROIE"))
    write_small_png(options.environments.parent / "beside_real_crops.png", np.concatenate(parts))


def without_keys(lines: Sequence[Line]) -> list[Line]:
    """A sheet of many sets needs no names."""
    return [Line(line.picture, line.text, "") for line in lines]


def write_small_png(path: Path, picture: Picture, colours: int = 128) -> None:
    """As a PNG of SHEET_WIDTH with a palette, for keeping among documents."""
    image = Image.fromarray(picture)
    image = image.resize((SHEET_WIDTH, image.height * SHEET_WIDTH // image.width), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(colours).save(path, optimize=True)


def synthesis_table(results: dict[str, Any]) -> str:
    """Ours beside other generators: lines a second and core."""
    names = {"ours": "pocket-crnn", "trdg": "TextRecognitionDataGenerator 1.8.0", "synthtiger": "SynthTIGER 1.2.1"}
    rows = []
    for key, row in results["speed"].items():
        rounds = f"{min(row['rounds']):,.0f} to {max(row['rounds']):,.0f}"
        times = f"{row['ours_is_times']:.1f}" if "ours_is_times" in row else ""
        rows.append([names[key], f"{row['lines_a_second']:,.0f}", rounds, times])
    made = table(["generator", "lines a second and core", "rounds", "ours is times as fast"], rows)
    repeats = results["repeats"]
    return made + f"\nOf {repeats['lines']:,} lines of ours {repeats['repeated']} are repeats.\n"


if __name__ == "__main__":
    sys.exit(main())
