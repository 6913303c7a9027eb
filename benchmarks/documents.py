"""`python -m benchmarks.documents`: tables of README.md, docs/results.md and the model card, made from docs/results/.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.beside_peers import (
    beside_picture,
    beside_table,
    calibration_table,
    card,
    differences_table,
    speed_ratios,
)
from benchmarks.centres import centres_picture, centres_table
from benchmarks.charts import Point, scatter, standalone
from benchmarks.distillation import arms_table, picture, sizes_table
from benchmarks.distillation import claims_table as method_claims
from benchmarks.extend_charset import extend_table, steps_table
from benchmarks.few_shot import choice_table, descriptions_table, few_shot_table
from benchmarks.learn_characters import learn_table
from benchmarks.long_tail import long_tail_table
from benchmarks.markdown import NOT_RUN, table
from benchmarks.optimiser_tables import claims_table, optimisers_picture, optimisers_table, speed_table, text_table
from benchmarks.own_language import own_language_table
from benchmarks.real_pair import real_differences_table, real_table, real_time_table
from benchmarks.stages import RESULTS
from benchmarks.students import students_table

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    ROOT / "README.md",
    *(ROOT / f"docs/{name}.md" for name in ("results", "export", "performance", "own-language")),
    *(ROOT / f"crnn/models/{name}.md" for name in ("teacher", "default", "tiny")),
)
TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.S)

Json = dict[str, Any]


def main() -> int:
    """Rewrites the documents; exit status 1 with --check where one is not what the results say."""
    stale = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        made = with_tables(text)
        if made != text and "--check" not in sys.argv:
            path.write_text(made, encoding="utf-8")
        elif made != text:
            stale.append(str(path.relative_to(ROOT)))
    for path, draw in PICTURES.items():
        picture = draw()
        if picture and (not path.exists() or path.read_text(encoding="utf-8") != picture):
            if "--check" in sys.argv:
                stale.append(str(path.relative_to(ROOT)))
            else:
                path.write_text(picture, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)} differ from the results; run python -m benchmarks.documents", file=sys.stderr)
    return 1 if stale else 0


def with_tables(text: str) -> str:
    """The document with every table made anew; KeyError for a table that no function makes."""
    return TABLE.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def load(name: str) -> Json | None:
    """The results of that name, or None where they were not run."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def origin(results: Json) -> str:
    """Where the figures come from."""
    machine = results["machine"]
    return f"\n`{results['command']}`, {results['date']}, {machine['cores']} cores ({machine['cpu']}).\n"


def share(value: float | None, interval: list[float] | None = None) -> str:
    """A share in per cent, perhaps with its 95 % interval."""
    if value is None:
        return ""
    return f"{100 * value:.1f}" + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else "")


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}"


def bench_rows(results: Json, set_name: str) -> dict[str, Json]:
    """model -> its figures on one set."""
    return {row["model"]: row for row in results["bench"]["results"] if row["set"] == set_name}


def sizes(results: Json) -> dict[str, Json]:
    """model -> what the benchmark says of it."""
    return {model["name"]: model for model in results["bench"]["models"]}


def teacher() -> str:
    """The shipped teacher's figures."""
    results = load("teacher")
    if results is None:
        return NOT_RUN
    rows = [
        [row["set"], str(row["lines"]), share(row["exact"], row["exact_interval"]),
         share(row["acc36"]), share(row["cer"])]
        for row in results["bench"]["results"]
    ]  # fmt: skip
    runs = results["runs"]
    lines = sum(run["lines"] for run in runs.values())
    minutes = sum(run["seconds"] for run in runs.values()) / 60
    made = f"\nTrained on {lines:,} lines in {minutes:.0f} minutes of training steps.\n"
    return table(["set", "lines", "exact % (95 %)", "acc36 %", "CER %"], rows) + origin(results) + made


