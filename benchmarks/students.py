"""`make students`: the students that ship, from the shipped teacher to the files; needs the fonts of fonts.txt.

The teacher that ships has seen words alone. It goes on with longer lines and phrases, then teaches students of two
widths through its frozen encoder. Nothing real is trained on, so the weights carry the project's licence; they are
written into the package in half precision and as int8 ONNX, with pictures that the default one must read. Stages are
kept in --out and resumed. (A student of real pictures: benchmarks.real_pair; of EasyOCR's model:
benchmarks.easyocr_student.)
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import tyro

from benchmarks.markdown import table
from benchmarks.recipes import TAUGHT, TEACHER
from benchmarks.stages import RESULTS, run_result, run_stage, write_json
from crnn.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from crnn.recogniser import MODELS, PACKAGED
from data.synthesis.fonts import packaged_folders
from data.synthesis.source import SynthesisOptions, SynthesisSource

WIDTHS = {"default": 0.4, "tiny": 0.25}
"""Name of a student -> width of its ResNet-18; half as wide it would be larger than its teacher."""
SEEDS = {"teacher": 2, "students": 3, "pictures": 5}
DRAWN = ["--synth.longest", "25", "--synth.phrases", "0.3"]
"""Lines as long as receipts have them."""
PICTURES = MODELS / "pictures"
TEXTS = ("Pocket", "Total 12.50", "24/11/2026", "Open daily", "Platform 9", "FRAGILE", "Room 204", "Thank you!")
"""What the pictures inside the package say."""


@dataclass(frozen=True)
class StudentsOptions:
    """Options of the students.

    Attributes:
        out: where models and logs go.
        teacher_steps: of the teacher's further training.
        student_steps: of each distillation.
        threads: of each run.
    """

    out: Path = Path("runs/students")
    teacher_steps: int = 9000
    student_steps: int = 5000
    threads: int = 2


def main() -> int:
    """The stages in order."""
    options = tyro.cli(StudentsOptions, description=__doc__)
    teacher = options.out / "teacher.pt"
    go_on(options, teacher)
    students = {name: options.out / f"{name}.pt" for name in WIDTHS}
    for name, student in students.items():
        distil(options, teacher, student, WIDTHS[name])
    for name, student in students.items():
        ship(options, name, student)
    draw_pictures()
    runs = {path.name: run_result(path) for path in (teacher, *students.values())}
    exports = {name: exported(options, name) for name in WIDTHS}
    write_json(
        RESULTS / "students.json",
        {"command": "make students", "seeds": SEEDS, "widths": WIDTHS, "runs": runs, "exports": exports},
    )
    return 0


def go_on(options: StudentsOptions, out: Path) -> None:
    """The shipped teacher, trained further."""
    run_stage(
        out, "crnn",
        ["train", "--init", str(TEACHER), "--out", str(out), "--data", "synth", *DRAWN, "--validation-lines", "600",
         "--until", str(options.teacher_steps), "--learning-rate", "3e-3", "--column-weight", "0.1",
         "--save-every", "250", "--threads", str(options.threads), "--seed", str(SEEDS["teacher"])],
    )  # fmt: skip


def distil(options: StudentsOptions, teacher: Path, out: Path, width: float) -> None:
    """Method 1, with the distance before and after the encoder; lines are drawn as the teacher's were."""
    run_stage(
        out, "distill.cli",
        ["--teacher", str(teacher), "--student-backbone", "resnet18", "--student-width", str(width), "--out", str(out),
         "--data", "synth", "--distance-at", "both", *TAUGHT, "--validation-lines", "600",
         "--until", str(options.student_steps), "--save-every", "250", "--threads", str(options.threads),
         "--seed", str(SEEDS["students"])],
    )  # fmt: skip


def ship(options: StudentsOptions, name: str, student: Path) -> None:
    """The student in half precision, and as int8 ONNX, inside the package; neither names a path of this machine."""
    named = options.out / "shipped" / f"{name}.pt"
    file = named.with_name(f"{name}{PACKAGED}")
    if not named.exists() or named.stat().st_mtime < student.stat().st_mtime:
        file.unlink(missing_ok=True)
        save_checkpoint(named, without_places(student), half=True)
    run_stage(
        file, "crnn",
        ["export", "--model", str(named), "--to", "onnx-int8", "--out", str(file), "--data", "synth",
         "--validation", "synth", "--validation-lines", "2000"],
    )  # fmt: skip
    put(named, MODELS)
    put(file, MODELS)


def put(file: Path, folder: Path) -> None:
    """A copy of the file, whole or not at all."""
    content = file.read_bytes()
    write_atomically(folder / file.name, lambda copy: copy.write(content))


def without_places(student: Path) -> Any:
    """The checkpoint, its commands and folders replaced by the one command that makes it."""
    checkpoint = load_checkpoint(student)
    made = checkpoint.info.provenance | {"command": "make students"}
    made["synth"] = made["synth"] | {"font_folders": []}
    if "teacher" in made:
        made["teacher"] = made["teacher"] | {"command": "make students"}
    return replace(checkpoint, info=replace(checkpoint.info, provenance=made))


def exported(options: StudentsOptions, name: str) -> dict[str, Any]:
    """What the export of a shipped student measured."""
    report = json.loads((options.out / "shipped" / f"{name}{PACKAGED}.json").read_text())
    return {key: report[key] for key in ("bytes", "temperature", "search")} | {
        "parity": {key: report["parity"][key] for key in ("right_network", "right_file", "labelled", "relative")}
    }


def draw_pictures() -> None:
    """Pictures of TEXTS with fonts that pip brings, mildly degraded, and labels.tsv beside them."""
    PICTURES.mkdir(exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(TEXTS):
            corpus = Path(folder) / "text.txt"
            corpus.write_text(text + "\n", encoding="utf-8")
            options = SynthesisOptions(
                corpus=corpus, corpus_share=1.0, strength=0.3, fonts="held-out", font_folders=tuple(packaged_folders())
            )
            line = SynthesisSource(options, SEEDS["pictures"])[number]
            encoded = cv2.imencode(".png", line.picture[:, :, ::-1])[1]
            (PICTURES / f"{number}.png").write_bytes(encoded.tobytes())
            rows.append(f"{number}.png\t{line.text}\n")
    (PICTURES / "labels.tsv").write_text("".join(rows), encoding="utf-8", newline="\n")


def students_table(results: dict[str, Any]) -> str:
    """How each was made: accuracy on drawn lines held out by font and word, agreement with its teacher, lines, time."""
    rows = []
    for name, run in results["runs"].items():
        student = name.removesuffix(".pt")
        cells = ["", "", f"{100 * run['accuracy']:.1f}", "", "", f"{run['lines']:,}", f"{run['seconds'] / 60:.0f}", ""]
        if student in results["exports"]:
            export = results["exports"][student]
            cells[:2] = f"{results['widths'][student]:g}", f"{export['bytes'] / 1e6:.2f}"
            cells[3:5] = f"{100 * run['teacher_accuracy']:.1f}", f"{100 * run['spikes_agree']:.1f}"
            cells[7] = f"{export['temperature']['value']:.2f}"
        rows.append([student, *cells])
    header = ["drawn, 600 lines", "width", "MB, int8", "exact %", "its teacher's", "spikes as the teacher's, %",
              "lines seen", "minutes", "temperature"]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
