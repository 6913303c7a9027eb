"""Character losses by name and weight."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from crnn.objectives.character_losses import CHARACTER_LOSSES
from crnn.objectives.loss_weights import CharacterLoss, parse_character_losses


def test_every_name_has_its_loss() -> None:
    assert list(CHARACTER_LOSSES) == list(get_args(CharacterLoss))


def test_losses_are_summed_by_weight() -> None:
    assert parse_character_losses(("long-tail:0.1", "centre-triplet")) == {"long-tail": 0.1, "centre-triplet": 1.0}


def test_none_is_none() -> None:
    assert parse_character_losses(()) == {}


@pytest.mark.parametrize(
    "part", ["long-tails:0.1", "long-tail:x", "long-tail:0", "ldam:-1", "ldam:inf", "ldam:nan", ""]
)
def test_what_is_not_understood_is_refused_with_the_known_ones(part: str) -> None:
    with pytest.raises(ValueError, match=r"--character-loss .* give cross-entropy, .*centre-loss"):
        parse_character_losses((part,))


def test_a_loss_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names ldam twice"):
        parse_character_losses(("ldam:1", "ldam:2"))


def test_names_and_weights_are_known_without_torch() -> None:
    code = "import sys, crnn.objectives.loss_weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
