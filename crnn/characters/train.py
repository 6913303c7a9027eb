"""The story of training a character model: crops, classes, network, losses, fit, centres, model file."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.characters.checkpoint import (
    CharacterCheckpoint,
    CharacterInfo,
    CharacterSizes,
    Memory,
    load_characters,
    save_characters,
)
from crnn.characters.crops import CropWindows, crop_spec, evenly, labelled, squared
from crnn.characters.model import (
    CharacterModel,
    CharacterObjective,
    build_losses,
    class_probabilities,
    embedded,
    mean_directions,
)
from crnn.characters.train_cli import loss_weights
from crnn.commands import same_run, sentence, write_run
from crnn.fit import fit
from crnn.model import parameter_count
from crnn.objectives.character_losses import CHARACTER_LOSSES
from crnn.score import Score, score
from crnn.train import (
    Sources,
    main_process,
    provenance,
    refuse_overwriting,
    resume_path,
    start_torch,
    validation_share,
)
from data.class_folders import open_labelled
from data.lines import Line, StoredLines, Subset, hold_out, split_source
from data.picture import InputSpec

if TYPE_CHECKING:
    from crnn.characters.train_cli import CharacterTrainOptions

COMPARING = ("centre-triplet", "centre-loss")
"""Losses that compare the crops of a batch, so classes must come several times in it."""
MEMORY, MEMORY_MOST = 10, 20_000
"""Crops of a class, and of all, whose embeddings the file keeps at most; see crnn/characters/reading.py."""


@dataclass(frozen=True)
class Crops:
    """What a character model learns from and what it is validated on.

    counts: training crops of each class, in the order of classes.
    """

    training: tuple[StoredLines, ...]
    weights: tuple[float, ...]
    validation: list[Line]
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    dropped: dict[str, dict[str, int]]


def train(options: CharacterTrainOptions, command: str) -> Path:
    """Trains a character model and writes it to options.out; see CharacterTrainOptions."""
    refuse_overwriting(options.out, options.resume, options.overwrite)
    start_torch(options.fit)
    spec = crop_spec(options.side, options.channels)
    weights = loss_weights(options.loss)
    loss_options = chosen_loss_options(options, weights)
    crops = crop_sources(options)
    sizes = CharacterSizes(options.backbone, options.width, options.embedding, options.channels)
    model = CharacterModel(sizes, build_losses(weights, sizes.embedding, crops.counts, loss_options))
    windows = CropWindows(
        crops.training,
        crops.weights,
        {name: number for number, name in enumerate(crops.classes)},
        spec,
        options.fit.batch_lines,
        samples_per_class(options, weights, crops),
        options.augment,
        options.fit.seed,
    )
    sources = Sources(crops.training, crops.weights, crops.validation, crops.dropped)
    made = provenance(command, options.data, options.fit.seed, sources, {}, options.group_by)
    info = CharacterInfo(crops.classes, crops.counts, spec, sizes, weights, loss_options, made)
    if main_process():
        print(told(crops), file=sys.stderr)
    progress = fit(
        model, windows, CharacterObjective(model.losses, weights), options.fit, saver(options.out, info, crops),
        validator(crops, spec), resume_path(options.out), options.out.with_suffix(".log.csv"),
        same_run(options, crops.training), options.resume, partial(write_run, options.out, command, options),
    )  # fmt: skip
    if not main_process():
        return options.out
    result = {"steps": progress.step, "crops": progress.lines, "seconds": round(progress.seconds, 1)}
    report = f"{options.out}: {progress.lines:,} crops in {progress.step:,} steps, {progress.seconds / 60:.1f} minutes"
    if crops.validation:
        result["accuracy"] = progress.best
        report += f"; {progress.best:.1%} of {len(crops.validation)} held-out crops are named right"
    write_run(options.out, command, options, result)
    resume_path(options.out).unlink(missing_ok=True)
    print(report)
    return options.out


def chosen_loss_options(options: CharacterTrainOptions, weights: dict[str, float]) -> dict[str, dict[str, Any]]:
    """What each loss is made with beside sizes and counts; ValueError for an option that none of them has."""
    given: dict[str, Any] = {"margin": options.margin, "scale": options.scale, "mining": options.mining}
    asked = {name: value for name, value in given.items() if value is not None}
    accepted = {name: inspect.signature(CHARACTER_LOSSES[name]).parameters for name in weights}  # type: ignore[index]
    for option in asked:
        if not any(option in parameters for parameters in accepted.values()):
            owners = [name for name, loss in CHARACTER_LOSSES.items() if option in inspect.signature(loss).parameters]
            raise ValueError(f"--{option} is for {', '.join(owners)}, and --loss is {' '.join(weights)}; leave it out")
    chosen = {name: {k: v for k, v in asked.items() if k in accepted[name]} for name in weights}
    named: dict[str, Any] = {"rule": options.centre_rule, "normalise": options.normalise or None}
    rule = {name: value for name, value in named.items() if value is not None}
    if rule and "centre-triplet" not in weights:
        raise ValueError(
            f"--centre-rule and --normalise are for centre-triplet, and --loss is {' '.join(weights)}; leave them out"
        )
    if options.centre_rule == "classifier-weights" and options.normalise:
        raise ValueError("--centre-rule classifier-weights compares directions by itself; leave --normalise out")
    if rule:
        chosen["centre-triplet"] |= {"rule": "moving-average"} | rule
    return {name: entries for name, entries in chosen.items() if entries}


def samples_per_class(options: CharacterTrainOptions, weights: dict[str, float], crops: Crops) -> int:
    """K of PK sampling, 0 for plain shuffling; ValueError where it does not fit."""
    comparing = any(name in COMPARING for name in weights)
    samples = options.samples_per_class if options.samples_per_class is not None else 4 if comparing else 0
    if samples > options.fit.batch_lines // 2:
        raise ValueError(
            f"--samples-per-class is {samples} and a batch has {options.fit.batch_lines} crops, which leaves less than "
            "two classes in it; raise --batch-lines"
        )
    if samples and len(set(crops.weights)) > 1:
        raise ValueError(
            "with --samples-per-class all classes are drawn equally often, whatever the weights in --data; leave these "
            "out, or give --samples-per-class 0"
        )
    return samples


def crop_sources(options: CharacterTrainOptions) -> Crops:
    """Opens every source, holds some out, and counts classes; no picture is opened.

    A class whose crops were all held out gets one back, so that every class is learnt.
    """
    training: list[StoredLines] = []
    weights: list[float] = []
    held: list[StoredLines] = []
    dropped: dict[str, dict[str, int]] = {}
    share = validation_share(options.validation)
    for text in options.data:
        name, weight = split_source(text)
        source, bare = opened(name, options.drop_bad)
        if bare:
            dropped[name] = {"no label": bare}
        if share is not None:
            source, apart = split(source, share, options.group_by)
            held.append(apart)
        training.append(source)
        weights.append(weight)
    if share is None:
        held.append(opened(options.validation, options.drop_bad)[0])
    counts = Counter(text or "" for source in training for text in source.texts())
    if len(counts) < 2:
        raise ValueError(
            f"{' '.join(options.data)} has one class only, {next(iter(counts))!r}; give crops of two characters or more"
        )
    classes = tuple(sorted(counts))
    for source in held:
        refuse_foreign(source, counts)
    validation = [line for source in held for line in evenly(source, options.validation_lines // len(held))]
    return Crops(tuple(training), tuple(weights), validation, classes, tuple(counts[name] for name in classes), dropped)


def opened(name: str, drop_bad: bool) -> tuple[StoredLines, int]:
    """The labelled crops of a source, and how many have no label."""
    source = open_labelled(name)
    kept, bare = labelled(source, drop_bad)
    return (Subset(source, tuple(kept)) if bare else source), bare


def split(source: StoredLines, share: float, group_by: str | None) -> tuple[StoredLines, StoredLines]:
    """(training, held out), by data.lines.hold_out; each class that would be missing gets its first crop back."""
    rest, held = hold_out(source, share, group_by)
    assert isinstance(rest, Subset)
    assert isinstance(held, Subset)
    texts = source.texts()
    present = {texts[i] for i in rest.indices}
    back: dict[str | None, int] = {}
    for i in held.indices:
        if texts[i] not in present:
            back.setdefault(texts[i], i)
    kept = set(back.values())
    apart = tuple(i for i in held.indices if i not in kept)
    return Subset(source, tuple(sorted([*rest.indices, *kept]))), Subset(source, apart)


def refuse_foreign(source: StoredLines, counts: Counter[str]) -> None:
    """ValueError with the first key whose label is no class of the training crops."""
    for text, key in zip(source.texts(), source.keys(), strict=True):
        if text not in counts:
            raise ValueError(
                f"{key} of --validation is labelled {text!r}, which no training crop is; validate on known classes"
            )


def told(crops: Crops) -> str:
    """What a person should know before the run: classes, counts, and labels that are no single character."""
    low, high = min(crops.counts), max(crops.counts)
    text = f"{len(crops.classes)} classes with {low} to {high} training crops, {len(crops.validation)} crops held out"
    long = [name for name in crops.classes if len(name) > 1]
    if long:
        text += f"; {len(long)} labels have several characters, such as {long[0]!r}: each is taken as one class"
    return text


def validator(crops: Crops, spec: InputSpec) -> Callable[[CharacterModel], Score] | None:
    """A function that scores the model on the held-out crops; None where there are none."""
    if not crops.validation:
        return None
    labels = [line.text or "" for line in crops.validation]

    def validate(model: CharacterModel) -> Score:
        found = embedded(model, (squared(line.picture, spec) for line in crops.validation), spec)
        best = class_probabilities(model, found).argmax(1)
        return score([crops.classes[i] for i in best], labels)

    return validate


def saver(out: Path, info: CharacterInfo, crops: Crops) -> Callable[..., None]:
    """A function that writes the model file, or out.last.pt, with what training reported added to its provenance.

    The last call of a run computes class centres and the memory, for the last weights and for the best ones, which lie
    in out by then; the resume state is removed only after it.
    """

    def save(model: CharacterModel, reported: dict[str, Any], last: bool = False) -> None:
        checkpoint = CharacterCheckpoint(info, model.state_dict())
        counts = {"parameters": parameter_count(model), "backbone_parameters": parameter_count(model.trunk)}
        checkpoint = checkpoint.with_provenance(**counts, **reported)
        if last or not crops.validation:
            checkpoint = with_memory(with_centres(checkpoint, model, crops.training), model, crops)
        save_characters(out.with_suffix(".last.pt") if last else out, checkpoint)
        if last and crops.validation:
            best = load_characters(out)
            own = CharacterModel.from_checkpoint(best)
            save_characters(out, with_memory(with_centres(best, own, crops.training), own, crops))

    return save


def with_centres(
    checkpoint: CharacterCheckpoint, model: CharacterModel, training: Sequence[StoredLines]
) -> CharacterCheckpoint:
    """The checkpoint with the mean direction of each class over its training crops, unaltered, that can be read."""
    spec, numbers = checkpoint.info.input_spec, checkpoint.info.numbers()
    places = [(source, i) for source in training for i in range(len(source))]
    labels = np.array([numbers[text or ""] for source in training for text in source.texts()], np.int64)
    kept: list[int] = []
    embeddings = embedded(model, readable(places, spec, kept), spec)
    return replace(checkpoint, centres=mean_directions(embeddings, labels[kept], len(checkpoint.info.classes)))


def readable(
    places: Sequence[tuple[StoredLines, int]], spec: InputSpec, kept: list[int]
) -> Iterator[NDArray[np.uint8]]:
    """Crops that can be read, as squares, their numbers in places put into kept; a warning for each of the others.

    No step has drawn these, and a whole run is not lost for them.
    """
    for number, (source, index) in enumerate(places):
        try:
            crop = squared(source[index].picture, spec)
        except (OSError, ValueError) as error:
            warn_once(f"warning: {sentence(error)}; the crop is left out of its class's centre")
            continue
        kept.append(number)
        yield crop


@cache
def warn_once(text: str) -> None:
    """On stderr, however often crops are gone through."""
    print(text, file=sys.stderr)


def with_memory(checkpoint: CharacterCheckpoint, model: CharacterModel, crops: Crops) -> CharacterCheckpoint:
    """The checkpoint with embeddings of some crops of each class: held-out ones, or training crops where none are."""
    spec, numbers = checkpoint.info.input_spec, checkpoint.info.numbers()
    places = [(source, i) for source in crops.training for i in range(len(source))]
    labels = [text or "" for source in crops.training for text in source.texts()]
    if crops.validation:
        labels = [line.text or "" for line in crops.validation]
    kept = some_of_each(labels, MEMORY, MEMORY_MOST)
    if crops.validation:
        found = embedded(model, (squared(crops.validation[i].picture, spec) for i in kept), spec)
    else:
        read: list[int] = []
        found = embedded(model, readable([places[i] for i in kept], spec, read), spec)
        kept = [kept[i] for i in read]
    memory = Memory(torch.from_numpy(found).half(), torch.tensor([numbers[labels[i]] for i in kept], dtype=torch.int64))
    about = {"crops": len(kept), "of": "held-out crops" if crops.validation else "training crops"}
    return replace(checkpoint, memory=memory).with_provenance(memory=about)


def some_of_each(labels: Sequence[str], most: int, most_in_all: int) -> list[int]:
    """Indices of at most so many of each label, evenly from its first to its last, in order; fewer where all of these
    are more than most_in_all.
    """
    places: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    most = max(1, min(most, most_in_all // max(1, len(places))))
    chosen = [
        own[round(at)] for own in places.values() for at in np.linspace(0, len(own) - 1, min(most, len(own))).tolist()
    ]
    return sorted(chosen)
