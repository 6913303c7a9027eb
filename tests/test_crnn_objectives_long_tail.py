"""Method 3's loss: its three terms against plain loops, and its limiting cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from crnn.objectives.long_tail import LongTail, Regulariser, cosine_with_margin, norm_loss, spread_loss

COUNTS = torch.tensor([81, 16, 1])


def sample() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 2])


def angle(a: list[float], b: list[float]) -> float:
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return math.acos(dot / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b)))


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("root", [4.0, 2.0])
def test_the_margin_term_is_what_plain_loops_give(margin: float, root: float) -> None:
    features, labels = sample()
    loss = LongTail(4, COUNTS, scale=6.0, margin=margin, root=root)
    total = 0.0
    for x, y in zip(features.tolist(), labels.tolist(), strict=True):
        parts = []
        for c, w in enumerate(loss.prototypes.tolist()):
            theta, m = angle(x, w), margin / COUNTS[y].item() ** (1 / root) if c == y else 0.0
            parts.append(
                math.exp(6 * (math.cos(theta + m) if theta + m <= math.pi else math.cos(theta) - m * math.sin(m)))
            )
        total -= math.log(parts[y] / sum(parts))
    assert loss(features, labels)["margin"].item() == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize(("weights", "total"), [("one", 1), ("classes", 3)])
def test_the_spread_term_is_what_plain_loops_give(weights: str, total: int) -> None:
    features, labels = sample()
    loss = LongTail(4, COUNTS, weights=weights)  # type: ignore[arg-type]
    rarity = [1 / 3, 1 / 2, 1.0]  # fourth roots of 81, 16 and 1
    rows = loss.prototypes.tolist()
    expected = 0.0
    for i, w in enumerate(rows):
        nearest = min(angle(w, other) for j, other in enumerate(rows) if j != i)
        expected -= total * rarity[i] / sum(rarity) * nearest
    assert loss(features, labels)["spread"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("regulariser", ["ring", "squared", "inverse"])
def test_the_norm_term_is_what_plain_loops_give(regulariser: Regulariser) -> None:
    features, labels = sample()
    norms = [math.sqrt(sum(v * v for v in x)) for x in features.tolist()]
    g = {"ring": lambda n: (n - 1.5) ** 2, "squared": lambda n: n * n, "inverse": lambda n: 1 / n}[regulariser]
    loss = LongTail(4, COUNTS, regulariser=regulariser, radius=1.5)
    assert loss(features, labels)["norm"].item() == pytest.approx(sum(map(g, norms)) / 6, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    features, labels = sample()
    found = LongTail(4, COUNTS, spread=0.3, norm=0.02)(features, labels)
    expected = found["margin"] + 0.3 * found["spread"] + 0.02 * found["norm"]
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_margin_and_regularisers_it_is_normalised_softmax_cross_entropy() -> None:
    features, labels = sample()
    loss = LongTail(4, COUNTS, scale=8.0, margin=0.0, spread=0.0, norm=0.0)
    logits = 8 * functional.normalize(features) @ functional.normalize(loss.prototypes).T
    assert loss(features, labels)["loss"].item() == pytest.approx(
        functional.cross_entropy(logits, labels).item(), rel=1e-6
    )


def test_without_a_margin_it_agrees_with_the_normalised_softmax_of_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

    features, labels = sample()
    loss = LongTail(4, COUNTS, scale=20.0, margin=0.0)
    theirs = NormalizedSoftmaxLoss(num_classes=3, embedding_size=4, temperature=1 / 20)
    theirs.W.data = loss.prototypes.detach().T.clone()
    assert loss(features, labels)["margin"].item() == pytest.approx(theirs(features, labels).item(), rel=1e-5)


@pytest.mark.parametrize("margin", [0.2, 1.0, 1.5])
def test_equal_counts_agree_with_the_arcface_of_pytorch_metric_learning(margin: float) -> None:
    from pytorch_metric_learning.losses import ArcFaceLoss

    torch.manual_seed(3)
    features, labels = torch.randn(64, 4), torch.arange(64) % 3
    loss = LongTail(4, torch.ones(3), scale=10.0, margin=margin)
    theirs = ArcFaceLoss(num_classes=3, embedding_size=4, margin=math.degrees(margin), scale=10)
    theirs.W.data = loss.prototypes.detach().T.clone()
    assert loss(features, labels)["margin"].item() == pytest.approx(theirs(features, labels).item(), rel=1e-4)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.0, math.pi / 2])
def test_the_cosine_falls_with_the_angle_also_past_pi(margin: float) -> None:
    theta = torch.linspace(0.01, math.pi - 0.01, 500, dtype=torch.float64)
    found = cosine_with_margin(theta.cos(), torch.tensor(margin, dtype=torch.float64))
    assert bool((found[1:] < found[:-1]).all())


def test_gradients_are_finite_where_a_feature_lies_on_a_prototype_or_opposite() -> None:
    loss = LongTail(2, torch.tensor([1, 1]))
    loss.prototypes.data = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    features = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], requires_grad=True)
    loss(features, torch.tensor([0, 1]))["loss"].backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())
    assert bool(loss.prototypes.grad.isfinite().all())  # type: ignore[union-attr]


def test_a_zero_feature_has_finite_gradients() -> None:
    for regulariser in ("ring", "squared", "inverse"):
        features = torch.zeros(1, 4, requires_grad=True)
        LongTail(4, COUNTS, regulariser=regulariser)(features, torch.tensor([0]))["loss"].backward()  # type: ignore[arg-type]
        assert features.grad is not None
        assert bool(features.grad.isfinite().all())


def test_rarer_classes_have_greater_margins_and_are_spread_more() -> None:
    loss = LongTail(4, COUNTS, margin=0.6)
    assert loss.margins.tolist() == pytest.approx([0.2, 0.3, 0.6])
    assert loss.spread_weights.tolist() == pytest.approx([2 / 11, 3 / 11, 6 / 11])


def test_equal_counts_spread_all_prototypes_alike() -> None:
    prototypes = torch.eye(3)
    assert LongTail(3, torch.full((3,), 7.0)).spread_weights.tolist() == pytest.approx([1 / 3] * 3)
    assert spread_loss(prototypes, torch.full((3,), 1 / 3)).item() == pytest.approx(-math.pi / 2)


def test_minimising_the_spread_term_drives_prototypes_apart() -> None:
    torch.manual_seed(0)
    prototypes = torch.nn.Parameter(torch.randn(3, 2) * 0.1 + torch.tensor([1.0, 0.0]))
    optimiser = torch.optim.SGD([prototypes], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        spread_loss(prototypes, torch.full((3,), 1 / 3)).backward()
        optimiser.step()
    assert spread_loss(prototypes, torch.full((3,), 1 / 3)).item() == pytest.approx(-2 * math.pi / 3, abs=0.1)


def test_the_norm_term_never_reaches_the_logits() -> None:
    features, labels = sample()
    loss = LongTail(4, COUNTS)
    assert torch.allclose(loss.scores(features), loss.scores(7 * features), atol=1e-5)
    assert loss(features, labels)["margin"].item() == pytest.approx(
        loss(7 * features, labels)["margin"].item(), rel=1e-5
    )


def test_only_the_ring_learns_a_radius() -> None:
    assert LongTail(4, COUNTS).radius is not None
    assert LongTail(4, COUNTS, regulariser="squared").radius is None
    radius = torch.tensor(1.0, requires_grad=True)
    norm_loss(torch.full((1, 4), 1.0), "ring", radius).backward()
    assert radius.grad is not None
    assert radius.grad.item() == pytest.approx(-2.0)


@pytest.mark.parametrize(
    "wrong",
    [{"margin": 1.7}, {"margin": -0.1}, {"scale": 0.0}, {"root": 0.0}, {"regulariser": "cube"}, {"weights": "two"}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"give (0 to pi/2|numbers above 0|one )"):
        LongTail(4, COUNTS, **wrong)  # type: ignore[arg-type]
