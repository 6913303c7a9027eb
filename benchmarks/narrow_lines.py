"""How narrow lines should reach the least width: `python -m benchmarks.narrow_lines`, on training sets it never saw.

The shipped teacher reads the crops of two real *training* sets that are narrower than 64 pixels at 32 high; it was
trained on synthetic lines alone, so they are held out. Each least width is reached by stretching or by margins.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.markdown import percent, table
from benchmarks.recipes import TEACHER
from benchmarks.stages import RESULTS, write_json
from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn, evaluate
from data.lines import Line, open_lines

SETS = ("iiit5k_train", "sroie_train")
WIDTHS = (32, 48, 64)
WAYS: tuple[Literal["stretch", "margins"], ...] = ("stretch", "margins")


@dataclass(frozen=True)
class NarrowOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real sets.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))


def main() -> None:
    """Reads every narrow line in every way and writes the table's JSON."""
    options = tyro.cli(NarrowOptions, description=__doc__)
    checkpoint = load_checkpoint(TEACHER)
    model, charset = Crnn.from_checkpoint(checkpoint), checkpoint.info.charset
    rows: list[dict[str, Any]] = []
    for name in SETS:
        lines = narrow_lines(options.data / f"{name}.zip")
        for width in WIDTHS:
            for way in WAYS:
                spec = replace(checkpoint.info.input_spec, min_width=width, narrow=way)
                found = evaluate(model, lines, charset, spec)
                rows.append({"set": name, "lines": len(lines), "min_width": width, "narrow": way, "acc36": found.acc36})
                print(rows[-1], flush=True)
    write_json(RESULTS / "narrow_lines.json", {"command": "python -m benchmarks.narrow_lines", "rows": rows})


def narrow_lines(path: Path) -> list[Line]:
    """The lines narrower than the widest least width, at 32 pixels of height."""
    source = open_lines(path)
    return [source[i] for i, (height, width) in enumerate(source.sizes()) if width * 32 / height < max(WIDTHS)]


def narrow_lines_table(results: dict[str, Any]) -> str:
    """How narrow lines reach the least width."""
    found = {(row["set"], row["min_width"], row["narrow"]): row for row in results["rows"]}
    names = list(dict.fromkeys(row["set"] for row in results["rows"]))
    counts = {row["set"]: row["lines"] for row in results["rows"]}
    rows = [
        [f"at least {width} px, {way}", *(percent(found[name, width, way]["acc36"]) for name in names)]
        for width, way in dict.fromkeys((w, n) for _, w, n in found)
    ]
    return table(["acc36 %", *(f"{name} ({counts[name]} lines)" for name in names)], rows)


if __name__ == "__main__":
    main()
