"""The story of a distillation: teacher, student, sources, objective, fit, and the student's file read back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint
from crnn.commands import LEARNING_RATES, same_run, write_run
from crnn.ctc import best_path, spike_columns
from crnn.fit import fit
from crnn.model import Crnn, evaluate
from crnn.train import (
    SYNTHETIC,
    count_characters,
    main_process,
    make_windows,
    open_sources,
    provenance,
    recorded_synthesis,
    refuse_overwriting,
    report,
    resume_path,
    saver,
    start_torch,
    validation_share,
    validator,
    with_character_losses,
)
from data.lines import Line, split_source
from data.picture import InputSpec, missing_margin, natural_width, prepare, with_margins
from distill.objective import Distillation, TeacherFeatures, parse_distances
from distill.student import build_student, outside_bounds, shared_spec, start_backbone, student_spec

if TYPE_CHECKING:
    from distill.cli import DistillOptions


LEARNING_RATE = 8e-3
"""Of adamw where none is given, four times that of training from scratch; see benchmarks.distillation."""

USUAL_SHARE = "0.05"
"""Held out where neither the command nor the teacher's file says."""


def distill(options: DistillOptions, command: str) -> Path:
    """Trains a student of options.teacher and writes it to options.out; see DistillOptions."""
    distances = parse_distances(options.distance)
    teacher = load_checkpoint(options.teacher)
    refuse_overwriting(options.out, options.resume, options.overwrite)
    if options.out.resolve() == options.teacher.resolve():
        raise ValueError(f"--out {options.out} is the teacher itself; give the student another file")
    start_torch(options.fit)
    check_encoder(teacher, options)
    charset = choose_charset(teacher, options)
    if charset != teacher.info.charset and any(kind.startswith("kl-") for kind in distances):
        raise ValueError(
            f"--distance {' '.join(options.distance)} compares classes, and those of --charset {options.charset} are "
            "not the teacher's; take l2, which compares features"
        )
    width = teacher.info.sizes.width if options.student_width is None else options.student_width
    taught_spec = teacher.info.input_spec
    spec = student_spec(taught_spec, options.student_height)
    student = build_student(
        teacher, options.student_backbone, width, charset, options.train_encoder, options.train_classifier, spec.height
    )
    if options.init is not None:
        start_backbone(student, load_checkpoint(options.init), options.init)
    teacher_model = Crnn.from_checkpoint(teacher)
    check_bounds(teacher_model, student, options.outside_size_bounds)
    data = options.data + options.unlabelled or recorded_data(teacher, options.teacher)
    synth = recorded_synthesis(teacher.info.provenance)
    validation = options.validation or recorded_validation(teacher, bool(options.data + options.unlabelled))
    pictures = options.unlabelled if options.ctc_weight or options.character_loss else data
    group_by = recorded_group_by(teacher, data) if options.group_by is None else options.group_by
    sources = open_sources(
        data, charset, spec, validation, options.validation_lines, options.drop_bad,
        synth, options.fit.seed, pictures, group_by, student.sizes,
    )  # fmt: skip
    features = kept_features(options, data)
    objective: nn.Module = Distillation(
        teacher_model, distances, options.distance_at, options.ctc_weight, options.distance_reduction,
        options.temperature, features,
    )  # fmt: skip
    counted = count_characters(sources, charset)
    if options.character_loss:
        objective = with_character_losses(
            objective, options.character_loss, options.centres_from, student.sizes.encoded, charset, counted
        )
    exact = options.keep_features != "no"
    shown = shared_spec(taught_spec, spec)
    windows = make_windows(sources, charset, shown, options.fit, options.augment, exact, teacher.info.sizes)
    taught = {key: teacher.info.provenance.get(key) for key in ("command", "date", "validation_accuracy", "parameters")}
    made = provenance(command, data, options.fit.seed, sources, synth, group_by, validation)
    made |= {"characters": asdict(counted), "teacher": taught}
    info = ModelInfo(charset, spec, student.sizes, made, pixels_per_column=student.sizes.pixels_per_column)
    keep, validate = saver(options.out, info), validator(sources.validation, charset, spec)
    if options.quantise_aware:
        from distill.quantise_aware import simulate, simulated_saver

        simulate(student)
        keep = simulated_saver(options.out, info)
    at_rate = options.fit.at_rate(LEARNING_RATE)
    try:
        progress = fit(
            student, windows, objective, at_rate, keep, validate, resume_path(options.out),
            options.out.with_suffix(".log.csv"), same_run(options, sources.training), options.resume,
            partial(write_run, options.out, command, options),
        )  # fmt: skip
    finally:
        if features is not None:
            features.close()
    if not main_process():
        return options.out
    written = read_back(options.out, sources.validation, options.fit.device)
    result: dict[str, Any] = {"steps": progress.step, "lines": progress.lines, "seconds": round(progress.seconds, 1)}
    result["learning_rate"] = at_rate.learning_rate or LEARNING_RATES.get(at_rate.optimiser)
    if sources.validation:
        labels = teacher.info.charset
        result["teacher_accuracy"] = evaluate(teacher_model, sources.validation, labels, taught_spec).exact
        result["accuracy"] = written.info.provenance["validation_accuracy"]
        if options.quantise_aware:
            result["float_accuracy"] = evaluate(Crnn.from_checkpoint(written), sources.validation, charset, spec).exact
        if charset == labels:
            result |= column_agreement(teacher_model, as_trained(written), sources.validation, spec, taught_spec)
    write_run(options.out, command, options, result)
    resume_path(options.out).unlink(missing_ok=True)
    print(report(options.out, result), agreement(result), sep="\n")
    return options.out


