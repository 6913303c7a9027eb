"""The literal command at full width: `python -m benchmarks.full_width`, some ten minutes on two cores.

A full-width ResNet-101 with a 2 x 256 BiLSTM is trained for some minutes on easy lines, so that it says something; then
`distill --teacher t.pt --student-backbone resnet18 --until 200` runs from the installed script. It shows that the
loss falls, that the student's file reads back, exports and reads a picture; not how well it reads.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import tyro

from benchmarks.stages import RESULTS, run_stage, write_json
from crnn.checkpoint import load_checkpoint
from crnn.fit import LOG_EVERY
from crnn.model import Crnn, parameter_count
from data.lines import open_lines

LEAST_FALL = 0.8
"""The last steps' mean loss must be under this share of the first steps'."""


@dataclass(frozen=True)
class FullWidthOptions:
    """Options.

    Attributes:
        out: folder of models and logs.
        steps: of the distillation.
    """

    out: Path = Path("runs/full-width")
    steps: int = 200


def main() -> int:
    """The stages in order; exit status 1 where the loss does not fall as it must."""
    options = tyro.cli(FullWidthOptions, description=__doc__)
    out = options.out
    teacher, student, onnx, lines = out / "t.pt", out / "student.pt", out / "student.onnx", out / "lines.lmdb"
    run_stage(lines, "crnn", ["data", "make", "--out", str(lines), "--count", "4000", "--easy"])
    run_stage(
        teacher, "crnn",
        ["train", "--backbone", "resnet101", "--data", str(lines), "--out", str(teacher), "--until", "150",
         "--batch-lines", "16", "--column-weight", "1", "--column-steps", "100000", "--warm-up", "20",
         "--learning-rate", "1e-3", "--validate-every", "150", "--validation-lines", "100"],
    )  # fmt: skip
    script = str(Path(sys.executable).with_name("distill"))
    command = [script, "--teacher", str(teacher), "--student-backbone", "resnet18", "--until", str(options.steps)]
    command += ["--batch-lines", "8"]  # a fourth of the default, for the sake of the two cores
    if not student.exists():
        subprocess.run([*command, "--out", str(student), "--validation-lines", "100"], check=True)
    run_stage(onnx, "crnn", ["export", "--model", str(student), "--to", "onnx", "--out", str(onnx)])
    picture = out / "line.png"
    cv2.imwrite(str(picture), open_lines(lines)[0].picture[:, :, ::-1])
    subprocess.run([sys.executable, "-m", "crnn", "read", str(picture), "--model", str(onnx)], check=True)
    losses = step_losses(student.with_suffix(".log.csv"))
    first, last = losses[0], losses[-1]
    models = {
        name: Crnn.from_checkpoint(load_checkpoint(path)) for name, path in (("teacher", teacher), ("student", student))
    }
    parameters = {name: parameter_count(model) for name, model in models.items()}
    shown = f"distill --teacher t.pt --student-backbone resnet18 --until {options.steps} --batch-lines 8"
    content = {
        "command": shown,
        "seed": 0,
        "parameters": parameters,
        "first_loss": first,
        "last_loss": last,
        "ratio": last / first,
    }
    write_json(RESULTS / "full_width.json", content)
    print(
        f"mean loss of the first {LOG_EVERY} steps {first:.3f}, of the last {LOG_EVERY} {last:.3f}: {last / first:.2f}"
    )
    return 0 if last < LEAST_FALL * first else 1


def step_losses(log: Path) -> list[float]:
    """Mean losses of the log's records, each over its steps."""
    with log.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def full_width_sentence(results: dict[str, Any]) -> str:
    """The literal command at full width."""
    counts = results["parameters"]
    return (
        f"Teacher {counts['teacher'] / 1e6:.1f} M parameters, student {counts['student'] / 1e6:.1f} M; mean loss of "
        f"the first 20 steps {results['first_loss']:.2f}, of the last 20 {results['last_loss']:.2f} "
        f"({results['ratio']:.2f} of it).\n"
    )


if __name__ == "__main__":
    sys.exit(main())
