"""Our students beside what people use today: `python -m benchmarks.beside_peers`, some forty minutes of one core.

Whole test sets, one thread, every recogniser with its own default preparation. Students come from benchmarks.students,
real_student and easyocr_student, each as float32 and as int8 ONNX; int8 files also read with the English words of the
package known, as `crnn read` does with the default one. Time is measured twice, from the picture to the text: of all
files and peers in turns on the same 200 crops, and of ours and PP-OCRv4 mobile on every crop of iiit5k_test, where
PP-OCRv4 is also asked without the padding that it brings by default. Parts are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import tyro

from benchmarks.bench import WITH_WORDS
from benchmarks.charts import Point, scatter, standalone
from benchmarks.confidence import calibration_error
from benchmarks.intervals import bootstrap_interval
from benchmarks.markdown import NOT_RUN, signed_with_interval, table, with_interval
from benchmarks.peers import PEERS, chosen_peers
from benchmarks.stages import RESULTS, finished, run_stage, without_paths, write_json
from benchmarks.students import WIDTHS
from crnn import words
from crnn.recogniser import PACKAGED, packaged_model
from crnn.score import fold36
from crnn.words import ENGLISH
from data.check import LETTER_SPACED

Json = dict[str, Any]

SETS = ("iiit5k_test", "ic13_test", "ic15_test", "sroie_test", "docs_en", "cute80")
TIMED, ROUNDS = 200, 3
"""Crops of iiit5k_test that all recognisers are timed on, and how often."""
ALL_CROPS = 3000
SPACED_SETS = ("iiit5k_test", "cute80")
"""Sets with labels that spell a word with spaces (T H E)."""


@dataclass(frozen=True)
class BesideOptions:
    """Options.

    Attributes:
        part: ours: our models' accuracy; peers: theirs; time: of both; all of them where none is named.
        students: folder of benchmarks.students.
        real: folder of benchmarks.real_student.
        easyocr: folder of benchmarks.easyocr_student.
        data: folder with the zips of the test sets.
        out: where exports and figures go.
    """

    part: tyro.conf.Positional[tuple[Literal["ours", "peers", "time"], ...]] = ("ours", "peers", "time")
    students: Path = Path("runs/students")
    real: Path = Path("runs/real-student")
    easyocr: Path = Path("runs/easyocr-student")
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/beside-peers")


def main() -> None:
    """The parts that are not there yet, then the results' JSON."""
    options = tyro.cli(BesideOptions, description=__doc__)
    tests = [str(options.data / f"{name}.zip") for name in SETS]
    accuracy = ["--data", *tests, "--latency-lines", "0", "--readings"]
    if "peers" in options.part:
        for name in chosen_peers(("all",)):
            bench(options, f"peer-{name}", ["--peers", name, *accuracy], [])
    if "ours" in options.part:
        for path in our_files(options):
            known = ["--words"] if path.name.endswith(PACKAGED) else []
            bench(options, f"ours-{path.name}", ["--models", str(path), *known, *accuracy], [path])
    if "time" in options.part:
        models = [path for path in our_files(options) if path.suffix == ".onnx"]
        bench(
            options, "time",
            ["--models", *map(str, models), "--words", "--peers", *PEERS, "--data", tests[0], "--limit", str(TIMED),
             "--latency-lines", str(TIMED), "--latency-rounds", str(ROUNDS)],
            models,
        )  # fmt: skip
        int8 = [path for path in models if path.name.endswith(PACKAGED)]
        bench(
            options, "time-all",
            ["--models", *map(str, int8), "--words", "--peers", "pp-ocr-v4", "pp-ocr-v4-unpadded", "--data", tests[0],
             "--latency-lines", str(ALL_CROPS), "--latency-rounds", "1"],
            int8,
        )  # fmt: skip
    write_results(options)


