"""Character losses as they are named on the command line, with their weights; known without torch."""

from __future__ import annotations

from typing import Literal, get_args

CharacterLoss = Literal[
    "cross-entropy", "balanced-softmax", "logit-adjusted", "ldam", "long-tail", "centre-triplet", "centre-loss"
]


def parse_character_losses(parts: tuple[str, ...]) -> dict[CharacterLoss, float]:
    """("long-tail:0.1", "centre-triplet") -> weights by loss, 1 where none stands; ValueError lists the known ones."""
    weights: dict[CharacterLoss, float] = {}
    known: dict[str, CharacterLoss] = {name: name for name in get_args(CharacterLoss)}
    for part in parts:
        name, _, number = part.partition(":")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = 0.0
        if name not in known or not 0 < weight < float("inf"):
            raise ValueError(
                f"--character-loss {part!r} is not understood; give {', '.join(known)}, each with :weight or alone"
            )
        if known[name] in weights:
            raise ValueError(f"--character-loss names {name} twice; give it one weight")
        weights[known[name]] = weight
    return weights
