"""`crnn characters learn` and `crnn characters forget`: their options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

MAY_LOSE = 0.001


@dataclass(frozen=True)
class LearnOptions:
    """What `crnn characters learn` takes. ValueError in one sentence where a number makes no sense."""

    support: Path
    """A few crops of each new character: any source with labels, or a folder or zip with one folder a class, whose name
    is the label (or, as classify names folders, ends in its code points: euro_U+20AC)."""
    model: Path
    """A file of crnn characters train, or of this command."""
    out: Path
    """The model file to write."""
    old: Path | None = None
    """Labelled crops of the characters that the model knows, to set the bias on, instead of its memory."""
    may_lose: float = MAY_LOSE
    """Greatest share, as estimated, of the crops of old characters that may be read as new ones though they were read
    right before. With more, more of the new ones are read. Of all learnt classes the most careful one holds."""
    description: Literal["mean", "weighted"] = "mean"
    """What a class's centre is: the mean of its crops' directions, or a mean in which crops unlike the others count
    less."""
    json: bool = False
    """Print what was learnt as JSON instead of a few lines."""
    overwrite: bool = False
    """Replace --out where it is there; it may be --model itself."""
    threads: int = 0
    """Threads of the network's arithmetic; 0 leaves torch's choice."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        if not 0 < self.may_lose < 1:
            raise ValueError(f"--may-lose is {self.may_lose}; give a share above 0 and under 1, such as 0.001")
        if self.threads < 0:
            raise ValueError(f"--threads is {self.threads}; give at least 0")


@dataclass(frozen=True)
class ForgetOptions:
    """What `crnn characters forget` takes. ValueError in one sentence where it is not said what to forget."""

    model: Path
    """A file of crnn characters learn."""
    out: Path
    """The model file to write."""
    classes: tuple[str, ...] = ()
    """Labels of classes that were learnt later."""
    all: bool = False
    """Every class that was learnt later: the file is then what training left."""
    json: bool = False
    """Print what was forgotten as JSON instead of a line."""
    overwrite: bool = False
    """Replace --out where it is there; it may be --model itself."""

    def __post_init__(self) -> None:
        if self.all == bool(self.classes):
            raise ValueError("say what to forget: --classes with labels, or --all, one of the two")


def main(argv: list[str]) -> int:
    """`crnn characters learn`; 1 where a picture could not be read, after one sentence for each on stderr."""
    about = "Teach a character model new characters from a few crops each, without training; old ones stay."
    options = tyro.cli(LearnOptions, args=argv, prog="crnn characters learn", description=about)
    from crnn.characters.learn import learn

    return learn(options)


def forget_main(argv: list[str]) -> int:
    """`crnn characters forget`."""
    about = "Take characters out of a model again that were learnt later."
    options = tyro.cli(ForgetOptions, args=argv, prog="crnn characters forget", description=about)
    from crnn.characters.learn import forget

    return forget(options)