def check_encoder(teacher: Checkpoint, options: DistillOptions) -> None:
    """ValueError where the teacher's encoder is not of the size asked for: it is shared, so it cannot be another."""
    sizes = teacher.info.sizes
    for name, asked, have in (("hidden", options.hidden, sizes.hidden), ("layers", options.layers, sizes.layers)):
        if asked is not None and asked != have:
            raise ValueError(
                f"--{name} asks for {asked} and the encoder of {options.teacher} has {have}; "
                "the student shares it, so leave the flag out or train a teacher of that size"
            )


def choose_charset(teacher: Checkpoint, options: DistillOptions) -> Charset:
    """The teacher's, or the one given; ValueError where nothing would teach its classifier."""
    if options.charset is None:
        return teacher.info.charset
    charset = Charset.from_spec(options.charset, teacher.info.charset.case)
    if charset != teacher.info.charset and not options.ctc_weight:
        raise ValueError(
            f"--charset {options.charset} needs a classifier of its own, which learns from CTC alone, and --ctc-weight "
            "is 0; give a weight above 0 or keep the teacher's charset"
        )
    return charset


def check_bounds(teacher: Crnn, student: Crnn, outside: str) -> None:
    """Warns or refuses, with the numbers, where the student is outside the method's bounds."""
    clauses = outside_bounds(teacher, student)
    if not clauses or outside == "allow":
        return
    sentence = f"{'; '.join(clauses)}; the method asks for more than a tenth of the teacher and less than all of it"
    if outside == "refuse":
        raise ValueError(f"{sentence}: choose another --student-backbone or --student-width")
    print(f"distill: warning: {sentence}", file=sys.stderr)


def recorded_data(teacher: Checkpoint, path: Path) -> tuple[str, ...]:
    """The sources in the teacher's file; FileNotFoundError where one is no longer there."""
    data = teacher.info.provenance.get("data")
    if not data:
        raise ValueError(f"{path} does not say what it was trained on; give --data")
    for source in data:
        name, _ = split_source(source)
        if name not in SYNTHETIC and not Path(name).exists():
            raise FileNotFoundError(f"{path} was trained on {name}, which is no longer there; give --data")
    return tuple(data)


def recorded_validation(teacher: Checkpoint, other_data: bool) -> str:
    """What the teacher was validated on, which the student is to leave alone too; else a share of 0.05.

    Raises FileNotFoundError where that is a source that is no longer there, and it is the teacher's lines that are
    learnt from; of other_data the usual share is held out then, and stderr says so.
    """
    recorded = str(teacher.info.provenance.get("validation") or "")
    if recorded in ("", "0") or validation_share(recorded) == 0:
        return USUAL_SHARE
    if validation_share(recorded) is not None or recorded in SYNTHETIC or Path(recorded).exists():
        return recorded
    sentence = f"the teacher was validated on {recorded}, which is no longer there"
    if not other_data:
        raise FileNotFoundError(f"{sentence}; give --validation, a share or a source")
    print(f"distill: {sentence}: a share of {USUAL_SHARE} is held out; --validation says otherwise", file=sys.stderr)
    return USUAL_SHARE


