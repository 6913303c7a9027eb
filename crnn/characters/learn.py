"""The story of learning a character from a few crops: support, centres, bias, what stays; and of forgetting it.

Nothing is trained. A new class is a centre in the file, and one bias keeps all learnt classes from the crops of old
ones (crnn/characters/reading.py). Taking its centre out again and setting the bias anew undoes it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from crnn.characters.checkpoint import (
    CharacterCheckpoint,
    CharacterInfo,
    LearntClass,
    Memory,
    load_characters,
    save_characters,
)
from crnn.characters.crops import squared
from crnn.characters.descriptions import class_descriptions
from crnn.characters.model import CharacterModel, class_probabilities, embedded
from crnn.characters.reading import LearntScores, learnt_bias, learnt_scores, read_classes
from crnn.characters.support import support_crops, support_labels
from crnn.characters.train import MEMORY_MOST
from crnn.model import available_device
from data.class_folders import open_labelled
from data.lines import StoredLines

if TYPE_CHECKING:
    from crnn.characters.learn_cli import ForgetOptions, LearnOptions


class Embedded(NamedTuple):
    """Crops of a source that could be read: labels and embeddings (N, E); and how many could not."""

    labels: list[str]
    embeddings: NDArray[np.float32]
    failed: int


@dataclass(frozen=True)
class Old:
    """Crops of trained classes that tell what learning may take from them.

    origin: "memory", or the source of --old. probabilities: (M, C), of the trained classes.
    """

    origin: str
    memory: Memory
    probabilities: NDArray[np.float32]

    @property
    def numbers(self) -> NDArray[np.int64]:
        return np.asarray(self.memory.numbers.numpy(), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(M,): read right by the trained classes alone."""
        return np.asarray(self.probabilities.argmax(1) == self.numbers)


def learn(options: LearnOptions) -> int:
    """Adds the classes of options.support and writes options.out; see LearnOptions. 1 where a crop failed."""
    refuse_used(options.out, options.overwrite)
    device = available_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    before = load_characters(options.model)
    refuse_unready(before, options)
    source = open_labelled(options.support)
    labels = support_labels(source)
    refuse_known(labels, before.info)
    model = CharacterModel.from_checkpoint(before).to(device)
    support = embedded_crops(source, labels, model, before.info)
    old = old_crops(options, before, model)
    entry = LearntClass(0, str(options.support), options.may_lose, old.origin, datetime.date.today().isoformat())
    weighted = options.description == "weighted"
    after = grown(before, support, entry, weighted, old)
    told = report(before, after, support, old, model, weighted)
    save_characters(options.out, after)
    figures: dict[str, Any] = {"model": str(options.model), "support": str(options.support), "out": str(options.out)}
    figures |= {"failed": support.failed, "may_lose_asked": options.may_lose} | told
    print(json.dumps(figures, ensure_ascii=False, indent=1) if options.json else shown(figures))
    return 1 if support.failed else 0


def forget(options: ForgetOptions) -> int:
    """Takes learnt classes out of options.model and writes options.out; see ForgetOptions."""
    refuse_used(options.out, options.overwrite)
    before = load_characters(options.model)
    info, trained = before.info, len(before.info.counts)
    learnt = info.classes[trained:]
    for name in options.classes:
        if name in info.classes[:trained]:
            raise ValueError(
                f"{name!r} was not learnt later but trained, and its row is part of the classifier of {options.model}; "
                "to be without it, train anew with crnn characters train"
            )
        if name not in learnt:
            raise ValueError(f"{name!r} is no class of {options.model}; learnt later are {', '.join(learnt) or 'none'}")
    if not learnt:
        raise ValueError(f"{options.model} has no class that was learnt later; there is nothing to forget")
    gone = learnt if options.all else tuple(name for name in learnt if name in options.classes)
    after = without(before, gone)
    save_characters(options.out, after)
    rest = list(after.info.classes[trained:])
    figures = {"model": str(options.model), "out": str(options.out), "forgotten": list(gone), "learnt": rest}
    text = f"{options.out}: forgotten {' '.join(gone)}; learnt later and kept: {' '.join(rest) or 'none'}"
    print(json.dumps(figures, ensure_ascii=False, indent=1) if options.json else text)
    return 0


def refuse_used(out: Path, overwrite: bool) -> None:
    """FileExistsError where out is there and may not be replaced."""
    if out.is_dir():
        raise FileExistsError(f"{out} is a folder; give the name of a model file as --out")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already; choose another --out or replace it with --overwrite")


def refuse_unready(checkpoint: CharacterCheckpoint, options: LearnOptions) -> None:
    """ValueError where the model lacks what learning needs."""
    if checkpoint.centres is None:
        raise ValueError(f"{options.model} has no class centres yet, which its training writes at the end; let it end")
    if options.old is None and checkpoint.memory is None and checkpoint.old is None:
        raise ValueError(
            f"{options.model} keeps no memory of its characters, as it was trained before there was one; give labelled "
            "crops of them with --old"
        )
    if options.old is not None and checkpoint.info.learnt:
        raise ValueError(
            f"{options.model} has learnt classes already, with a bias set on {checkpoint.info.learnt[0].bias_set_on}; "
            "leave --old out, or forget them first with crnn characters forget --all"
        )


