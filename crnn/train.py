"""The story of a training run: sources, charset, network, objective, fit, model file."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from crnn.backbones import PIXELS_PER_COLUMN, load_imagenet_weights
from crnn.charset import NAMED_CHARSETS, Charset
from crnn.checkpoint import Checkpoint, CrnnSizes, ModelInfo, load_checkpoint, save_checkpoint
from crnn.commands import FitOptions, options_from_json, same_run, write_run
from crnn.fit import Save, fit
from crnn.model import Crnn, available_device, copy_classifier, evaluate, parameter_count
from crnn.objectives.recognition import Recognition
from crnn.score import Score
from data.batches import ENDLESS, Batching, Stream, Windows
from data.lines import (
    Line,
    LineSource,
    Picture,
    StoredLines,
    WithoutLabels,
    fitting_lines,
    hold_out,
    open_lines,
    split_source,
)
from data.picture import InputSpec, natural_width

if TYPE_CHECKING:
    from crnn.train_cli import TrainOptions

SYNTHETIC = ("synth", "synth-easy")
"""Sources that are drawn, not stored."""

DRAWN_TEXTS = 20_000
"""Texts of a drawn source that its characters are counted in."""

VALIDATION_SEED = 10**6
"""Added to the run's seed for synthetic validation lines."""


@dataclass(frozen=True)
class Sources:
    """What a run learns from and what it is validated on.

    validation: lines in memory; empty where the run has none.
    dropped: counts of lines left out, by source and reason.
    """

    training: tuple[LineSource, ...]
    weights: tuple[float, ...]
    validation: list[Line]
    dropped: dict[str, dict[str, int]]


@dataclass(frozen=True)
class CharacterCounts:
    """lines: how many were counted. counts: of each character, in the charset's order; at least 1 where it occurs."""

    lines: int
    counts: tuple[int, ...]


def train(options: TrainOptions, command: str) -> Path:
    """Trains a recogniser and writes it to options.out; see TrainOptions."""
    refuse_overwriting(options.out, options.resume, options.overwrite)
    start_torch(options.fit)
    start = load_checkpoint(options.init) if options.init else None
    encoder = load_checkpoint(options.init_encoder) if options.init_encoder else None
    refuse_other_sizes(options, start, encoder)
    charset = choose_charset(options, start or encoder)
    spec, synth = input_spec(options, start), asdict(options.synth)
    sources = open_sources(
        options.data, charset, spec, options.validation, options.validation_lines, options.drop_bad, synth,
        options.fit.seed, group_by=options.group_by, sizes=start.info.sizes if start else None,
    )  # fmt: skip
    model = build_model(options, charset, start, encoder)
    objective: nn.Module = Recognition(
        model.sizes.features, charset.classes, options.column_weight, options.column_steps or options.fit.steps // 2
    )
    counted = count_characters(sources, charset)
    if options.character_loss:
        objective = with_character_losses(
            objective, options.character_loss, options.centres_from, model.sizes.encoded, charset, counted
        )
    windows = make_windows(sources, charset, spec, options.fit, options.augment, sizes=model.sizes)
    made = provenance(
        command, options.data, options.fit.seed, sources, synth, options.group_by, options.validation
    )  # fmt: skip
    made |= {"characters": asdict(counted)}
    info = ModelInfo(charset, spec, model.sizes, made, pixels_per_column=model.sizes.pixels_per_column)
    progress = fit(
        model, windows, objective, options.fit, saver(options.out, info), validator(sources.validation, charset, spec),
        resume_path(options.out), options.out.with_suffix(".log.csv"), same_run(options, sources.training),
        options.resume, partial(write_run, options.out, command, options),
    )  # fmt: skip
    if not main_process():
        return options.out
    result = {"steps": progress.step, "lines": progress.lines, "seconds": round(progress.seconds, 1)}
    if sources.validation:
        result["accuracy"] = progress.best
    write_run(options.out, command, options, result)
    resume_path(options.out).unlink(missing_ok=True)
    print(report(options.out, result))
    return options.out


