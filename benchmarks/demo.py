"""`make demo`: a large recogniser teaches a small one, here and now; then both read unseen lines and pictures.

With --long the student sees more lines, and two students of the same network are trained from scratch beside it:
with plain CTC, and with the teacher's own recipe; each for as many lines, and for as many minutes. Stages that are
done are kept in --out, so a run that was cut off goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import tyro

from benchmarks.markdown import megabytes, table, with_interval
from benchmarks.recipes import EASY, EASY_STEPS, SMALL, TAUGHT, TEACHER
from benchmarks.stages import bench_models, bench_rows, run_result, run_stage, without_paths, write_json
from crnn.commands import run_path
from data.lines import open_lines
from data.synthesis.fonts import packaged_folders
from export.targets import TARGETS, TargetName

STRENGTH = 0.4
"""Of the degradations of the demo's lines: all kinds of the teacher's training are on, milder than there, so that
the teacher reads nine lines of ten. Its accuracy at full strength and on real crops stands on its card."""
KINDS = ("word:0.72", "number:0.1", "price:0.06", "date:0.05", "time:0.03", "label:0.04")
"""What the lines say: no random strings, in which not even a person could tell 0 from O."""
LEAST_TEACHER, MOST_BEHIND, MOST_LOST = 0.90, {False: 0.05, True: 0.02}, 0.02
"""What the demo must show: the teacher's accuracy, by how much the student may be behind (short, long), and what int8
may lose on these 1,000 lines."""
TEST_LINES = 1000
TRAINING_SEED, UNSEEN_SEED = 11, 12
LINES_A_STEP = 30.5
"""Mean of `crnn train`'s batches of up to 32 on such lines. A distillation with kept features has smaller ones, of one
natural width each, so equal steps would not be equal lines; the table gives the lines that each really saw."""
FORMATS: tuple[TargetName, ...] = ("onnx", "onnx-int8", "tflite-int8")
"""What the student is written as: float32, and int8 for either phone runtime."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demo.

    Attributes:
        long: more lines, and twins from scratch, in at most two hours.
        out: folder for lines, models and the report.
        lines: distinct training lines; 0 for 40,000, or 80,000 with --long.
        steps: of the student; 0 for 5,000, or 12,000 with --long.
    """

    long: bool = False
    out: Path = Path("runs/demo")
    lines: int = 0
    steps: int = 0


def main() -> int:
    """The stages in order; exit status 1 where the demo does not show what it should."""
    options = tyro.cli(DemoOptions, description=__doc__)
    out = options.out.with_name(options.out.name + "-long") if options.long else options.out
    lines = options.lines or (80_000 if options.long else 40_000)
    steps = options.steps or (12_000 if options.long else 5_000)
    training, unseen = out / "train.lmdb", out / "unseen.lmdb"
    bake(training, lines, "training", seed=TRAINING_SEED)
    bake(unseen, TEST_LINES, "held-out", seed=UNSEEN_SEED)
    student = distil(out / "student.pt", training, steps, options.long)
    models = [TEACHER, student, *export(student, training)]
    if options.long:
        models += scratch_twins(out, training, student)
    results = bench(out, models, unseen)
    read_pictures(out, unseen)
    return verdict(out, results, options.long)


def bake(out: Path, count: int, side: str, seed: int) -> None:
    """Lines of 1 to 12 characters, drawn with the fonts that pip brings, so that every machine draws the same."""
    folders = [str(folder) for folder in packaged_folders()]
    run_stage(
        out, "crnn",
        ["data", "make", "--out", str(out), "--count", str(count), "--seed", str(seed), "--longest", "12",
         "--fonts", side, "--words", side, "--strength", str(STRENGTH), "--kinds", *KINDS, "--font-folders", *folders],
    )  # fmt: skip


def distil(out: Path, lines: Path, steps: int, long: bool) -> Path:
    """The student: its CNN alone is trained, through the teacher's frozen encoder.

    The short demo takes the published distance, which is the default; the long one also the distance before the
    encoder, which does better in as many steps (docs/results.md).
    """
    run_stage(
        out, "distill.cli",
        ["--teacher", str(TEACHER), "--student-backbone", "resnet18", "--data", str(lines), "--out", str(out), *TAUGHT,
         "--until", str(steps), "--keep-features", "memory", "--distance-at", "both" if long else "output"],
    )  # fmt: skip
    return out


def scratch_twins(out: Path, lines: Path, student: Path) -> list[Path]:
    """The student's network without a teacher: plain CTC, and the teacher's recipe; equal lines, equal minutes."""
    taught = run_result(student)
    twins = []
    for name, recipe in (("plain", False), ("recipe", True)):
        steps = round(taught["lines"] / LINES_A_STEP)
        for equal in ("lines", "minutes"):
            twin = out / f"twin-{name}-equal-{equal}.pt"
            train_twin(twin, lines, steps, recipe)
            twins.append(twin)
            # as many steps as the student's minutes allow at the speed just measured
            steps = max(1, round(steps * taught["seconds"] / seconds_of(twin)))
    return twins


def seconds_of(twin: Path) -> float:
    """Of a twin's training, its easy stage included."""
    stages = [path for path in (easy_of(twin), twin) if path.exists()]
    return float(sum(run_result(path)["seconds"] for path in stages))


def easy_of(twin: Path) -> Path:
    """The model that a twin with the recipe starts from."""
    return twin.with_name(twin.stem + "-easy.pt")