def bench(options: BesideOptions, name: str, arguments: Sequence[str], models: Sequence[Path]) -> None:
    """One run of crnn bench, whose JSON is kept while it is newer than its models and of the same ones."""
    result = options.out / f"{name}.json"
    if models and result.exists():
        measured = [model["name"] for model in json.loads(result.read_text(encoding="utf-8"))["models"]]
        asked, sources = [model.name for model in models], list(models)
        if "--words" in arguments:
            asked += [name + WITH_WORDS for name in asked]
            sources += [ENGLISH, Path(words.__file__)]
        newest = max(path.stat().st_mtime for path in sources)
        if result.stat().st_mtime < newest or measured[: len(asked)] != asked:
            result.unlink()
    run_stage(result, "crnn", ["bench", "--json", str(result), "--threads", "1", *arguments])


def our_files(options: BesideOptions) -> list[Path]:
    """Teachers, and students as float32 and int8 ONNX, under names of their own; the int8 that ships where one does."""
    files = []
    for name, path in our_checkpoints(options).items():
        checkpoint = named(options, name, path)
        if name.endswith("teacher"):
            files.append(checkpoint)
            continue
        formats = ["onnx"] if name in WIDTHS else ["onnx", "onnx-int8"]
        made = [checkpoint.with_name(name + ending) for ending in (".onnx", PACKAGED)[: len(formats)]]
        if made[0].exists() and made[0].stat().st_mtime < checkpoint.stat().st_mtime:
            made[-1].unlink(missing_ok=True)
        run_stage(made[-1], "crnn", ["export", "--model", str(checkpoint), "--to", *formats])
        files += [*made, *([packaged_model(name)] if name in WIDTHS else [])]
    return files


def our_checkpoints(options: BesideOptions) -> dict[str, Path]:
    """Teachers, then students, that are there and finished, by the names that they are told by."""
    checkpoints = {
        "teacher": options.students / "teacher.pt",
        "real-teacher": options.real / "teacher.pt",
        "easyocr-teacher": options.easyocr / "teacher.pt",
        **{name: options.students / f"{name}.pt" for name in WIDTHS},
        "real-student": options.real / "student.pt",
        "easyocr-student": options.easyocr / "student.pt",
    }
    return {name: path for name, path in checkpoints.items() if path.exists() and finished(path)}


def named(options: BesideOptions, name: str, path: Path) -> Path:
    """A copy of a checkpoint under another name, made anew where the checkpoint is newer."""
    copy = options.out / "models" / f"{name}.pt"
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime:
        shutil.copyfile(path, copy)
    return copy


