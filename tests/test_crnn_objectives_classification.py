"""Losses on (features, labels): against plain loops, against each other where they must agree, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from crnn.objectives.character_losses import CHARACTER_LOSSES
from crnn.objectives.classification import (
    BalancedSoftmax,
    ClassLoss,
    CrossEntropy,
    Ldam,
    LogitAdjusted,
    class_counts,
)

COUNTS = torch.tensor([50, 8, 1])


def sample(seed: int = 0) -> tuple[Tensor, Tensor]:
    """6 samples of 4 features in 3 classes."""
    torch.manual_seed(seed)
    return torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 2])


def negative_log(logits: list[float], label: int) -> float:
    return -math.log(math.exp(logits[label]) / sum(math.exp(z) for z in logits))


def linear_logits(loss: CrossEntropy, x: list[float]) -> list[float]:
    weight, bias = loss.classifier.weight.tolist(), loss.classifier.bias.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return dot / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b))


def test_cross_entropy_is_what_plain_loops_give() -> None:
    features, labels = sample()
    loss = CrossEntropy(4, COUNTS)
    each = [negative_log(linear_logits(loss, x), y) for x, y in zip(features.tolist(), labels.tolist(), strict=True)]
    assert loss(features, labels)["loss"].item() == pytest.approx(sum(each) / 6, rel=1e-5)


def test_balanced_softmax_weighs_each_class_by_its_count() -> None:
    features, labels = sample()
    loss = BalancedSoftmax(4, COUNTS)
    each = []
    for x, y in zip(features.tolist(), labels.tolist(), strict=True):
        parts = [n * math.exp(z) for n, z in zip(COUNTS.tolist(), linear_logits(loss, x), strict=True)]
        each.append(-math.log(parts[y] / sum(parts)))
    assert loss(features, labels)["loss"].item() == pytest.approx(sum(each) / 6, rel=1e-5)


def test_logit_adjustment_adds_tau_times_the_log_of_the_share() -> None:
    features, labels = sample()
    loss = LogitAdjusted(4, COUNTS, tau=1.5)
    each = []
    for x, y in zip(features.tolist(), labels.tolist(), strict=True):
        logits = [z + 1.5 * math.log(n / 59) for z, n in zip(linear_logits(loss, x), COUNTS.tolist(), strict=True)]
        each.append(negative_log(logits, y))
    assert loss(features, labels)["loss"].item() == pytest.approx(sum(each) / 6, rel=1e-5)


@pytest.mark.parametrize("reweighted", [False, True])
def test_ldam_is_what_plain_loops_give(reweighted: bool) -> None:
    features, labels = sample()
    loss = Ldam(4, COUNTS, margin=0.4, scale=7.0, beta=0.99)
    loss.reweighted = reweighted
    margins = [0.4 * (1 / n) ** 0.25 for n in COUNTS.tolist()]
    effective = [(1 - 0.99) / (1 - 0.99**n) for n in COUNTS.tolist()]
    weights = [3 * e / sum(effective) if reweighted else 1.0 for e in effective]
    total = weight = 0.0
    for x, y in zip(features.tolist(), labels.tolist(), strict=True):
        logits = [7 * (cosine(x, w) - (margins[y] if c == y else 0)) for c, w in enumerate(loss.prototypes.tolist())]
        total += weights[y] * negative_log(logits, y)
        weight += weights[y]
    assert loss(features, labels)["loss"].item() == pytest.approx(total / weight, rel=1e-5)


def test_ldams_greatest_margin_is_the_rarest_classs() -> None:
    assert Ldam(4, torch.tensor([160, 10]), margin=0.3).margins.tolist() == pytest.approx([0.15, 0.3])


def same_parameters(loss: ClassLoss, other: ClassLoss) -> None:
    other.load_state_dict(
        {name: value for name, value in loss.state_dict().items() if name in dict(loss.named_parameters())},
        strict=False,
    )


@pytest.mark.parametrize("other", [BalancedSoftmax(4, torch.tensor([9, 9, 9])), LogitAdjusted(4, COUNTS, tau=0)])
def test_equal_counts_and_tau_zero_give_plain_cross_entropy(other: ClassLoss) -> None:
    features, labels = sample()
    plain = CrossEntropy(4, COUNTS)
    same_parameters(plain, other)
    assert other(features, labels)["loss"].item() == pytest.approx(plain(features, labels)["loss"].item(), rel=1e-6)


def test_balanced_softmax_is_logit_adjustment_with_tau_one() -> None:
    features, labels = sample()
    balanced, adjusted = BalancedSoftmax(4, COUNTS), LogitAdjusted(4, COUNTS)
    same_parameters(balanced, adjusted)
    assert torch.equal(balanced(features, labels)["loss"], adjusted(features, labels)["loss"])


def test_ldam_without_a_margin_is_the_normalised_softmax() -> None:
    features, labels = sample()
    loss = Ldam(4, COUNTS, margin=0.0, scale=9.0)
    expected = functional.cross_entropy(loss.scores(features), labels)
    assert loss(features, labels)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_ldam_agrees_with_the_cosface_of_pytorch_metric_learning_where_all_margins_are_equal() -> None:
    from pytorch_metric_learning.losses import CosFaceLoss

    features, labels = sample()
    loss = Ldam(4, torch.tensor([5, 5, 5]), margin=0.35, scale=16.0)
    theirs = CosFaceLoss(num_classes=3, embedding_size=4, margin=0.35, scale=16)
    theirs.W.data = loss.prototypes.detach().T.clone()
    assert loss(features, labels)["loss"].item() == pytest.approx(theirs(features, labels).item(), rel=1e-5)


def test_scores_hold_no_prior_and_no_margin() -> None:
    features, _ = sample()
    plain, adjusted = CrossEntropy(4, COUNTS), LogitAdjusted(4, COUNTS, tau=2.0)
    same_parameters(plain, adjusted)
    assert torch.equal(plain.scores(features), adjusted.scores(features))


EVERY = pytest.mark.parametrize("name", list(CHARACTER_LOSSES))


@EVERY
def test_every_loss_trains_features_and_its_own_parameters(name: str) -> None:
    features, labels = sample()
    features.requires_grad_(True)
    loss = CHARACTER_LOSSES[name](4, COUNTS)  # type: ignore[index]
    loss(features, labels)["loss"].backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in loss.parameters())


@EVERY
def test_every_loss_comes_back_from_its_state(name: str) -> None:
    features, labels = sample()
    loss, other = (CHARACTER_LOSSES[name](4, counts) for counts in (COUNTS, torch.tensor([1, 1, 1])))  # type: ignore[index]
    loss(features, labels)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(loss.scores(features), other.scores(features))
    assert torch.equal(loss.eval()(features, labels)["loss"], other.eval()(features, labels)["loss"])


@EVERY
def test_a_class_never_seen_counts_as_one_sample_and_is_reported(name: str) -> None:
    features, labels = sample()
    loss = CHARACTER_LOSSES[name](4, torch.tensor([5, 0, 2]))  # type: ignore[index]
    assert loss.unseen == [1]
    assert loss.counts.tolist() == [5, 1, 2]
    assert bool(loss(features, labels)["loss"].isfinite())


@EVERY
def test_no_samples_give_a_loss_of_zero_with_a_gradient(name: str) -> None:
    features = torch.zeros(0, 4, requires_grad=True)
    loss = CHARACTER_LOSSES[name](4, COUNTS)  # type: ignore[index]
    found = loss(features, torch.zeros(0, dtype=torch.int64))["loss"]
    found.backward()
    assert found.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in loss.parameters())


@EVERY
def test_losses_are_computed_in_float32_under_autocast(name: str) -> None:
    features, labels = sample()
    loss = CHARACTER_LOSSES[name](4, COUNTS).eval()  # type: ignore[index]
    plain = loss(features.bfloat16(), labels)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(features.bfloat16(), labels)["loss"]
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)


@EVERY
@pytest.mark.parametrize(("label", "number"), [(3, "3"), (-1, "-1"), (700, "700")])
def test_a_label_that_is_no_class_is_refused_by_name(name: str, label: int, number: str) -> None:
    features, labels = sample()
    labels[4] = label
    with pytest.raises(ValueError, match=rf"sample 4 has label {number}, and there are 3 classes"):
        CHARACTER_LOSSES[name](4, COUNTS)(features, labels)  # type: ignore[index]


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (torch.zeros(6, 5), torch.zeros(6, dtype=torch.int64), r"give \(M, 4\)"),
        (torch.zeros(6, 4), torch.zeros(5, dtype=torch.int64), "one int64 for each"),
        (torch.zeros(6, 4), torch.zeros(6), "one int64 for each"),
    ],
)
def test_other_shapes_and_types_are_refused(features: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CrossEntropy(4, COUNTS)(features, labels)


@pytest.mark.parametrize("counts", [[3.0, -1.0], [3.0, math.inf], [[1.0, 2.0]], [4.0]])
def test_counts_that_are_none_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="class counts"):
        CrossEntropy(4, torch.tensor(counts))


def test_counts_come_from_labels() -> None:
    assert class_counts(torch.tensor([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]


def test_counting_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 5, and there are 4 classes"):
        class_counts(torch.tensor([0, 5]), 4)