def demo_table(name: str) -> str:
    """Accuracy, size and time of a demo's models on its unseen lines."""
    results = load(name)
    if results is None:
        return NOT_RUN
    described = sizes(results)
    rows = []
    for model, row in bench_rows(results, "unseen").items():
        latency = described[model]["latency"]
        run = results["runs"].get(model)
        rows.append(
            [model, f"{described[model]['parameters'] / 1e6:.2f}", megabytes(described[model]["bytes"]),
             share(row["exact"], row["exact_interval"]), f"{latency['p50_ms']:.1f}",
             f"{run['lines']:,}" if run else "", f"{run['seconds'] / 60:.1f}" if run else ""]
        )  # fmt: skip
    header = ["model", "M parameters", "MB", "exact % (95 %)", "ms a line, p50", "lines seen", "minutes"]
    return table(header, rows) + origin(results)


def arms(name: str) -> str:
    """Arms of one comparison: validation accuracy by lines seen."""
    results = load(name)
    if results is None:
        return NOT_RUN
    marks = results["marks"]
    rows = []
    for arm in results["arms"]:
        if "accuracy" in arm:
            cells = [share(arm["accuracy"].get(str(mark))) for mark in marks]
            rows.append([arm["what"], *cells, f"{arm['minutes']:.1f}"])
        else:
            rows.append([arm["what"], *("not run" for _ in marks), ""])
    return table(["exact % after", *(f"{mark:,} steps" for mark in marks), "minutes"], rows) + origin(results)


def narrow() -> str:
    """How narrow lines reach the least width."""
    results = load("narrow_lines")
    if results is None:
        return NOT_RUN
    found = {(row["set"], row["min_width"], row["narrow"]): row for row in results["rows"]}
    names = list(dict.fromkeys(row["set"] for row in results["rows"]))
    counts = {row["set"]: row["lines"] for row in results["rows"]}
    rows = [
        [f"at least {width} px, {way}", *(share(found[name, width, way]["acc36"]) for name in names)]
        for width, way in dict.fromkeys((w, n) for _, w, n in found)
    ]
    return table(["acc36 %", *(f"{name} ({counts[name]} lines)" for name in names)], rows) + origin(results)


def full_width() -> str:
    """The literal command at full width."""
    results = load("full_width")
    if results is None:
        return NOT_RUN
    counts = results["parameters"]
    return (
        f"Teacher {counts['teacher'] / 1e6:.1f} M parameters, student {counts['student'] / 1e6:.1f} M; mean loss of "
        f"the first 20 steps {results['first_loss']:.2f}, of the last 20 {results['last_loss']:.2f} "
        f"({results['ratio']:.2f} of it).\n" + origin(results)
    )


def formats_full() -> str:
    """Bytes and time of every format at full width."""
    results = load("formats")
    if results is None:
        return NOT_RUN
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
    return table(header, rows) + origin(results) + checked


def formats_accuracy() -> str:
    """Accuracy of every format of the real pair's student."""
    results = load("formats")
    if results is None:
        return NOT_RUN
    described = sizes(results)
    rows = []
    for row in results["pooled"]:
        low, high = row["loss_interval"]
        rows.append(
            [row["model"], megabytes(described[row["model"]]["bytes"]), share(row["exact"]),
             f"{100 * row['loss']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
             share(row["same"]), share(row["same_of_right"])]
        )  # fmt: skip
    header = ["file", "MB", "exact %", "loss, points (95 %)", "same text %", "same of right %"]
    lines = f"\n{results['pooled'][0]['lines']:,} lines.\n"
    return table(header, rows) + origin(results) + lines


def quantisation_report() -> str:
    """What is in which type in two int8 files."""
    results = load("formats")
    if results is None:
        return NOT_RUN
    parts = []
    for name in ("student.int8.onnx", "student.int8.tflite"):
        rows = [
            [f"{row['kind']} x {row['operators']}", row["weights"], row["activations"], f"{row['bytes']:,}",
             row["reason"]]
            for row in results["reports"][name]["summary"]
        ]  # fmt: skip
        header = [f"`{name}`", "weights", "activations", "bytes", "why float"]
        parts.append(table(header, rows).replace(" ---: |", " --- |"))
    return "\n".join(parts) + origin(results)