def main_process() -> bool:
    """Whether this process writes what all have made; torchrun and accelerate number them in RANK."""
    return os.environ.get("RANK", "0") == "0"


@cache
def warn(sentence: str) -> None:
    """Says it on stderr, once, in the process that speaks for all."""
    if main_process():
        print(f"warning: {sentence}", file=sys.stderr)


def report(out: Path, result: dict[str, Any]) -> str:
    """What a person wants to know at the end."""
    made = f"{out}: {result['lines']:,} lines in {result['steps']:,} steps, {result['seconds'] / 60:.1f} minutes"
    return f"{made}; reads {result['accuracy']:.1%} of the validation lines exactly" if "accuracy" in result else made


def refuse_overwriting(out: Path, resume: bool, overwrite: bool) -> None:
    """FileExistsError or FileNotFoundError where the run would lose an earlier one, or has none to resume.

    ValueError where the name would keep the model from being read. Nothing is removed here: an earlier run is replaced
    only once the new one starts.
    """
    if out.suffix != ".pt":
        raise ValueError(f"--out {out} does not end in .pt, by which its runtime is chosen; give a name that does")
    state = resume_path(out)
    if resume and not state.exists():
        raise FileNotFoundError(f"{state} does not exist, so there is no run to resume; leave --resume out")
    if state.exists() and not resume and not overwrite:
        raise FileExistsError(f"{state} holds an interrupted run; go on with --resume or replace it with --overwrite")
    if out.exists() and not resume and not overwrite:
        raise FileExistsError(f"{out} is there already; choose another --out or replace it with --overwrite")


def resume_path(out: Path) -> Path:
    """What only a resumed run needs, beside the model file."""
    return out.with_suffix(".resume.pt")


def start_torch(options: FitOptions) -> None:
    """Seed and threads; ValueError where the device is not there."""
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    available_device(options.device)


def choose_charset(options: TrainOptions, start: Checkpoint | None) -> Charset:
    """As asked for; else that of the checkpoint that is started from, else printable ASCII."""
    case = options.case or (start.info.charset.case if start else "keep")
    if options.charset is None:
        known = start.info.charset.characters if start else NAMED_CHARSETS["ascii"]
        return Charset.from_texts([known], case)
    if options.charset == "data":
        stored = [open_lines(source) for source, _ in map(split_source, options.data) if source not in SYNTHETIC]
        return Charset.from_texts((text for source in stored for text in source.texts() if text), case)
    return Charset.from_spec(options.charset, case)


def open_sources(
    data: Sequence[str], charset: Charset, spec: InputSpec, validation: str, validation_lines: int, drop: bool,
    synth: dict[str, Any], seed: int, pictures: Collection[str] = (), group_by: str | None = None,
    sizes: CrnnSizes | None = None, flag: str = "--validation",
) -> Sources:  # fmt: skip
    """Opens and checks every source before training starts; a line that cannot be learnt from is named here.

    synth: fields of SynthesisOptions; what is missing has its default. group_by: see data.lines.group_of.
    pictures: those of data whose labels are not learnt from; of the lines held out of them, those are left out of
        validation whose label does not fit.
    sizes: of the network that is to learn, which tell its columns; None: one column every 4 pixels.
    flag: what says how much is held out; "" where nothing does, and this is not all that is validated on.
    """
    training: list[LineSource] = []
    weights: list[float] = []
    held: list[tuple[float, LineSource]] = []
    dropped: dict[str, dict[str, int]] = {}
    share = validation_share(validation)

    def columns(height: int, width: int) -> int:
        pixels = natural_width(height, width, spec)
        return pixels // PIXELS_PER_COLUMN if sizes is None else sizes.columns(pixels)

    def checked(name: str, stored: StoredLines, drop: bool = drop, unlabelled: bool = False) -> StoredLines:
        source, counts = fitting_lines(stored, charset.missing, columns, drop, unlabelled, charset.normalise)
        if counts:
            dropped[name] = counts
        return source

    for text in data:
        name, weight = split_source(text)
        if name in SYNTHETIC:
            drawn, unseen = synthetic(synth, charset, name == "synth-easy", seed)
            training.append(drawn)
            if share != 0:
                held.append((weight, unseen))
        else:
            source = open_lines(name) if text in pictures else checked(name, open_lines(name))
            rest, kept = hold_out(source, (share or 0.0) if any(source.texts()) else 0.0, group_by)
            if not len(rest):
                held_out = f"{flag or 'a share of'} {validation} holds out every line of {name}"
                raise ValueError(f"{held_out}; give {'a smaller share, or a source' if flag else 'more lines'}")
            training.append(WithoutLabels(rest) if text in pictures else rest)
            if text in pictures:
                kept = checked(name, kept, drop=True, unlabelled=True)
            if len(kept):
                held.append((weight, kept))
        weights.append(weight)
    if validation in SYNTHETIC:
        held = [(1.0, synthetic(synth, charset, validation == "synth-easy", seed)[1])]
    elif share is None:
        held = [(1.0, checked(validation, open_lines(validation), unlabelled=bool(pictures)))]
    lines = [line for line in _draw(held, validation_lines) if line.text]  # an empty label is none
    if not lines and share != 0 and flag:
        print(
            f"warning: {flag} {validation} leaves no labelled line to validate on: no accuracy is known, and the "
            "last weights are kept; give a larger share, or a source",
            file=sys.stderr,
        )
    return Sources(tuple(training), tuple(weights), lines, dropped)