def refuse_known(labels: Sequence[str], info: CharacterInfo) -> None:
    """ValueError naming the first label that the model has a class for."""
    numbers = info.numbers()
    known = next((label for label in labels if label in numbers), None)
    if known is None:
        return
    number = numbers[known]
    if number < len(info.counts):
        raise ValueError(
            f"{known!r} is known already: the model was trained on {info.counts[number]} crops of it; take it out of "
            "--support"
        )
    entry = info.learnt[number - len(info.counts)]
    raise ValueError(
        f"{known!r} was learnt already, from {entry.crops} crops of {entry.support}; to learn it anew, forget it first "
        f"with crnn characters forget --classes {known}"
    )


def embedded_crops(source: StoredLines, labels: Sequence[str], model: CharacterModel, info: CharacterInfo) -> Embedded:
    """Every crop that can be read; a sentence on stderr for each of the others.

    ValueError naming a label that is left without any.
    """
    found = support_crops(source, labels, info.input_spec, "crnn characters learn")
    return Embedded(found.labels, embedded(model, found.squares, info.input_spec), found.failed)


def old_crops(options: LearnOptions, checkpoint: CharacterCheckpoint, model: CharacterModel) -> Old:
    """The crops of trained classes that the bias is set on: those of --old, or the file's own."""
    origin, memory = "memory", checkpoint.old or checkpoint.memory
    if checkpoint.old is not None:
        origin = checkpoint.info.learnt[0].bias_set_on
    if options.old is not None:
        origin, memory = str(options.old), remembered(options.old, checkpoint, model)
    assert memory is not None
    return Old(origin, memory, class_probabilities(model, memory.embeddings.float().numpy()))


def remembered(path: Path, checkpoint: CharacterCheckpoint, model: CharacterModel) -> Memory:
    """Embeddings of labelled crops of trained classes, at most MEMORY_MOST, evenly over the source.

    ValueError with the first key that has no label or another one, or that cannot be read.
    """
    source, numbers = open_labelled(path), checkpoint.info.numbers()
    texts, keys = source.texts(), source.keys()
    for text, key in zip(texts, keys, strict=True):
        if not text:
            raise ValueError(f"{key} of --old has no label; label it or take it out")
        if numbers.get(text, len(numbers)) >= len(checkpoint.info.counts):
            raise ValueError(f"{key} of --old is labelled {text!r}, which the model was not trained on; take it out")
    chosen = np.linspace(0, len(source) - 1, min(MEMORY_MOST, len(source))).round().astype(int).tolist()
    spec = checkpoint.info.input_spec
    found = embedded(model, (squared(source[i].picture, spec) for i in chosen), spec)
    return Memory(torch.from_numpy(found).half(), torch.tensor([numbers[texts[i] or ""] for i in chosen]))


def support_centres(
    embeddings: NDArray[np.float32], labels: Sequence[str], classes: Sequence[str], weighted: bool = False
) -> Tensor:
    """(N, E) -> (classes, E), float32: the mean of each class's directions, so of length 1 at most.

    It is shorter, the more the crops differ, and its score is lower for it.
    """
    numbers = torch.tensor([classes.index(label) for label in labels])
    return class_descriptions(
        functional.normalize(torch.from_numpy(embeddings)), numbers, len(classes), weighted=weighted
    )


def grown(
    before: CharacterCheckpoint, support: Embedded, entry: LearntClass, weighted: bool, old: Old
) -> CharacterCheckpoint:
    """The model with the support's classes, in the order of code points, and the bias of all that it has learnt."""
    assert before.centres is not None
    info, new = before.info, tuple(sorted(set(support.labels)))
    centres = torch.cat([before.centres, support_centres(support.embeddings, support.labels, new, weighted)])
    learnt = info.learnt + tuple(replace(entry, crops=support.labels.count(name)) for name in new)
    info = replace(info, classes=info.classes + new, learnt=learnt)
    made = replace(before, info=info, centres=centres, old=None if old.memory is before.memory else old.memory)
    return with_bias(made, old)


def without(before: CharacterCheckpoint, gone: Sequence[str]) -> CharacterCheckpoint:
    """The model as it would be had it not learnt some classes; without any, just as training left it."""
    assert before.centres is not None
    info = before.info
    kept = [i for i, name in enumerate(info.classes) if name not in gone]
    learnt = tuple(info.learnt[i - len(info.counts)] for i in kept if i >= len(info.counts))
    info = replace(info, classes=tuple(info.classes[i] for i in kept), learnt=learnt, bias=0.0)
    made = replace(before, info=info, centres=before.centres[kept], old=before.old if learnt else None)
    if not learnt:
        return made
    memory = made.old or made.memory
    assert memory is not None
    probabilities = class_probabilities(CharacterModel.from_checkpoint(made), memory.embeddings.float().numpy())
    return with_bias(made, Old(learnt[0].bias_set_on, memory, probabilities))


