"""Teacher, student and scratch twins on real pictures: `python -m benchmarks.real_pair`, about five hours of a core.

The teacher goes on from the shipped one, on synthetic lines and the training sets of IIIT5K and SROIE; the student is
distilled from it; twins have the student's network and no teacher, with the column-aligned loss and without. Each kind
of twin learns as many lines as the student, and LONGER times as many, at several RATES; of either the one that reads
most held-out lines of the training sets is compared. Labels are folded to lower case, for SROIE's are upper case
whatever the print shows. Training lines that are in a test set too, and those whose label is spelt with spaces
(T H E), are left out. Stages are kept in --out and resumed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.markdown import NOT_RUN, signed_with_interval, table
from benchmarks.readings import Pairs, Readings, paired, read, readings, right36_lines
from benchmarks.recipes import SMALL, TAUGHT, TEACHER
from benchmarks.stages import RESULTS, curve_of, finished, run_result, run_stage, write_json
from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn, parameter_count

TEST_SETS = ("iiit5k_test", "ic13_test", "ic15_test", "sroie_test", "docs_en", "cute80")
TRAINING_SETS = ("iiit5k_train", "sroie_train")

TWINS = {"twin": ("0.5", "2000"), "twin-plain": ("0", "0")}
"""Kinds of twins: weight of the column-aligned loss, and the steps over which it fades."""
LONGER = 3
RATES = {1: (2e-3, 4e-3, 8e-3), LONGER: (4e-3, 8e-3)}
"""How many times the student's lines a twin learns -> the rates at which it does."""


@dataclass(frozen=True)
class RealPairOptions:
    """Options of the real pair.

    Attributes:
        data: folder with the zips of the real sets.
        start: what the teacher starts from: the shipped one, or that of benchmarks.students, which knows longer lines.
        out: where models, logs and results go.
        teacher_steps: of the teacher's fine-tuning.
        student_steps: of the distillation, and of twins at equal lines.
        threads: of each run.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    start: Path = TEACHER
    out: Path = Path("runs/real")
    teacher_steps: int = 9000
    student_steps: int = 5000
    threads: int = 2


def main() -> None:
    """The stages in order; what is compared is written after each, so that one that was cut off has what it got to."""
    options = tyro.cli(RealPairOptions, description=__doc__)
    teacher, student = (options.out / f"{name}.pt" for name in ("teacher", "student"))
    run_teacher(options, teacher)
    run_student(options, teacher, student)
    write_results(options)
    for times, rates in RATES.items():
        for kind in TWINS:
            for rate in rates:
                run_twin(options, kind, rate, times)
            write_results(options)


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
         "--distance-at", "both", *TAUGHT, "--until", str(options.student_steps), "--threads", str(options.threads),
         "--seed", "3"],
    )  # fmt: skip


def twin_path(options: RealPairOptions, kind: str, rate: float, times: int) -> Path:
    """Of a twin that learns times as many lines as the student."""
    return options.out / f"{kind}-rate{rate:g}-x{times}.pt"


def run_twin(options: RealPairOptions, kind: str, rate: float, times: int) -> None:
    """The student's network without a teacher: easy lines first, as the teacher had them, then everything."""
    out, easy = twin_path(options, kind, rate, times), options.out / f"{kind}-easy.pt"
    weight, fades = TWINS[kind]
    common = ["--case", "lower", "--threads", str(options.threads), "--seed", "3"]
    run_stage(
        easy, "crnn",
        ["train", "--data", "synth-easy", "--out", str(easy), *SMALL, "--until", "500", "--batch-lines", "16",
         "--column-weight", "1" if float(weight) else "0", "--column-steps", "100000", "--warm-up", "50",
         "--final-rate", "0.5", *common],
    )  # fmt: skip
    run_stage(
        out, "crnn",
        ["train", "--init", str(easy), "--out", str(out), *sources(options), *drawn(), "--learning-rate", f"{rate:g}",
         "--until", str(times * options.student_steps), "--column-weight", weight, "--column-steps", fades, *common],
    )  # fmt: skip


def tried_rates(options: RealPairOptions, kind: str, times: int) -> dict[float, float]:
    """rate -> share of held-out lines of the training sets that such a twin reads, where it is finished."""
    paths = {rate: twin_path(options, kind, rate, times) for rate in RATES[times]}
    return {rate: run_result(path)["accuracy"] for rate, path in paths.items() if path.exists() and finished(path)}


def best_twins(options: RealPairOptions) -> dict[str, Path]:
    """Of each kind and length that was tried at every rate, the one that reads most held-out lines."""
    best = {}
    for times, rates in RATES.items():
        for kind in TWINS:
            tried = tried_rates(options, kind, times)
            if len(tried) == len(rates):
                best[twin_name(kind, times)] = twin_path(options, kind, max(tried, key=tried.__getitem__), times)
    return best


