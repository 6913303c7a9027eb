"""Losses that tell classes apart by their features, for single characters and for the columns of lines alike.

M samples, D features, C classes. Every loss knows how many training samples each class has, for rare classes are what
these losses are about.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.objectives.recognition import Terms


class ClassLoss(nn.Module, ABC):
    """A loss on (features, labels), together with what classifies features by it.

    features: D. counts: (C,) training samples of each class. A class that was never seen counts as one of one sample,
    so that no formula divides by zero; unseen lists such classes, for whoever trains to report.
    What is learnt beside the network (prototypes, classifiers) is a parameter of the module, class centres are
    buffers: both are in its state_dict.
    Raises ValueError where counts are no list of at least two finite numbers from 0 on.
    """

    counts: Tensor
    seen: Tensor

    def __init__(self, features: int, counts: Tensor) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"a loss on {features} features was asked for; give at least 1")
        if counts.ndim != 1 or len(counts) < 2:
            raise ValueError(f"class counts of shape {tuple(counts.shape)} were given; give (C,) for 2 classes or more")
        if not bool((counts.isfinite() & (counts >= 0)).all()):
            raise ValueError(f"class counts hold {counts.float().min():g}; give finite numbers from 0 on")
        self.features, self.classes = features, len(counts)
        self.register_buffer("counts", counts.detach().to(torch.float32).clamp(min=1))
        self.register_buffer("seen", counts.detach() > 0)

    @property
    def unseen(self) -> list[int]:
        """Classes without a training sample, whose count is taken as 1."""
        return torch.nonzero(~self.seen)[:, 0].tolist()

    def forward(self, features: Tensor, labels: Tensor, trusted: Tensor | None = None) -> Terms:
        """features (M, D) float, labels (M,) int64 in 0..C-1 -> named scalars; "loss" is what is minimised.

        trusted: (M,) bool, the samples that may move class centres, None for all; losses without centres need it not.
        Computed in float32 whatever the autocast. Zero, with a gradient of zero, where M is 0.
        Raises ValueError for other shapes and for labels that are no classes.
        """
        self._check(features, labels, trusted)
        with torch.autocast(features.device.type, enabled=False):
            if not len(labels):
                return {"loss": features.float().sum() + sum(p.sum() for p in self.parameters()) * 0.0}
            return self.terms(features.float(), labels, trusted)

    @abstractmethod
    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        """What forward gives, for arguments that were checked, at least one sample and float32."""

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """(M, D) -> (M, C), greatest for the class that is read: no margins, no priors."""

    def _check(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> None:
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(f"features of shape {tuple(features.shape)} were given; give (M, {self.features})")
        if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} and type {labels.dtype} were given for {len(features)} "
                "samples; give one int64 for each"
            )
        if trusted is not None and (trusted.shape != labels.shape or trusted.dtype != torch.bool):
            raise ValueError(
                f"trusted has shape {tuple(trusted.shape)} and type {trusted.dtype}; give one bool a label"
            )
        outside = (labels < 0) | (labels >= self.classes)
        if bool(outside.any()):
            at = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"sample {at} has label {int(labels[at])}, and there are {self.classes} classes; "
                f"number them from 0 to {self.classes - 1}"
            )


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """(M,) int64 labels -> (C,) samples of each class; ValueError for a label outside 0..classes-1."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels go from {int(labels.min())} to {int(labels.max())}, and there are {classes} classes; "
            f"number them from 0 to {classes - 1}"
        )
    return torch.bincount(labels, minlength=classes)


class CrossEntropy(ClassLoss):
    """Softmax cross-entropy of a linear classifier with bias; counts are not looked at."""

    def __init__(self, features: int, counts: Tensor) -> None:
        super().__init__(features, counts)
        self.classifier = nn.Linear(features, self.classes)

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        return {"loss": functional.cross_entropy(self.scores(features), labels)}

    def scores(self, features: Tensor) -> Tensor:
        found: Tensor = self.classifier(features)
        return found


class LogitAdjusted(CrossEntropy):
    """Cross-entropy of logits to which tau times the log of the class's share of the training set is added.

    Menon et al. 2021, "Long-tail learning via logit adjustment", equation 10.
    """

    adjustment: Tensor

    def __init__(self, features: int, counts: Tensor, tau: float = 1.0) -> None:
        super().__init__(features, counts)
        self.register_buffer("adjustment", tau * (self.counts / self.counts.sum()).log())  # (C,)

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        return {"loss": functional.cross_entropy(self.scores(features) + self.adjustment, labels)}


class BalancedSoftmax(LogitAdjusted):
    """Cross-entropy of a softmax whose terms are weighted by class counts, n_c exp(z_c).

    Ren et al. 2020, "Balanced meta-softmax", equation 4, without its sampler. It is logit adjustment with tau = 1.
    """

    def __init__(self, features: int, counts: Tensor) -> None:
        super().__init__(features, counts, tau=1.0)


class Ldam(ClassLoss):
    """Label-distribution-aware margins: cross-entropy of scaled cosines, the own class's lowered by a margin.

    Cao et al. 2019: margin_c = margin * (n_min / n_c)^(1/4), the greatest margin being the rarest class's; features and
    prototypes are normalised, as in the authors' code. Set reweighted late in training for the deferred re-weighting
    (DRW) of that paper: classes then weigh (1 - beta) / (1 - beta^n_c) (Cui et al. 2019), scaled to a mean of 1, in a
    weighted mean over samples.
    """

    margins: Tensor
    weights: Tensor

    def __init__(
        self, features: int, counts: Tensor, margin: float = 0.5, scale: float = 30.0, beta: float = 0.9999
    ) -> None:
        super().__init__(features, counts)
        if margin < 0 or scale <= 0 or not 0 <= beta < 1:
            raise ValueError(
                f"LDAM was asked for with margin {margin}, scale {scale} and beta {beta}; "
                "give a margin from 0 on, a scale above 0 and a beta from 0 to under 1"
            )
        self.scale = scale
        self.reweighted = False
        self.prototypes = random_prototypes(self.classes, features)
        self.register_buffer("margins", margin * (self.counts.min() / self.counts) ** 0.25)  # (C,)
        weights = (1 - beta) / (1 - beta ** self.counts.double())
        self.register_buffer("weights", (weights / weights.mean()).float())  # (C,)

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        lowered = functional.one_hot(labels, self.classes) * self.margins  # (M, C)
        logits = self.scores(features) - self.scale * lowered
        return {"loss": functional.cross_entropy(logits, labels, self.weights if self.reweighted else None)}

    def scores(self, features: Tensor) -> Tensor:
        return self.scale * cosines(features, self.prototypes)


def random_prototypes(classes: int, features: int) -> nn.Parameter:
    """(C, D) of random directions and about unit length; only directions count, the length sets how fast they turn."""
    return nn.Parameter(torch.randn(classes, features) / math.sqrt(features))


def cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """(M, D), (C, D) -> (M, C) cosines of the angles between them."""
    return functional.linear(functional.normalize(features), functional.normalize(prototypes))
