"""`distill`: its options."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from crnn.commands import MOST_WIDTH, FitOptions, parse_options, run_command


@dataclass(frozen=True)
class DistillOptions:
    """Options of distill.

    Attributes:
        teacher: a checkpoint of crnn train or distill; any recogniser can teach.
        student_backbone: resnet18, resnet34, resnet50, mobilenet_v3_small or mobilenet_v3_large.
        student_width: multiplier of the student's channels; the teacher's where it is not given.
        student_height: pixels; the teacher's where it is not given. Half of it, with a column every 2 pixels, is for
            teachers that read 64 pixels, as EasyOCR's do.
        init: a trained student of the same sizes that the new one's CNN starts from; encoder and classifier come from
            the teacher as ever.
        quantise_aware: train and validate the CNN with simulated int8 and keep the ranges of its activations in the
            student's file, where exporters of int8 find them. From a trained student (--init), --until 1000
            --warm-up 50 --learning-rate 3e-4 will do; 1e-4 and 1e-3 did about as well.
        out: the student's file.
        data: sources, each an LMDB, a folder or zip with labels.tsv, or synth, with :weight mixed by weight; what the
            teacher was trained on where none is given.
        unlabelled: sources of pictures, whose labels are not learnt from where they have some; with --ctc-weight 0.
        charset: a named one (ascii, alphanumeric, ...), a UTF-8 file of characters, or chars:..., where the student's
            differ from the teacher's; its classifier is then trained.
        ctc_weight: w, 0 to 1, of the CTC term beside the distance; the method takes less than 1, and 0 needs no labels.
        distance: l1, l2, cosine or kl of what the networks say at each column; kl-classes, the usual KL of the class
            probabilities, or kl-characters, the same without the columns where the teacher sees a blank; several with
            :weight are summed; none, for comparison, leaves CTC alone.
        distance_at: after the encoder (as published), before it, or both; of classes it is behind the classifier.
        distance_reduction: l1 and l2 are summed over the features of a column, or averaged.
        temperature: of the softmax of kl, kl-classes and kl-characters.
        character_loss: losses on the characters that CTC's alignment finds in labelled lines, as in crnn train, each
            with :weight; they reach the CNN through the frozen encoder.
        centres_from: characters that move class centres: those the student reads correctly, or all.
        train_encoder: copy the encoder but do not freeze it.
        train_classifier: copy the classifier but do not freeze it.
        hidden: cells of one direction that the shared encoder must have; an error where the teacher's has others.
        layers: layers that the shared encoder must have; likewise.
        outside_size_bounds: what happens where the student is not between a tenth of the teacher and the teacher in
            parameters or depth.
        keep_features: what the teacher says of stored lines is kept between epochs; lines are then shown unaltered.
        validation: share of each stored source that is held out, by group where lines have one, or a source; what the
            teacher's file says where none is given, so that the student leaves alone what its teacher did, else 0.05.
        group_by: a regular expression that finds the group in a line's name. Of the teacher's own data it is what the
            teacher was trained with, unless another is given; '' for the groups that the source itself knows.
        validation_lines: at most so many.
        augment: degrade, widen and narrow lines a little, differently at every visit; both networks see the same.
        drop_bad: leave out lines with characters outside the charset, without label or with too few columns, and
            count them.
        resume: go on with the interrupted run of this --out.
        overwrite: replace the result or the interrupted run of this --out.
        fit: the training loop; adamw's learning rate is 8e-3 where none is given.
    """

    teacher: Path
    student_backbone: str = "resnet18"
    student_width: float | None = None
    student_height: int | None = None
    init: Path | None = None
    quantise_aware: bool = False
    out: Path = Path("student.pt")
    data: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    charset: str | None = None
    ctc_weight: float = 0.1
    distance: tuple[str, ...] = ("l2",)
    distance_at: Literal["output", "input", "both"] = "output"
    distance_reduction: Literal["features", "mean"] = "features"
    temperature: float = 1.0
    character_loss: tuple[str, ...] = ()
    centres_from: Literal["read", "all"] = "read"
    train_encoder: bool = False
    train_classifier: bool = False
    hidden: int | None = None
    layers: int | None = None
    outside_size_bounds: Literal["warn", "refuse", "allow"] = "warn"
    keep_features: Literal["no", "memory", "disk"] = "no"
    validation: str | None = None
    group_by: str | None = None
    validation_lines: int = 1000
    augment: bool = True
    drop_bad: bool = False
    resume: bool = False
    overwrite: bool = False
    fit: Annotated[FitOptions, tyro.conf.arg(name="")] = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.ctc_weight <= 1:
            raise ValueError(f"--ctc-weight is {self.ctc_weight}; give 0 (no labels) to 1")
        if self.distance == ("none",) and not self.ctc_weight:
            raise ValueError("--distance none with --ctc-weight 0 leaves nothing to learn from; give one of them")
        if self.unlabelled and self.ctc_weight:
            raise ValueError(
                f"--unlabelled pictures have no CTC, and --ctc-weight is {self.ctc_weight}; add --ctc-weight 0"
            )
        if self.character_loss:
            from crnn.objectives.loss_weights import parse_character_losses

            parse_character_losses(self.character_loss)
        if self.student_width is not None and not 0 < self.student_width <= MOST_WIDTH:
            raise ValueError(
                f"--student-width is {self.student_width}; give a share of the backbone's channels, such as 0.25"
            )
        if self.validation_lines < 0:
            raise ValueError(f"--validation-lines is {self.validation_lines}; give at least 0")
        if not self.temperature > 0:
            raise ValueError(f"--temperature is {self.temperature}; give a number above 0")
        self.refuse_options_without_part()

    def refuse_options_without_part(self) -> None:
        """ValueError for what is asked for and would change nothing."""
        kinds = {kind.partition(":")[0] for kind in self.distance}
        distances = f"--distance {' '.join(self.distance)}"
        apart = (
            ("--temperature", self.temperature != 1.0, kinds & {"kl", "kl-classes", "kl-characters"}, distances),
            ("--distance-at", self.distance_at != "output", kinds & {"l1", "l2", "cosine", "kl"}, distances),
            ("--distance-reduction", self.distance_reduction != "features", kinds & {"l1", "l2"}, distances),
            ("--centres-from", self.centres_from != "read", self.character_loss, "no --character-loss"),
        )
        if not kinds <= {"l1", "l2", "cosine", "kl", "kl-classes", "kl-characters", "none"}:
            return  # it is named when the distances are made
        for flag, given, has_part, beside in apart:
            if given and not has_part:
                raise ValueError(f"{flag} has no part where there is {beside}; leave it out")


def run(argv: list[str]) -> int:
    """The command after its name."""
    options = parse_options(
        DistillOptions,
        argv,
        "distill",
        "Teach a small recogniser by a large one, through the large one's frozen encoder.",
    )
    from distill.run import distill

    distill(options, "distill " + shlex.join(argv))
    return 0


def main() -> int:
    """The console script."""
    return run_command("distill", run, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
