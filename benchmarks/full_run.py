"""`make full-run`: from nothing to a full-width pair and its figures, on one accelerator, in calls of ten minutes.

A ResNet-101 with a 2 x 256 BiLSTM is trained on easy lines, then on all kinds beside the real training sets where they
are there; a full-width ResNet-18 is distilled from it, written as ONNX and TFLite in int8, and measured. Every call
works for --minutes and ends with status 75 while there is more to do; the next one goes on from what was saved last,
and `make full-run` calls until all is done. Export and benchmark, which cannot be resumed, are let come to their end.
--toy is the same at a width and a number of lines that two cores do in a minute, in a folder of its own, to try it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.real_pair import TRAINING_SETS, cleaned
from benchmarks.recipes import EASY, TAUGHT
from benchmarks.stages import RESULTS, run_result, run_stage, without_paths, write_json

TEST_SETS = ("iiit5k_test", "ic13_test", "ic15_test", "sroie_test")
SEEDS = {"easy": 0, "teacher": 1, "student": 2, "unseen lines": 3}


@dataclass(frozen=True)
class FullRunOptions:
    """Options of the full run.

    Attributes:
        data: folder with the zips of the real sets; those that are not there are left out, and said so.
        out: where models and figures go.
        device: cuda, mps or cpu.
        minutes: of this call.
        teacher_lines: lines that the teacher sees.
        student_lines: lines that the student sees.
        batch_lines: of both.
        workers: processes that draw and load lines.
        toy: a narrow pair and few lines, whatever the numbers above say.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/full-run")
    device: str = "cuda"
    minutes: float = 9.0
    teacher_lines: int = 12_000_000
    student_lines: int = 8_000_000
    batch_lines: int = 512
    workers: int = 14
    toy: bool = False


@dataclass(frozen=True)
class Plan:
    """What the options come to: sizes, steps, and arguments that every training shares."""

    sizes: tuple[str, ...]
    easy: tuple[str, ...]
    teacher_steps: int
    student_steps: int
    shared: tuple[str, ...]


def main() -> int:
    """The stages in order, as far as the time goes."""
    options = tyro.cli(FullRunOptions, description=__doc__)
    end = time.monotonic() + 60 * options.minutes
    plan, out = planned(options), options.out / "toy" if options.toy else options.out
    easy, teacher, student = out / "easy.pt", out / "teacher.pt", out / "student.pt"

    def stage(result: Path, module: str, arguments: list[str]) -> None:
        run_stage(result, module, arguments, end - time.monotonic())

    stage(
        easy, "crnn",
        ["train", "--data", "synth-easy", "--out", str(easy), *plan.sizes, *plan.easy, *plan.shared,
         "--seed", str(SEEDS["easy"])],
    )  # fmt: skip
    sources = ["--data", *mixture(options, out), "--drop-bad", "--validation-lines", "20" if options.toy else "1000"]
    stage(
        teacher, "crnn",
        ["train", "--init", str(easy), "--out", str(teacher), *sources, "--case", "lower", "--synth.longest", "25",
         "--synth.phrases", "0.3", "--until", str(plan.teacher_steps), "--column-weight", "0.5", "--column-steps",
         str(plan.teacher_steps // 5), *plan.shared, "--seed", str(SEEDS["teacher"])],
    )  # fmt: skip
    stage(
        student, "distill.cli",
        ["--teacher", str(teacher), "--student-backbone", "resnet18", "--out", str(student), *sources,
         "--distance-at", "both", *TAUGHT, "--until", str(plan.student_steps), *plan.shared,
         "--seed", str(SEEDS["student"])],
    )  # fmt: skip
    files = [out / f"student{ending}" for ending in (".onnx", ".int8.onnx", ".int8.tflite")]
    lines = ["--lines", "10", "--calibration-lines", "10", "--validation-lines", "0"] if options.toy else []
    run_stage(
        files[-1], "crnn",
        ["export", "--model", str(student), "--to", "onnx", "onnx-int8", "tflite-int8", "--data", "synth", *lines],
    )  # fmt: skip
    figures = out / "results.json"
    run_stage(
        figures, "crnn",
        ["bench", "--models", *map(str, [teacher, student, *files]), *tests(options, out), "--json", str(figures),
         "--report", str(out / "report.html"), "--threads", str(max(1, options.workers))],
    )  # fmt: skip
    runs = {path.name: run_result(path) for path in (easy, teacher, student)}
    content = {
        "command": "make full-run",
        "seeds": SEEDS,
        "device": options.device,
        "bench": without_paths(json.loads(figures.read_text())),
        "runs": runs,
    }
    write_json(out / "full_run.json" if options.toy else RESULTS / "full_run.json", content)
    print(f"-- all is done; the report: {out / 'report.html'}")
    return 0


def planned(options: FullRunOptions) -> Plan:
    """Steps from lines; everything small where it is a toy."""
    shared = ["--device", options.device, "--workers", str(options.workers), "--save-every", "50"]
    if options.toy:
        sizes = ("--backbone", "resnet101", "--width", "0.125", "--features", "32", "--hidden", "16")
        easy = ("--until", "4", "--batch-lines", "4", "--column-weight", "1", "--validation-lines", "8")
        return Plan(sizes, easy, 4, 4, (*shared, "--batch-lines", "4", "--validate-every", "4"))
    sizes = ("--backbone", "resnet101", "--width", "1", "--features", "512", "--hidden", "256")
    shared += ["--batch-lines", str(options.batch_lines)]
    steps = options.teacher_lines // options.batch_lines, options.student_lines // options.batch_lines
    return Plan(sizes, tuple(EASY), steps[0], steps[1], tuple(shared))


def mixture(options: FullRunOptions, out: Path) -> list[str]:
    """Three quarters synthetic where there are real training sets, without lines that a test set holds; else all."""
    found = [name for name in TRAINING_SETS if (options.data / f"{name}.zip").exists()]
    if len(found) < len(TRAINING_SETS):
        print(f"-- {options.data} lacks real training sets: {len(found)} of {len(TRAINING_SETS)} take part", flush=True)
    if not found:
        return ["synth"]
    return ["synth:0.75", *(f"{cleaned(options.data, out, name)}:{0.25 / len(found)}" for name in found)]


def tests(options: FullRunOptions, out: Path) -> list[str]:
    """The real test sets that are there, or drawn lines with fonts and words of their own."""
    found = [str(path) for name in TEST_SETS if (path := options.data / f"{name}.zip").exists()]
    if len(found) < len(TEST_SETS):
        print(f"-- {options.data} lacks real test sets: {len(found)} of {len(TEST_SETS)} are read", flush=True)
    if not found:
        drawn = out / "unseen.lmdb"
        run_stage(
            drawn, "crnn",
            ["data", "make", "--out", str(drawn), "--count", "20" if options.toy else "2000", "--fonts", "held-out",
             "--words", "held-out", "--seed", str(SEEDS["unseen lines"])],
        )  # fmt: skip
        found = [str(drawn)]
    return ["--data", *found, *(["--limit", "20", "--latency-lines", "2"] if options.toy else [])]


if __name__ == "__main__":
    sys.exit(main())
