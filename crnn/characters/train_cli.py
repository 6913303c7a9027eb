"""`crnn characters train`: its options."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from crnn.commands import FitOptions, parse_options
from crnn.objectives.loss_weights import parse_character_losses


def character_fit() -> FitOptions:
    """The training loop's defaults for crops: 64 at a time, two thousand steps."""
    return FitOptions(until=("2000",), batch_lines=64, validate_every=200)


@dataclass(frozen=True)
class CharacterTrainOptions:
    """Options of crnn characters train.

    Attributes:
        data: sources of crops with one character each, every one an LMDB, or a folder or a zip with labels.tsv or with
            one folder a class; with :weight mixed by weight. A label may be any text; each is one class.
        out: the model file.
        loss: cross-entropy, balanced-softmax, logit-adjusted, ldam, long-tail, centre-triplet, centre-loss; several are
            summed, with :weight, and the first one's classifier is the model's.
        margin: of ldam, long-tail and centre-triplet; each has its own where none is given.
        scale: of the cosines of ldam and long-tail.
        centre_rule: of centre-triplet: moving-average, centre-loss or classifier-weights.
        mining: of centre-triplet: the hardest triplet of each class, or all.
        normalise: centre-triplet compares directions alone.
        backbone: plain, or one of those of crnn train, pooled over columns as well.
        width: multiplier of the backbone's channels.
        embedding: numbers that describe a crop.
        side: pixels of the square that a crop is brought to.
        channels: 1 for grey, 3 for colour.
        samples_per_class: K: batches of batch_lines / K classes with K crops each; 0 for plain shuffling. Left out: 4
            for centre-triplet and centre-loss, which compare crops, else 0.
        validation: share of each source that is held out, by group where crops have one (a writer), or a source of its
            own.
        group_by: a regular expression that finds the group in a crop's name; see crnn train.
        validation_lines: at most so many crops.
        augment: turn, slant, scale, move and blur crops a little, differently at every visit.
        drop_bad: leave out crops without label, and count them.
        resume: go on with the interrupted run of this --out.
        overwrite: replace the result or the interrupted run of this --out.
        fit: the training loop.
    """

    out: Path
    data: tuple[str, ...]
    loss: tuple[str, ...] = ("cross-entropy",)
    margin: float | None = None
    scale: float | None = None
    centre_rule: Literal["moving-average", "centre-loss", "classifier-weights"] | None = None
    mining: Literal["hard", "plain"] | None = None
    normalise: bool = False
    backbone: str = "plain"
    width: float = 0.5
    embedding: int = 128
    side: int = 48
    channels: Literal[1, 3] = 1
    samples_per_class: int | None = None
    validation: str = "0.1"
    group_by: str | None = None
    validation_lines: int = 2000
    augment: bool = True
    drop_bad: bool = False
    resume: bool = False
    overwrite: bool = False
    fit: Annotated[FitOptions, tyro.conf.arg(name="")] = field(default_factory=character_fit)

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("no --data was given; give an LMDB, a folder or a zip of labelled crops")
        loss_weights(self.loss)
        if self.samples_per_class is not None and self.samples_per_class < 0:
            raise ValueError(f"--samples-per-class is {self.samples_per_class}; give at least 0")


def loss_weights(parts: tuple[str, ...]) -> dict[str, float]:
    """Weight by name, of --loss; ValueError lists the losses that are known."""
    if not parts:
        raise ValueError("--loss names no loss; give one, such as cross-entropy")
    try:
        return {str(name): weight for name, weight in parse_character_losses(parts).items()}
    except ValueError as error:
        raise ValueError(str(error).replace("--character-loss", "--loss")) from error


def main(argv: list[str]) -> int:
    """`crnn characters train`."""
    options = parse_options(
        CharacterTrainOptions, argv, "crnn characters train", "Train a model of single characters on labelled crops."
    )
    from crnn.characters.train import train

    train(options, "crnn characters train " + shlex.join(argv))
    return 0