PLACES = ("backgrounds", "corpus", "font_folders")
"""Options of synthesis that name places of the machine that trained."""


def recorded_synthesis(provenance: dict[str, Any]) -> dict[str, Any]:
    """How the lines were drawn that a model file names; without places that are no longer there, and stderr says so."""
    fields = dict(provenance.get("synth", {}))
    for name in PLACES:
        value = fields.get(name) or ()
        places = [value] if isinstance(value, str) else list(value)
        gone = [place for place in places if not Path(place).exists()]
        if gone:
            warn(f"{gone[0]}, with which lines were drawn, is not there: drawn without it")
            del fields[name]
    return fields


def synthetic(fields: dict[str, Any], charset: Charset, easy: bool, seed: int) -> tuple[LineSource, LineSource]:
    """Lines drawn as they are asked for: for training, and for validation with fonts and words of their own.

    fields: of SynthesisOptions, as they are or as a model file's JSON holds them; ValueError where they are of others.
    Characters that no font has are not drawn, and stderr says so; where that is half of the charset or more, the fonts
    of its script are not there, and ValueError says which.
    """
    from data.synthesis.source import SynthesisOptions, SynthesisSource, drawable

    cased = "" if charset.case == "keep" else charset.characters.swapcase()  # drawn in both cases, labelled in one
    learnt = {c for c in cased if not charset.missing(c)}  # the S of ß -> SS may lie outside
    characters = "".join(sorted(learnt.union(charset.characters)))
    chosen = fields | {"characters": characters, "easy": easy or bool(fields.get("easy"))}
    try:
        options: SynthesisOptions = options_from_json(SynthesisOptions, json.loads(json.dumps(chosen, default=str)))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the model's file says that lines were drawn with options that this version does not know "
            f"({error.args[0]}); give stored lines instead of drawn ones"
        ) from error
    drawn = drawable(characters, options.font_folders)
    if len(characters) / 2 < len(drawn) < len(characters):
        left_out = "".join(c for c in characters if c not in drawn)
        more = f" and {len(left_out) - 40} more" if len(left_out) > 40 else ""
        warn(f"no drawn line holds {left_out[:40]!r}{more}, which no font has on both sides of the split of fonts")
        options = replace(options, characters=drawn)
    unseen = replace(options, fonts="held-out", words="held-out")
    return SynthesisSource(options, seed), SynthesisSource(unseen, seed + VALIDATION_SEED)


def validation_share(validation: str) -> float | None:
    """The share to hold out, or None where validation names a source."""
    try:
        share = float(validation)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise ValueError(f"--validation is {validation}; give a share from 0 to under 1, or a source")
    return share


