"""The student: a small backbone before the teacher's encoder and classifier, which are copied and frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from crnn.backbones import DEPTHS
from crnn.charset import Charset
from crnn.checkpoint import Checkpoint
from crnn.model import Crnn, Outputs, copy_classifier, parameter_count
from data.picture import InputSpec

SMALLEST_SHARE = 10
"""A student of less than a tenth of its teacher's parameters or depth is outside the method's bounds."""


class HalfHeight(Crnn):
    """A student that reads lines half as high as its teacher does. In training both are given the teacher's pictures.

    A picture of twice the student's height is halved by the mean of 2 x 2 pixels, as shrinking does; one of the
    student's own height, as in validation, is taken as it is. What is saved is a plain Crnn.
    """

    def forward(self, pictures: Tensor) -> Outputs:
        if pictures.shape[2] == 2 * self.sizes.height:
            pictures = functional.avg_pool2d(pictures, 2)
        return super().forward(pictures)


def student_spec(taught: InputSpec, height: int | None) -> InputSpec:
    """How pictures enter the student: as they enter the teacher, or at half its height and width.

    ValueError where another height is asked for: the columns of both must come to lie at the same places.
    """
    if height is None or height == taught.height:
        return taught
    if height * 2 != taught.height:
        raise ValueError(
            f"--student-height is {height}, and the teacher reads {taught.height} pixels; give {taught.height} or "
            f"{taught.height // 2}, so that the columns of both lie at the same places"
        )
    multiple = max(1, taught.width_multiple // 2) if taught.min_width == taught.max_width else taught.width_multiple
    least, most = (-(-width // 2 // multiple) * multiple for width in (taught.min_width, taught.max_width))
    return replace(taught, height=height, width_multiple=multiple, min_width=least, max_width=most)


def shared_spec(taught: InputSpec, spec: InputSpec) -> InputSpec:
    """How pictures enter both in training: at the teacher's height, in widths that the student's are halves of."""
    times = taught.height // spec.height
    return replace(
        taught,
        width_multiple=times * spec.width_multiple,
        min_width=times * spec.min_width,
        max_width=times * spec.max_width,
    )


def build_student(
    teacher: Checkpoint,
    backbone: str,
    width: float,
    charset: Charset,
    train_encoder: bool,
    train_classifier: bool,
    height: int | None = None,
) -> Crnn:
    """A recogniser with a new backbone and the teacher's encoder and classifier.

    Encoder and classifier are copied; they are frozen (requires_grad False) unless asked otherwise. Gradients flow
    through what is frozen. With a charset other than the teacher's the classifier is new, trained, and starts with
    the teacher's rows for the characters that both know.

    The student has the teacher's columns at the teacher's places, for the encoder knows no others: where those are one
    fewer or one more than the width asks for its last convolution sees to it, and where it reads at half the
    teacher's height (height) a column covers half as many pixels of it.
    """
    taught = teacher.info.charset
    sizes = replace(teacher.info.sizes, backbone=backbone, width=width, classes=charset.classes)
    if height is not None and height != sizes.height:
        times = sizes.height // height
        student: Crnn = HalfHeight(replace(sizes, height=height, pixels_per_column=sizes.pixels_per_column // times))
    else:
        student = Crnn(sizes)
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