def formats_picture() -> str:
    """Accuracy against bytes of every format of one student, as an SVG; empty where it was not measured."""
    results = load("formats")
    if results is None:
        return ""
    described = sizes(results)
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


def install_weight() -> str:
    """What different ways to TFLite bring along."""
    results = load("install_weight")
    if results is None:
        return NOT_RUN
    rows = [
        [row["what"], ", ".join(f"{name} {v}" for name, v in row["versions"].items()), f"{row['megabytes']:,.0f}"]
        for row in results["rows"]
    ]
    return table(["way", "packages", "MB in site-packages"], rows) + origin(results)


def synthetic_training(name: str) -> str:
    """The same network trained on lines of different generators."""
    results = load(name)
    if results is None:
        return NOT_RUN
    names = list(dict.fromkeys(row["set"] for row in results["bench"]["results"]))
    rows = []
    for model in sizes(results):
        cells = [_beside_first(bench_rows(results, name)[model]) for name in names]
        run = results["runs"][model]
        rows.append([model, *cells, f"{run['lines']:,}", f"{run['seconds'] / 60:.0f}"])
    return table(["exact % without case", *names, "lines", "minutes"], rows) + origin(results)


def synthesis() -> str:
    """Ours beside other generators: lines a second and core."""
    results = load("synthesis")
    if results is None:
        return NOT_RUN
    names = {"ours": "pocket-crnn", "trdg": "TextRecognitionDataGenerator 1.8.0", "synthtiger": "SynthTIGER 1.2.1"}
    rows = []
    for key, row in results["speed"].items():
        rounds = f"{min(row['rounds']):,.0f} to {max(row['rounds']):,.0f}"
        times = f"{row['ours_is_times']:.1f}" if "ours_is_times" in row else ""
        rows.append([names[key], f"{row['lines_a_second']:,.0f}", rounds, times])
    made = table(["generator", "lines a second and core", "rounds", "ours is times as fast"], rows)
    repeats = results["repeats"]
    return made + f"\nOf {repeats['lines']:,} lines of ours {repeats['repeated']} are repeats.\n" + origin(results)


def reading() -> str:
    """Ours beside the usual Datasets, by number of workers."""
    results = load("reading")
    if results is None:
        return NOT_RUN
    rows = []
    for workers in dict.fromkeys(row["workers"] for row in results["rows"]):
        of = {row["way"]: row for row in results["rows"] if row["workers"] == workers}
        speeds = [f"{of[way]['lines_per_second']['median']:,.0f}" for way in ("ours", "pillow", "opencv")]
        rows.append(
            [f"{workers}, lines/s", *speeds, *(_spread(of[w]["ours_is_faster_by"]) for w in ("pillow", "opencv"))]
        )
        if "cpu_microseconds_a_line" in of["ours"]:
            costs = [f"{of[way]['cpu_microseconds_a_line']['median']:.0f} µs" for way in ("ours", "pillow", "opencv")]
            ratios = [_spread(of[way]["ours_takes_less_cpu_by"]) for way in ("pillow", "opencv")]
            rows.append([f"{workers}, CPU a line", *costs, *ratios])
    return table(["workers", "ours", "Pillow", "OpenCV", "ours : Pillow", "ours : OpenCV"], rows) + origin(results)


def _spread(of: Json) -> str:
    return f"**{of['median']:.1f}** ({of['least']:.1f} to {of['most']:.1f})"


def reduced_scale() -> str:
    """JPEGs decoded at a part of their size beside whole."""
    results = load("reading")
    if results is None:
        return NOT_RUN
    rows = [
        [f"{part['set']}, {row['lines']}", str(row["height"]), str(row["decoded_height"]), f"{row['grey_levels']:.1f}",
         str(row["readings_changed"]), f"{row['right_whole']} / {row['right_reduced']}",
         f"{row['microseconds_whole']:,.0f} -> {row['microseconds_reduced']:,.0f}"]
        for part in results["reduced"] for row in part["rows"]
    ]  # fmt: skip
    header = [
        "set, lines", "stored height", "decoded height", "mean difference, grey levels", "readings changed",
        "right whole / reduced", "decode and resize, µs",
    ]  # fmt: skip
    return table(header, rows)


