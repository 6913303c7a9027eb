"""A support: a few labelled crops of each of some classes, as `crnn characters learn` and `classify` take it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.characters.crops import squared
from crnn.commands import sentence
from data.importers.tsv import LABELS
from data.lines import StoredLines
from data.picture import InputSpec


class SupportCrops(NamedTuple):
    """labels: of the crops that could be read; squares: these, (side, side, channels); failed: how many could not."""

    labels: list[str]
    squares: list[NDArray[np.uint8]]
    failed: int


def support_labels(source: StoredLines) -> list[str]:
    """The label of every crop of a source (data.class_folders.open_labelled); ValueError with the first key without."""
    texts = source.texts()
    bare = next((i for i, text in enumerate(texts) if not text), None)
    if bare is not None:
        raise ValueError(f"{source.keys()[bare]} of --support has no label; label it in {LABELS} or take it out")
    return [text or "" for text in texts]


def support_crops(source: StoredLines, labels: Sequence[str], spec: InputSpec, command: str) -> SupportCrops:
    """Every crop that can be read; a sentence on stderr, of that command, for each of the others.

    ValueError naming a label that is left without any.
    """
    squares, kept = list[NDArray[np.uint8]](), list[str]()
    for index, label in enumerate(labels):
        try:
            squares.append(squared(source[index].picture, spec))
        except (OSError, ValueError) as error:
            print(f"{command}: {sentence(error)}", file=sys.stderr)
            continue
        kept.append(label)
    lost = next((label for label in labels if label not in set(kept)), None)
    if lost is not None:
        raise ValueError(f"no crop of {lost!r} in {source.path} can be read, see above; give others or take it out")
    return SupportCrops(kept, squares, len(labels) - len(kept))
