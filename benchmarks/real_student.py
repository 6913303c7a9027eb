"""The best student that real pictures give here: `python -m benchmarks.real_student`, about an hour of one core.

The teacher of benchmarks.students goes on with half synthetic lines and half the training sets of IIIT5K and SROIE, as
that of benchmarks.real_pair does, and teaches a ResNet-18 of the shipped one's width, which starts from it. Its weights
are not shipped: the terms of the pictures are those of their makers. It stands beside peers in benchmarks.beside_peers.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.markdown import table
from benchmarks.real_pair import RealPairOptions, run_teacher, sources
from benchmarks.recipes import TAUGHT
from benchmarks.stages import RESULTS, finished, run_result, run_stage, write_json
from benchmarks.students import WIDTHS

SEED = 3


@dataclass(frozen=True)
class RealStudentOptions:
    """Options.

    Attributes:
        students: folder of benchmarks.students: its teacher and its default student are the starts.
        data: folder with the zips of the real sets.
        out: where models and logs go.
        teacher_steps: of the teacher's fine-tuning.
        student_steps: of the distillation.
        threads: of each run.
    """

    students: Path = Path("runs/students")
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/real-student")
    teacher_steps: int = 4000
    student_steps: int = 5000
    threads: int = 1


def main() -> None:
    """The two stages, and what they took."""
    options = tyro.cli(RealStudentOptions, description=__doc__)
    for start in (options.students / "teacher.pt", options.students / "default.pt"):
        if not (start.exists() and finished(start)):
            sys.exit(
                f"{start} is not there or not finished; run make students first, or name its folder with --students"
            )
    teacher, student = (options.out / f"{name}.pt" for name in ("teacher", "student"))
    pair = RealPairOptions(
        options.data, options.students / "teacher.pt", options.out, options.teacher_steps, threads=options.threads
    )
    run_teacher(pair, teacher)
    run_stage(
        student, "distill.cli",
        ["--teacher", str(teacher), "--student-backbone", "resnet18", "--student-width", str(WIDTHS["default"]),
         "--init", str(options.students / "default.pt"), "--out", str(student), *sources(pair),
         "--distance-at", "both", *TAUGHT, "--until", str(options.student_steps), "--threads", str(options.threads),
         "--seed", str(SEED)],
    )  # fmt: skip
    write_json(
        RESULTS / "real_student.json",
        {"command": f"python -m benchmarks.real_student --teacher-steps {options.teacher_steps} "
         f"--student-steps {options.student_steps}", "seed": SEED, "width": WIDTHS["default"],
         "runs": {"teacher": run_result(teacher), "student": run_result(student)}},
    )  # fmt: skip


def real_student_table(results: dict[str, Any]) -> str:
    """What both read of the held-out lines of the training sets, and what it took."""
    rows = []
    for name, run in results["runs"].items():
        taught = [f"{100 * run[key]:.1f}" if key in run else "" for key in ("teacher_accuracy", "spikes_agree")]
        cells = [f"{100 * run['accuracy']:.1f}", *taught, f"{run['lines']:,}", f"{run['seconds'] / 60:.0f}"]
        rows.append([name, *cells])
    header = ["held-out training lines", "exact %", "its teacher's", "spikes as the teacher's, %"]
    header += ["lines seen", "minutes"]
    return table(header, rows)


if __name__ == "__main__":
    main()
