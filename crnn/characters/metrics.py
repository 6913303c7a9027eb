"""How well single characters are told apart: by frequency, by class, by retrieval; and which are taken for which.

Pure numpy. N crops, E embedding. Labels are the classes' own names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MANY, FEW = 100, 20
"""Classes of more than MANY training samples, and of fewer than FEW: the bounds of ImageNet-LT (Liu et al. 2019)."""

BLOCK = 256
"""Queries that are compared with all crops at a time."""


class Group(NamedTuple):
    """Classes of one frequency. accuracy: share of their crops that are right, 0..1; nan without crops."""

    classes: int
    crops: int
    accuracy: float


class Retrieval(NamedTuple):
    """What nearest neighbours are, every crop asking all the others.

    recall_at_1: share of queries whose nearest other crop is of their class.
    mean_average_precision: mean over queries of the mean precision at each crop of their class, over all ranks.
    queries: crops with another of their class; lone: those without, which ask nothing but are answers still.
    """

    recall_at_1: float
    mean_average_precision: float
    queries: int
    lone: int


class LookAlikes(NamedTuple):
    """Two classes that are taken for each other. taken: crops of the first read as the second; back: the reverse."""

    first: str
    second: str
    taken: int
    back: int
    of: int
    """Crops of both."""


def accuracy(labels: Sequence[str], found: Sequence[str]) -> float:
    """Share of crops whose class is found, 0..1; nan without crops."""
    _same_length(labels, found)
    return _mean([a == b for a, b in zip(labels, found, strict=True)])


def macro_accuracy(labels: Sequence[str], found: Sequence[str]) -> float:
    """Mean over the classes among labels of the share of their crops that are found; nan without crops."""
    return _mean(list(class_accuracies(labels, found).values()))


def class_accuracies(labels: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Share of each class's crops that are found, in the order of the names."""
    _same_length(labels, found)
    totals = Counter(labels)
    right = Counter(a for a, b in zip(labels, found, strict=True) if a == b)
    return {name: right[name] / totals[name] for name in sorted(totals)}


def by_frequency(
    labels: Sequence[str], found: Sequence[str], counts: Mapping[str, int], many: int = MANY, few: int = FEW
) -> dict[str, Group]:
    """Accuracy of the classes with many, medium and few training samples.

    counts: training samples of each class; one that is missing has none. many, few: more than, and fewer than, so many.
    Raises ValueError where the bounds cross.
    """
    _same_length(labels, found)
    if few > many + 1:
        raise ValueError(f"few are under {few} samples and many over {many}, which overlap; give few <= many + 1")

    def group(name: str) -> str:
        count = counts.get(name, 0)
        return "many" if count > many else "few" if count < few else "medium"

    groups = {}
    for wanted in ("many", "medium", "few"):
        right = [a == b for a, b in zip(labels, found, strict=True) if group(a) == wanted]
        classes = {name for name in labels if group(name) == wanted}
        groups[wanted] = Group(len(classes), len(right), _mean(right))
    return groups


def retrieval(embeddings: NDArray[np.float32], labels: Sequence[str]) -> Retrieval:
    """(N, E), N labels -> Recall@1 and mAP by cosine; of equally near crops the earlier counts as nearer.

    Recall@1 as in Oh Song et al. 2016; average precision as in information retrieval, over all ranks.
    """
    if len(embeddings) != len(labels):
        raise ValueError(f"{len(embeddings)} embeddings were given for {len(labels)} labels; give one for each")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = embeddings / np.maximum(lengths, 1e-12)
    _, numbers, sizes = np.unique(np.asarray(labels, np.str_), return_inverse=True, return_counts=True)
    queries = np.flatnonzero(sizes[numbers] > 1)
    first, precisions = 0, 0.0
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        likeness = directions[rows] @ directions.T  # (rows, N)
        likeness[np.arange(len(rows)), rows] = -np.inf  # itself comes last, and is cut off
        ranking = np.argsort(-likeness, axis=1, kind="stable")[:, :-1]
        same = numbers[ranking] == numbers[rows, None]
        first += int(same[:, 0].sum())
        precision = same.cumsum(1) / np.arange(1, same.shape[1] + 1)
        precisions += float(((precision * same).sum(1) / same.sum(1)).sum())
    count = len(queries)
    if not count:
        return Retrieval(float("nan"), float("nan"), 0, len(labels))
    return Retrieval(first / count, precisions / count, count, len(labels) - count)


def look_alikes(labels: Sequence[str], found: Sequence[str]) -> list[LookAlikes]:
    """Pairs of classes by how often one is taken for the other, either way; ties in the order of the names.

    The first of a pair is the one that is taken for the other more often.
    """
    _same_length(labels, found)
    totals = Counter(labels)
    taken = Counter((a, b) for a, b in zip(labels, found, strict=True) if a != b)
    pairs = {(min(pair), max(pair)) for pair in taken}
    made = []
    for pair in pairs:
        first, second = pair if taken[pair] >= taken[pair[::-1]] else pair[::-1]
        made.append(
            LookAlikes(
                first, second, taken[first, second], taken[second, first], totals[first] + totals[second]
            )
        )  # fmt: skip
    return sorted(made, key=lambda pair: (-(pair.taken + pair.back), pair.first, pair.second))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _same_length(labels: Sequence[str], found: Sequence[str]) -> None:
    if len(labels) != len(found):
        raise ValueError(f"{len(found)} classes were found for {len(labels)} labels; give one for each")
