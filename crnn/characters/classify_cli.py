"""`crnn characters classify`: its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from crnn.characters.metrics import FEW, MANY


@dataclass(frozen=True)
class ClassifyOptions:
    """What `crnn characters classify` takes. ValueError in one sentence where a number makes no sense."""

    source: tyro.conf.Positional[Path]
    """A folder, a zip or an LMDB of crops with one character each; labels, where there are any, are compared."""
    model: Path
    """A file of crnn characters train, learn or episodes."""
    out: Path
    """A folder to make: classes.tsv, sheets/ with a contact sheet a class, crops/ with the pictures by class."""
    by: Literal["classifier", "nearest-centre"] = "classifier"
    """What tells trained classes apart: their classifier, or the nearest class centre. Classes learnt later are read by
    their centre in either case."""
    support: Path | None = None
    """A few crops of each class, for a few-shot model, which has no classes of its own: any source with labels, or a
    folder or zip with one folder a class."""
    embeddings: Path | None = None
    """Write embeddings, labels, classes found and paths to this .npz, for retrieval."""
    json: bool = False
    """Print figures as JSON instead of a few lines."""
    many: int = MANY
    """Classes with more training crops than this count as many."""
    few: int = FEW
    """Classes with fewer training crops than this count as few."""
    sheet: int = 120
    """Crops on a contact sheet at most."""
    copies: bool = True
    """Sort copies of the pictures into folders by class."""
    threads: int = 0
    """Threads of the network's arithmetic; 0 leaves torch's choice."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        if self.sheet < 1:
            raise ValueError(f"--sheet is {self.sheet}; give at least 1")
        if self.threads < 0:
            raise ValueError(f"--threads is {self.threads}; give at least 0")
        if self.few > self.many + 1:
            raise ValueError(f"--few {self.few} and --many {self.many} overlap; give few <= many + 1")
        if self.embeddings is not None and self.embeddings.suffix != ".npz":
            raise ValueError(f"--embeddings {self.embeddings} does not end in .npz; give a name that does")


def main(argv: list[str]) -> int:
    """`crnn characters classify`; 1 where a picture could not be read, after one sentence for each on stderr."""
    about = "Name the characters on crops, and sort these by class."
    options = tyro.cli(ClassifyOptions, args=argv, prog="crnn characters classify", description=about)
    from crnn.characters.classify import classify

    return classify(options)
