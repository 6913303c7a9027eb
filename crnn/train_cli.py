"""`crnn train`: its options."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from crnn.charset import Case
from crnn.commands import MOST_WIDTH, FitOptions, parse_options
from crnn.objectives.loss_weights import parse_character_losses
from data.synthesis.source import SynthesisOptions

LEAST = {
    "features": 1, "hidden": 1, "layers": 1, "linear": 0, "validation_lines": 0, "column_weight": 0, "column_steps": 0,
}  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    """Options of crnn train.

    Attributes:
        data: sources, each an LMDB, a folder or zip with labels.tsv, synth, or synth-easy; with :weight mixed by
            weight.
        out: the model file.
        backbone: resnet18, resnet34, resnet50, resnet101, mobilenet_v3_small or mobilenet_v3_large. Of this and the
            next six, where none is given: what --init or --init-encoder brings, else resnet101 of width 1 with 512
            features, and two layers of a BiLSTM with 256 cells.
        width: multiplier of the backbone's channels.
        features: D, what the backbone hands the encoder at every column.
        encoder: kind of the recurrent layers.
        hidden: cells of one direction of a layer.
        layers: of the encoder.
        linear: size of a linear layer after each encoder layer; 0 for none.
        charset: a named one (ascii, alphanumeric, alphanumeric-lower, digits), a UTF-8 file of characters, chars:...,
            or data for those of the labels; that of the checkpoint started from, else ascii, where none is given.
        case: of labels: sets labelled in upper case whatever the print would teach wrong case with keep, the default.
        min_width: pixels; narrower lines are brought to it. Of this and the next, where none is given: what --init has,
            else 32 and stretch.
        narrow: how they are.
        validation: share of each stored source that is held out, by group where lines have one (a receipt, page or
            writer), or a source of its own; synthetic lines are validated on fonts and words of their own.
        group_by: a regular expression that finds the group in a line's name, such as ^[^/]+/ for its folder, so that no
            group is on both sides; the groups that the source itself knows where none, or '', is given.
        validation_lines: at most so many.
        init: a checkpoint whose weights are the start (fine-tuning); sizes and charset come from it,
            and with another --charset or --case the classifier keeps what it knows of shared characters.
        init_encoder: a checkpoint whose encoder and classifier are the start; their sizes come
            from it.
        imagenet: start a backbone of width 1 from torchvision's weights, which torchvision downloads.
        column_weight: start weight of the column-aligned loss, on lines that know their columns; 0 for none.
        column_steps: steps over which it fades to 0; 0 for half of the run.
        character_loss: losses beside CTC on the characters that its alignment finds in labelled lines, each with
            :weight: cross-entropy, balanced-softmax, logit-adjusted, ldam, long-tail, centre-triplet, centre-loss.
            Class counts are those of the training lines. Best added to a model that reads (--init), for at first the
            alignment means little.
        centres_from: characters that move class centres: those read correctly, or all.
        augment: degrade stored lines a little, differently at every visit.
        drop_bad: leave out lines with characters outside the charset, without label or with too few columns, and
            count them.
        resume: go on with the interrupted run of this --out.
        overwrite: replace the result or the interrupted run of this --out.
        synth: what synthetic lines look like.
        fit: the training loop.
    """

    out: Path
    data: tuple[str, ...] = ("synth",)
    backbone: str | None = None
    width: float | None = None
    features: int | None = None
    encoder: Literal["bilstm", "lstm"] | None = None
    hidden: int | None = None
    layers: int | None = None
    linear: int | None = None
    charset: str | None = None
    case: Case | None = None
    min_width: int | None = None
    narrow: Literal["stretch", "margins"] | None = None
    validation: str = "0.05"
    group_by: str | None = None
    validation_lines: int = 1000
    init: Path | None = None
    init_encoder: Path | None = None
    imagenet: bool = False
    column_weight: float = 0.5
    column_steps: int = 0
    character_loss: tuple[str, ...] = ()
    centres_from: Literal["read", "all"] = "read"
    augment: bool = True
    drop_bad: bool = False
    resume: bool = False
    overwrite: bool = False
    synth: SynthesisOptions = field(default_factory=SynthesisOptions)
    fit: Annotated[FitOptions, tyro.conf.arg(name="")] = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        if self.init is not None and self.init_encoder is not None:
            raise ValueError(f"--init {self.init} brings an encoder of its own; leave --init or --init-encoder out")
        parse_character_losses(self.character_loss)
        if self.width is not None and not 0 < self.width <= MOST_WIDTH:
            raise ValueError(f"--width is {self.width}; give a share of the backbone's channels, such as 0.25")
        for name, least in LEAST.items():
            given = getattr(self, name)
            if given is not None and not least <= given < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} is {given}; give at least {least}")
        if self.init is not None and self.imagenet:
            raise ValueError(f"--init {self.init} brings a backbone of its own; leave --init or --imagenet out")


def main(argv: list[str]) -> int:
    """`crnn train`."""
    options = parse_options(TrainOptions, argv, "crnn train", "Train a recogniser on stored and synthetic lines.")
    from crnn.train import train

    train(options, "crnn train " + shlex.join(argv))
    return 0