def recorded_group_by(teacher: Checkpoint, data: tuple[str, ...]) -> str | None:
    """The expression that grouped the teacher's lines, where all data is the teacher's: other names need not match."""
    made = teacher.info.provenance
    recorded = {split_source(source)[0] for source in made.get("data") or ()}
    group_by: str | None = made.get("group_by")
    return group_by if {split_source(source)[0] for source in data} <= recorded else None


def kept_features(options: DistillOptions, data: tuple[str, ...]) -> TeacherFeatures | None:
    """Where the teacher's features are kept, if they are; ValueError for drawn lines, which never come again."""
    if options.keep_features == "no":
        return None
    if any(split_source(source)[0] in SYNTHETIC for source in data):
        raise ValueError(
            f"--keep-features {options.keep_features} is for stored lines, and synth draws a line only once; "
            "store some with crnn data make, or leave the flag out"
        )
    return TeacherFeatures(options.out.parent if options.keep_features == "disk" else None)


def read_back(out: Path, validation: list[Line], device: str) -> Checkpoint:
    """The student as its file holds it; ValueError, and the file renamed, where it does not read as reported.

    It reads on the device and in the memory format that training validated it in, so that rounding is the same.
    """
    written = load_checkpoint(out)
    if not validation:
        return written
    reported = written.info.provenance["validation_accuracy"]
    model = as_trained(written).to(device)
    model.to(memory_format=torch.channels_last)
    found = evaluate(model, validation, written.info.charset, written.info.input_spec).exact
    if found != reported:
        refused = out.with_suffix(".refused.pt")
        out.rename(refused)
        raise ValueError(
            f"{out} reads {found:.2%} of the validation lines where training reported {reported:.2%}; "
            f"it was renamed to {refused.name}, so train again"
        )
    return written


def as_trained(student: Checkpoint) -> Crnn:
    """The network of a student's file; with simulated int8, by the file's own ranges, where it was trained so."""
    model = Crnn.from_checkpoint(student)
    if student.info.ranges:
        from distill.quantise_aware import simulate

        simulate(model, student.info.ranges)
    return model


@torch.inference_mode()
def column_agreement(
    teacher: Crnn, student: Crnn, lines: list[Line], spec: InputSpec, taught_spec: InputSpec | None = None
) -> dict[str, float]:
    """How well the two agree column by column, since they share an encoder.

    spec: of the student. taught_spec: of the teacher, where it is another; each line then has the width that the
    student gives it, so that both have the same columns.

    spikes_agree: share of the teacher's spikes (the most probable column of each character) at which the student
    has a spike of the same class in the same column; spikes_agree_within_1: at most one column away;
    columns_agree: share of all columns with the same most probable class. Empty where the teacher shows no spike.
    """
    teacher = teacher.cpu()  # where training left it
    spikes = exact = near = columns = same = 0
    for line in lines:
        size = line.picture.shape[0], line.picture.shape[1]
        width, picture = natural_width(*size, spec), with_margins(line.picture, missing_margin(*size, spec))
        pictures = [
            torch.from_numpy(prepare(picture, own, width * own.height // spec.height))[None]
            for own in (taught_spec or spec, spec)
        ]
        probs = [model(picture).log_probs.numpy() for model, picture in zip((teacher, student), pictures, strict=True)]
        classes = [best_path(p)[0] for p in probs]
        at = [spike_columns(p)[0] for p in probs]
        columns += len(classes[0])
        same += int((classes[0] == classes[1]).sum())
        for t in np.flatnonzero(at[0]):
            spikes += 1
            matches = [
                s for s in (t, t - 1, t + 1) if 0 <= s < len(at[1]) and at[1][s] and classes[1][s] == classes[0][t]
            ]
            exact += t in matches
            near += bool(matches)
    if not spikes:
        return {}
    return {"spikes_agree": exact / spikes, "spikes_agree_within_1": near / spikes, "columns_agree": same / columns}


def agreement(result: dict[str, Any]) -> str:
    """How the student compares with its teacher, for a person."""
    rows = []
    if "float_accuracy" in result:
        rows.append(f"that is with simulated int8; in float it reads {result['float_accuracy']:.1%} of them")
    if "teacher_accuracy" in result:
        rows.append(f"its teacher reads {result['teacher_accuracy']:.1%} of them")
    if "spikes_agree" in result:
        rows.append(
            f"spikes in the teacher's column: {result['spikes_agree']:.1%}, at most one away: "
            f"{result['spikes_agree_within_1']:.1%}; all columns of the same class: {result['columns_agree']:.1%}"
        )
    return "\n".join(rows)
