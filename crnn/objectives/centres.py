"""Method 4: class centres, the rules that keep them, and triplets that are anchored at them.

Centres gather what many batches showed of a class. They are constants for the gradient: no loss moves them, their rule
does. With several processes each has its own batches, and DistributedDataParallel hands the first one's centres to all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.objectives.classification import ClassLoss, CrossEntropy, cosines, random_prototypes
from crnn.objectives.recognition import Terms

Mining = Literal["hard", "plain"]


class CentreRule(nn.Module, ABC):
    """How class centres follow the features.

    normalise: features are scaled to length 1 before they meet the centres.
    """

    def __init__(self, classes: int, features: int, normalise: bool) -> None:
        super().__init__()
        self.classes, self.features, self.normalise = classes, features, normalise

    @abstractmethod
    def centres(self) -> Tensor:
        """(C, D), without a gradient."""

    @abstractmethod
    def known(self) -> Tensor:
        """(C,) bool: which centres are no longer the initial ones. The others serve as no anchor and are never read."""

    @abstractmethod
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Brings centres up to date with a batch, (M, D) as compared and (M,)."""

    def compared(self, features: Tensor) -> Tensor:
        """Features as they meet the centres."""
        return functional.normalize(features) if self.normalise else features

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """What the rule itself adds to a loss, for features as compared; None for nothing."""
        return None

    def scores(self, features: Tensor) -> Tensor:
        """(M, D) -> (M, C): minus the squared distance to each centre, minus infinity to those that are not known."""
        apart = squared_distances(self.compared(features), self.centres())
        return (-apart).masked_fill(~self.known(), -torch.inf)


class _KeptCentres(CentreRule):
    """Centres as a buffer. They start at zero."""

    kept: Tensor
    updated: Tensor

    def __init__(self, classes: int, features: int, normalise: bool) -> None:
        super().__init__(classes, features, normalise)
        self.register_buffer("kept", torch.zeros(classes, features))
        self.register_buffer("updated", torch.zeros(classes, dtype=torch.bool))

    def centres(self) -> Tensor:
        # A copy, as long as a graph lives that an update in place would spoil.
        return self.kept.detach().clone()

    def known(self) -> Tensor:
        return self.updated


class MovingAverage(_KeptCentres):
    """v <- decay * v + (1 - decay) * mean of the class's features in the batch.

    The mean, so that their order in the batch does not matter. A class's first update takes the mean itself: averaged
    with the zero it starts at, a centre would be too short for a long time.
    """

    def __init__(self, classes: int, features: int, decay: float = 0.9, normalise: bool = False) -> None:
        super().__init__(classes, features, normalise)
        if not 0 <= decay < 1:
            raise ValueError(f"the centres' decay is {decay}; give a number from 0 to under 1")
        self.decay = decay

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        sums, counts = class_sums(features, labels, self.classes)
        present = counts > 0
        means = sums / counts.clamp(min=1)[:, None]
        decay = torch.where(self.updated, self.decay, 0.0)[:, None]
        self.kept.copy_(torch.where(present[:, None], decay * self.kept + (1 - decay) * means, self.kept))
        self.updated |= present


class CentreLossRule(_KeptCentres):
    """c_j <- c_j - rate * sum_i [y_i = j] (c_j - x_i) / (1 + n_j), n_j samples of the class in the batch.

    Wen et al. 2016, equation 4. weight: of the centre loss itself (centre_loss, divided by the number of samples),
    which draws features to their own centre; 0 leaves it out, and the rule only moves centres.
    """

    def __init__(
        self, classes: int, features: int, rate: float = 0.5, weight: float = 0.0, normalise: bool = False
    ) -> None:
        super().__init__(classes, features, normalise)
        if not 0 < rate <= 1:
            raise ValueError(f"the centres' rate is {rate}; give a number above 0 to 1")
        self.rate, self.weight = rate, weight

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        sums, counts = class_sums(features, labels, self.classes)
        deltas = (counts[:, None] * self.kept - sums) / (1 + counts)[:, None]
        self.kept -= self.rate * deltas
        self.updated |= counts > 0

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        if not self.weight:
            return None
        return self.weight * centre_loss(features, labels, self.centres()) / len(labels)


