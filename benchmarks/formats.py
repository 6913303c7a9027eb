"""Every export format of one student: `python -m benchmarks.formats`, some twenty minutes on two cores.

Bytes and time are those of a full-width ResNet-18 (the student of benchmarks.full_width, hardly trained); accuracy is
that of the real pair's student (benchmarks.real_pair), before and after distillation with simulated int8. Differences
to float32 are paired, line by line, over both test sets together.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.bench import BenchOptions, bench
from benchmarks.charts import Point, scatter, standalone
from benchmarks.intervals import bootstrap_interval
from benchmarks.latency import measure
from benchmarks.markdown import megabytes, percent, table
from benchmarks.real_pair import RealPairOptions, sources
from benchmarks.stages import RESULTS, bench_models, run_result, run_stage, without_paths, write_json
from crnn.runtimes import Runtime, open_runtime
from data.picture import prepare
from data.synthesis.source import SynthesisOptions, SynthesisSource
from export.targets import NOT_IN_ALL, TARGETS, TargetName

TEST_SETS = ("iiit5k_test", "sroie_test")
WIDTHS = (128, 320)
"""Pixels, of the timed lines."""
LINES, ROUNDS = 10, 20
"""Timed lines of each width, and how often every file reads each."""
AGAINST: dict[str, TargetName] = {"onnx": "onnx", "tflite": "tflite"}
"""The float32 file that a format is compared with, by the name of its family."""
EVERY: tuple[TargetName, ...] = tuple(name for name in TARGETS if name not in NOT_IN_ALL)
TRAINED_AWARE: tuple[TargetName, ...] = ("onnx-int8", "onnx-int8-portable", "tflite-int8", "tflite-int8-calibrated")


@dataclass(frozen=True)
class FormatsOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real sets.
        full: checkpoint of a full-width ResNet-18.
        pair: folder of the real pair.
        aware_steps: of the distillation with simulated int8, which goes on from the student.
        out: folder of exports and figures.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    full: Path = Path("runs/full-width/student.pt")
    pair: Path = Path("runs/real")
    aware_steps: int = 1000
    out: Path = Path("runs/formats")


def main() -> None:
    """The stages in order."""
    options = tyro.cli(FormatsOptions, description=__doc__)
    full = full_width(options)
    student, aware = options.pair / "student.pt", options.pair / "student-aware.pt"
    train_aware(options, student, aware)
    models = [student, *export_all(options, student, list(EVERY))]
    models += [aware, *export_all(options, aware, list(TRAINED_AWARE))]
    accuracy = read_sets(options, models)
    content = {
        "command": f"python -m benchmarks.formats --aware-steps {options.aware_steps}",
        "seeds": {"export": 0, "simulated int8": 4},
        "full_width": full,
        "bench": without_paths({key: value for key, value in accuracy.items() if key != "readings"}),
        "pooled": pooled(accuracy, student.name),
        "aware": run_result(aware),
        "reports": {path.name: report_of(path) for path in models if path.suffix != ".pt"},
    }
    write_json(RESULTS / "formats.json", content)


def full_width(options: FormatsOptions) -> dict[str, Any]:
    """Bytes, milliseconds and ratios of every format at full width, and how long all took to write and check."""
    folder = options.out / "full"
    marker = folder / "seconds.json"
    if not marker.exists():
        started = time.perf_counter()
        last = folder / (options.full.stem + TARGETS["tflite-fixed"].suffix)
        run_stage(
            last, "crnn",
            ["export", "--model", str(options.full), "--to", "all", "--data", "synth", "--out", str(folder)],
        )  # fmt: skip
        write_json(marker, {"seconds": time.perf_counter() - started})
    files = {name: folder / (options.full.stem + TARGETS[name].suffix) for name in EVERY}
    runtimes: dict[str, Runtime] = {name: open_runtime(path, threads=1) for name, path in files.items()}
    runtimes["torch"] = open_runtime(options.full, threads=1)
    stored = {name: path.stat().st_size for name, path in [*files.items(), ("torch", options.full)]}
    times = {width: time_width(runtimes, width) for width in WIDTHS}
    table = []
    for name, count in stored.items():
        against = AGAINST.get(name.partition("-")[0])
        figures: dict[str, Any] = {"name": name, "bytes": count, "times": {}}
        if against:
            figures["bytes_ratio"] = stored[against] / count
        for width, found in times.items():
            if name in found:
                figures["times"][width] = found[name] | (
                    {"ratio": found[against]["least_ms"] / found[name]["least_ms"]} if against else {}
                )
        table.append(figures)
    seconds = json.loads(marker.read_text())
    return {"export_all_seconds": seconds["seconds"], "lines_checked": 200, "threads": 1, "formats": table}


def time_width(runtimes: dict[str, Runtime], width: int) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of one line of this width, by format; a format of another width is left out."""
    drawn = SynthesisSource(SynthesisOptions(longest=10), seed=0)
    taking = {
        name: runtime
        for name, runtime in runtimes.items()
        if runtime.info.input_spec.min_width <= width <= runtime.info.input_spec.max_width
    }
    pictures = [
        [prepare(drawn[i].picture, runtime.info.input_spec, width)[None] for i in range(LINES)]
        for runtime in taking.values()
    ]
    found = measure(list(taking.values()), pictures, ROUNDS)
    return {
        name: {"p50_ms": latency.p50, "least_ms": min(latency.milliseconds)}
        for name, latency in zip(taking, found, strict=True)
    }


