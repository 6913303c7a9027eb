"""Method 3: classification under a long tail: margins on the angle, prototypes spread apart, a regulariser of norms."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.objectives.classification import ClassLoss, cosines, random_prototypes
from crnn.objectives.recognition import Terms

Regulariser = Literal["ring", "squared", "inverse"]
EDGE = 1e-6
"""Cosines are kept this far from -1 and 1, where the angle's derivative is infinite."""


class LongTail(ClassLoss):
    """L = L1 + spread * L2 + norm * L3, trained end to end in one stage; "margin", "spread" and "norm" are its terms.

    L1: cross-entropy of scaled cosines to normalised prototypes, with the margin m_c = margin / n_c^(1/root) added to
        the angle to the own class's. In scores there is no margin.
    L2: spread_loss: minus the angle from each prototype to its nearest other, rarer classes weighing more.
    L3: norm_loss: mean of g(||x||). As L1 and L2 know angles alone, it never reaches the logits.

    scale: s, that cosines are multiplied with. margin: m, in radians, from 0 to pi/2. root: k. spread: lambda1.
    norm: lambda2. regulariser: g, see norm_loss. weights: of L2's classes sum to "one", or to the number of "classes".
    radius: where the ring's learnt radius starts.
    """

    margins: Tensor
    spread_weights: Tensor

    def __init__(
        self,
        features: int,
        counts: Tensor,
        scale: float = 30.0,
        margin: float = 0.5,
        root: float = 4.0,
        spread: float = 0.1,
        norm: float = 0.01,
        regulariser: Regulariser = "ring",
        weights: Literal["one", "classes"] = "one",
        radius: float = 1.0,
    ) -> None:
        super().__init__(features, counts)
        if not 0 <= margin <= math.pi / 2:
            raise ValueError(f"the long-tail margin is {margin} radians; give 0 to pi/2, where the loss is monotone")
        if scale <= 0 or root <= 0:
            raise ValueError(f"the long-tail loss has scale {scale} and root {root}; give numbers above 0")
        if regulariser not in NORM_LOSSES:
            raise ValueError(f"the regulariser {regulariser!r} is not known; give one of {', '.join(NORM_LOSSES)}")
        if weights not in ("one", "classes"):
            raise ValueError(f"weights that sum to {weights!r} are not known; give one or classes")
        self.scale, self.spread, self.norm, self.regulariser = scale, spread, norm, regulariser
        self.prototypes = random_prototypes(self.classes, features)
        self.radius = nn.Parameter(torch.tensor(radius)) if regulariser == "ring" else None
        rarity = self.counts ** (-1 / root)
        self.register_buffer("margins", margin * rarity)  # (C,)
        total = 1.0 if weights == "one" else float(self.classes)
        self.register_buffer("spread_weights", total * rarity / rarity.sum())  # (C,)

    def terms(self, features: Tensor, labels: Tensor, trusted: Tensor | None) -> Terms:
        found = cosines(features, self.prototypes)  # (M, C)
        own = found.gather(1, labels[:, None])  # (M, 1)
        raised = cosine_with_margin(own, self.margins[labels, None])
        margin = functional.cross_entropy(self.scale * found.scatter(1, labels[:, None], raised), labels)
        spread = spread_loss(self.prototypes, self.spread_weights)
        norm = norm_loss(features, self.regulariser, self.radius)
        return {
            "loss": margin + self.spread * spread + self.norm * norm,
            "margin": margin,
            "spread": spread,
            "norm": norm,
        }

    def scores(self, features: Tensor) -> Tensor:
        return self.scale * cosines(features, self.prototypes)


def cosine_with_margin(cosine: Tensor, margin: Tensor) -> Tensor:
    """cos(theta + margin) of cos(theta), elementwise; margins from 0 to pi/2.

    Past theta + margin = pi that would rise again. There cos(theta) - margin * sin(margin) stands in for it, as in the
    implementations of ArcFace (Deng et al. 2019): it lies below -1 and goes on falling, so the loss stays monotone in
    theta, with a small step down where the two meet.
    """
    within = cosine.clamp(-1 + EDGE, 1 - EDGE)
    moved = within * margin.cos() - (1 - within.square()).sqrt() * margin.sin()
    past = cosine < -margin.cos()  # cos(pi - margin)
    return torch.where(past, cosine - margin * margin.sin(), torch.where(margin > 0, moved, cosine))


def spread_loss(prototypes: Tensor, weights: Tensor) -> Tensor:
    """(C, D), (C,) -> scalar: minus the weighted sum of the angles, in radians, from prototypes to their nearest."""
    found = cosines(prototypes, prototypes)  # (C, C)
    itself = torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    nearest = found.masked_fill(itself, -2.0).max(1).values  # (C,)
    return -(weights * nearest.clamp(-1 + EDGE, 1 - EDGE).acos()).sum()


def norm_loss(features: Tensor, regulariser: Regulariser, radius: Tensor | None) -> Tensor:
    """Mean over samples of g(||x||), (M, D) -> scalar.

    ring: (||x|| - radius)^2, the radius learnt (Zheng et al. 2018); squared: ||x||^2; inverse: 1 / ||x||.
    """
    return NORM_LOSSES[regulariser](features.norm(dim=1), radius).mean()


def _ring(norms: Tensor, radius: Tensor | None) -> Tensor:
    assert radius is not None
    return (norms - radius).square()


def _squared(norms: Tensor, radius: Tensor | None) -> Tensor:
    return norms.square()


def _inverse(norms: Tensor, radius: Tensor | None) -> Tensor:
    return 1 / norms.clamp(min=EDGE)


NORM_LOSSES = {"ring": _ring, "squared": _squared, "inverse": _inverse}
