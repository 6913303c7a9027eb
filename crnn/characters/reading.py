"""Which class a crop is: the trained ones among themselves, and those learnt later where they stand out among these.

A learnt class has no row in the classifier, only a centre, and knows nothing of what the trained classes look like at
their worst. So it wins a crop only where its score beats that of the nearest trained class by more than a bias, one for
all learnt classes of a model, which is set on crops of trained classes (the memory). Where it does not, the crop is
read as if nothing had been learnt.

Scores are those of linear discriminant analysis (Fisher 1936): minus half the squared distance to the class's centre,
of directions that the covariance within classes was taken out of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from crnn.characters.checkpoint import CharacterCheckpoint, Memory

SHRINKAGE = 0.3
"""How far the covariance is drawn to a multiple of the identity, for it is estimated from few crops."""
TAIL = 0.1
"""Share of the memory's crops, those nearest to being lost, that tell how their number falls off."""
LEAST_OLD = 10
"""Crops that are read right, without which no bias can be set."""


class Reading(NamedTuple):
    """numbers: int64 (N,), the class of each crop. confidences: float32 (N,), 0..1."""

    numbers: NDArray[np.int64]
    confidences: NDArray[np.float32]


def within_covariance(directions: Tensor, numbers: Tensor, centres: Tensor) -> Tensor:
    """(M, E) of length 1, their classes (M,), centres (C, E) -> (E, E): how crops lie around their class's centre."""
    apart = directions - centres[numbers]
    covariance = apart.T @ apart / len(apart)
    size = len(covariance)
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.trace() / size * torch.eye(size, dtype=apart.dtype)


@dataclass(frozen=True)
class LearntScores:
    """How much better learnt classes fit a crop than the nearest trained one.

    whitening: (E, E); a direction times it has the identity as covariance within classes. trained: (C, E) and learnt:
    (L, E), centres times whitening. All in float64.
    """

    whitening: Tensor
    trained: Tensor
    learnt: Tensor

    @classmethod
    def of(cls, memory: Memory, trained: Tensor, learnt: Tensor) -> LearntScores:
        """From crops of trained classes and the centres (C, E) and (L, E); ValueError where the crops are all alike."""
        directions = functional.normalize(memory.embeddings.double())
        covariance = within_covariance(directions, memory.numbers, trained.double())
        if not bool(covariance.trace() > 0):
            raise ValueError("the crops of old characters all lie in their class's centre; give others with --old")
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        return cls(whitening, trained.double() @ whitening, learnt.double() @ whitening)

    def margins(self, embeddings: Tensor | NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, E) -> (N, L): score of each learnt class minus the best of the trained ones."""
        white = functional.normalize(torch.as_tensor(embeddings).double()) @ self.whitening
        learnt, trained = (
            white @ centres.T - 0.5 * (centres**2).sum(1) for centres in (self.learnt, self.trained)
        )  # what all classes have in common, minus half the crop's own square, is left out
        return np.asarray((learnt - trained.max(1, keepdim=True).values).numpy(), np.float64)


def learnt_bias(margins: NDArray[np.float64], right: NDArray[np.bool_], may_lose: float) -> float:
    """The bias at which learnt classes take about the share may_lose of old crops that were read right before.

    margins: (M, L), of old crops. right: (M,), those that the trained classes alone read right. The share is of all M.
    Of the greatest margin of each crop, the tenth that is greatest (TAIL) is taken to fall off exponentially, as the
    excesses over a high threshold do (Pickands 1975; Coles 2001, chapter 4); the bias is where the share is reached on
    it, but never so low that more than the share of the crops themselves are lost: with fewer than 1 / may_lose crops,
    none. Nor is it below 0: a crop that lies nearer to a trained class stays. ValueError where there are too few crops.
    """
    if int(right.sum()) < LEAST_OLD:
        raise ValueError(
            f"{int(right.sum())} crops of old characters are read right, and the bias that protects them needs "
            f"{LEAST_OLD}; give more of them with --old"
        )
    greatest = np.sort(margins[right].max(1))[::-1]
    share = may_lose * len(margins) / len(greatest)
    over = max(3, round(TAIL * len(greatest)))
    threshold, allowed = greatest[over], int(may_lose * len(margins))
    fallen = threshold + (greatest[:over] - threshold).mean() * np.log(over / len(greatest) / share)
    return float(max(fallen, greatest[min(allowed, len(greatest) - 1)], 0.0))


def read_classes(probabilities: NDArray[np.float32], margins: NDArray[np.float64] | None, bias: float) -> Reading:
    """Probabilities (N, C) of the trained classes and margins (N, L) of the learnt ones -> what each crop is read as.

    Class numbers from C on are learnt classes. Confidence is the softmax over the trained classes' log-probabilities
    and, for learnt ones, that of the best trained class plus the margin above the bias. Without learnt classes it is
    the probability itself.
    """
    rows = np.arange(len(probabilities))
    best = probabilities.argmax(1)
    if margins is None:
        return Reading(best, probabilities[rows, best])
    excess = margins - bias
    taken = excess.max(1) > 0
    numbers = np.where(taken, probabilities.shape[1] + excess.argmax(1), best)
    top, highest = probabilities[rows, best].astype(np.float64), np.maximum(excess.max(1), 0.0)
    trained = np.exp(-highest) * probabilities.sum(1, dtype=np.float64)  # all over exp(highest): nothing overflows
    learnt = top * np.exp(excess - highest[:, None]).sum(1)
    return Reading(numbers, (top / (trained + learnt)).astype(np.float32))


def learnt_scores(checkpoint: CharacterCheckpoint) -> LearntScores | None:
    """Of a model file's learnt classes; None where it has none."""
    info, known = checkpoint.info, checkpoint.old or checkpoint.memory
    if not info.learnt:
        return None
    if checkpoint.centres is None or known is None:
        raise ValueError("the model has learnt classes and neither centres nor memory; take another copy of it")
    trained = len(info.counts)
    return LearntScores.of(known, checkpoint.centres[:trained], checkpoint.centres[trained:])
