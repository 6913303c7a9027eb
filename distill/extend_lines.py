"""What a growing charset learns from: lines with new characters, lines of old ones, and pictures without labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint
from crnn.model import Crnn, read_lines
from crnn.train import SYNTHETIC, Sources, open_sources, recorded_synthesis, synthetic, validation_share
from data.lines import Line, LineSource, WithoutLabels, hold_out, open_lines, split_source
from data.picture import InputSpec
from distill.new_biases import HeldLines

if TYPE_CHECKING:
    from distill.extend_cli import ExtendOptions

HELD_GIVEN, HELD_LABELLED, HELD_PICTURES = 0.2, "0.05", 0.1
"""Shares held out of lines of --data, of rehearsed ones that are not the model's own, see held_out, and of unlabelled
pictures."""


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


def held_out(options: ExtendOptions, before: Checkpoint) -> tuple[str, str | None]:
    """What is held out of rehearsed lines, a share and --group-by: as the model's file says, where they are its own.

    So what the model was validated on is left alone, by this model too; the grown file names the same. Every line that
    the share holds out of --data is held out there: the share of those is no smaller.
    """
    recorded = before.info.provenance
    own = {split_source(text)[0] for text in recorded.get("data", ())}
    stored = {split_source(text)[0] for text in options.rehearse} - {*SYNTHETIC}
    validation = str(recorded.get("validation") or "")
    if not stored or not stored <= own or not validation or not validation_share(validation):
        return HELD_LABELLED, None
    return validation, None if options.data else recorded.get("group_by")


def synthesis_of(options: ExtendOptions, before: Checkpoint) -> dict[str, Any]:
    """How lines are drawn, as the new file tells it: as the old one does, with the fonts that are asked for."""
    recorded: dict[str, Any] = before.info.provenance.get("synth", {})
    return recorded | ({"font_folders": list(map(str, options.font_folders))} if options.font_folders else {})


def sources(
    options: ExtendOptions, before: Checkpoint, charset: Charset, added: Sequence[str]
) -> tuple[Sources, Sources]:
    """Lines with new characters, drawn or given, and lines without; each with lines held out for the figures.

    Raises ValueError naming the new characters that no line shows.
    """
    seed, count = options.fit.seed, options.validation_lines
    from data.synthesis.source import drawable

    recorded = recorded_synthesis({"synth": synthesis_of(options, before)})
    fields = {key: value for key, value in recorded.items() if key not in ("characters", "including")}
    validation, group_by = held_out(options, before)
    given = Sources((), (), [], {})
    if options.data:
        share = f"{max(HELD_GIVEN, float(validation)):g}"
        opened = open_sources(
            options.data, charset, before.info.input_spec, share, count, True, fields, seed, sizes=before.info.sizes,
            flag="",
        )  # fmt: skip
        kept = [line for line in opened.validation if not set(added).isdisjoint(charset.normalise(line.text or ""))]
        given = replace(opened, validation=kept)
    shown = set(added) & set(charset.normalise("".join(t or "" for s in given.training for t in s.texts())))
    drawn_ones = ""
    if options.drawn:
        drawable_ones = drawable(charset.characters, [Path(folder) for folder in fields.get("font_folders", ())])
        drawn_ones = "".join(c for c in added if c in drawable_ones)
    unseen = [c for c in added if c not in shown and c not in drawn_ones]
    if unseen:
        raise ValueError(
            f"no line of --data shows {''.join(unseen)!r}, and none is drawn: no font has it on both sides of the "
            "split, or synthesis draws none of its kind; give lines that have it, or --font-folders"
        )
    if drawn_ones:
        training, held = synthetic(fields | {"including": drawn_ones}, charset, False, seed + 1)
        kept = given.validation[: count // 2]
        given = replace(given, validation=kept)  # the rest is of drawn ones, or those would not be measured
        drawn = [held[i] for i in range(count - len(kept))]
        total = sum(given.weights) or 1.0
        given = Sources((*given.training, training), (*given.weights, total), given.validation + drawn, given.dropped)
    measured = options.rehearse or (("synth",) if options.drawn else ())  # what is not rehearsed may be forgotten
    without = Sources((), (), [], {})
    if measured:
        without = open_sources(
            measured, before.info.charset, before.info.input_spec, validation, count, True, fields, seed,
            group_by=group_by, sizes=before.info.sizes, flag="",
        )  # fmt: skip
    if not options.rehearse:
        without = replace(without, training=(), weights=())
    return given, without


def unlabelled(options: ExtendOptions, old: Crnn, known: Charset, spec: InputSpec) -> tuple[Sources, HeldLines]:
    """Pictures to learn from through the anchor alone, and others held out, with what the old model reads as labels."""
    training: list[LineSource] = []
    weights, held = [], []
    for text in options.unlabelled:
        name, weight = split_source(text)
        rest, kept = hold_out(open_lines(name), HELD_PICTURES)
        if not len(rest) or not len(kept):
            raise ValueError(f"{name} holds too few pictures to learn from some and hold out others; leave it out")
        training.append(WithoutLabels(rest))
        weights.append(weight)
        each = min(len(kept), -(-options.validation_lines // len(options.unlabelled)))
        held += [kept[i * len(kept) // each] for i in range(each)]
    was = read_lines(old, held, known, spec)
    labelled = [replace(line, text=reading.text, columns=None) for line, reading in zip(held, was, strict=True)]
    return Sources(tuple(training), tuple(weights), [], {}), HeldLines(labelled, [r.confidence for r in was])


def tell_dropped(dropped: dict[str, dict[str, int]]) -> None:
    """On stderr, which lines are left out and why."""
    for name, counts in dropped.items():
        told = ", ".join(f"{count} ({reason})" for reason, count in counts.items())
        print(f"warning: lines of {name} are left out: {told}", file=sys.stderr)


def joined(some: Sources, others: Sources) -> Sources:
    """What both train on."""
    training, weights = some.training + others.training, some.weights + others.weights
    return Sources(training, weights, [], some.dropped | others.dropped)


def first_lines(of: Sources, count: int) -> list[Line]:
    """As many lines from the start of each training source, together about count."""
    each = -(-count // max(1, len(of.training)))
    return [source[i] for source in of.training for i in range(min(each, len(source)))]
