"""`make demo-teacher`: the shipped teacher from nothing, about an hour on two cores; needs the fonts of fonts.txt.

Two stages of `crnn train`: easy lines, whose columns are known, then all kinds of lines. The result is halved in
precision, measured, and written to crnn/models with its figures; `python -m benchmarks.documents` makes its card.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks.markdown import percent, table, with_interval
from benchmarks.recipes import EASY
from benchmarks.stages import RESULTS, run_result, run_stage, without_paths, write_json
from crnn.checkpoint import load_checkpoint, save_checkpoint

SHIPPED = Path(__file__).parent.parent / "crnn/models/teacher.pt"
SETS = ("iiit5k_test", "ic13_test")
SEEDS = {"easy": 0, "teacher": 1, "unseen lines": 21}


@dataclass(frozen=True)
class TeacherOptions:
    """Options of the shipped teacher's training.

    Attributes:
        out: folder of checkpoints and logs.
        steps: of the second stage.
        threads: of the network's arithmetic.
        data: folder with the zips of the real test sets, for the card's figures; nothing is trained on them.
    """

    out: Path = Path("runs/demo-teacher")
    steps: int = 10_000
    threads: int = 2
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))


def main() -> int:
    """Both stages, then the shipped file and its figures."""
    options = tyro.cli(TeacherOptions, description=__doc__)
    easy, teacher = options.out / "teacher-easy.pt", options.out / "teacher.pt"
    sizes = ["--backbone", "resnet101", "--width", "0.25", "--features", "128", "--hidden", "128"]
    threads = ["--threads", str(options.threads)]
    run_stage(easy, "crnn", ["train", "--data", "synth-easy", "--out", str(easy), *sizes, *EASY, *threads])
    run_stage(
        teacher, "crnn",
        ["train", "--init", str(easy), "--out", str(teacher), "--data", "synth", "--until", str(options.steps),
         "--synth.longest", "12", "--column-weight", "0.5", "--column-steps", "2000", "--validate-every", "1000",
         "--validation-lines", "500", "--save-every", "250", "--seed", str(SEEDS["teacher"]), *threads],
    )  # fmt: skip
    ship(teacher)
    measure(options)
    return 0


def ship(teacher: Path) -> None:
    """The trained file in half precision; its provenance names no path of the machine it was trained on."""
    checkpoint = load_checkpoint(teacher)
    made = checkpoint.info.provenance | {"command": "make demo-teacher"}
    made["synth"] = made["synth"] | {"font_folders": []}
    save_checkpoint(SHIPPED, replace(checkpoint, info=replace(checkpoint.info, provenance=made)), half=True)


def measure(options: TeacherOptions) -> None:
    """Accuracy of the shipped file on unseen synthetic lines as hard as its training's, and on real test sets."""
    unseen = options.out / "unseen.lmdb"
    run_stage(
        unseen, "crnn",
        ["data", "make", "--out", str(unseen), "--count", "1000", "--seed", str(SEEDS["unseen lines"]),
         "--longest", "12", "--fonts", "held-out", "--words", "held-out"],
    )  # fmt: skip
    real = [path for name in SETS if (path := options.data / f"{name}.zip").exists()]
    result = options.out / "results.json"
    run_stage(
        result, "crnn",
        ["bench", "--models", str(SHIPPED), "--data", str(unseen), *map(str, real), "--json", str(result)],
    )  # fmt: skip
    bench: dict[str, Any] = json.loads(result.read_text())
    runs = {name: run_result(options.out / f"{name}.pt") for name in ("teacher-easy", "teacher")}
    write_json(
        RESULTS / "teacher.json",
        {"command": "make demo-teacher", "seeds": SEEDS, "bench": without_paths(bench), "runs": runs},
    )


def teacher_table(results: dict[str, Any]) -> str:
    """The shipped teacher's figures."""
    rows = [
        [row["set"], str(row["lines"]), with_interval(row["exact"], row["exact_interval"]),
         percent(row["acc36"]), percent(row["cer"])]
        for row in results["bench"]["results"]
    ]  # fmt: skip
    runs = results["runs"]
    lines = sum(run["lines"] for run in runs.values())
    minutes = sum(run["seconds"] for run in runs.values()) / 60
    made = f"\nTrained on {lines:,} lines in {minutes:.0f} minutes of training steps.\n"
    return table(["set", "lines", "exact % (95 %)", "acc36 %", "CER %"], rows) + made


if __name__ == "__main__":
    sys.exit(main())
