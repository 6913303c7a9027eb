"""The student: a small backbone before the teacher's encoder and classifier, which are copied and frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crnn.backbones import DEPTHS
from crnn.charset import Charset
from crnn.checkpoint import Checkpoint
from crnn.model import Crnn, copy_classifier, parameter_count

SMALLEST_SHARE = 10
"""A student of less than a tenth of its teacher's parameters or depth is outside the method's bounds."""


def build_student(
    teacher: Checkpoint, backbone: str, width: float, charset: Charset, train_encoder: bool, train_classifier: bool
) -> Crnn:
    """A recogniser with a new backbone and the teacher's encoder and classifier.

    Encoder and classifier are copied; they are frozen (requires_grad False) unless asked otherwise. Gradients flow
    through what is frozen. With a charset other than the teacher's the classifier is new, trained, and starts with
    the teacher's rows for the characters that both know.
    """
    taught = teacher.info.charset
    student = Crnn(replace(teacher.info.sizes, backbone=backbone, width=width, classes=charset.classes))
    weights = teacher.weights
    student.encoder.load_state_dict(
        {name.removeprefix("encoder."): w for name, w in weights.items() if name.startswith("encoder.")}
    )
    copy_classifier(student, charset, weights, taught)
    student.encoder.requires_grad_(train_encoder)
    student.classifier.requires_grad_(train_classifier or charset != taught)
    return student


def start_backbone(student: Crnn, start: Checkpoint, path: Path) -> None:
    """Fills the student's backbone with that of a trained recogniser from path; ValueError where it does not fit.

    The sizes of the encoder must agree too: a backbone that learnt for another one gives it features of no use.
    """
    for name, asked in vars(student.sizes).items():
        have = getattr(start.info.sizes, name)
        if name != "classes" and asked != have:
            raise ValueError(
                f"--init {path} has {name} {have} where the student has {asked}; give a student of this teacher, with "
                "--student-backbone and --student-width as it has them"
            )
    student.backbone.load_state_dict(Crnn.from_checkpoint(start).backbone.state_dict())


def outside_bounds(teacher: Crnn, student: Crnn) -> list[str]:
    """What of teacher/10 < student < teacher does not hold, with the numbers, one clause each.

    The method gives these bounds from experience, for parameters of the whole model, of the CNN alone, and for the
    CNN's depth.
    """
    compared = {
        "parameters": (parameter_count(teacher), parameter_count(student)),
        "backbone parameters": (parameter_count(teacher.backbone), parameter_count(student.backbone)),
        "backbone layers": (DEPTHS[teacher.sizes.backbone], DEPTHS[student.sizes.backbone]),
    }
    clauses = []
    for name, (large, small) in compared.items():
        if not large / SMALLEST_SHARE < small < large:
            clauses.append(f"the student has {small:,} {name} and the teacher {large:,}")
    return clauses
