"""Which class a crop is: scores of learnt classes, the bias that they must exceed, and who wins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from crnn.characters.checkpoint import Memory
from crnn.characters.reading import SHRINKAGE, LearntScores, learnt_bias, read_classes, within_covariance


def test_margins_are_those_of_a_slow_recomputation() -> None:
    generator = np.random.default_rng(0)
    memory = generator.normal(size=(30, 4)).astype(np.float16)
    numbers = np.arange(30) % 3
    trained, learnt, asked = (generator.normal(size=(n, 4)).astype(np.float32) for n in (3, 2, 5))
    scores = LearntScores.of(
        Memory(torch.from_numpy(memory), torch.from_numpy(numbers)), torch.from_numpy(trained), torch.from_numpy(learnt)
    )
    covariance = np.zeros((4, 4))
    for row, number in zip(memory.astype(np.float64), numbers, strict=True):
        apart = row / math.sqrt(sum(v * v for v in row)) - trained[number]
        covariance += np.outer(apart, apart) / 30
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 4 * np.eye(4)
    inverse = np.linalg.inv(covariance)

    def score(crop: Any, centre: Any) -> float:
        apart = crop / np.linalg.norm(crop) - centre
        return float(-0.5 * apart @ inverse @ apart)

    expected = [[score(x, new) - max(score(x, c) for c in trained) for new in learnt] for x in asked.astype(np.float64)]
    np.testing.assert_allclose(scores.margins(asked), expected, rtol=1e-5, atol=1e-5)


def test_without_any_spread_there_are_no_scores() -> None:
    centres = torch.eye(2, 4)
    with pytest.raises(ValueError, match="all lie in their class's centre"):
        LearntScores.of(Memory(centres.half(), torch.tensor([0, 1])), centres, centres[:1])
    covariance = within_covariance(torch.eye(2), torch.tensor([0, 0]), torch.zeros(1, 2))
    assert torch.allclose(covariance, 0.5 * torch.eye(2))


def test_the_bias_lets_about_the_share_through_that_may_be_lost() -> None:
    generator = np.random.default_rng(1)
    memory, fresh = (generator.exponential(2.0, (n, 1)) for n in (2000, 1_000_000))
    for share in (0.05, 0.01, 0.001, 0.0001):
        bias = learnt_bias(memory, np.ones(2000, bool), share)
        assert 0.3 * share < (fresh > bias).mean() < 1.5 * share


def test_the_bias_is_that_of_a_slow_recomputation() -> None:
    generator = np.random.default_rng(2)
    margins, right = generator.normal(size=(80, 3)), generator.random(80) < 0.8
    greatest = sorted((max(row) for row, good in zip(margins, right, strict=True) if good), reverse=True)
    over = max(3, round(0.1 * len(greatest)))
    mean = sum(value - greatest[over] for value in greatest[:over]) / over
    share = 0.02 * 80 / len(greatest)
    expected = greatest[over] + mean * math.log(over / len(greatest) / share)
    assert learnt_bias(margins, right, 0.02) == pytest.approx(max(expected, greatest[1]))
    assert learnt_bias(margins - 9.0, right, 0.02) == 0


def test_no_crop_of_a_small_memory_is_lost() -> None:
    margins = np.random.default_rng(3).normal(size=(50, 4))
    margins[7, 2] = 9.0
    assert learnt_bias(margins, np.ones(50, bool), 0.001) >= 9.0
    right = np.ones(50, bool)
    right[7] = False
    assert learnt_bias(margins, right, 0.001) < 9.0  # what is read wrong anyway is not protected


def test_without_margins_a_crop_is_read_by_its_probabilities() -> None:
    probabilities = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    found = read_classes(probabilities, None, 3.0)
    assert found.numbers.tolist() == [1, 0]
    np.testing.assert_array_equal(found.confidences, probabilities.max(1))


def test_a_learnt_class_wins_only_above_the_bias_and_old_ones_keep_their_order() -> None:
    probabilities = np.array([[0.2, 0.8]] * 4, np.float32)
    margins = np.array([[2.9, -5.0], [3.1, -5.0], [3.1, 3.2], [900.0, -900.0]])
    found = read_classes(probabilities, margins, 3.0)
    assert found.numbers.tolist() == [1, 2, 3, 2]
    for row in range(3):
        logits = [math.log(0.2), math.log(0.8), *(math.log(0.8) + m - 3.0 for m in margins[row])]
        whole = sum(math.exp(logit) for logit in logits)
        assert found.confidences[row] == pytest.approx(math.exp(logits[found.numbers[row]]) / whole, rel=1e-5)
    assert found.confidences[3] == 1