def train_twin(out: Path, lines: Path, steps: int, recipe: bool) -> None:
    """One twin. The recipe is that of the shipped teacher: easy lines first, then the column-aligned loss, fading."""
    start, columns = SMALL, ["--column-weight", "0"]
    if recipe:
        easy = easy_of(out)
        folders = [str(folder) for folder in packaged_folders()]
        run_stage(
            easy, "crnn",
            ["train", "--data", "synth-easy", "--synth.font-folders", *folders, "--out", str(easy), *SMALL, *EASY],
        )  # fmt: skip
        steps = max(1, steps - EASY_STEPS // 2)  # its batches are half as large
        start, columns = ["--init", str(easy)], ["--column-weight", "0.5", "--column-steps", str(min(2000, steps // 2))]
    run_stage(out, "crnn", ["train", "--data", str(lines), "--out", str(out), *start, *columns, "--until", str(steps)])


def export(student: Path, lines: Path) -> list[Path]:
    """The student in FORMATS, each proven against torch on training lines."""
    files = [student.with_name(student.stem + TARGETS[name].suffix) for name in FORMATS]
    run_stage(files[-1], "crnn", ["export", "--model", str(student), "--to", *FORMATS, "--data", str(lines)])
    return files


def bench(out: Path, models: list[Path], unseen: Path) -> dict[str, Any]:
    """Accuracy, bytes and milliseconds of every model on the unseen lines, and on real crops where there are some."""
    real = [path for name in ("iiit5k_test", "ic13_test") if (path := real_data() / f"{name}.zip").exists()]
    result = out / "results.json"
    run_stage(
        result, "crnn",
        ["bench", "--models", *map(str, models), "--data", str(unseen), *map(str, real), "--json", str(result),
         "--report", str(out / "report.html"), "--threads", "1"],
    )  # fmt: skip
    content: dict[str, Any] = json.loads(result.read_text())
    return content


def real_data() -> Path:
    """Where the user keeps real crops."""
    return Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))


def read_pictures(out: Path, unseen: Path) -> None:
    """Reads eight pictures as a user would: real crops where there are some, else unseen lines written as PNG."""
    real = real_data() / "ic13_test.zip"
    source = open_lines(real if real.exists() else unseen)
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        line = source[number * (len(source) // 8)]
        cv2.imwrite(str(pictures / f"{number}.png"), line.picture[:, :, ::-1])
    print(f"\nEight pictures of {source.path.name}, read by the student as ONNX (path, text, confidence):", flush=True)
    run([str(pictures), "--model", str(out / "student.onnx"), "--draw", str(out / "read")])


def run(arguments: list[str]) -> None:
    """`crnn read`, always anew."""
    subprocess.run([sys.executable, "-m", "crnn", "read", *arguments], check=True)


def verdict(out: Path, results: dict[str, Any], long: bool) -> int:
    """Prints what was shown, and keeps it as JSON; 1 where it falls short."""
    exact = {row["model"]: row for row in results["results"] if row["set"] == "unseen"}
    teacher, student, onnx = exact["teacher.pt"], exact["student.pt"], exact["student.onnx"]
    same = onnx["same_text"]["student.pt"]
    found = [
        (
            f"teacher reads {teacher['exact']:.1%} of {TEST_LINES} unseen lines exactly",
            teacher["exact"] >= LEAST_TEACHER,
        ),
        (
            f"student reads {student['exact']:.1%}, at most {MOST_BEHIND[long]:.0%} less than its teacher",
            round(teacher["exact"] - student["exact"], 6) <= MOST_BEHIND[long],
        ),
        (f"ONNX gives the same text as torch on {same} of {TEST_LINES} lines", same == TEST_LINES),
    ]
    for name in FORMATS[1:]:
        row = exact[student_as(name)]
        found.append((f"{name} reads {row['exact']:.1%}, at most {MOST_LOST:.0%} less than torch",
                      row["exact"] >= student["exact"] - MOST_LOST))  # fmt: skip
    runs = {path.name: run_result(path) for path in sorted(out.glob("*.pt")) if run_path(path).exists()}
    command = "make demo-long" if long else "make demo"
    seeds = {"training lines": TRAINING_SEED, "unseen lines": UNSEEN_SEED, "students": 0}
    content = {"command": command, "seeds": seeds, "bench": without_paths(results), "runs": runs}
    write_json(out / "demo.json", content)
    print()
    for sentence, holds in found:
        print(f"{'yes' if holds else 'NO '}  {sentence}")
    for name, row in exact.items():
        if name.startswith("twin"):
            print(f"     {name} reads {row['exact']:.1%}")
    print(f"     crnn --help takes {seconds_of_help():.2f} s")
    print(f"\nThe report: {out / 'report.html'}")
    return 0 if all(holds for _, holds in found) else 1


def student_as(name: TargetName) -> str:
    """The file name of the student in a format."""
    return "student" + TARGETS[name].suffix


def seconds_of_help() -> float:
    """Wall time of `crnn --help`, the least of three."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "crnn", "--help"], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    return min(taken)


def demo_table(results: dict[str, Any]) -> str:
    """Accuracy, size and time of a demo's models on its unseen lines."""
    described = bench_models(results)
    rows = []
    for model, row in bench_rows(results, "unseen").items():
        latency = described[model]["latency"]
        run = results["runs"].get(model)
        rows.append(
            [model, f"{described[model]['parameters'] / 1e6:.2f}", megabytes(described[model]["bytes"]),
             with_interval(row["exact"], row["exact_interval"]), f"{latency['p50_ms']:.1f}",
             f"{run['lines']:,}" if run else "", f"{run['seconds'] / 60:.1f}" if run else ""]
        )  # fmt: skip
    header = ["model", "M parameters", "MB", "exact % (95 %)", "ms a line, p50", "lines seen", "minutes"]
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