def with_bias(checkpoint: CharacterCheckpoint, old: Old) -> CharacterCheckpoint:
    """The bias of all learnt classes, set for the most careful --may-lose among them."""
    scores = learnt_scores(checkpoint)
    assert scores is not None
    may_lose = min(entry.may_lose for entry in checkpoint.info.learnt)
    bias = learnt_bias(scores.margins(old.memory.embeddings), old.right, may_lose)
    return replace(checkpoint, info=replace(checkpoint.info, bias=bias))


def report(
    before: CharacterCheckpoint, after: CharacterCheckpoint, support: Embedded, old: Old, model: CharacterModel,
    weighted: bool,
) -> dict[str, Any]:  # fmt: skip
    """What was learnt and what it did to old crops, as JSON values; read by the rule of classify."""
    names, trained = after.info.classes, len(after.info.counts)
    numbers = [
        read_classes(
            old.probabilities, scores.margins(old.memory.embeddings) if scores else None, made.info.bias
        ).numbers
        for made in (before, after)
        for scores in [learnt_scores(made)]
    ]
    first, second = (float((found == old.numbers).mean()) for found in numbers)
    scores = learnt_scores(after)
    assert scores is not None
    margins = np.where(old.right[:, None], scores.margins(old.memory.embeddings), -np.inf)
    nearest = int(margins.max(1).argmax())
    alone = left_out(after, support, model, scores, weighted)
    return {
        "learnt": [
            {
                "class": name,
                "crops": support.labels.count(name),
                "leave_one_out": alone.get(name),
            }
            for name in names[len(before.info.classes) :]
        ],
        "old": {
            "from": old.origin,
            "crops": len(old.numbers),
            "accuracy_before": round(first, 5),
            "accuracy_after": round(second, 5),
            "changed_readings": int((numbers[0] != numbers[1]).sum()),
        },
        "bias": after.info.bias,
        "may_lose": min(entry.may_lose for entry in after.info.learnt),
        "nearest": {
            "old": names[old.numbers[nearest]],
            "new": names[trained + int(margins[nearest].argmax())],
            "margin": round(float(margins[nearest].max()), 3),
        },
    }


def left_out(
    after: CharacterCheckpoint, support: Embedded, model: CharacterModel, scores: LearntScores, weighted: bool
) -> dict[str, float]:
    """Share of each class's support crops that are read right where its centre is made of its other crops.

    Among all classes, at the bias that was set with all crops. Classes of one crop are missing.
    """
    probabilities = class_probabilities(model, support.embeddings)
    right: dict[str, list[bool]] = {}
    numbers = after.info.numbers()
    for i, label in enumerate(support.labels):
        rest = [j for j, other in enumerate(support.labels) if j != i and (weighted or other == label)]
        labels = [support.labels[j] for j in rest]  # crops of other classes count in the weights
        if label not in labels:
            continue
        classes = sorted(set(labels))
        centre = support_centres(support.embeddings[rest], labels, classes, weighted)[classes.index(label)]
        learnt = scores.learnt.clone()
        learnt[numbers[label] - len(after.info.counts)] = centre.double() @ scores.whitening
        margins = replace(scores, learnt=learnt).margins(support.embeddings[i : i + 1])
        found = read_classes(probabilities[i : i + 1], margins, after.info.bias).numbers[0]
        right.setdefault(label, []).append(bool(found == numbers[label]))
    return {label: sum(own) / len(own) for label, own in right.items()}


def shown(figures: dict[str, Any]) -> str:
    """A few lines for a person."""
    old, nearest = figures["old"], figures["nearest"]
    lines = [f"{figures['out']}: {len(figures['learnt'])} classes learnt from {figures['support']}"]
    if figures["failed"]:
        lines.append(f"{figures['failed']} pictures could not be read")
    for row in figures["learnt"]:
        alone = row["leave_one_out"]
        tail = "" if alone is None else f", {alone:.0%} read right when left out"
        lines.append(f"{row['class']}: {row['crops']} crop{'s' if row['crops'] > 1 else ''}{tail}")
    lines += [
        f"old characters, {old['crops']} crops ({old['from']}): {old['accuracy_before']:.2%} read right before, "
        f"{old['accuracy_after']:.2%} after, {old['changed_readings']} readings changed",
        f"bias {figures['bias']:.2f}; of the old crops {nearest['old']!r} comes nearest to a learnt class, "
        f"{nearest['new']!r} ({nearest['margin']:.2f})",
    ]
    if figures["may_lose"] != figures["may_lose_asked"]:
        lines.append(
            f"one bias holds for all learnt classes: that of --may-lose {figures['may_lose']:g}, with which others "
            "were learnt; to raise it, forget those and learn them anew"
        )
    return "\n".join(lines)