def twin_name(kind: str, times: int) -> str:
    """In the results."""
    return kind + (f"-x{times}" if times > 1 else "")


def write_results(options: RealPairOptions) -> None:
    """Whole test sets, which nothing was trained, tuned or chosen on, read by every model that is there."""
    models = {"teacher": options.out / "teacher.pt", "student": options.out / "student.pt"}
    models |= best_twins(options)
    tests = [path for name in TEST_SETS if (path := options.data / f"{name}.zip").exists()]
    for path in models.values():
        read(path, tests, threads=options.threads)
    command = f"python -m benchmarks.real_pair --threads {options.threads} --teacher-steps {options.teacher_steps}"
    command += f" --student-steps {options.student_steps}"
    if options.start != TEACHER:
        command += f" --start {options.start.name}"
    lines = {name: readings(path) for name, path in models.items()}
    write_json(
        RESULTS / "real_pair.json",
        {
            "command": command,
            "seeds": {"teacher": 2, "student": 3, "twins": 3},
            "models": {name: figures(path, lines[name]) for name, path in models.items()},
            "rates": {
                twin_name(kind, times): {
                    f"{rate:g}": accuracy for rate, accuracy in tried_rates(options, kind, times).items()
                }
                for times in RATES
                for kind in TWINS
            },
            "differences": {
                other: {name: difference(lines["student"][name], own[name]) for name in own}
                for other, own in lines.items()
                if other != "student"
            },
        },
    )


def figures(path: Path, lines: Readings) -> dict[str, Any]:
    """Of one model: acc36 by set, lines and seconds of its training, easy ones included, and its curve after those."""
    easy = path.with_name(f"{path.stem.split('-rate')[0]}-easy.pt")
    runs = [run_result(stage) for stage in (easy, path) if stage.exists()]
    return {
        "parameters": parameter_count(Crnn.from_checkpoint(load_checkpoint(path))),
        "acc36": {name: statistics.fmean(right36_lines(own)) for name, own in lines.items()},
        "lines": sum(run["lines"] for run in runs),
        "seconds": sum(run["seconds"] for run in runs),
        "curve": curve_of(path),
    }


def difference(student: Pairs, other: Pairs) -> dict[str, Any]:
    """acc36 of the student less the other's, paired by line, with its 95 % interval."""
    (found,), interval = paired([right36_lines(student)], [right36_lines(other)])
    return {"difference": found, "interval": interval}


# Tables.

TITLES = {
    "teacher": "teacher",
    "student": "student",
    "twin": "twin, column-aligned loss",
    "twin-plain": "twin, plain CTC",
    f"twin-x{LONGER}": f"twin, column-aligned loss, {LONGER} times the lines",
    f"twin-plain-x{LONGER}": f"twin, plain CTC, {LONGER} times the lines",
}


def real_table(results: dict[str, Any]) -> str:
    """acc36 of every model on every set, and what it learnt from."""
    rows = [
        [TITLES[name], f"{model['parameters'] / 1e6:.2f}", *(f"{100 * share:.1f}" for share in model["acc36"].values()),
         f"{model['lines']:,}", f"{model['seconds'] / 60:.0f}"]
        for name, model in results["models"].items()
    ]  # fmt: skip
    names = results["models"]["teacher"]["acc36"]
    return table(["acc36 %", "M parameters", *names, "lines", "minutes"], rows)


def real_differences_table(results: dict[str, Any]) -> str:
    """The student less each other model, paired by line."""
    rows = [
        [
            f"student - {TITLES[other]}",
            *(signed_with_interval(own[s]["difference"], own[s]["interval"]) for s in own),
        ]
        for other, own in results["differences"].items()
    ]
    return table(["points of acc36 (95 %)", *results["models"]["teacher"]["acc36"]], rows)


def real_time_table(results: dict[str, Any]) -> str:
    """Where each twin ends on held-out lines of the training sets, and when the student's curve comes there."""
    student = results["models"]["student"]
    rows = []
    for name, model in results["models"].items():
        if name.startswith("twin"):
            end = model["curve"][-1]["accuracy"]
            there = next((row for row in student["curve"] if row["accuracy"] >= end), None)
            reached = [f"{there['lines']:,}", f"{there['seconds'] / 60:.0f}"] if there else ["never", ""]
            rate = max(results["rates"][name].items(), key=lambda pair: float(pair[1]))[0]
            before = model["curve"][int(0.8 * (len(model["curve"]) - 1))]["accuracy"]
            rows.append([TITLES[name], rate, f"{100 * end:.1f}", f"{100 * (end - before):+.1f}",
                         f"{model['lines']:,}", f"{model['seconds'] / 60:.0f}", *reached])  # fmt: skip
    if not rows:
        return NOT_RUN
    header = ["held-out training lines", "rate", "exact %", "gained in the last fifth", "lines", "minutes",
              "student there after lines", "minutes"]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    main()
