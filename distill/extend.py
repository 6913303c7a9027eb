"""The story of a charset that grows: new rows of the classifier from descriptions, a short fit, and what it changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint, save_checkpoint
from crnn.commands import LEARNING_RATES, same_run, write_run
from crnn.fit import fit
from crnn.model import Crnn, Outputs, copy_classifier, evaluate, read_lines
from crnn.objectives.recognition import DeviceBatch, Terms, ctc_loss
from crnn.score import character_recall, score
from crnn.train import (
    count_characters,
    main_process,
    make_windows,
    provenance,
    refuse_overwriting,
    resume_path,
    saver,
    start_torch,
    validator,
)
from data.lines import Line
from data.picture import InputSpec
from distill.extend_lines import (
    extended,
    first_lines,
    held_out,
    joined,
    sources,
    synthesis_of,
    tell_dropped,
    unlabelled,
)
from distill.new_biases import HeldLines, allowed, costs_of_shifts, moved, with_costs
from distill.new_rows import chosen_examples, near_new, new_rows

if TYPE_CHECKING:
    from distill.extend_cli import ExtendOptions

LEARNING_RATE = 1e-3
"""Of adamw where none is given; 2e-3 lost three times as many old lines, under three times the anchor."""


class Steady(Crnn):
    """A recogniser whose normalisation keeps its statistics while it trains: a few lines must not move them."""

    def train(self, mode: bool = True) -> Steady:
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class Anchored(nn.Module):
    """CTC, plus anchor times method 1's KL distance to the old model on the old classes, where no new character is.

    That is KL(old model || this one) of a column's probabilities, its mean over all columns of lines of old characters
    and over those further than NEAR from a new one. A new class has the probability 0 in the old model, so that what
    is read as a new character where none is costs too.

    old: the model of before, frozen. added: class numbers of the new characters.
    """

    known: Tensor
    added: Tensor

    def __init__(self, old: Crnn, added: Sequence[int], anchor: float) -> None:
        super().__init__()
        self.teacher = old.requires_grad_(False).eval()
        classes = range(old.sizes.classes + len(added))
        self.register_buffer("added", torch.tensor(added))
        self.register_buffer("known", torch.tensor([number for number in classes if number not in added]))
        self.anchor = anchor

    def train(self, mode: bool = True) -> Anchored:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, outputs: Outputs, batch: DeviceBatch, step: int) -> Terms:
        ctc = ctc_loss(outputs.log_probs, batch)
        if not self.anchor:
            return {"loss": ctc, "ctc": ctc}
        with torch.no_grad():
            told = self.teacher(batch.pictures).log_probs  # (N, T, old classes)
        apart = (told.exp() * (told - outputs.log_probs[..., self.known])).sum(-1)  # (N, T)
        is_new = torch.isin(batch.classes, self.added)
        kept = ~near_new(outputs.log_probs, batch.classes, batch.lengths, is_new)  # (N, T)
        anchor = (apart * kept).sum() / kept.sum().clamp(min=1)
        return {"loss": ctc + self.anchor * anchor, "ctc": ctc, "anchor": anchor}


def extend(options: ExtendOptions, command: str) -> Path:
    """Writes options.model with a larger charset to options.out; see ExtendOptions."""
    refuse_overwriting(options.out, options.resume, options.overwrite)
    if options.out.resolve() == options.model.resolve():
        raise ValueError(f"--out {options.out} is the model itself; give the new one another file")
    start_torch(options.fit)
    before = load_checkpoint(options.model)
    if before.info.ranges and main_process():
        print(
            f"warning: {options.model} learnt ranges of activations by --quantise-aware, which what grows from it has "
            "not; teach it to a student of its own kind with distill --quantise-aware where int8 needs them",
            file=sys.stderr,
        )
    known = before.info.charset
    charset = extended(known, options.add, options.model)
    added = [c for c in charset.characters if c not in known.characters]
    spec = before.info.input_spec
    old = Crnn.from_checkpoint(before)
    with_new, without = sources(options, before, charset, added)
    if main_process():
        tell_dropped(with_new.dropped | without.dropped)
    pictures, held_pictures = unlabelled(options, old, known, spec)
    examples = chosen_examples(with_new, charset, added, options.examples)
    old_lines = first_lines(without, options.validation_lines) or first_lines(pictures, options.validation_lines)
    model = grown(before, old, charset, examples, old_lines)
    model.encoder.requires_grad_(options.train_encoder)
    numbers = [charset.characters.index(c) + 1 for c in added]
    held_new = with_new.validation
    held_old = without.validation[: options.validation_lines]
    at_start = compare(old, known, model, charset, held_old, held_new, added, spec)
    if main_process():
        print(f"before training: {said(at_start)}", flush=True)
    others = joined(without, pictures)
    share = sum(with_new.weights) / sum(others.weights) if others.weights else 1.0  # half of it has new characters
    others = replace(others, weights=tuple(weight * share for weight in others.weights))
    mixed = replace(joined(with_new, others), validation=held_old + held_new)
    synth = synthesis_of(options, before)
    origin = {key: before.info.provenance.get(key) for key in ("command", "date", "validation_accuracy", "teacher")}
    origin |= {"model": options.model.name, "added": "".join(added), "unlabelled": list(options.unlabelled)}
    validation, group_by = held_out(options, before)
    made = provenance(command, options.data + options.rehearse, options.fit.seed, mixed, synth, group_by, validation)
    made |= {"synth": synth, "extended": origin, "characters": asdict(count_characters(mixed, charset))}
    info = ModelInfo(charset, spec, model.sizes, made, pixels_per_column=before.info.pixels_per_column)
    objective = Anchored(Crnn.from_checkpoint(before), numbers, options.anchor)
    at_rate = options.fit.at_rate(LEARNING_RATE)
    progress = fit(
        model, make_windows(mixed, charset, spec, options.fit, augment=True, sizes=model.sizes), objective, at_rate,
        saver(options.out, info), validator(mixed.validation, charset, spec), resume_path(options.out),
        options.out.with_suffix(".log.csv"), same_run(options, mixed.training), options.resume,
        partial(write_run, options.out, command, options),
    )  # fmt: skip
    if not main_process():
        return options.out
    written = load_checkpoint(options.out)
    if "new_biases" in written.info.provenance:  # cut off after it was moved, and resumed
        written = moved(written, numbers, -written.info.provenance["new_biases"]["moved"])
    labelled = HeldLines(held_old, [1.0] * len(held_old))
    costs = costs_of_shifts(written, [labelled, held_pictures], numbers, held_new)
    shift = allowed(costs, options.may_lose)
    written = with_costs(moved(written, numbers, shift), costs, shift)
    if shift and mixed.validation:
        accuracy = evaluate(Crnn.from_checkpoint(written), mixed.validation, charset, spec).exact
        written = written.with_provenance(validation_accuracy=accuracy)
    save_checkpoint(options.out, written)
    after = Crnn.from_checkpoint(written)
    at_end = compare(old, known, after, charset, held_old, held_new, added, spec)
    seconds = round(progress.seconds, 1)
    result: dict[str, Any] = {
        "steps": progress.step, "lines": progress.lines, "seconds": seconds,
        "learning_rate": at_rate.learning_rate or LEARNING_RATES.get(at_rate.optimiser),
        "biases_moved": shift, "costs": [cost._asdict() for cost in costs], "start": at_start, "end": at_end,
    }  # fmt: skip
    count, lines = changed(after, charset, held_pictures.lines, spec), len(held_pictures.lines)
    result["unlabelled"] = {"lines": lines, "changed": count}
    write_run(options.out, command, options, result)
    resume_path(options.out).unlink(missing_ok=True)
    print(f"{options.out}: {progress.step:,} steps, {seconds / 60:.1f} minutes", f"now: {said(at_end)}", sep="\n")
    if lines:
        print(f"of {lines} unlabelled pictures held out {count} are read otherwise than before")
    print(by_character(at_start, at_end))
    if costs:
        print(f"crnn rebalance --model {options.out} tells what more or less of the new ones would cost")
    return options.out


def grown(before: Checkpoint, old: Crnn, charset: Charset, examples: list[Line], old_lines: list[Line]) -> Steady:
    """The network of before, which old is, with a classifier of charset: old classes as they were, and new rows."""
    known = before.info.charset
    model = Steady(replace(before.info.sizes, classes=charset.classes))
    model.load_state_dict({k: v for k, v in before.weights.items() if not k.startswith("classifier.")}, strict=False)
    copy_classifier(model, charset, before.weights, known)
    numbers = [charset.characters.index(c) + 1 for c in charset.characters if c not in known.characters]
    rows = new_rows(old, known, charset, examples, old_lines, before.info.input_spec)
    with torch.no_grad():
        model.classifier.weight[numbers], model.classifier.bias[numbers] = rows
    return model


def changed(model: Crnn, charset: Charset, lines: Sequence[Line], spec: InputSpec) -> int:
    """How many lines are read otherwise than their text says."""
    return sum(r.text != line.text for r, line in zip(read_lines(model, lines, charset, spec), lines, strict=True))


def compare(
    old: Crnn, known: Charset, new: Crnn, charset: Charset, held_old: list[Line], held_new: list[Line],
    added: Sequence[str], spec: InputSpec,
) -> dict[str, Any]:  # fmt: skip
    """What two models read in lines of old characters, and what the new one reads of the new characters."""
    labels = [known.normalise(line.text or "") for line in held_old]
    was = [reading.text for reading in read_lines(old, held_old, known, spec)]
    now = [reading.text for reading in read_lines(new, held_old, charset, spec)]
    found = character_recall(
        (reading.text for reading in read_lines(new, held_new, charset, spec)),
        (charset.normalise(line.text or "") for line in held_new),
    )
    old_recall = [character_recall(texts, labels) for texts in (was, now)]
    return {
        "old_lines": len(labels),
        "old_exact_before": score(was, labels).exact if labels else None,
        "old_exact": score(now, labels).exact if labels else None,
        "old_readings_changed": sum(a != b for a, b in zip(was, now, strict=True)),
        "new_lines": len(held_new),
        "new_read": found.share(added) if found.occurrences(added) else None,
        "characters": {
            c: {"held": found.held[c], "read": found.read[c]} for c in added
        },
        "old_characters": {
            c: {"held": held, "before": old_recall[0].read[c], "read": old_recall[1].read[c]}
            for c, held in sorted(old_recall[1].held.items())
        },
    }  # fmt: skip


def said(figures: dict[str, Any]) -> str:
    """One line for a person."""
    new = "no line with a new character is held out"
    if figures["new_lines"]:
        new = f"{figures['new_read']:.1%} of the new characters are read in {figures['new_lines']} lines"
    if not figures["old_lines"]:
        return f"{new}; no line of old characters is held out"
    return (
        f"{new}; of {figures['old_lines']} lines of old characters {figures['old_exact']:.1%} are read exactly, "
        f"{figures['old_exact_before']:.1%} before, and {figures['old_readings_changed']} are read otherwise"
    )


def by_character(start: dict[str, Any], end: dict[str, Any]) -> str:
    """Character by character: the new ones, then the old ones whose figure changed."""
    rows = [
        f"  {c}  {row['held']:5}  {_share(start['characters'][c]['read'], row['held']):>6}  "
        f"{_share(row['read'], row['held']):>6}"
        for c, row in end["characters"].items()
    ]
    rows += [
        f"  {c}  {row['held']:5}  {_share(row['before'], row['held']):>6}  {_share(row['read'], row['held']):>6}"
        for c, row in end["old_characters"].items()
        if row["read"] != row["before"]
    ]
    return "\n".join(["character, times in the lines held out, read before training, read now", *rows])


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