def _draw(held: list[tuple[float, LineSource]], count: int) -> list[Line]:
    """At most count lines by weight, evenly over each source, for sets are often sorted."""
    total = sum(weight for weight, _ in held)
    shares = [(source, min(len(source), round(count * weight / total))) for weight, source in held]
    return [source[i * len(source) // share] for source, share in shares for i in range(share)]


def refuse_other_sizes(options: TrainOptions, start: Checkpoint | None, encoder: Checkpoint | None) -> None:
    """ValueError where sizes are asked for that are not those of the checkpoint which brings its own."""
    brought = start or encoder
    if brought is None:
        return
    have = asdict(brought.info.sizes) | {"encoder": "bilstm" if brought.info.sizes.bidirectional else "lstm"}
    for name in (("backbone", "width") if start else ()) + ("features", "encoder", "hidden", "layers", "linear"):
        asked = getattr(options, name)
        if asked not in (have[name], None):
            flag = f"--init {options.init}" if start else f"--init-encoder {options.init_encoder}"
            raise ValueError(f"--{name} is {asked}, and {flag} brings {have[name]}; leave one of the two out")


def input_spec(options: TrainOptions, start: Checkpoint | None) -> InputSpec:
    """That of the checkpoint started from, with another least width or another way to it where one is asked for."""
    asked = {"min_width": options.min_width, "narrow": options.narrow}
    changed: Any = {name: value for name, value in asked.items() if value is not None}
    return replace(start.info.input_spec if start else InputSpec(), **changed)


USUAL_SIZES: dict[str, Any] = {
    "backbone": "resnet101", "width": 1.0, "features": 512, "encoder": "bilstm", "hidden": 256, "layers": 2,
    "linear": 0,
}  # fmt: skip
"""Of a new network, where they are not asked for; also in the help of `crnn train`."""


def build_model(options: TrainOptions, charset: Charset, start: Checkpoint | None, encoder: Checkpoint | None) -> Crnn:
    """The network: from a checkpoint, or new with the sizes asked for and perhaps another's encoder and classifier."""
    asked: Any = {name: getattr(options, name) for name in USUAL_SIZES}
    new = USUAL_SIZES | {name: value for name, value in asked.items() if value is not None}
    if start is not None:
        sizes = replace(start.info.sizes, classes=charset.classes)
    elif encoder is not None:
        sizes = replace(
            encoder.info.sizes, backbone=new["backbone"], width=new["width"], classes=charset.classes,
            channels=3, height=32, pixels_per_column=PIXELS_PER_COLUMN, extra_columns=0,
        )  # fmt: skip
    else:
        sizes = CrnnSizes(
            new["backbone"], new["width"], new["features"], new["hidden"], new["layers"], new["encoder"] == "bilstm",
            new["linear"], charset.classes,
        )  # fmt: skip
    model = Crnn(sizes)
    if options.imagenet:
        load_imagenet_weights(model.backbone, sizes.backbone)
    source = start or encoder
    if source is not None:
        copied = Crnn.from_checkpoint(source)
        model.encoder.load_state_dict(copied.encoder.state_dict())
        copy_classifier(model, charset, source.weights, source.info.charset)
        if start is not None:
            model.backbone.load_state_dict(copied.backbone.state_dict())
    return model


def make_windows(
    sources: Sources, charset: Charset, spec: InputSpec, options: FitOptions, augment: bool, exact: bool = False,
    sizes: CrnnSizes | None = None,
) -> Windows:  # fmt: skip
    """The training lines as batches; exact: the same pictures at every visit, unaltered. sizes: as in open_sources."""
    change = degraded if augment and not exact else None
    batching = Batching(
        options.batch_lines,
        window_lines=4096 if exact else 1024,  # batches of one width alone need more lines to choose from
        exact=exact,
        pixels_per_column=PIXELS_PER_COLUMN if sizes is None else sizes.pixels_per_column,
        extra_columns=0 if sizes is None else sizes.extra_columns,
        stretch=1.1 if augment else 1.0,
        margins=0.2 if augment else 0.0,
    )
    stream = Stream(sources.training, sources.weights, options.seed)
    return Windows(stream, spec, charset.encode, charset.normalise, batching, change)


def degraded(picture: Picture, generator: np.random.Generator) -> Picture:
    """A line a little altered; what does it is imported by the first line that needs it."""
    from data.synthesis.degrade import augment

    return augment(picture, generator)


def provenance(
    command: str, data: Sequence[str], seed: int, sources: Sources, synth: dict[str, Any], group_by: str | None = None,
    validation: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How the model is made: what goes into its file, beside what training reports."""
    drawn = json.loads(json.dumps(synth, default=str))  # paths as text
    return {
        "command": command,
        "data": list(data),
        "synth": drawn if any(split_source(source)[0] in SYNTHETIC for source in data) else {},
        "dropped": sources.dropped,
        **({"group_by": group_by} if group_by else {}),
        "seed": seed,
        **({} if validation is None else {"validation": validation}),
        "validation_lines": len(sources.validation),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def count_characters(sources: Sources, charset: Charset) -> CharacterCounts:
    """How often the training lines hold each character.

    Stored lines are counted whole. A drawn source has no end: its first DRAWN_TEXTS texts, which no picture is drawn
    for, stand for it. Each source then gives its share, by weight, of as many lines as all hold together; so where
    every line is used as often as any other, as with one stored source, these are plain counts.
    """
    counted: list[tuple[int, Counter[str]]] = []
    for source in sources.training:
        texts = source.texts()
        if len(texts) >= ENDLESS:
            texts = texts[:DRAWN_TEXTS]
        counted.append((len(texts), Counter("".join(charset.normalise(text) for text in texts if text))))
    lines = sum(own for own, _ in counted)
    found = dict.fromkeys(charset.characters, 0.0)
    for (own, times), weight in zip(counted, sources.weights, strict=True):
        for character in times.keys() & found.keys():
            found[character] += times[character] * lines * weight / (own * sum(sources.weights))
    return CharacterCounts(lines, tuple(max(1, round(times)) if times else 0 for times in found.values()))


def with_character_losses(
    objective: nn.Module, losses: tuple[str, ...], centres_from: Literal["read", "all"], features: int,
    charset: Charset, counted: CharacterCounts,
) -> nn.Module:  # fmt: skip
    """The objective with the losses of --character-loss beside it; features: H of the network.

    ValueError where the training lines have no label, which would leave nothing to learn from.
    """
    from crnn.objectives.line_characters import WithCharacterLosses
    from crnn.objectives.loss_weights import parse_character_losses

    if not any(counted.counts):
        raise ValueError(
            f"--character-loss {losses[0]} learns from labels, and no training line has one; "
            "leave it out or add labelled lines"
        )
    unseen = "".join(c for c, times in zip(charset.characters, counted.counts, strict=True) if not times)
    if unseen:
        print(
            f"no training line holds {unseen!r}; the character losses take the count of each as 1 "
            f"(counted over {counted.lines:,} lines)",
            file=sys.stderr,
        )
    counts = torch.tensor(counted.counts)
    return WithCharacterLosses(objective, parse_character_losses(losses), features, counts, centres_from)


def saver(out: Path, info: ModelInfo) -> Save[Crnn]:
    """A function that writes the model file, or out.last.pt, with what training reports added to its provenance."""

    def save(model: Crnn, reported: dict[str, Any], last: bool = False) -> None:
        counts = {"parameters": parameter_count(model), "backbone_parameters": parameter_count(model.backbone)}
        path = out.with_suffix(".last.pt") if last else out
        save_checkpoint(path, Checkpoint(info, model.state_dict()).with_provenance(**counts, **reported))

    return save


def validator(lines: list[Line], charset: Charset, spec: InputSpec) -> Callable[[Crnn], Score] | None:
    """A function that scores the model on the validation lines; None where there are none."""
    if not lines:
        return None
    return lambda model: evaluate(model, lines, charset, spec)
