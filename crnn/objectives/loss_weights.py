"""Character losses as they are named on the command line, with their weights; known without torch."""

from __future__ import annotations

from typing import Literal, get_args

from crnn.commands import weighted_names

CharacterLoss = Literal[
    "cross-entropy", "balanced-softmax", "logit-adjusted", "ldam", "long-tail", "centre-triplet", "centre-loss"
]


def parse_character_losses(parts: tuple[str, ...]) -> dict[CharacterLoss, float]:
    """("long-tail:0.1", "centre-triplet") -> weights by loss, 1 where none stands; ValueError lists the known ones."""
    return weighted_names("--character-loss", parts, get_args(CharacterLoss))