def waiting() -> str:
    """What share of a training step waits for its batch."""
    results = load("reading")
    if results is None:
        return NOT_RUN
    rows = [
        [str(row["workers"]), "as `crnn train`" if row["augment"] else "off", f"{row['lines_per_second']:.0f}",
         f"{100 * row['waiting_share']:.1f} %"]
        for row in results["waiting"]
    ]  # fmt: skip
    return table(["workers", "augmentation", "lines/s", "share of a step spent waiting for its batch"], rows)


def degradation_ablation() -> str:
    """What real training sets are read like when one kind of degradation is left out of the lines learnt from."""
    results = load("degradation_ablation")
    if results is None:
        return NOT_RUN
    names = list(dict.fromkeys(row["set"] for row in results["bench"]["results"]))
    rows = []
    for arm, about in results["arms"].items():
        cells = ["not run"] * len(names)
        if "run" in about:
            cells = [_beside_first(bench_rows(results, name)[f"{arm}.pt"]) for name in names]
        rows.append([about["what"], *cells])
    return table(["exact % without case (beside the usual mix)", *names], rows) + origin(results)


def _beside_first(row: Json) -> str:
    """Accuracy, and what it is more or less than the first model's on the same lines, with the paired interval."""
    apart = row["difference"]
    if not apart:
        return share(row["exact"])
    low, high = apart["exact_interval"]
    return share(row["exact"]) + f" ({100 * apart['exact']:+.1f}; {100 * low:+.1f} to {100 * high:+.1f})"


def rare_characters(results: Json) -> str:
    """Character losses on lines: rare and other characters of the real test sets, and whole lines beside them."""

    def cell(figures: Json) -> str:
        found = figures["read"]
        shown = f"{100 * found['mean']:.1f}"
        if found["deviation"] is not None:
            shown += f" ± {100 * found['deviation']:.1f}"
        if "interval" in figures:
            low, high = figures["interval"]
            shown += f" ({100 * figures['difference']['mean']:+.1f}; {100 * low:+.1f} to {100 * high:+.1f})"
        return shown

    rows = []
    held = {}
    for row in results["arms"]:
        if not row["seeds"]:
            rows.append([row["arm"], "not run", *[""] * 6])
            continue
        test = row["test"]
        held = {group: test[group]["held"] for group in ("few", "medium", "many")} | {
            "rich": row["rich"]["few"]["held"]
        }
        groups = [cell(test[group]) for group in ("few", "medium", "many")]
        macro = f"{100 * test['macro']['mean']:.1f}"
        rows.append([row["arm"], *groups, macro, cell(test["exact"]), cell(row["rich"]["few"]), str(len(row["seeds"]))])
    numbers = {name: f"{count:,}" for name, count in held.items()}
    header = ["arm", f"rare % (n = {numbers.get('few', '0')})", f"medium % ({numbers.get('medium', '0')})",
              f"frequent % ({numbers.get('many', '0')})", "macro %", "lines exact %",
              f"rare %, drawn set ({numbers.get('rich', '0')})", "seeds"]  # fmt: skip
    lines = ", ".join(f"{name} {count:,}" for name, count in results["training"]["lines"].items())
    weights = ", ".join(f"{loss}:{weight:g}" for loss, weight in results["choice"]["chosen"].items())
    rare = " ".join(f"{c}" for c in results["counts"])
    note = (
        f"\nMean ± standard deviation over seeds; in brackets the difference to the arm without and its 95 % interval "
        f"(bootstrap over lines, paired by line and seed). Trained on {lines} lines; weights chosen on held-out lines "
        f"of these: {weights}. Rare: `` {rare} ``.\n"
    )
    return table(header, rows) + note