def write_results(options: BesideOptions) -> None:
    """The JSON of the parts that were run, teachers and students in the order of TITLES."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob("*.json"))}
    there = {f"ours-{name}" for name in our_checkpoints(options)}  # figures of models that were here once are left out
    found = {name: own for name, own in found.items() if name.split(".")[0] in there or not name.startswith("ours-")}
    accuracy = [found[key] for name in TITLES for key in (f"ours-{name}", f"peer-{name}") if key in found]
    read = {model: sets for results in accuracy for model, sets in results["readings"].items()}
    times = {name: without_paths(found[name])["models"] for name in ("time", "time-all") if name in found}
    write_json(
        RESULTS / "beside_peers.json",
        {
            "command": "python -m benchmarks.beside_peers",
            "seed": 0,
            "models": [model for results in accuracy for model in without_paths(results)["models"]],
            "results": [row | {"characters": None} for results in accuracy for row in results["results"]],
            "letter_spaced": {model: letter_spaced(sets) for model, sets in read.items()},
            "calibration_error": {name: {model: error36(sets[name]) for model, sets in read.items()} for name in SETS},
            "differences": differences(read),
            "times": {
                part: {
                    model["name"]: {key: model["latency"][key] for key in ("p50_ms", "mean_ms", "lines", "rounds")}
                    for model in described
                }
                for part, described in times.items()
            },
        },
    )


def differences(read: dict[str, dict[str, Lines]]) -> list[Json]:
    """acc36 of our int8 students, with words known, less that of peers, paired by line, with its 95 % interval."""
    found = []
    for ours, peer in product(read, read):
        if ours.endswith(PACKAGED + WITH_WORDS) and peer in PEERS:
            for name in PICTURED:
                both = zip(read[ours][name], read[peer][name], strict=True)
                apart = [float(right36(a)) - right36(b) for a, b in both if fold36(b["label"])]
                row = {"model": ours, "peer": peer, "set": name, "difference": fmean(apart)}
                found.append(row | {"interval": bootstrap_interval(apart, 0)})
    return found


Lines = Sequence[Json]
"""As crnn bench writes them with --readings: label, text, confidence of each line."""


def right36(line: Json) -> bool:
    """In letters and digits, without case."""
    return fold36(line["text"]) == fold36(line["label"])


def letter_spaced(sets: dict[str, Lines]) -> list[int]:
    """How many labels that spell a word with spaces were read right, and how many there are."""
    own = [line for name in SPACED_SETS for line in sets[name] if LETTER_SPACED.search(line["label"])]
    return [sum(map(right36, own)), len(own)]


def error36(lines: Lines) -> float:
    """Expected calibration error where right is what acc36 counts, for some sets are labelled in one case."""
    counted = [line for line in lines if fold36(line["label"])]
    return calibration_error([line["confidence"] for line in counted], [right36(line) for line in counted])


# Table and pictures.

TITLES = {
    "teacher.pt": "teacher, drawn lines alone",
    "real-teacher.pt": "teacher, with real lines",
    "easyocr-teacher.pt": "EasyOCR's model, imported",
    "default.onnx": "default",
    "default.int8.onnx": "default, int8 (ships)",
    "default.int8.onnx +words": "default, int8, words known",
    "tiny.onnx": "tiny",
    "tiny.int8.onnx": "tiny, int8 (ships)",
    "tiny.int8.onnx +words": "tiny, int8, words known",
    "real-student.onnx": "with real lines",
    "real-student.int8.onnx": "with real lines, int8",
    "real-student.int8.onnx +words": "with real lines, int8, words known",
    "easyocr-student.onnx": "taught by EasyOCR's",
    "easyocr-student.int8.onnx": "taught by EasyOCR's, int8",
    "easyocr-student.int8.onnx +words": "taught by EasyOCR's, int8, words known",
    **{name: peer.title for name, peer in PEERS.items()},
}
SHORT = {
    "teacher.pt": "teacher",
    "real-teacher.pt": "teacher, real lines",
    "default.int8.onnx": "default",
    "default.int8.onnx +words": "default, words",
    "tiny.int8.onnx": "tiny",
    "tiny.int8.onnx +words": "tiny, words",
    "real-student.int8.onnx": "real lines",
    "real-student.int8.onnx +words": "real lines, words",
    "easyocr-student.int8.onnx": "EasyOCR's student",
    "easyocr-student.int8.onnx +words": "EasyOCR's student, words",
    "tesseract": "Tesseract 5",
    "easyocr": "EasyOCR",
    "pp-ocr-v4": "PP-OCRv4 mobile",
    "pp-ocr-v6-small": "PP-OCRv6 small",
}
"""What the pictures show, by names that fit there: of students int8 alone, which reads as float32 does."""
PICTURED = ("iiit5k_test", "ic13_test", "ic15_test", "sroie_test")
"""Sets whose mean the pictures show."""


def beside_table(results: Json) -> str:
    """acc36 on whole test sets, bytes, and milliseconds from the picture to the text."""
    accuracy = {(row["model"], row["set"]): row for row in results["results"]}
    times = results["times"].get("time", {})
    rows = []
    for model in results["models"]:
        name = model["name"]
        cells = [f"{100 * accuracy[name, s]['acc36']:.1f}" if (name, s) in accuracy else "not run" for s in SETS]
        spaced = results["letter_spaced"].get(name)
        mean = f"{times[name]['mean_ms']:.1f}" if name in times else ""
        rows.append([TITLES.get(name, name), f"{model['bytes'] / 1e6:.2f}", *cells,
                     f"{spaced[0]} of {spaced[1]}" if spaced else "", mean])  # fmt: skip
    header = ["acc36 %", "MB", *SETS, "letter-spaced", f"ms a crop, mean of {TIMED}"]
    return table(header, rows)


def differences_table(results: Json) -> str:
    """Points of acc36 between our int8 students and peers on the pictured sets."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in results["differences"]:
        told = signed_with_interval(row["difference"], row["interval"])
        rows.setdefault((row["model"], row["peer"]), []).append(told)
    named = [[f"{TITLES[model]} - {TITLES[peer]}", *cells] for (model, peer), cells in rows.items()]
    return table(["points of acc36 (95 %)", *PICTURED], named)


