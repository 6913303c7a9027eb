"""Comparisons of a few training runs that differ in one thing: `python -m benchmarks.arms distance_at`.

Each arm is a command whose model, log and options are kept in --out, so that a comparison that was cut off goes
on. All are validated on the same held-out lines; the accuracy at every mark comes from the arm's log.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.demo import bake
from benchmarks.markdown import percent, table
from benchmarks.recipes import EASY, SMALL, TEACHER
from benchmarks.stages import RESULTS, finished, run_stage, write_json


@dataclass(frozen=True)
class ArmsOptions:
    """Options of a comparison.

    Attributes:
        name: distance_at: where method 1's distance is taken; teacher_recipe: what each part of the teacher's recipe
            gives, on a ResNet-18 for speed.
        out: folder of models and logs.
        steps: of each arm.
        every: steps between validations.
        threads: of each arm.
        only: run these arms now; the others stand in the table as not run until a later call.
    """

    name: tyro.conf.Positional[Literal["distance_at", "teacher_recipe"]]
    out: Path = Path("runs/arms")
    steps: int = 2000
    every: int = 500
    threads: int = 2
    only: tuple[str, ...] = ()


def main() -> None:
    """Runs the arms that are not there yet, then writes the table's JSON."""
    options = tyro.cli(ArmsOptions, description=__doc__)
    folder = options.out / options.name
    arms = distance_arms(options, folder) if options.name == "distance_at" else recipe_arms(options, folder)
    for name, (_, module, arguments) in arms.items():
        if not options.only or name in options.only:
            run_stage(folder / f"{name}.pt", module, [*arguments, "--out", str(folder / f"{name}.pt")])
            write_table(options, folder, {arm: what for arm, (what, _, _) in arms.items()})


def write_table(options: ArmsOptions, folder: Path, arms: dict[str, str]) -> None:
    """The JSON of the arms that are finished; the others are named as not run."""
    rows: list[dict[str, Any]] = []
    for name, what in arms.items():
        done = (folder / f"{name}.pt").exists() and finished(folder / f"{name}.pt")
        rows.append({"what": what} | (figures(folder / f"{name}.log.csv") if done else {}))
    marks = list(range(options.every, options.steps + 1, options.every))
    command = f"python -m benchmarks.arms {options.name} --steps {options.steps}"
    write_json(RESULTS / f"{options.name}.json", {"command": command, "seed": 0, "marks": marks, "arms": rows})


def fit(options: ArmsOptions) -> list[str]:
    """What all arms share."""
    return ["--until", str(options.steps), "--validate-every", str(options.every), "--threads", str(options.threads)]


def distance_arms(options: ArmsOptions, folder: Path) -> dict[str, tuple[str, str, list[str]]]:
    """name -> (what it is, module, arguments): students of the shipped teacher and twins without one."""
    lines = folder / "train.lmdb"
    bake(lines, 24_000, "training", seed=31)
    data = ["--data", str(lines), *fit(options)]
    taught = ["--teacher", str(TEACHER), "--student-backbone", "resnet18", "--keep-features", "memory", *data]
    taught += ["--learning-rate", "2e-3"]  # as the twins have it; benchmarks.distillation tries others
    return {
        "output": ("published form: L2 after the encoder + 0.1 CTC", "distill.cli", taught),
        "input": ("L2 before the encoder + 0.1 CTC", "distill.cli", [*taught, "--distance-at", "input"]),
        "both": ("L2 before and after + 0.1 CTC", "distill.cli", [*taught, "--distance-at", "both"]),
        "scratch": (
            "from scratch, plain CTC", "crnn", ["train", *data, *SMALL, "--column-weight", "0", "--no-augment"],
        ),
        "scratch-columns": (
            "from scratch, column-aligned loss fading", "crnn",
            ["train", *data, *SMALL, "--column-steps", str(options.steps // 2), "--no-augment"],
        ),
        "unlabelled": (
            "L2 before and after, no labels (w = 0)", "distill.cli",
            [*taught, "--distance-at", "both", "--ctc-weight", "0"],
        ),
    }  # fmt: skip


def recipe_arms(options: ArmsOptions, folder: Path) -> dict[str, tuple[str, str, list[str]]]:
    """name -> (what it is, module, arguments): the teacher's recipe with one part left out at a time."""
    easy = folder / "easy.pt"
    run_stage(easy, "crnn", ["train", "--data", "synth-easy", "--out", str(easy), *SMALL, *EASY])
    easy_plain = folder / "easy-plain.pt"
    without = [
        *EASY[: EASY.index("--column-weight")],
        "--column-weight",
        "0",
        *EASY[EASY.index("--column-steps") + 2 :],
    ]
    run_stage(easy_plain, "crnn", ["train", "--data", "synth-easy", "--out", str(easy_plain), *SMALL, *without])
    full = ["train", "--data", "synth", "--synth.longest", "12", "--validation-lines", "500", *fit(options)]
    columns = ["--column-weight", "0.5", "--column-steps", str(options.steps)]
    start = ["--init", str(easy), *columns]
    return {
        "recipe": ("the recipe: easy lines, then all, column loss in both, bf16", "crnn", [*full, *start]),
        "no-easy": ("without the easy lines", "crnn", [*full, *SMALL, *columns]),
        "no-columns": (
            "without the column loss", "crnn", [*full, "--init", str(easy_plain), "--column-weight", "0"],
        ),
        "neither": ("without both: plain CTC", "crnn", [*full, *SMALL, "--column-weight", "0"]),
        "fp32": ("in fp32", "crnn", [*full, *start, "--precision", "fp32"]),
        "ema": ("with a running average of weights (0.999)", "crnn", [*full, *start, "--ema", "0.999"]),
    }  # fmt: skip


def figures(log: Path) -> dict[str, Any]:
    """Accuracy at every validation and the minutes of training, from an arm's log."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    accuracy = {row["step"]: float(row["accuracy"]) for row in rows if row["accuracy"]}
    return {"accuracy": accuracy, "minutes": float(rows[-1]["seconds"]) / 60, "lines": int(rows[-1]["lines"])}


def arms_table(results: dict[str, Any]) -> str:
    """Arms of one comparison: validation accuracy by lines seen."""
    marks = results["marks"]
    rows = []
    for arm in results["arms"]:
        if "accuracy" in arm:
            cells = [percent(arm["accuracy"].get(str(mark))) for mark in marks]
            rows.append([arm["what"], *cells, f"{arm['minutes']:.1f}"])
        else:
            rows.append([arm["what"], *("not run" for _ in marks), ""])
    return table(["exact % after", *(f"{mark:,} steps" for mark in marks), "minutes"], rows)


if __name__ == "__main__":
    main()
