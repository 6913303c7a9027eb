"""The story of a charset that grows: new rows of the classifier from descriptions, a short fit, and what it changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint, save_checkpoint
from crnn.commands import LEARNING_RATES, same_run, write_run
from crnn.ctc import LogProbs, greedy
from crnn.fit import evaluate, fit, line_log_probs, read_lines
from crnn.model import Crnn, Outputs, copy_classifier
from crnn.objectives.line_characters import aligned_characters
from crnn.objectives.recognition import DeviceBatch, Terms, ctc_loss
from crnn.score import character_recall, score
from crnn.train import (
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
    HELD_LABELLED,
    extended,
    first_lines,
    joined,
    sources,
    tell_dropped,
    unlabelled,
)
from distill.new_rows import chosen_examples, new_rows

if TYPE_CHECKING:
    from distill.extend_cli import ExtendOptions

LEARNING_RATE = 1e-3
"""Of adamw where none is given; 2e-3 lost three times as many old lines, under three times the anchor."""

RAISES = tuple(0.25 * step for step in range(1, 17))
"""By how much the biases of new classes may be raised: nats, up to odds of 55 to 1."""

NEAR = 2
"""Columns of 4 pixels around a new character, whose context changes with it."""


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
        kept = ~near_new(outputs.log_probs, batch, torch.isin(batch.classes, self.added))  # (N, T)
        anchor = (apart * kept).sum() / kept.sum().clamp(min=1)
        return {"loss": ctc + self.anchor * anchor, "ctc": ctc, "anchor": anchor}


def near_new(log_probs: Tensor, batch: DeviceBatch, is_new: Tensor) -> Tensor:
    """Columns at most NEAR from one that shows a new character: bool (N, T). is_new: bool (N, S), of the labels."""
    shown = aligned_characters(log_probs, batch.classes, batch.lengths)  # (N, T)
    there = is_new.gather(1, shown.clamp(min=0)) & (shown >= 0)
    return functional.max_pool1d(there.float(), 2 * NEAR + 1, 1, NEAR).bool()


def extend(options: ExtendOptions, command: str) -> Path:
    """Writes options.model with a larger charset to options.out; see ExtendOptions."""
    refuse_overwriting(options.out, options.resume, options.overwrite)
    if options.out.resolve() == options.model.resolve():
        raise ValueError(f"--out {options.out} is the model itself; give the new one another file")
    start_torch(options.fit)
    before = load_checkpoint(options.model)
    known = before.info.charset
    charset = extended(known, options.add, options.model)
    added = [c for c in charset.characters if c not in known.characters]
    spec = before.info.input_spec
    old = Crnn.from_checkpoint(before)
    with_new, without = sources(options, before, charset, added)
    tell_dropped(with_new.dropped | without.dropped)
    pictures, held_pictures = unlabelled(options, old, known, spec)
    examples = chosen_examples(with_new, charset, added, options.examples)
    old_lines = first_lines(without, options.validation_lines) or examples  # their other columns must do then
    model = grown(before, old, charset, examples, old_lines)
    model.encoder.requires_grad_(options.train_encoder)
    numbers = [charset.characters.index(c) + 1 for c in added]
    held_new = with_new.validation
    held_old = without.validation[: options.validation_lines]
    at_start = compare(old, known, model, charset, held_old, held_new, added, spec)
    print(f"before training: {said(at_start)}", flush=True)
    others = joined(without, pictures)
    share = sum(with_new.weights) / sum(others.weights) if others.weights else 1.0  # half of it has new characters
    others = replace(others, weights=tuple(weight * share for weight in others.weights))
    mixed = replace(joined(with_new, others), validation=held_old + held_new)
    synth = before.info.provenance.get("synth", {})
    origin = {key: before.info.provenance.get(key) for key in ("command", "date", "validation_accuracy", "teacher")}
    origin |= {"model": options.model.name, "added": "".join(added), "unlabelled": list(options.unlabelled)}
    made = provenance(
        command, options.data + options.rehearse, options.fit.seed, mixed, synth, validation=HELD_LABELLED
    ) | {"synth": synth, "extended": origin}
    info = ModelInfo(charset, spec, model.sizes, made, pixels_per_column=before.info.pixels_per_column)
    objective = Anchored(Crnn.from_checkpoint(before), numbers, options.anchor)
    at_rate = options.fit.at_rate(LEARNING_RATE)
    progress = fit(
        model, make_windows(mixed, charset, spec, options.fit, augment=True, sizes=model.sizes), objective, at_rate,
        saver(options.out, info), validator(mixed.validation, charset, spec), resume_path(options.out),
        options.out.with_suffix(".log.csv"), same_run(options), options.resume,
        partial(write_run, options.out, command, options),
    )  # fmt: skip
    raised = raise_biases(options.out, [held_old, held_pictures], numbers, options.may_lose)
    written = load_checkpoint(options.out)
    after = Crnn.from_checkpoint(written)
    if raised:
        accuracy = evaluate(after, mixed.validation, charset, spec).exact
        save_checkpoint(options.out, written.with_provenance(biases_raised=raised, validation_accuracy=accuracy))
    at_end = compare(old, known, after, charset, held_old, held_new, added, spec)
    seconds = round(progress.seconds, 1)
    result: dict[str, Any] = {
        "steps": progress.step, "lines": progress.lines, "seconds": seconds,
        "learning_rate": at_rate.learning_rate or LEARNING_RATES.get(at_rate.optimiser),
        "biases_raised": raised, "start": at_start, "end": at_end,
    }  # fmt: skip
    count, lines = changed(after, charset, held_pictures, spec), len(held_pictures)
    result["unlabelled"] = {"lines": lines, "changed": count}
    write_run(options.out, command, options, result)
    print(f"{options.out}: {progress.step:,} steps, {seconds / 60:.1f} minutes", f"now: {said(at_end)}", sep="\n")
    if lines:
        print(f"of {lines} unlabelled pictures held out {count} are read otherwise than before")
    print(by_character(at_start, at_end))
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


def raise_biases(path: Path, old_lines: Sequence[list[Line]], added: Sequence[int], may_lose: float) -> float:
    """Raises the biases of new classes in a model file as far as held-out old lines allow, and gives by how much.

    Training shows new characters in half of all lines and the anchor holds them back, so what it leaves is one of many
    trades between new and old. The biases of the new classes move along them: the largest of RAISES is taken up to
    which the share of lines that are read exactly falls by no more than may_lose in each of the sets old_lines.
    (Against what the old model reads there it would be measured too kindly: held-out lines of what was rehearsed gain
    by training, others do not.)
    """
    checkpoint = load_checkpoint(path)
    charset, model = checkpoint.info.charset, Crnn.from_checkpoint(checkpoint)
    sets: list[tuple[list[str], list[LogProbs]]] = []
    for lines in filter(None, old_lines):
        found = [
            pair
            for batch in line_log_probs(model, lines, checkpoint.info.input_spec)
            for pair in zip(*batch, strict=True)
        ]
        sets.append(([charset.normalise(lines[i].text or "") for i, _ in found], [log_probs for _, log_probs in found]))
    chosen, least = 0.0, [_exact(*one, charset) - may_lose for one in sets]
    for amount in RAISES if sets else ():
        for _, log_probs in sets:
            for line in log_probs:
                line[:, added] += amount - chosen
        if any(_exact(*one, charset) < share for one, share in zip(sets, least, strict=True)):
            break
        chosen = amount
    if chosen:
        checkpoint.weights["classifier.bias"][list(added)] += chosen
        save_checkpoint(path, checkpoint)
    return chosen


def _exact(labels: list[str], log_probs: Iterable[LogProbs], charset: Charset) -> float:
    return score([greedy(line, charset).text for line in log_probs], labels).exact


def changed(model: Crnn, charset: Charset, lines: list[Line], spec: InputSpec) -> int:
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
        "new_read": found.share(added),
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