def of(name: str, make: Callable[[Json], str], stamped: bool = True) -> Callable[[], str]:
    """A function that makes a table of the results of that name, where they were run, with their origin."""

    def made() -> str:
        results = load(name)
        return NOT_RUN if results is None else make(results) + (origin(results) if stamped else "")

    return made


def optimisers_curves(colours: Literal["colour", "grey"]) -> str:
    """Accuracy by epoch of each optimiser; empty where it was not measured."""
    results = load("optimisers")
    return optimisers_picture(results, colours) if results else ""


PICTURES: dict[Path, Callable[[], str]] = {
    ROOT / "docs/formats.svg": formats_picture,
    ROOT / "docs/optimisers.svg": partial(optimisers_curves, "colour"),
    ROOT / "docs/optimisers_grey.svg": partial(optimisers_curves, "grey"),
    ROOT / "docs/distillation.svg": lambda: picture(load("distillation")),
    ROOT / "docs/bytes.svg": lambda: beside_picture(load("beside_peers"), "bytes"),
    ROOT / "docs/milliseconds.svg": lambda: beside_picture(load("beside_peers"), "time"),
    ROOT / "docs/centres.svg": lambda: centres_picture(load("centres")),
}

TABLES: dict[str, Callable[[], str]] = {
    "teacher": teacher,
    "demo": lambda: demo_table("demo"),
    "demo-long": lambda: demo_table("demo_long"),
    "real-pair": of("real_pair", real_table),
    "real-pair-differences": of("real_pair", real_differences_table, stamped=False),
    "real-pair-time": of("real_pair", real_time_table, stamped=False),
    "distillation": of("distillation", arms_table),
    "distillation-sizes": of("distillation", sizes_table, stamped=False),
    "distillation-claims": of("distillation", method_claims, stamped=False),
    "beside-peers": of("beside_peers", beside_table),
    "beside-differences": of("beside_peers", differences_table, stamped=False),
    "students": of("students", students_table),
    "shipped-default": of("beside_peers", partial(card, name="default.int8.onnx")),
    "shipped-tiny": of("beside_peers", partial(card, name="tiny.int8.onnx")),
    "speed-ratios": of("beside_peers", speed_ratios, stamped=False),
    "calibration": of("beside_peers", calibration_table, stamped=False),
    "distance-at": lambda: arms("distance_at"),
    "narrow-lines": narrow,
    "full-width": full_width,
    "formats-full": formats_full,
    "formats-accuracy": formats_accuracy,
    "quantisation-report": quantisation_report,
    "install-weight": install_weight,
    "synthetic-training": lambda: synthetic_training("synthetic_training"),
    "synthetic-training-mixed": lambda: synthetic_training("synthetic_training_mixed"),
    "degradation-ablation": degradation_ablation,
    "own-language": of("own_language", own_language_table),
    "rare-characters": of("rare_characters", rare_characters),
    "long-tail": of("long_tail", long_tail_table),
    "centres": of("centres", centres_table),
    "few-shot": of("few_shot", few_shot_table),
    "few-shot-choice": of("few_shot", choice_table, stamped=False),
    "few-shot-descriptions": of("few_shot", descriptions_table, stamped=False),
    "extend-charset": of("extend_charset", extend_table),
    "extend-charset-longer": of("extend_charset_longer", lambda results: extend_table(results, ("five",), ())),
    "extend-charset-steps": of("extend_charset_steps", steps_table),
    "learn-characters": of("learn_characters", learn_table),
    "optimisers": of("optimisers", optimisers_table),
    "optimisers-claims": of("optimisers", claims_table, stamped=False),
    "optimisers-text": of("optimisers", text_table, stamped=False),
    "optimisers-speed": of("optimisers", speed_table, stamped=False),
    "synthesis": synthesis,
    "reading": reading,
    "reduced-scale": reduced_scale,
    "waiting": waiting,
    "teacher-recipe": lambda: arms("teacher_recipe"),
}

if __name__ == "__main__":
    sys.exit(main())
