"""A million lines through import and loader: `python -m benchmarks.million_lines`, memory and rate over time as JSON.

Small pictures are drawn into folders of a thousand with one label file, as PaddleOCR's. They are imported by the
command, which is killed half way and called again; then every line goes through the loader once. Needs Linux's /proc.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import tyro

from benchmarks.stages import RESULTS, write_json
from crnn.charset import Charset
from data.batches import Batching, Stream, Windows
from data.lmdb_lines import LmdbLines
from data.picture import InputSpec

IN_FOLDER = 1000
SAMPLES = 40
MEMORY = {"VmRSS": "resident_mb", "RssAnon": "own_mb", "RssFile": "mapped_files_mb"}
"""Resident is the sum: own is what the process allocated; of mapped files the system may drop pages at any time."""


@dataclass(frozen=True)
class MillionOptions:
    """Options.

    Attributes:
        lines: how many.
        scratch: folder for source and LMDB, about 6 KB a line while it runs; a temporary one where not given.
        out: the JSON.
        read: (used by the command itself) only walk through this LMDB and print what was seen.
    """

    lines: int = 1_000_000
    scratch: Path | None = None
    out: Path = RESULTS / "million_lines.json"
    read: Path | None = None


def main() -> None:
    """Makes the source, imports it with a kill in between, and walks through the result."""
    options = tyro.cli(MillionOptions, description=__doc__)
    if options.read is not None:
        print(json.dumps(loader_pass(options.read)))
        return
    scratch = Path(tempfile.mkdtemp(prefix="million_lines_", dir=options.scratch))
    try:
        content = {"command": f"python -m benchmarks.million_lines --lines {options.lines}", "lines": options.lines}
        write_json(options.out, content | measured(options.lines, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(options.out)


def measured(lines: int, scratch: Path) -> dict[str, Any]:
    """Every step's figures."""
    started = time.perf_counter()
    source_bytes = draw_source(scratch / "source", lines)
    drawing = time.perf_counter() - started
    print(f"drawn: {lines} lines in {drawing:.0f} s", flush=True)
    out = scratch / "lines.lmdb"
    first = import_watched(scratch / "source", out, kill_at=source_bytes // 2)
    committed = committed_rows(scratch / ".lines.lmdb.part/set")
    looks_whole = out.exists()
    print(f"killed after {first['seconds']} s with {committed} lines committed", flush=True)
    second = import_watched(scratch / "source", out)
    print(second["said"], flush=True)
    checked = compare(scratch / "source", out, lines)
    size = (out / "data.mdb").stat().st_size
    add_lines(first["samples"], size, lines)
    add_lines(second["samples"], size, lines)
    shutil.rmtree(scratch / "source")
    read_through(out / "data.mdb")
    command = [sys.executable, "-m", "benchmarks.million_lines", "--read", str(out)]
    read = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "source_mb": round(source_bytes / 2**20),
        "lmdb_mb": round(size / 2**20),
        "drawing_seconds": round(drawing, 1),
        "killed": {
            **first,
            "lines_committed": committed,
            "looked_whole": looks_whole,
            "lines_a_second": round(committed / first["seconds"]),
            "quarters": quarters(first["samples"]),
        },
        "rerun": {
            **second,
            "lines_a_second": round((lines - committed) / second["seconds"]),
            "quarters": quarters(second["samples"]),
        },
        "lines_after_rerun": checked,
        "loader_pass": read | {"quarters": quarters(read["samples"])},
    }


def draw_source(folder: Path, lines: int) -> int:
    """Numbers as dark print on light, 20 pixels high, with labels.tsv; returns the bytes of the pictures."""
    total = 0
    folder.mkdir(parents=True)
    with (folder / "labels.tsv").open("w", encoding="utf-8") as labels:
        for number in range(lines):
            if number % IN_FOLDER == 0:
                (folder / f"{number // IN_FOLDER:04d}").mkdir()
            encoded = drawn(number)
            (folder / name_of(number)).write_bytes(encoded)
            labels.write(f"{name_of(number)}\t{text_of(number)}\n")
            total += len(encoded)
    return total


def name_of(number: int) -> str:
    return f"{number // IN_FOLDER:04d}/{number:07d}.png"


