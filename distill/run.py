"""The story of a distillation: teacher, student, sources, objective, fit, and the student's file read back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint
from crnn.commands import write_run
from crnn.ctc import best_path, spike_columns
from crnn.fit import evaluate, fit
from crnn.model import Crnn
from crnn.train import (
    make_windows,
    open_sources,
    provenance,
    refuse_overwriting,
    resume_path,
    saver,
    start_torch,
    validator,
)
from data.lines import Line
from data.picture import InputSpec, prepare
from distill.cli import DistillOptions
from distill.objective import Distillation, TeacherFeatures, parse_distances
from distill.student import build_student, outside_bounds


def distill(options: DistillOptions, command: str) -> Path:
    """Trains a student of options.teacher and writes it to options.out; see DistillOptions."""
    distances = parse_distances(options.distance)
    teacher = load_checkpoint(options.teacher)
    refuse_overwriting(options.out, options.resume, options.overwrite)
    start_torch(options.fit)
    check_encoder(teacher, options)
    charset = choose_charset(teacher, options)
    width = teacher.info.sizes.width if options.student_width is None else options.student_width
    student = build_student(
        teacher, options.student_backbone, width, charset, options.train_encoder, options.train_classifier
    )
    teacher_model = Crnn.from_checkpoint(teacher)
    check_bounds(teacher_model, student, options.outside_size_bounds)
    spec = teacher.info.input_spec
    data = options.data + options.unlabelled or recorded_data(teacher, options.teacher)
    synth = teacher.info.provenance.get("synth", {})
    unlabelled = options.ctc_weight == 0
    sources = open_sources(
        data, charset, spec, options.validation, options.validation_lines, options.drop_bad,
        synth, options.fit.seed, unlabelled,
    )  # fmt: skip
    objective = Distillation(
        teacher_model, distances, options.distance_at, options.ctc_weight, options.distance_reduction,
        options.temperature, kept_features(options),
    )  # fmt: skip
    exact = options.keep_features != "no"
    windows = make_windows(sources, charset, spec, options.fit, options.augment, exact)
    taught = {key: teacher.info.provenance.get(key) for key in ("command", "date", "validation_accuracy", "parameters")}
    made = provenance(command, data, options.fit.seed, sources, synth) | {"teacher": taught}
    info = ModelInfo(charset, spec, student.sizes, made, pixels_per_column=teacher.info.pixels_per_column)
    progress = fit(
        student, windows, objective, options.fit, saver(options.out, info), validator(sources.validation, charset,
        spec),
        resume_from=resume_path(options.out), log=options.out.with_suffix(".log.csv"), resume=options.resume,
    )  # fmt: skip
    written = read_back(options.out, sources.validation)
    result: dict[str, Any] = {"steps": progress.step, "lines": progress.lines, "seconds": round(progress.seconds, 1)}
    if sources.validation:
        labels = teacher.info.charset
        result["teacher_accuracy"] = evaluate(teacher_model, sources.validation, labels, spec).exact
        result["student_accuracy"] = written.info.provenance["validation_accuracy"]
        result |= column_agreement(teacher_model, Crnn.from_checkpoint(written), sources.validation, spec)
    write_run(options.out, command, options, result)
    print(report(options.out, result))
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
    """The teacher's, or that of the file given."""
    if options.charset is None:
        return teacher.info.charset
    if not options.charset.exists():
        raise FileNotFoundError(f"--charset {options.charset} does not exist; give a UTF-8 file of characters")
    return Charset.of(options.charset.read_text(encoding="utf-8").replace("\n", ""), teacher.info.charset.case)


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
        name = source.rsplit(":", 1)[0]
        if not name.startswith("synth") and not Path(name).exists() and not Path(source).exists():
            raise FileNotFoundError(f"{path} was trained on {name}, which is no longer there; give --data")
    return tuple(data)


def kept_features(options: DistillOptions) -> TeacherFeatures | None:
    """Where the teacher's features are kept, if they are."""
    if options.keep_features == "no":
        return None
    return TeacherFeatures(options.out.with_suffix(".features") if options.keep_features == "disk" else None)


def read_back(out: Path, validation: list[Line]) -> Checkpoint:
    """The student as its file holds it; ValueError, and the file renamed, where it does not read as reported."""
    written = load_checkpoint(out)
    if not validation:
        return written
    reported = written.info.provenance["validation_accuracy"]
    found = evaluate(Crnn.from_checkpoint(written), validation, written.info.charset, written.info.input_spec).exact
    if found != reported:
        refused = out.with_suffix(".refused.pt")
        out.rename(refused)
        raise ValueError(
            f"{out} reads {found:.2%} of the validation lines where training reported {reported:.2%}; "
            f"it was renamed to {refused.name}, so train again"
        )
    return written


@torch.inference_mode()
def column_agreement(teacher: Crnn, student: Crnn, lines: list[Line], spec: InputSpec) -> dict[str, float]:
    """How well the two agree column by column, since they share an encoder.

    spikes_agree: share of the teacher's spikes (the most probable column of each character) at which the student
    has a spike of the same class in the same column; spikes_agree_within_1: at most one column away;
    columns_agree: share of all columns with the same most probable class.
    """
    spikes = exact = near = columns = same = 0
    for line in lines:
        picture = torch.from_numpy(prepare(line.picture, spec))[None]
        probs = [model(picture).log_probs.numpy() for model in (teacher, student)]
        classes = [best_path(p)[0] for p in probs]
        at = [spike_columns(p)[0] for p in probs]
        if probs[0].shape != probs[1].shape:
            return {}
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


def report(out: Path, result: dict[str, Any]) -> str:
    """What a person wants to know at the end."""
    rows = [f"{out}: {result['lines']:,} lines in {result['steps']:,} steps, {result['seconds'] / 60:.1f} minutes"]
    if "student_accuracy" in result:
        rows.append(
            f"validation lines read exactly: student {result['student_accuracy']:.1%}, teacher "
            f"{result['teacher_accuracy']:.1%}"
        )
    if "spikes_agree" in result:
        rows.append(
            f"spikes in the teacher's column: {result['spikes_agree']:.1%}, at most one away: "
            f"{result['spikes_agree_within_1']:.1%}; all columns of the same class: {result['columns_agree']:.1%}"
        )
    return "\n".join(rows)
