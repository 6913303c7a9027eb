"""What a model reads in whole sets, kept beside it, line by line: what paired differences are made from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.intervals import bootstrap_interval
from benchmarks.stages import run_stage
from crnn.score import fold36

Pairs = list[tuple[str, str]]
"""(label, reading) of lines, in the set's order."""

Readings = dict[str, Pairs]
"""By set."""


def read(model: Path, sets: Sequence[Path], out: Path | None = None, threads: int = 1) -> None:
    """Every reading of these sets: model.json beside the model, or out. A stage, made anew with the model."""
    out = out or model.with_suffix(".json")
    if out.exists() and out.stat().st_mtime < model.stat().st_mtime:
        out.unlink()
    run_stage(
        out, "crnn",
        ["bench", "--models", str(model), "--data", *map(str, sets), "--readings", "--latency-lines", "0",
         "--threads", str(threads), "--json", str(out)],
    )  # fmt: skip


def readings(path: Path) -> Readings:
    """What read left, in this file or beside this model."""
    (sets,) = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["readings"].values()
    return {name: [(line["label"], line["text"]) for line in lines] for name, lines in sets.items()}


def exact_lines(lines: Pairs) -> list[bool]:
    """Which are read exactly."""
    return [label == text for label, text in lines]


def right36_lines(lines: Pairs) -> list[bool]:
    """Of the lines that hold letters or digits, which are read right in those, without case."""
    return [fold36(label) == fold36(text) for label, text in lines if fold36(label)]


def paired(runs: Sequence[Sequence[bool]], others: Sequence[Sequence[bool]]) -> tuple[list[float], tuple[float, float]]:
    """Difference of the share of right lines, run by run, and the 95 % interval of its mean, over lines.

    A line's value is its mean over the runs; each run is paired with the other at its place, on the same lines.
    """
    apart = [[float(a) - b for a, b in zip(*both, strict=True)] for both in zip(runs, others, strict=True)]
    each = [statistics.fmean(one) for one in apart]
    return each, bootstrap_interval([statistics.fmean(line) for line in zip(*apart, strict=True)], 0)
