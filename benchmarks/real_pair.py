"""Teacher, student and scratch twin on real pictures: `python -m benchmarks.real_pair`, about two hours of two cores.

The teacher goes on from the shipped one, on synthetic lines and the training sets of IIIT5K and SROIE; the
student is distilled from it; the twin has the student's network and the teacher's recipe, from nothing. Labels
are folded to lower case, for SROIE's are upper case whatever the print shows. Training lines that are in a test set
too, and those whose label is spelt with spaces (T H E), are left out. Stages are kept in --out and resumed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.demo import TEACHER
from benchmarks.stages import RESULTS, run_stage, without_paths, write_json
from crnn.commands import run_path

TEST_SETS = ("iiit5k_test", "ic13_test", "ic15_test", "sroie_test", "docs_en", "cute80")
TRAINING_SETS = ("iiit5k_train", "sroie_train")


@dataclass(frozen=True)
class RealPairOptions:
    """Options of the real pair.

    Attributes:
        data: folder with the zips of the real sets.
        start: what the teacher starts from: the shipped one, or that of benchmarks.students, which knows longer lines.
        out: where models, logs and results go.
        teacher_steps: of the teacher's fine-tuning.
        student_steps: of the distillation, and of the twin.
        threads: of each run.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    start: Path = TEACHER
    out: Path = Path("runs/real")
    teacher_steps: int = 5000
    student_steps: int = 5000
    threads: int = 2


def main() -> None:
    """The stages in order."""
    options = tyro.cli(RealPairOptions, description=__doc__)
    teacher, student, twin = (options.out / f"{name}.pt" for name in ("teacher", "student", "twin"))
    run_teacher(options, teacher)
    run_student(options, teacher, student)
    run_twin(options, teacher, twin)
    run_bench(options, [teacher, student, twin])


def sources(options: RealPairOptions) -> list[str]:
    """Half synthetic, half real."""
    real = [f"{cleaned(options.data, options.out, name)}:0.25" for name in TRAINING_SETS]
    return ["--data", "synth:0.5", *real, "--drop-bad", "--validation-lines", "600"]


def cleaned(data: Path, folder: Path, name: str) -> Path:
    """A training set without lines that one of the test sets that are there holds, and without letter-spaced labels."""
    out = folder / f"{name}.lmdb"
    if not out.exists():
        tests = [str(path) for test in TEST_SETS if (path := data / f"{test}.zip").exists()]
        command = ["data", "check", str(data / f"{name}.zip"), "--fix", str(out), "--count-as-error", "letter-spaced"]
        # its exit status tells whether anything was wrong, which is what it is called for
        command += ["--against", *tests] if tests else []
        subprocess.run([sys.executable, "-m", "crnn", *command], check=False)
        if not out.exists():
            sys.exit(f"{out} could not be made; see above")
    return out


def drawn() -> list[str]:
    """Synthetic lines as long as receipts have them."""
    return ["--synth.longest", "25", "--synth.phrases", "0.3"]


def run_teacher(options: RealPairOptions, out: Path) -> None:
    """The start, fine-tuned."""
    run_stage(
        out, "crnn",
        ["train", "--init", str(options.start), "--out", str(out), "--case", "lower", *sources(options), *drawn(),
         "--until", str(options.teacher_steps), "--learning-rate", "1e-3", "--column-weight", "0.1",
         "--threads", str(options.threads), "--seed", "2"],
    )  # fmt: skip


def run_student(options: RealPairOptions, teacher: Path, out: Path) -> None:
    """Method 1, before and after the encoder."""
    run_stage(
        out, "distill.cli",
        ["--teacher", str(teacher), "--student-backbone", "resnet18", "--out", str(out), *sources(options),
         "--distance-at", "both", "--until", str(options.student_steps), "--threads", str(options.threads),
         "--seed", "3"],
    )  # fmt: skip


def run_twin(options: RealPairOptions, teacher: Path, out: Path) -> None:
    """The student's network without a teacher: easy lines, then everything, with the column-aligned loss."""
    sizes = ["--backbone", "resnet18", "--width", "0.25", "--features", "128", "--hidden", "128"]
    easy = out.with_name("twin-easy.pt")
    common = ["--case", "lower", "--threads", str(options.threads), "--seed", "3"]
    run_stage(
        easy, "crnn",
        ["train", "--data", "synth-easy", "--out", str(easy), *sizes, "--until", "500", "--batch-lines", "16",
         "--column-weight", "1", "--column-steps", "100000", "--warm-up", "50", "--final-rate", "0.5", *common],
    )  # fmt: skip
    run_stage(
        out, "crnn",
        ["train", "--init", str(easy), "--out", str(out), *sources(options), *drawn(),
         "--until", str(options.student_steps), "--column-weight", "0.5", "--column-steps", "2000", *common],
    )  # fmt: skip


def run_bench(options: RealPairOptions, models: list[Path]) -> None:
    """Whole test sets, which nothing was trained, tuned or chosen on."""
    result = options.out / "results.json"
    run_stage(
        result, "crnn",
        ["bench", "--models", *map(str, models), "--data", *(str(options.data / f"{name}.zip") for name in TEST_SETS),
         "--json", str(result), "--report", str(options.out / "report.html")],
    )  # fmt: skip
    runs = {path.name: json.loads(run_path(path).read_text())["result"] for path in models}
    bench = without_paths(json.loads(result.read_text()))
    command = f"python -m benchmarks.real_pair --teacher-steps {options.teacher_steps}"
    command += f" --student-steps {options.student_steps}"
    if options.start != TEACHER:
        command += " --start runs/students/teacher.pt"
    write_json(
        RESULTS / "real_pair.json",
        {"command": command, "seeds": {"teacher": 2, "student": 3, "twin": 3}, "bench": bench, "runs": runs},
    )


if __name__ == "__main__":
    main()
