"""`crnn extend-charset` and `crnn rebalance`: their options."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from crnn.commands import FitOptions, parse_options


def _few_steps() -> FitOptions:
    return FitOptions(until=("8000",), validate_every=500)


@dataclass(frozen=True)
class ExtendOptions:
    """Options of crnn extend-charset.

    Attributes:
        model: the checkpoint whose charset grows, a teacher or a student.
        add: the new characters; ranges are not understood, a character is one code point.
        out: the new model file; the old one stays as it is.
        data: labelled lines that hold new characters, each with :weight, beside drawn ones; needed for characters that
            no font has.
        drawn: whether lines with the new characters are drawn too, in as many fonts as have them; where fonts of both
            sides of the split do.
        font_folders: fonts for drawn lines, instead of those of the system or those that the model was drawn with.
        rehearse: lines of the old characters, so that they are not forgotten: synth, as the model knows it, or stored
            lines such as those it was trained on.
        unlabelled: pictures of lines such as will be read, without new characters, each with :weight; labels are not
            looked at, and the anchor keeps what is read there. Where real lines are read, give some.
        anchor: weight of the distance to the old model, where a line shows no new character; 0 for none.
        examples: of each new character, from which its row of the classifier is made.
        train_encoder: let the encoder learn too; where it may not, a student goes on sharing its teacher's, and reads
            fewer of the new characters.
        validation_lines: held out, of old characters, and as many with new ones; on as many training lines of old
            characters the biases of new rows are set.
        may_lose: share of the held-out lines of old characters, and of the readings of unlabelled ones, that new
            characters may cost: after training their biases are raised or lowered as far as this says. Less of it
            keeps more of the old and reads fewer of the new; crnn rebalance sets it otherwise later.
        resume: go on with the interrupted run of this --out.
        overwrite: replace the result or the interrupted run of this --out.
        fit: the training loop; adamw's learning rate is 1e-3 where none is given.
    """

    model: Path
    add: str
    out: Path = Path("extended.pt")
    data: tuple[str, ...] = ()
    drawn: bool = True
    font_folders: tuple[Path, ...] = ()
    rehearse: tuple[str, ...] = ("synth",)
    unlabelled: tuple[str, ...] = ()
    anchor: float = 20.0
    examples: int = 40
    train_encoder: bool = True
    validation_lines: int = 1000
    may_lose: float = 0.0075
    resume: bool = False
    overwrite: bool = False
    fit: Annotated[FitOptions, tyro.conf.arg(name="")] = field(default_factory=_few_steps)

    def __post_init__(self) -> None:
        if not 0 <= self.anchor < float("inf"):
            raise ValueError(f"--anchor is {self.anchor}; give a number from 0 on")
        if self.unlabelled and not self.anchor:
            raise ValueError(
                "--unlabelled pictures are learnt from through the anchor, and --anchor is 0; leave one out"
            )
        if self.examples < 1 or self.validation_lines < 1:
            raise ValueError(
                f"--examples is {self.examples} and --validation-lines {self.validation_lines}; give at least 1 of each"
            )
        if not 0 <= self.may_lose < 1:
            raise ValueError(f"--may-lose is {self.may_lose}; give a share from 0 to under 1, such as 0.003")
        if not self.drawn and not self.data:
            raise ValueError("--no-drawn leaves no line with a new character; give some with --data")
        if missing := next((folder for folder in self.font_folders if not folder.is_dir()), None):
            raise ValueError(f"--font-folders {missing} is no folder; give folders of fonts")


def main(argv: list[str]) -> int:
    """`crnn extend-charset`."""
    about = "Teach a recogniser more characters from a few lines, without forgetting those it knows."
    options = parse_options(ExtendOptions, argv, "crnn extend-charset", about)
    from distill.extend import extend

    extend(options, "crnn extend-charset " + shlex.join(argv))
    return 0


@dataclass(frozen=True)
class RebalanceOptions:
    """Options of crnn rebalance.

    Attributes:
        model: a checkpoint that crnn extend-charset or this command made. Where nothing else is given, what other
            biases of the new characters read and cost is printed.
        may_lose: share of the held-out lines of old characters that the new ones may cost, as in crnn extend-charset.
        out: the new model file; the old one stays as it is.
        overwrite: replace the model of this --out.
    """

    model: Path
    may_lose: float | None = None
    out: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if (self.may_lose is None) != (self.out is None):
            raise ValueError("--may-lose and --out go together; give both, or neither to see what there is to choose")
        if not 0 <= (self.may_lose or 0) < 1:
            raise ValueError(f"--may-lose is {self.may_lose}; give a share from 0 to under 1, such as 0.001")


def rebalance_main(argv: list[str]) -> int:
    """`crnn rebalance`."""
    about = "Read more of the characters that extend-charset added, or keep more of the old ones, without training."
    options = parse_options(RebalanceOptions, argv, "crnn rebalance", about)
    from distill.rebalance import rebalance

    rebalance(options, "crnn rebalance " + shlex.join(argv))
    return 0
