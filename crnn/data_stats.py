"""`crnn data stats`: how long, wide and high lines are and which characters they use, as a table, JSON or plots."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from crnn.checkpoint import write_atomically
from crnn.commands import refuse_writing_into
from data.lines import open_lines
from data.stats import Stats, quantiles, script_of, stats_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 32
"""Pixels, to which widths are brought, as a recogniser does."""
INK, FAINT = "#1f5fbf", "#626a73"


@dataclass(frozen=True)
class StatsOptions:
    """What `crnn data stats` takes."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """LMDBs, folders or zips; together they are one set."""
    rare: int = 10
    """A character that occurs fewer times is rare."""
    plot: Path | None = None
    """A PNG to write, with the distributions drawn."""
    json: bool = False
    """Print everything as JSON."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("no set was given; give LMDBs, folders or zips of lines")
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise ValueError(f"--plot {self.plot} does not end in .png; give a name that does")


def main(argv: list[str]) -> int:
    options = tyro.cli(
        StatsOptions, args=argv, prog="crnn data stats", description="Tell lengths, sizes and characters of lines."
    )
    if options.plot is not None:
        refuse_writing_into(options.plot, options.sources, "--plot")
    stats = stats_of([open_lines(source) for source in options.sources])
    result = as_json(stats, options)
    print(json.dumps(result, ensure_ascii=False, indent=1) if options.json else report(result))
    if options.plot is not None:
        png = plots(stats, " ".join(Path(source).name for source in options.sources))
        write_atomically(options.plot, lambda file: file.write(png) and None)
    return 0


def as_json(stats: Stats, options: StatsOptions) -> dict[str, Any]:
    """Five numbers (least, 5 %, median, 95 %, greatest) of each size, and counts of characters, the commonest first."""
    return {
        "sources": list(options.sources),
        "lines": stats.lines,
        "labelled": len(stats.lengths),
        "groups": stats.groups,
        "length": quantiles(stats.lengths),
        "width": quantiles(stats.widths),
        "height": quantiles(stats.heights),
        "aspect": quantiles(stats.widths / stats.heights),
        f"width_at_{HEIGHT}": quantiles(stats.scaled_widths(HEIGHT)),
        "characters": dict(stats.characters.most_common()),
        "rare": stats.rare(options.rare),
    }


def report(result: dict[str, Any]) -> str:
    """The same for a person."""
    groups = f", {result['groups']} groups" if result["groups"] else ""
    rows = [f"{', '.join(result['sources'])}: {result['lines']} lines, {result['labelled']} labelled{groups}", ""]
    rows.append(f"{'':22}{'least':>9}{'5 %':>9}{'median':>9}{'95 %':>9}{'greatest':>9}")
    for name, what in (
        ("length", "characters of a label"),
        ("width", "width, pixels"),
        ("height", "height, pixels"),
        (f"width_at_{HEIGHT}", f"width at {HEIGHT} high"),
        ("aspect", "width / height"),
    ):
        digits = 2 if name == "aspect" else 0
        rows.append(f"{what:22}" + "".join(f"{value:9.{digits}f}" for value in result[name]))
    characters = result["characters"]
    if characters:
        kinds: Counter[str] = Counter(script_of(character) for character in characters)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        rows += ["", f"{len(characters)} characters ({told}), {sum(characters.values())} in all"]
        rows.append("commonest: " + "  ".join(f"{c!r} {n}" for c, n in list(characters.items())[:12]))
        rows.append(f"rare ({len(result['rare'])}): " + "  ".join(f"{c!r} {characters[c]}" for c in result["rare"]))
    return "\n".join(rows)


def plots(stats: Stats, title: str) -> bytes:
    """A PNG of four panels: lengths, widths at height 32, heights, and how often each character occurs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a second to import, and only plots need it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}: {stats.lines} lines, {len(stats.lengths)} labelled")
    (lengths, widths), (heights, characters) = figure.subplots(2, 2)
    histogram(lengths, stats.lengths.astype(np.float64), "characters of a label", whole=True)
    histogram(widths, stats.scaled_widths(HEIGHT), f"width in pixels at height {HEIGHT}")
    histogram(heights, stats.heights.astype(np.float64), "height in pixels, as stored", whole=True)
    counts = np.array([count for _, count in stats.characters.most_common()])
    if len(counts):
        characters.bar(np.arange(1, len(counts) + 1), counts, width=1.0, color=INK)
        characters.set_yscale("log")
    label(characters, f"{len(counts)} characters, the commonest first", "times")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def histogram(axes: Axes, values: np.ndarray[Any, np.dtype[np.float64]], name: str, whole: bool = False) -> None:
    """Up to 60 bars; what lies beyond the 99.5 % quantile is counted in the last one."""
    if len(values):
        top = float(np.quantile(values, 0.995))
        bottom = min(float(values.min()), top)
        count = max(1, min(60, round(top - bottom) + 1)) if whole else 60
        step = max(1.0, np.ceil((top - bottom + 1) / count)) if whole else max((top - bottom) / count, 1e-6)
        edges = bottom - (0.5 if whole else 0.0) + step * np.arange(count + 1)
        axes.hist(np.minimum(values, edges[-1]), edges.tolist(), color=INK)
    label(axes, name, "lines")


def label(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across, color=FAINT)
    axes.set_ylabel(up, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
