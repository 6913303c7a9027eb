"""Lines on which an export is calibrated and checked: what the model learnt from, or others that are named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crnn.charset import Charset
from crnn.checkpoint import ModelInfo
from crnn.train import SYNTHETIC, open_sources, recorded_synthesis, synthetic, validation_share
from data.lines import Line, LineSource, open_lines, split_source


@dataclass(frozen=True)
class ExportLines:
    """calibration and check have no line in common. left_out: lines whose label the model's charset cannot write."""

    sources: tuple[str, ...]
    calibration: tuple[Line, ...]
    check: tuple[Line, ...]
    left_out: int


def choose_sources(asked: Sequence[str], info: ModelInfo, path: Path) -> tuple[str, ...]:
    """The sources asked for, else what the model learnt from where that is there, else synthetic lines, and said so."""
    if asked:
        return tuple(asked)
    recorded = tuple(info.provenance.get("data") or ())
    gone = [name for name, _ in map(split_source, recorded) if name not in SYNTHETIC and not Path(name).exists()]
    if recorded and not gone:
        return recorded
    reason = f"learnt from {gone[0]}, which is not there" if gone else "does not say what it learnt from"
    print(f"crnn export: {path} {reason}: synthetic lines are used; --data names others", file=sys.stderr)
    return ("synth",)


def draw_lines(sources: Sequence[str], info: ModelInfo, calibration: int, check: int, seed: int) -> ExportLines:
    """So many lines for each use, from each source by its weight, drawn at random; fewer where there are fewer.

    Raises ValueError where a source is empty, has one line alone, or is written in other characters than the model's,
    and where a picture does not decode.
    """
    weighed = [split_source(source) for source in sources]
    total = sum(weight for _, weight in weighed)
    drawn: tuple[list[Line], list[Line]] = ([], [])
    left_out = 0
    for name, weight in weighed:
        asked = [max(1, round(count * weight / total)) for count in (calibration, check)]
        for_calibration, for_check = open_pair(name, info, seed)
        if for_calibration is for_check:
            parts = split_indices(len(for_check), asked, name, seed)
        else:
            parts = [list(range(count)) for count in asked]
        for source, indices, lines in zip((for_calibration, for_check), parts, drawn, strict=True):
            found = [source[i] for i in indices]
            kept = covered(found, info.charset, name)
            left_out += len(found) - len(kept)
            lines += kept
    if left_out:
        print(f"crnn export: left out {left_out} lines with characters outside the model's charset", file=sys.stderr)
    return ExportLines(tuple(sources), tuple(drawn[0]), tuple(drawn[1]), left_out)


def held_out_lines(asked: str, info: ModelInfo, path: Path, count: int) -> list[Line]:
    """At most count labelled lines that the model never learnt from: of the source asked for, or held out in training.

    Those of training are the same ones where they are stored; where they are drawn, they are drawn anew with fonts and
    words that training never saw. Where the file does not say what they are, or they are gone, there are none, and
    stderr says so. ValueError where the source asked for is a share or has no line that fits.
    """
    made = info.provenance
    recorded, validation = tuple(made.get("data") or ()), asked or str(made.get("validation", ""))
    if not count:
        return []
    names = [split_source(source)[0] for source in recorded]
    if validation and validation_share(validation) is None:
        names.append(validation)
    if asked:
        if validation_share(asked) is not None:
            raise ValueError(f"--validation is {asked}; give a source of labelled lines, or synth")
        recorded = ()
    elif validation == "0":
        print(
            f"crnn export: {path} was trained without validation lines, so confidences stay as the network gives them; "
            "--validation names lines that it never saw",
            file=sys.stderr,
        )
        return []
    elif not validation or any(name not in SYNTHETIC and not Path(name).exists() for name in names):
        print(
            f"crnn export: what {path} was validated on is not there, so confidences stay as the network gives them; "
            "--validation names lines that it never saw",
            file=sys.stderr,
        )
        return []
    drawn = recorded_synthesis(made)
    found = open_sources(
        recorded, info.charset, info.input_spec, validation, count, True, drawn, made.get("seed", 0), recorded,
        made.get("group_by"), info.sizes,
    )  # fmt: skip
    if asked and not found.validation:
        raise ValueError(f"{asked} has no labelled line in the model's characters; give --validation another")
    return found.validation


def open_pair(name: str, info: ModelInfo, seed: int) -> tuple[LineSource, LineSource]:
    """Where lines for calibration and for the check come from; the same source twice where they are stored."""
    if name not in SYNTHETIC:
        source = open_lines(name)
        return source, source
    return synthetic(recorded_synthesis(info.provenance), info.charset, name == "synth-easy", seed)


def split_indices(lines: int, asked: Sequence[int], name: str, seed: int) -> list[list[int]]:
    """Two disjoint random choices of indices, in the source's order."""
    if lines < 2:
        raise ValueError(f"{name} has {lines} lines, and calibration and check need one each; give --data with more")
    order = [int(i) for i in np.random.default_rng(seed).permutation(lines)]
    first = min(asked[0], max(1, lines * asked[0] // sum(asked)))
    return [sorted(order[:first]), sorted(order[first : first + asked[1]])]


def covered(lines: Sequence[Line], charset: Charset, name: str) -> list[Line]:
    """Lines without label, or with one that the charset can write; ValueError where most have another."""
    kept = [line for line in lines if line.text is None or not charset.missing(line.text)]
    if len(kept) * 2 <= len(lines):
        other, outside = next((line, found) for line in lines if (found := charset.missing(line.text or "")))
        raise ValueError(
            f"{name} is written in another charset than the model's: {len(lines) - len(kept)} of {len(lines)} labels "
            f"have characters outside it ({other.key}: {outside}); give lines in the model's own"
        )
    return kept