def card(results: Json, name: str) -> str:
    """Of one file, by best path and with words known: accuracy on every set, and how far its confidences are off."""
    ways = {name: "best path", name + WITH_WORDS: "known words"}
    rows = [
        [row["set"], str(row["lines"]), ways[row["model"]], with_interval(row["exact"], row["exact_interval"]),
         with_interval(row["acc36"], row["acc36_interval"]), f"{100 * row['cer']:.1f}",
         f"{100 * results['calibration_error'][row['set']][row['model']]:.1f}"]
        for row in sorted(results["results"], key=lambda row: SETS.index(row["set"]))
        if row["model"] in ways
    ]  # fmt: skip
    if not rows:
        return NOT_RUN
    header = ["set", "lines", "decoding", "exact % (95 %)", "acc36 % (95 %)", "CER %", "calibration error, points"]
    return table(header, rows)


def speed_ratios(results: Json) -> str:
    """How many times as fast as PP-OCRv4 mobile our int8 students are, over every crop of iiit5k_test."""
    if "time-all" not in results["times"]:
        return NOT_RUN
    times = results["times"]["time-all"]
    rows = [
        [TITLES[name], f"{found['mean_ms']:.1f}",
         *(f"{times[peer]['mean_ms'] / found['mean_ms']:.1f}" for peer in ("pp-ocr-v4", "pp-ocr-v4-unpadded"))]
        for name, found in times.items()
    ]  # fmt: skip
    crops = next(iter(times.values()))["lines"]
    return table([f"{crops:,} crops", "ms a crop, mean", "times PP-OCRv4's speed", "not padded"], rows)


def calibration_table(results: Json) -> str:
    """Expected calibration error of every recogniser on every set."""
    errors = results["calibration_error"]
    names = [model["name"] for model in results["models"]]
    rows = [
        [TITLES.get(name, name), *(f"{100 * errors[s][name]:.1f}" if name in errors.get(s, {}) else "" for s in SETS)]
        for name in names
    ]
    return table(["calibration error, points", *SETS], rows)


def beside_picture(results: Json, across: Literal["bytes", "time"]) -> str:
    """Mean acc36 of PICTURED against bytes or milliseconds; bars are the mean ends of the sets' intervals."""
    if across == "time" and "time" not in results["times"]:
        return ""
    accuracy = {(row["model"], row["set"]): row for row in results["results"]}
    points = []
    for model in results["models"]:
        name = model["name"]
        own = [accuracy[name, s] for s in PICTURED if (name, s) in accuracy]
        if name not in SHORT or len(own) < len(PICTURED) or (across == "time" and name not in results["times"]["time"]):
            continue
        x = model["bytes"] / 1e6 if across == "bytes" else results["times"]["time"][name]["mean_ms"]
        low, mid, high = (
            sum(values) / len(own)
            for values in zip(*((r["acc36_interval"][0], r["acc36"], r["acc36_interval"][1]) for r in own), strict=True)
        )
        kind = "peer" if name in PEERS else "network" if name.endswith(".pt") else "file"
        points.append(Point(SHORT[name], x, mid, low, high, kind))
    title = "MB" if across == "bytes" else "ms a crop"
    return standalone(scatter(points, title, "acc36 %, mean of four real test sets")) if points else ""


if __name__ == "__main__":
    main()
