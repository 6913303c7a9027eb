"""The losses on characters by name, for single pictures and for the columns of lines."""

from __future__ import annotations

from crnn.objectives.centres import CentreLoss, CentreTriplet
from crnn.objectives.classification import BalancedSoftmax, ClassLoss, CrossEntropy, Ldam, LogitAdjusted
from crnn.objectives.long_tail import LongTail
from crnn.objectives.loss_weights import CharacterLoss, parse_character_losses

__all__ = ["CHARACTER_LOSSES", "CharacterLoss", "parse_character_losses"]

CHARACTER_LOSSES: dict[CharacterLoss, type[ClassLoss]] = {
    "cross-entropy": CrossEntropy,
    "balanced-softmax": BalancedSoftmax,
    "logit-adjusted": LogitAdjusted,
    "ldam": Ldam,
    "long-tail": LongTail,
    "centre-triplet": CentreTriplet,
    "centre-loss": CentreLoss,
}
"""Each is made from the number of features and the class counts, its own options by keyword."""
