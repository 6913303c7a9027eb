"""`crnn characters episodes`: its options."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from crnn.commands import FitOptions, parse_options


@dataclass(frozen=True)
class EpisodeFitOptions(FitOptions):
    """The training loop with defaults of its own, so that these are told from flags that were given."""

    until: tuple[str, ...] = ("3000",)
    batch_lines: int = 120
    weight_decay: float = 0.05
    clip: float = 1.0
    validate_every: int = 250


@dataclass(frozen=True)
class EpisodeOptions:
    """Options of crnn characters episodes.

    Attributes:
        data: sources of crops, each an LMDB, a zip or a folder, with labels.tsv or one folder a class. A label with a
            slash, as nested folders give, has a family (Greek/alpha): half of the episodes are of one family.
        out: the model file.
        shots: K, support pictures of each class in an episode. Episodes have --batch-lines / (shots + queries) classes.
        queries: pictures of each class that are classified; 0 for none beside the support, each picture of which is
            then classified against the others (needs 2 shots).
        representation: of a picture: its global feature, its local feature, or both. The local one did not help on
            Omniglot (docs/results.md).
        attention: of a region: similarity to its own class minus that to others, or divided by it.
        weighted: pictures unlike their class count less in its description.
        classification: weight of telling all training classes apart by the mean of the map, beside the episodes.
        turned: every class also serves mirrored and turned by quarters, as classes of their own: eight times as many.
        composed: share of an episode's classes that are two classes in one, beside, above or over each other: new ones.
        width: multiplier of the trunk's channels (64 to 128).
        side: pixels of the square that a crop is brought to.
        channels: 1 for grey, 3 for colour.
        validation: share of classes that is held out, whole families where there are any; or a source of its own.
        drop_bad: leave out crops without label, and count them.
        resume: go on with the interrupted run of this --out.
        overwrite: replace the result or the interrupted run of this --out.
        fit: the training loop.
    """

    out: Path
    data: tuple[str, ...]
    shots: int = 1
    queries: int = 2
    representation: Literal["global", "local", "both"] = "global"
    attention: Literal["difference", "ratio"] = "difference"
    weighted: bool = True
    classification: float = 1.0
    turned: bool = True
    composed: float = 0.8
    width: float = 0.5
    side: int = 32
    channels: Literal[1, 3] = 1
    validation: str = "0.2"
    drop_bad: bool = False
    resume: bool = False
    overwrite: bool = False
    fit: Annotated[EpisodeFitOptions, tyro.conf.arg(name="")] = field(default_factory=EpisodeFitOptions)

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("no --data was given; give an LMDB, a folder or a zip of labelled crops")
        if self.shots < 1 or self.queries < 0:
            raise ValueError(f"--shots is {self.shots} and --queries {self.queries}; give at least 1 and 0")
        if self.queries == 0 and self.shots < 2:
            raise ValueError("--queries 0 classifies each support picture by the others of its class; give --shots 2")
        if self.ways < 2:
            raise ValueError(
                f"--batch-lines {self.fit.batch_lines} leaves {self.ways} classes in an episode of {self.shots} shots "
                f"and {self.queries} queries; raise it"
            )
        if not 0 <= self.composed <= 1:
            raise ValueError(f"--composed is {self.composed}; give a share from 0 to 1")
        if self.classification < 0:
            raise ValueError(f"--classification is {self.classification}; give at least 0")

    @property
    def ways(self) -> int:
        """N, the classes of an episode."""
        return self.fit.batch_lines // (self.shots + self.queries)


def main(argv: list[str]) -> int:
    """`crnn characters episodes`."""
    about = "Train a few-shot model, which tells characters apart that it has not seen, from a few crops of each."
    options = parse_options(EpisodeOptions, argv, "crnn characters episodes", about)
    from crnn.characters.episodes import train

    train(options, "crnn characters episodes " + shlex.join(argv))
    return 0