def text_of(number: int) -> str:
    """Three to nine letters and digits, not in order."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return digest[: 3 + number % 7]


def drawn(number: int) -> bytes:
    text = text_of(number)
    picture = np.full((20, 12 * len(text) + 8), 230, np.uint8)
    cv2.putText(picture, text, (3, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 30, 1, cv2.LINE_AA)
    return cv2.imencode(".png", picture)[1].tobytes()


def import_watched(source: Path, out: Path, kill_at: int | None = None) -> dict[str, Any]:
    """`crnn data import`, its memory and the size of its LMDB over time; killed once that is above kill_at bytes."""
    part = out.parent / f".{out.name}.part/set/data.mdb"
    command = [sys.executable, "-m", "crnn", "data", "import", str(source), "--out", str(out), "--json"]
    samples: list[dict[str, float]] = []
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(0.1)
            size = next((file.stat().st_size for file in (part, out / "data.mdb") if file.exists()), 0)
            state = state_of(str(process.pid))
            if state:
                samples.append({"second": round(time.perf_counter() - started, 1), "lmdb_bytes": size, **state})
            if kill_at is not None and size > kill_at:
                process.kill()
        seconds = time.perf_counter() - started
        assert process.stderr is not None
        said = process.stderr.read().strip()
    if (process.returncode != 0) != (kill_at is not None):
        sys.exit(
            f"the import ended with exit status {process.returncode} ({said}); give more --lines if it was too fast"
        )
    return {"seconds": round(seconds, 1), "said": said, "samples": thinned(samples)}


def state_of(process: str) -> dict[str, float]:
    """Resident memory of a process in MB, by kind, and the seconds of processor it took; empty once it has ended.

    The processor's seconds tell a rate that does not depend on what else the machine does.
    """
    try:
        rows = Path(f"/proc/{process}/status").read_text().splitlines()
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return {}
    found = {row.split(":")[0]: row.split()[1] for row in rows if row.split(":")[0] in MEMORY}
    if not found:  # it has ended and nobody asked yet how
        return {}
    memory = {MEMORY[key]: round(int(value) / 1024, 1) for key, value in found.items()}
    return {**memory, "cpu_seconds": round(sum(map(int, times)) / os.sysconf("SC_CLK_TCK"), 1)}


def thinned(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most about SAMPLES of them, evenly, the last among them."""
    step = max(1, len(samples) // SAMPLES)
    return samples[::-step][::-1]


def add_lines(samples: list[dict[str, float]], size: int, lines: int) -> None:
    """How many lines were stored at each sample, told from the size of the file."""
    for sample in samples:
        sample["lines"] = round(sample.pop("lmdb_bytes") / size * lines)


def quarters(samples: list[dict[str, float]]) -> dict[str, list[float]]:
    """Of each quarter of the samples: lines a second of processor, and the most memory of either kind in MB."""
    edges = [round(i * (len(samples) - 1) / 4) for i in range(5)]
    parts = [samples[a : b + 1] for a, b in pairwise(edges)]
    rates = [(p[-1]["lines"] - p[0]["lines"]) / max(0.1, p[-1]["cpu_seconds"] - p[0]["cpu_seconds"]) for p in parts]
    return {
        "lines_a_cpu_second": [round(rate) for rate in rates],
        "own_mb": [max(sample["own_mb"] for sample in part) for part in parts],
        "mapped_files_mb": [max(sample["mapped_files_mb"] for sample in part) for part in parts],
    }


def committed_rows(part: Path) -> int:
    """Lines of the source that a killed import had done with."""
    with lmdb.open(str(part), readonly=True, lock=False) as environment, environment.begin() as transaction:
        note = bytes(transaction.get(b"progress", b"0 {}")).decode().partition(" ")[2]
    return int(json.loads(note)["rows"])


def compare(source: Path, out: Path, lines: int) -> dict[str, Any]:
    """Whether the rerun completed the set: its number of lines, and a thousand of them beside their source."""
    stored = LmdbLines(out)
    chosen = np.random.default_rng(1).choice(lines, min(lines, 1000), replace=False)
    entries = [(int(number), stored.entry(int(number))) for number in chosen]
    same = sum(
        entry.encoded == (source / name_of(number)).read_bytes() and entry.text == text_of(number)
        for number, entry in entries
    )
    return {"lines": len(stored), "compared": len(entries), "same": same}


def read_through(path: Path) -> None:
    """Brings a file into memory, so that the pass measures the loader; random reading is else as slow as the disk."""
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def loader_pass(path: Path) -> dict[str, Any]:
    """Every line of an LMDB through the training loader once, in this process."""
    cv2.setNumThreads(1)
    started = time.perf_counter()
    lines = LmdbLines(path)
    charset = Charset.named("alphanumeric-lower")
    batching = Batching()
    stream = Stream((lines,), (1.0,), 1)
    windows = Windows(stream, InputSpec(), charset.encode, charset.normalise, batching)
    count = -(-len(lines) // batching.window_lines)
    samples: list[dict[str, float]] = []
    seen = 0
    for number, batches in enumerate(walked(windows, count), start=1):
        seen += sum(map(len, batches))
        if number % max(1, count // SAMPLES) == 0 or number == count:
            second = round(time.perf_counter() - started, 1)
            samples.append({"second": second, "lines": seen, **state_of("self")})
    seconds = samples[-1]["second"]
    return {"seconds": seconds, "lines": seen, "lines_a_second": round(seen / seconds), "samples": samples}


def walked(windows: Windows, count: int) -> Iterator[list[Any]]:
    for number in range(count):
        yield windows[number]


if __name__ == "__main__":
    main()