def train_aware(options: FormatsOptions, student: Path, out: Path) -> None:
    """The student, taught on with simulated int8 by the same teacher on the same lines."""
    run_stage(
        out, "distill.cli",
        ["--teacher", str(options.pair / "teacher.pt"), "--init", str(student), "--quantise-aware",
         "--student-backbone", "resnet18", "--out", str(out),
         *sources(RealPairOptions(options.data, out=options.pair)), "--distance-at", "both",
         "--until", str(options.aware_steps), "--validate-every", "250", "--learning-rate", "3e-4", "--warm-up", "50",
         "--threads", "1", "--seed", "4"],
    )  # fmt: skip


def export_all(options: FormatsOptions, model: Path, names: Sequence[TargetName]) -> list[Path]:
    """The files of one checkpoint, calibrated and checked on what it learnt from."""
    files = [options.out / (model.stem + TARGETS[name].suffix) for name in names]
    run_stage(files[-1], "crnn", ["export", "--model", str(model), "--to", *names, "--out", str(options.out)])
    return files


def read_sets(options: FormatsOptions, models: Sequence[Path]) -> dict[str, Any]:
    """Every test line read by every file; nothing was trained, calibrated or chosen on these."""
    sets = tuple(options.data / f"{name}.zip" for name in TEST_SETS)
    json_path = options.out / "results.json"
    chosen = BenchOptions(tuple(models), sets, json_path, options.out / "report.html", readings=True, latency_lines=0)
    return bench(chosen, "python -m benchmarks.formats")


def pooled(results: dict[str, Any], first: str) -> list[dict[str, Any]]:
    """Exact accuracy over both sets together, the loss to the first model with its paired interval, equal texts.

    same_of_right: share of the lines that the first model reads right whose text is the same.
    """
    flat = {model: [line for lines in sets.values() for line in lines] for model, sets in results["readings"].items()}
    reference = flat[first]
    rows = []
    for model, lines in flat.items():
        pairs = list(zip(lines, reference, strict=True))
        right = [line["text"] == line["label"] for line in reference]
        losses = [float(was) - float(a["text"] == a["label"]) for (a, _), was in zip(pairs, right, strict=True)]
        same = [a["text"] == b["text"] for a, b in pairs]
        of_right = [s for s, was in zip(same, right, strict=True) if was]
        rows.append(
            {
                "model": model,
                "lines": len(lines),
                "exact": float(np.mean([line["text"] == line["label"] for line in lines])),
                "loss": float(np.mean(losses)),
                "loss_interval": bootstrap_interval(losses, seed=0),
                "same": float(np.mean(same)),
                "same_of_right": float(np.mean(of_right)),
            }
        )
    return rows


def report_of(path: Path) -> dict[str, Any]:
    """What the export kept in float and found, from the JSON beside a file."""
    report: dict[str, Any] = json.loads(path.with_name(path.name + ".json").read_text())
    kept = ("target", "bytes", "summary", "search", "max_drop", "ranges_from")
    parity = {key: report["parity"][key] for key in ("difference", "relative", "lines", "same_texts", "judged_by")}
    return {key: report[key] for key in kept if key in report} | {"parity": parity}


def full_width_table(results: dict[str, Any]) -> str:
    """Bytes and time of every format at full width."""
    full = results["full_width"]
    rows = []
    for row in full["formats"]:
        cells = [row["name"], megabytes(row["bytes"]), f"{row['bytes_ratio']:.2f}" if "bytes_ratio" in row else ""]
        for width in ("128", "320"):
            time = row["times"].get(width)
            cells += [f"{time['p50_ms']:.1f}", f"{time['ratio']:.2f}" if "ratio" in time else ""] if time else ["", ""]
        rows.append(cells)
    header = ["format", "MB", "smaller by", "ms, 128 px", "faster by", "ms, 320 px", "faster by"]
    checked = (
        f"\nAll nine files were written and checked on {full['lines_checked']} lines in "
        f"{full['export_all_seconds']:.0f} seconds.\n"
    )
    return table(header, rows) + checked


def accuracy_table(results: dict[str, Any]) -> str:
    """Accuracy of every format of the real pair's student."""
    described = bench_models(results)
    rows = []
    for row in results["pooled"]:
        low, high = row["loss_interval"]
        rows.append(
            [row["model"], megabytes(described[row["model"]]["bytes"]), percent(row["exact"]),
             f"{100 * row['loss']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
             percent(row["same"]), percent(row["same_of_right"])]
        )  # fmt: skip
    header = ["file", "MB", "exact %", "loss, points (95 %)", "same text %", "same of right %"]
    lines = f"\n{results['pooled'][0]['lines']:,} lines.\n"
    return table(header, rows) + lines


def quantisation_tables(results: dict[str, Any]) -> str:
    """What is in which type in two int8 files."""
    parts = []
    for name in ("student.int8.onnx", "student.int8.tflite"):
        rows = [
            [f"{row['kind']} x {row['operators']}", row["weights"], row["activations"], f"{row['bytes']:,}",
             row["reason"]]
            for row in results["reports"][name]["summary"]
        ]  # fmt: skip
        header = [f"`{name}`", "weights", "activations", "bytes", "why float"]
        parts.append(table(header, rows).replace(" ---: |", " --- |"))
    return "\n".join(parts)


def formats_picture(results: dict[str, Any]) -> str:
    """Accuracy against bytes of every format of one student, as an SVG; empty where it was not measured."""
    described = bench_models(results)
    points = []
    first = results["pooled"][0]
    student = first["model"].removesuffix("pt")
    for row in results["pooled"]:
        if row["model"].startswith(student):
            low, high = (first["exact"] - loss for loss in reversed(row["loss_interval"]))
            kind = "network" if row is first else "file"
            name = "checkpoint" if row is first else row["model"].removeprefix(student)
            points.append(Point(name, described[row["model"]]["bytes"] / 1e6, row["exact"], low, high, kind))
    return standalone(scatter(points, "MB", "exact %, with the paired interval of the loss to float32"))


if __name__ == "__main__":
    main()