class ClassifierWeights(CentreRule):
    """The rows of a classifier are the centres, features and rows both normalised, as in CosFace and its kin.

    The rows are renewed by training itself: loss is the large margin cosine loss (Wang et al. 2018, equation 4), with
    scale and margin; margin 0 is the normalised softmax. A row is known once a step has changed it.
    """

    initial: Tensor

    def __init__(self, classes: int, features: int, scale: float = 30.0, margin: float = 0.0) -> None:
        super().__init__(classes, features, normalise=True)
        if scale <= 0 or margin < 0:
            raise ValueError(f"the classifier has scale {scale} and margin {margin}; give above 0 and from 0 on")
        self.scale, self.margin = scale, margin
        self.rows = random_prototypes(classes, features)
        self.register_buffer("initial", self.rows.detach().clone())

    def centres(self) -> Tensor:
        return functional.normalize(self.rows.detach())

    def known(self) -> Tensor:
        return (self.rows.detach() != self.initial).any(1)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Nothing: the optimiser moves the rows."""

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        lowered = self.margin * functional.one_hot(labels, self.classes)  # (M, C)
        return functional.cross_entropy(self.scale * (cosines(features, self.rows) - lowered), labels)

    def scores(self, features: Tensor) -> Tensor:
        return cosines(features, self.rows)


CENTRE_RULES: dict[str, type[CentreRule]] = {
    "moving-average": MovingAverage,
    "centre-loss": CentreLossRule,
    "classifier-weights": ClassifierWeights,
}


class CentreTriplet(ClassLoss):
    """max(||a - p||^2 - ||a - n||^2 + margin, 0): a the centre of a class, p a sample of it, n one of another class.

    Over the batch, whose centres are brought up to date first (in training mode, from trusted samples only). A class
    whose centre is still the initial one is no anchor. mining: "hard" takes for each class p the farthest of its own
    and n the nearest other, and the mean over classes; "plain" takes all pairs (p, n) and their mean. A class of one
    sample is an anchor as any other; a batch of one class has no n, and no triplets.

    rule: makes the rule from the numbers of classes and features: MovingAverage, CentreLossRule, ClassifierWeights, or
    partial(MovingAverage, decay=0.5). margin: alpha, in squared distance. weight: of the triplets, beside the rule's
    own loss where it has one. Terms: "triplet", and "rule" where there is that loss.
    """

    def __init__(
        self,
        features: int,
        counts: Tensor,
        rule: Callable[[int, int], CentreRule] = MovingAverage,
        mining: Mining = "hard",
        margin: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(features, counts)
        if mining not in ("hard", "plain"):
            raise ValueError(f"the mining {mining!r} is not known; give hard or plain")
        if margin < 0:
            raise ValueError(f"the triplets' margin is {margin}; give a number from 0 on")
        self.rule = rule(self.classes, features)
        self.mining, self.margin, self.weight = mining, margin, weight

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        compared = self.rule.compared(features)
        if self.training:
            moving = slice(None) if trusted is None else trusted
            self.rule.update(compared.detach()[moving], labels[moving])
        violations = hard_triplets if self.mining == "hard" else plain_triplets
        triplet = violations(compared, labels, self.rule.centres(), self.rule.known(), self.margin)
        found = {"loss": self.weight * triplet, "triplet": triplet}
        own = self.rule.loss(compared, labels)
        if own is not None:
            found |= {"loss": found["loss"] + own, "rule": own}
        return found

    def scores(self, features: Tensor) -> Tensor:
        return self.rule.scores(features)


class CentreLoss(CrossEntropy):
    """Softmax cross-entropy plus weight times the centre loss, the centres kept by CentreLossRule (Wen et al. 2016).

    Both are means over samples, where that paper sums both. Terms: "softmax" and "centre".
    """

    def __init__(self, features: int, counts: Tensor, weight: float = 0.01, rate: float = 0.5) -> None:
        super().__init__(features, counts)
        self.weight = weight
        self.rule = CentreLossRule(self.classes, features, rate)

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        # The paper takes the loss before it moves the centres.
        centre = centre_loss(features, labels, self.rule.centres()) / len(labels)
        if self.training:
            moving = slice(None) if trusted is None else trusted
            self.rule.update(features.detach()[moving], labels[moving])
        softmax = super().terms(features, labels, trusted)["loss"]
        return {"loss": softmax + self.weight * centre, "softmax": softmax, "centre": centre}


def hard_triplets(features: Tensor, labels: Tensor, centres: Tensor, known: Tensor, margin: float) -> Tensor:
    """Mean over the classes present of their hardest triplet; (M, D), (M,), (C, D), (C,) -> scalar."""
    present = torch.bincount(labels, minlength=len(centres)) > 0
    anchors = torch.nonzero(present & known)[:, 0]  # (A,)
    own = labels[:, None] == anchors  # (M, A)
    if not len(anchors) or bool(own.all()):
        return features.sum() * 0.0
    apart = squared_distances(features, centres[anchors])  # (M, A)
    farthest = apart.masked_fill(~own, -torch.inf).max(0).values
    nearest = apart.masked_fill(own, torch.inf).min(0).values
    return (farthest - nearest + margin).relu().mean()


def plain_triplets(features: Tensor, labels: Tensor, centres: Tensor, known: Tensor, margin: float) -> Tensor:
    """Mean over all pairs (sample of a class, sample of another) with that class's centre; shapes as hard_triplets."""
    apart = squared_distances(features, centres)  # (M, C)
    own = apart.gather(1, labels[:, None])  # (M, 1)
    other = apart[:, labels].T  # (M, M): row p has the distances of all samples from p's centre
    valid = known[labels][:, None] & (labels[:, None] != labels)
    if not bool(valid.any()):
        return features.sum() * 0.0
    return (own - other + margin).relu()[valid].mean()


def centre_loss(features: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """1/2 sum_i ||x_i - c_{y_i}||^2, (M, D), (M,), (C, D) -> scalar (Wen et al. 2016, equation 2)."""
    return (features - centres[labels]).square().sum() / 2


def squared_distances(features: Tensor, centres: Tensor) -> Tensor:
    """(M, D), (C, D) -> (M, C)."""
    return features.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * features @ centres.T


def class_sums(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(M, D), (M,) -> sums (C, D) and counts (C,) of each class, both float."""
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, features)
    return sums, torch.bincount(labels, minlength=classes).to(features.dtype)
