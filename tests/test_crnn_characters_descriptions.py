"""What describes a class of few pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.characters.descriptions import class_descriptions, picture_weights, similarities

Vector = NDArray[np.float64]


@pytest.fixture
def pictures() -> tuple[Tensor, Tensor]:
    """Seven representations of three classes; the last class has one."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 5, generator=generator, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1, 2])


def cosine(a: Vector, b: Vector) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_similarities_are_means_of_cosines(pictures: tuple[Tensor, Tensor]) -> None:
    found, labels = pictures
    vectors, classes = [v.numpy() for v in found], labels.tolist()
    same, other = similarities(found, labels, 3)
    for i, own in enumerate(classes):
        fellows = [j for j in range(7) if classes[j] == own and j != i] or [i]
        strangers = [j for j in range(7) if classes[j] != own]
        assert same[i] == pytest.approx(mean([cosine(vectors[i], vectors[j]) for j in fellows]))
        assert other[i] == pytest.approx(mean([cosine(vectors[i], vectors[j]) for j in strangers]))


def test_weights_are_a_softmax_over_the_pictures_of_a_class(pictures: tuple[Tensor, Tensor]) -> None:
    found, labels = pictures
    same, other = (values.tolist() for values in similarities(found, labels, 3))
    weights = picture_weights(found, labels, 3, temperature=0.5).tolist()
    for i, own in enumerate(labels.tolist()):
        members = [j for j in range(7) if labels[j] == own]
        total = sum(math.exp((same[j] - other[j]) / 0.5) for j in members)
        assert weights[i] == pytest.approx(math.exp((same[i] - other[i]) / 0.5) / total)


def test_a_description_is_the_weighted_mean(pictures: tuple[Tensor, Tensor]) -> None:
    found, labels = pictures
    weights = picture_weights(found, labels, 3)
    described = class_descriptions(found, labels, 3)
    for c in range(3):
        expected = sum(weights[i] * found[i] for i in range(7) if labels[i] == c)
        assert torch.allclose(described[c], torch.as_tensor(expected))


def test_without_weights_it_is_the_plain_mean(pictures: tuple[Tensor, Tensor]) -> None:
    found, labels = pictures
    assert torch.allclose(class_descriptions(found, labels, 3, weighted=False)[0], found[:3].mean(0))


def test_a_picture_unlike_its_class_counts_less() -> None:
    found = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.0, 0.9]])
    weights = picture_weights(found, torch.tensor([0, 0, 0, 1, 1]), 2)
    assert weights[2] < 0.01 < weights[0]


def test_one_picture_describes_its_class_alone(pictures: tuple[Tensor, Tensor]) -> None:
    found, labels = pictures
    assert torch.allclose(class_descriptions(found, labels, 3)[2], found[6])


def test_one_class_alone_is_described_too() -> None:
    found = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(class_descriptions(found, torch.tensor([0, 0]), 1), torch.tensor([[0.5, 0.5]]))


def test_a_class_without_pictures_is_refused(pictures: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="class 3 has no picture"):
        class_descriptions(*pictures, 4)


def test_weights_pass_gradients_on(pictures: tuple[Tensor, Tensor]) -> None:
    found, labels = pictures[0].requires_grad_(), pictures[1]
    temperature = torch.tensor(0.1, requires_grad=True)
    class_descriptions(found, labels, 3, temperature).square().sum().backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None
    assert bool(found.grad.abs().sum() > 0)
    assert temperature.grad is not None
    assert bool(temperature.grad.abs() > 0)
