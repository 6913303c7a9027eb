"""`make students`: the students that ship, from nothing but the shipped teacher; then the same on real pictures.

Synthetic chain: the shipped teacher, which has seen words alone, goes on with longer lines and phrases; students of
three widths are distilled from it through its frozen encoder. Nothing real is trained on, so these weights carry the
project's licence, and the two of SHIPPED are written into the package as int8 ONNX. Real chain: that teacher goes on
with the training sets of IIIT5K and SROIE beside synthetic lines, and a student is distilled from it; labels are folded
to lower case, for SROIE's are upper case whatever the print shows. Its weights stay in --out. Needs the fonts of
fonts.txt; every stage is kept and resumed.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.demo import TEACHER
from benchmarks.stages import run_stage

WIDTHS = {"default": 0.5, "tiny": 0.25, "smallest": 0.125}
"""Name of a synthetic student -> width of its ResNet-18."""


@dataclass(frozen=True)
class StudentsOptions:
    """Options of the students.

    Attributes:
        only: make what this chain needs and no more.
        data: folder with the zips of the real training sets.
        out: where models and logs go.
        teacher_steps: of each teacher's further training.
        student_steps: of each distillation.
        threads: of each run.
    """

    only: tuple[Literal["synthetic", "real"], ...] = ("synthetic", "real")
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/students")
    teacher_steps: int = 3000
    student_steps: int = 5000
    threads: int = 2


def main() -> int:
    """The chains in order."""
    options = tyro.cli(StudentsOptions, description=__doc__)
    synthetic = options.out / "teacher.pt"
    go_on(options, TEACHER, synthetic, ["--data", "synth"], seed=2)
    if "synthetic" in options.only:
        for name, width in WIDTHS.items():
            distil(options, synthetic, options.out / f"{name}.pt", width, ["--data", "synth"])
    if "real" in options.only:
        sources = real_sources(options)
        go_on(options, synthetic, options.out / "real-teacher.pt", [*sources, "--case", "lower"], seed=4)
        distil(options, options.out / "real-teacher.pt", options.out / "real-student.pt", WIDTHS["tiny"], sources)
    return 0


def real_sources(options: StudentsOptions) -> list[str]:
    """Half synthetic, half real."""
    real = [f"{options.data / name}.zip:{weight}" for name, weight in (("iiit5k_train", 0.25), ("sroie_train", 0.25))]
    return ["--data", "synth:0.5", *real, "--drop-bad"]


def go_on(options: StudentsOptions, start: Path, out: Path, sources: list[str], seed: int) -> None:
    """A teacher trained further, on lines as long as receipts have them."""
    run_stage(
        out, "crnn",
        ["train", "--init", str(start), "--out", str(out), *sources, "--synth.longest", "25", "--synth.phrases", "0.3",
         "--validation-lines", "600", "--until", str(options.teacher_steps), "--learning-rate", "1e-3",
         "--column-weight", "0.1", "--save-every", "250", "--threads", str(options.threads), "--seed", str(seed)],
    )  # fmt: skip


def distil(options: StudentsOptions, teacher: Path, out: Path, width: float, sources: list[str]) -> None:
    """Method 1, with the distance before and after the encoder; synthetic lines are drawn as the teacher's were."""
    run_stage(
        out, "distill.cli",
        ["--teacher", str(teacher), "--student-backbone", "resnet18", "--student-width", str(width), "--out", str(out),
         *sources, "--distance-at", "both", "--validation-lines", "600", "--until", str(options.student_steps),
         "--save-every", "250", "--threads", str(options.threads), "--seed", "3"],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
