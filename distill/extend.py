"""The story of a charset that grows: new rows of the classifier from descriptions, a short fit, and what it changed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crnn.characters.descriptions import class_descriptions
from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, ModelInfo, load_checkpoint
from crnn.commands import same_run, write_run
from crnn.fit import fit, read_lines
from crnn.model import Crnn, Outputs, copy_classifier
from crnn.objectives.line_characters import aligned_characters
from crnn.objectives.recognition import DeviceBatch, Terms, ctc_loss
from crnn.score import character_recall, score
from crnn.train import (
    Sources,
    make_windows,
    open_sources,
    provenance,
    refuse_overwriting,
    resume_path,
    saver,
    start_torch,
    synthetic,
    validator,
)
from data.lines import Line
from data.picture import InputSpec, prepare
from distill.objective import distance

if TYPE_CHECKING:
    from distill.extend_cli import ExtendOptions

OLD_LINES = 600
"""Lines of old characters on which the biases of new rows are set."""

SHRINKAGE, ROW_LENGTH, BIAS_MARGIN = 0.1, 4.0, 1.0
"""Of new rows, see new_rows: found on a student and five signs, where they read 37 % of the signs before any training
and one column in ten thousand of lines of old characters otherwise than before; without whitening it was 17 %."""


class Steady(Crnn):
    """A recogniser whose normalisation keeps its statistics while it trains: a few lines must not move them."""

    def train(self, mode: bool = True) -> Steady:
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class Anchored(nn.Module):
    """CTC, plus the distance to the old model on lines without a new character (method 1's, L2 after the encoder).

    old: the model of before, frozen. added: class numbers of the new characters.
    """

    added: Tensor

    def __init__(self, old: Crnn, added: Sequence[int], anchor: float) -> None:
        super().__init__()
        self.teacher = old.requires_grad_(False).eval()
        self.register_buffer("added", torch.tensor(added))
        self.anchor = anchor

    def train(self, mode: bool = True) -> Anchored:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, outputs: Outputs, batch: DeviceBatch, step: int) -> Terms:
        ctc = ctc_loss(outputs.log_probs, batch)
        known = ~torch.isin(batch.classes, self.added).any(1)  # (N,)
        if not self.anchor or not bool(known.any()):
            return {"loss": ctc, "ctc": ctc, "anchor": ctc.detach() * 0.0}
        with torch.no_grad():
            taught = self.teacher(batch.pictures[known]).encoded
        apart = distance("l2", outputs.encoded[known].float(), taught, "features", 1.0)
        return {"loss": ctc + self.anchor * apart, "ctc": ctc, "anchor": apart}


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
    with_new, without = sources(options, before, charset, added)
    old = Crnn.from_checkpoint(before)
    model = Steady(replace(before.info.sizes, classes=charset.classes))
    model.load_state_dict({k: v for k, v in before.weights.items() if not k.startswith("classifier.")}, strict=False)
    copy_classifier(model, charset, before.weights, known)
    examples = chosen_examples(with_new, added, options.examples, options.fit.seed)
    old_lines = first_lines(without, OLD_LINES) or examples  # with nothing else, their other columns must do
    rows = new_rows(old, known, charset, examples, old_lines, spec)
    with torch.no_grad():
        numbers = [charset.characters.index(c) + 1 for c in added]
        model.classifier.weight[numbers], model.classifier.bias[numbers] = rows
    model.encoder.requires_grad_(options.train_encoder)
    held_new = with_new.validation[: options.validation_lines]
    held_old = without.validation[: options.validation_lines]
    at_start = compare(old, known, model, charset, held_old, held_new, added, spec)
    print(f"before training: {said(at_start)}", flush=True)
    mixed = Sources(
        with_new.training + without.training, with_new.weights + without.weights, held_old + held_new,
        with_new.dropped | without.dropped,
    )  # fmt: skip
    synth = before.info.provenance.get("synth", {})
    told = {key: before.info.provenance.get(key) for key in ("command", "date", "validation_accuracy", "teacher")}
    grown = {"model": options.model.name, "added": "".join(added)} | told
    made = provenance(command, options.data + options.rehearse, options.fit.seed, mixed, synth) | {"extended": grown}
    info = ModelInfo(charset, spec, model.sizes, made, pixels_per_column=before.info.pixels_per_column)
    objective = Anchored(Crnn.from_checkpoint(before), numbers, options.anchor)
    write_run(options.out, command, options)
    progress = fit(
        model, make_windows(mixed, charset, spec, options.fit, augment=True), objective, options.fit,
        saver(options.out, info), validator(mixed.validation, charset, spec), resume_path(options.out),
        options.out.with_suffix(".log.csv"), same_run(options), options.resume,
    )  # fmt: skip
    after = Crnn.from_checkpoint(load_checkpoint(options.out))
    at_end = compare(old, known, after, charset, held_old, held_new, added, spec)
    seconds = round(progress.seconds, 1)
    result = {"steps": progress.step, "lines": progress.lines, "seconds": seconds, "start": at_start, "end": at_end}
    write_run(options.out, command, options, result)
    print(f"{options.out}: {progress.step:,} steps, {seconds / 60:.1f} minutes", f"now: {said(at_end)}", sep="\n")
    print(by_character(at_start, at_end))
    return options.out


def extended(known: Charset, add: str, path: Path) -> Charset:
    """The charset with more characters; ValueError for one that is known, given twice, or no character by itself."""
    add = known.normalise(add)
    if not add:
        raise ValueError("--add is empty; give the characters to add")
    twice = sorted({c for c in add if add.count(c) > 1})
    if twice:
        raise ValueError(f"--add holds {''.join(twice)!r} more than once; give each character once")
    there = [c for c in add if c in known.characters]
    if there:
        raise ValueError(f"{path} knows {''.join(there)!r} already; leave it out of --add")
    if any(c.isspace() and c != " " for c in add):
        raise ValueError(f"--add {add!r} holds a space of another kind; add visible characters")
    return Charset.of(known.characters + add, known.case)


def sources(
    options: ExtendOptions, before: Checkpoint, charset: Charset, added: Sequence[str]
) -> tuple[Sources, Sources]:
    """Lines with new characters, drawn or given, and lines without; each with lines held out for the figures.

    Raises ValueError naming the new characters that no line shows.
    """
    seed, count = options.fit.seed, options.validation_lines
    fields = {k: v for k, v in before.info.provenance.get("synth", {}).items() if k not in ("characters", "including")}
    given = Sources((), (), [], {})
    if options.data:
        opened = open_sources(options.data, charset, before.info.input_spec, "0.2", count, True, fields, seed)
        kept = [line for line in opened.validation if not set(added).isdisjoint(line.text or "")]
        given = replace(opened, validation=kept)
    shown = set(added) & set("".join(t or "" for source in given.training for t in source.texts()))
    drawable = drawable_of(added, fields) if options.drawn else ""
    unseen = [c for c in added if c not in shown and c not in drawable]
    if unseen:
        raise ValueError(
            f"no font and no line of --data shows {''.join(unseen)!r}; install a font or give lines that have it"
        )
    if drawable:
        training, held = synthetic(fields | {"including": drawable}, charset, False, seed + 1)
        drawn = [held[i] for i in range(count)]
        total = sum(given.weights) or 1.0
        given = Sources((*given.training, training), (*given.weights, total), given.validation + drawn, given.dropped)
    without = Sources((), (), [], {})
    if options.rehearse:
        spec, known = before.info.input_spec, before.info.charset
        opened = open_sources(options.rehearse, known, spec, "0.1", count, True, fields, seed)
        share = sum(given.weights) / sum(opened.weights)
        without = replace(opened, weights=tuple(weight * share for weight in opened.weights))
    return given, without


def drawable_of(added: Sequence[str], fields: dict[str, Any]) -> str:
    """The characters that fonts of both sides of the split have, so that the figures are of unseen fonts."""
    from data.synthesis.fonts import find_fonts

    folders = [Path(folder) for folder in fields.get("font_folders", ())] or None
    drawable = ""
    for c in added:
        sides = [any(c in font.characters for font in find_fonts(folders, side)) for side in ("training", "held-out")]
        if all(sides):
            drawable += c
        elif any(sides):
            print(f"warning: {c!r} is in fonts of one side of the split only, so it is not drawn", file=sys.stderr)
    return drawable


def first_lines(of: Sources, count: int) -> list[Line]:
    """As many lines from the start of each training source, together about count."""
    each = -(-count // max(1, len(of.training)))
    return [source[i] for source in of.training for i in range(min(each, len(source)))]


def chosen_examples(of: Sources, added: Sequence[str], count: int, seed: int) -> list[Line]:
    """Training lines until each new character was seen count times, or no line is left."""
    left = dict.fromkeys(added, count)
    chosen = []
    for source in of.training:
        for i in range(min(len(source), 20 * count * len(added))):
            text = source.texts()[i] or ""
            if any(left.get(c, 0) > 0 for c in text):
                chosen.append(source[i])
                for c in text:
                    left[c] = left.get(c, 0) - 1
            if max(left[c] for c in added) <= 0:
                break
    return chosen


@torch.inference_mode()
def new_rows(
    old: Crnn, known: Charset, charset: Charset, examples: Iterable[Line], old_lines: Iterable[Line], spec: InputSpec
) -> tuple[Tensor, Tensor]:
    """Weights (A, H) and biases (A,) of the classes that charset has and known has not.

    A row points from the mean of old characters to the description of the new one (method 5's weighted mean over what
    the encoder says in its columns), in the metric of Fisher's discriminant: the mean of the covariances of old
    characters and of the examples around their descriptions, with SHRINKAGE of its diagonal's mean added; its length is
    ROW_LENGTH times that of old rows on average. Where a line shows a new character the old model cannot say: the
    alignment lets it be any column that is probably no blank. The bias is BIAS_MARGIN below the largest with which no
    column of the old lines would be read as the new character, so old readings hardly change.
    """
    added = [c for c in charset.characters if c not in known.characters]
    features, labels = [], []
    for line in examples:
        encoded, log_probs = _outputs(old, line, spec)
        wild = log_probs.new_empty(1, log_probs.shape[1], charset.classes)
        wild[..., [0, *(charset.characters.index(c) + 1 for c in known.characters)]] = log_probs
        anything = log_probs[..., 1:].logsumexp(-1)
        for c in added:
            wild[..., charset.characters.index(c) + 1] = anything
        classes = torch.tensor([charset.encode(line.text or "", line.key)])
        shown = aligned_characters(wild, classes, torch.tensor([classes.shape[1]]))[0]  # (T,)
        for place, number in enumerate(classes[0].tolist()):
            character = charset.characters[number - 1]
            if character in added:
                columns = (shown == place).nonzero()[:, 0]
                features.append(encoded[0, columns[anything[0, columns].argmax()]])
                labels.append(added.index(character))
    found, classes = torch.stack(features), torch.tensor(labels)  # (M, H), (M,)
    descriptions = class_descriptions(found, classes, len(added))  # (A, H)
    encoded = torch.cat([_outputs(old, line, spec)[0][0] for line in old_lines])  # (M, H)
    best = old.classifier(encoded).max(-1)  # (M,)
    characters = encoded[best.indices != 0]
    apart = found - descriptions[classes]
    spread = (torch.cov(characters.T) + apart.T @ apart / len(apart)) / 2  # (H, H)
    spread += SHRINKAGE * spread.diagonal().mean() * torch.eye(len(spread))
    directions = torch.linalg.solve(spread, (descriptions - characters.mean(0)).T).T
    length = ROW_LENGTH * old.classifier.weight.norm(dim=-1).mean()
    rows = nn.functional.normalize(directions, dim=-1) * length
    biases = (best.values[:, None] - encoded @ rows.T).min(0).values
    return rows, biases - BIAS_MARGIN


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
        "old_exact_before": score(was, labels).exact,
        "old_exact": score(now, labels).exact,
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
    return (
        f"{figures['new_read']:.1%} of the new characters are read in {figures['new_lines']} lines; "
        f"of {figures['old_lines']} lines of old characters {figures['old_exact']:.1%} are read exactly, "
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


def _outputs(model: Crnn, line: Line, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Encoded (1, T, H) and log-probabilities (1, T, K) of one line."""
    outputs = model(torch.from_numpy(prepare(line.picture, spec))[None])
    return outputs.encoded, outputs.log_probs
