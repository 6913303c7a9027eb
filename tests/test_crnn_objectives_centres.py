"""Method 4: the three centre rules and the triplets, against plain loops; what centres never get, and never are."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from crnn.objectives.centres import (
    CENTRE_RULES,
    CentreLoss,
    CentreLossRule,
    CentreTriplet,
    ClassifierWeights,
    MovingAverage,
    centre_loss,
)

COUNTS = torch.tensor([5, 3, 1, 4])


def sample(seed: int = 0) -> tuple[Tensor, Tensor]:
    """7 samples in classes 0, 1 and 2 of 4; class 2 has one."""
    torch.manual_seed(seed)
    return torch.randn(7, 3), torch.tensor([1, 0, 0, 1, 2, 0, 1])


def of_class(features: Tensor, labels: Tensor, c: int) -> list[list[float]]:
    return [x for x, y in zip(features.tolist(), labels.tolist(), strict=True) if y == c]


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def squared(a: list[float], b: list[float]) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def test_the_moving_average_takes_the_first_mean_itself_and_then_decays() -> None:
    rule = MovingAverage(4, 3, decay=0.8)
    expected = [[0.0] * 3 for _ in range(4)]
    for round_ in range(3):
        features, labels = sample(round_)
        rule.update(features, labels)
        for c in range(3):
            now = mean(of_class(features, labels, c))
            y = 0.8 if round_ else 0.0
            expected[c] = [y * v + (1 - y) * x for v, x in zip(expected[c], now, strict=True)]
    assert torch.allclose(rule.centres(), torch.tensor(expected), atol=1e-6)


def test_the_moving_average_does_not_depend_on_the_order_in_the_batch() -> None:
    features, labels = sample()
    rule, other = MovingAverage(4, 3), MovingAverage(4, 3)
    order = torch.randperm(7)
    for _ in range(2):
        rule.update(features, labels)
        other.update(features[order], labels[order])
    assert torch.allclose(rule.centres(), other.centres(), atol=1e-6)


def test_without_decay_the_centre_is_the_batchs_mean() -> None:
    rule = MovingAverage(4, 3, decay=0.0)
    for seed in range(2):
        features, labels = sample(seed)
        rule.update(features, labels)
    assert rule.centres()[0].tolist() == pytest.approx(mean(of_class(features, labels, 0)), abs=1e-6)


def test_the_centre_loss_rule_is_what_plain_loops_give() -> None:
    rule = CentreLossRule(4, 3, rate=0.3)
    expected = [[0.0] * 3 for _ in range(4)]
    for round_ in range(3):
        features, labels = sample(round_)
        rule.update(features, labels)
        for c in range(3):
            own = of_class(features, labels, c)
            for d in range(3):
                delta = sum(expected[c][d] - x[d] for x in own) / (1 + len(own))
                expected[c][d] -= 0.3 * delta
    assert torch.allclose(rule.centres(), torch.tensor(expected), atol=1e-6)


def test_a_centre_stands_still_where_features_lie_on_it() -> None:
    rule = CentreLossRule(2, 3)
    rule.kept[0] = torch.tensor([1.0, 2.0, 3.0])
    rule.update(torch.tensor([[1.0, 2.0, 3.0]] * 4), torch.zeros(4, dtype=torch.int64))
    assert rule.centres()[0].tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_centre_loss_and_its_gradient_are_the_published_ones() -> None:
    features, labels = sample()
    features.requires_grad_(True)
    centres = torch.randn(4, 3)
    found = centre_loss(features, labels, centres)
    pairs = list(zip(features.tolist(), labels.tolist(), strict=True))
    assert found.item() == pytest.approx(sum(squared(x, centres[y].tolist()) for x, y in pairs) / 2, rel=1e-5)
    found.backward()
    assert features.grad is not None
    assert torch.allclose(features.grad, features.detach() - centres[labels])


def test_the_rules_own_centre_loss_is_weighted_and_a_mean() -> None:
    features, labels = sample()
    rule = CentreLossRule(4, 3, weight=0.2)
    rule.update(features, labels)
    found = rule.loss(features, labels)
    assert found is not None
    assert found.item() == pytest.approx(0.2 * centre_loss(features, labels, rule.centres()).item() / 7, rel=1e-6)
    assert CentreLossRule(4, 3).loss(features, labels) is None


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_classifier_rows_are_trained_by_the_cosface_of_pytorch_metric_learning(margin: float) -> None:
    from pytorch_metric_learning.losses import CosFaceLoss

    features, labels = sample()
    rule = ClassifierWeights(4, 3, scale=12.0, margin=margin)
    theirs = CosFaceLoss(num_classes=4, embedding_size=3, margin=margin, scale=12)
    theirs.W.data = rule.rows.detach().T.clone()
    found = rule.loss(features, labels)
    assert found is not None
    assert found.item() == pytest.approx(theirs(features, labels).item(), rel=1e-5)


def test_classifier_rows_and_features_meet_normalised() -> None:
    features, _ = sample()
    rule = ClassifierWeights(4, 3)
    rule.rows.data *= 5
    assert torch.allclose(rule.centres().norm(dim=1), torch.ones(4))
    assert torch.allclose(rule.compared(features).norm(dim=1), torch.ones(7))


def all_known(mining: str, seed: int = 1, margin: float = 0.7) -> CentreTriplet:
    """Triplets with planted centres, all of them known, that no update moves."""
    loss = CentreTriplet(3, COUNTS, mining=mining, margin=margin).eval()  # type: ignore[arg-type]
    assert isinstance(loss.rule, MovingAverage)
    torch.manual_seed(seed)
    loss.rule.kept.copy_(torch.randn(4, 3))
    loss.rule.updated.fill_(True)
    return loss


def plain_loops(loss: CentreTriplet, features: Tensor, labels: Tensor, mining: str) -> float:
    centres = loss.rule.centres().tolist()
    each = []
    for c in sorted(set(labels.tolist())):
        own = [squared(x, centres[c]) for x in of_class(features, labels, c)]
        others = [squared(x, centres[c]) for k in set(labels.tolist()) - {c} for x in of_class(features, labels, k)]
        if mining == "hard":
            each.append(max(max(own) - min(others) + loss.margin, 0.0))
        else:
            each += [max(p - n + loss.margin, 0.0) for p in own for n in others]
    return sum(each) / len(each)


@pytest.mark.parametrize("mining", ["hard", "plain"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_triplets_are_what_plain_loops_give(mining: str, seed: int) -> None:
    features, labels = sample(seed)
    loss = all_known(mining, seed + 5)
    assert loss(features, labels)["triplet"].item() == pytest.approx(
        plain_loops(loss, features, labels, mining), rel=1e-5
    )


@pytest.mark.parametrize("mining", ["hard", "plain"])
def test_triplets_agree_with_pytorch_metric_learning_where_centres_are_the_anchors(mining: str) -> None:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    features, labels = sample()
    loss = all_known(mining)
    anchors, classes = loss.rule.centres()[:3], torch.arange(3)
    distance = LpDistance(normalize_embeddings=False, p=2, power=2)
    theirs = TripletMarginLoss(margin=0.7, distance=distance, reducer=MeanReducer())
    triplets = BatchHardMiner(distance=distance)(anchors, classes, features, labels) if mining == "hard" else None
    expected = theirs(anchors, classes, triplets, features, labels)
    assert loss(features, labels)["triplet"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("mining", ["hard", "plain"])
def test_features_on_their_centres_and_far_from_others_cost_nothing(mining: str) -> None:
    loss = all_known(mining)
    labels = torch.tensor([0, 1, 2])
    loss.rule.kept.copy_(torch.eye(4)[:, :3] * 10)  # type: ignore[union-attr, operator]
    assert loss(loss.rule.centres()[:3], labels)["loss"].item() == 0


@pytest.mark.parametrize("mining", ["hard", "plain"])
@pytest.mark.parametrize("rule", list(CENTRE_RULES))
def test_gradients_do_not_reach_centres(rule: str, mining: str) -> None:
    features, labels = sample()
    features.requires_grad_(True)
    loss = CentreTriplet(3, COUNTS, rule=CENTRE_RULES[rule], mining=mining, margin=5.0)  # type: ignore[arg-type]
    for p in loss.parameters():
        p.data += 0.1  # a step was taken: the classifier's rows are no longer the initial ones
    loss(features, labels)["triplet"].backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert not loss.rule.centres().requires_grad
    assert all(p.grad is None for p in loss.parameters())
    assert all(not buffer.requires_grad for buffer in loss.buffers())


def test_centres_are_up_to_date_before_they_are_anchors() -> None:
    features, labels = sample()
    loss = CentreTriplet(3, COUNTS, mining="plain")
    found = loss(features, labels)["triplet"].item()
    assert loss.rule.centres()[0].tolist() == pytest.approx(mean(of_class(features, labels, 0)), abs=1e-6)
    assert found == pytest.approx(plain_loops(loss, features, labels, "plain"), rel=1e-5)


def test_a_batch_may_be_backpropagated_after_the_next_one_moved_the_centres() -> None:
    features, labels = sample()
    features.requires_grad_(True)
    loss = CentreTriplet(3, COUNTS)
    total = loss(features, labels)["loss"] + loss(features * 2, labels)["loss"]
    total.backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())


def test_centres_stand_still_outside_training() -> None:
    loss = CentreTriplet(3, COUNTS).eval()
    loss(*sample())
    assert not loss.rule.known().any()


def test_only_trusted_samples_move_centres() -> None:
    features, labels = sample()
    trusted = torch.tensor([True, True, False, False, False, True, False])
    loss = CentreTriplet(3, COUNTS)
    loss(features, labels, trusted)
    expected = MovingAverage(4, 3)
    expected.update(features[trusted], labels[trusted])
    assert torch.equal(loss.rule.centres(), expected.centres())
    assert loss.rule.known().tolist() == [True, True, False, False]


@pytest.mark.parametrize("mining", ["hard", "plain"])
def test_a_class_whose_centre_is_initial_is_no_anchor(mining: str) -> None:
    features, labels = sample()
    loss = all_known(mining)
    loss.rule.updated[1] = False  # type: ignore[union-attr, operator, index]
    found = loss(features, labels)["triplet"].item()
    centres = loss.rule.centres().tolist()
    each: list[float] = []
    for c in (0, 2):
        own = [squared(x, centres[c]) for x in of_class(features, labels, c)]
        others = [squared(x, centres[c]) for k in {0, 1, 2} - {c} for x in of_class(features, labels, k)]
        pairs = [(max(own), min(others))] if mining == "hard" else [(p, n) for p in own for n in others]
        each += [max(p - n + loss.margin, 0.0) for p, n in pairs]
    assert found == pytest.approx(sum(each) / len(each), rel=1e-5)


@pytest.mark.parametrize("mining", ["hard", "plain"])
def test_without_any_known_centre_the_triplets_are_zero_with_a_gradient(mining: str) -> None:
    features, labels = sample()
    features.requires_grad_(True)
    loss = CentreTriplet(3, COUNTS, mining=mining)(features, labels, torch.zeros(7, dtype=torch.bool))  # type: ignore[arg-type]
    loss["loss"].backward()
    assert loss["loss"].item() == 0
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("mining", ["hard", "plain"])
def test_a_batch_of_one_class_has_no_triplets(mining: str) -> None:
    features, _ = sample()
    loss = CentreTriplet(3, COUNTS, mining=mining)  # type: ignore[arg-type]
    assert loss(features, torch.full((7,), 2))["loss"].item() == 0
    assert loss.rule.known().tolist() == [False, False, True, False]


def test_classifier_rows_are_no_anchors_before_a_step_renewed_them() -> None:
    features, labels = sample()
    loss = CentreTriplet(3, COUNTS, rule=ClassifierWeights, margin=3.0)
    first = loss(features, labels)
    assert first["triplet"].item() == 0
    torch.optim.SGD(loss.parameters(), 0.1).zero_grad()
    first["loss"].backward()
    torch.optim.SGD(loss.parameters(), 0.1).step()
    assert loss(features, labels)["triplet"].item() > 0


def test_the_nearest_centre_is_what_is_read_and_never_an_unknown_one() -> None:
    loss = all_known("hard")
    features = loss.rule.centres()[[3, 1]] + 0.001
    assert loss.scores(features).argmax(1).tolist() == [3, 1]
    loss.rule.updated[3] = False  # type: ignore[union-attr, operator, index]
    assert loss.scores(features)[:, 3].tolist() == [-torch.inf] * 2
    assert loss.scores(features).argmax(1)[0].item() != 3


def test_scores_are_minus_squared_distances() -> None:
    features, _ = sample()
    loss = all_known("hard")
    expected = [[-squared(x, c) for c in loss.rule.centres().tolist()] for x in features.tolist()]
    assert torch.allclose(loss.scores(features), torch.tensor(expected), atol=1e-5)


def test_features_may_be_normalised_before_they_meet_centres() -> None:
    features, labels = sample()
    loss = CentreTriplet(3, COUNTS, rule=partial(MovingAverage, normalise=True))
    loss(features, labels)
    unit = features / features.norm(dim=1, keepdim=True)
    assert loss.rule.centres()[0].tolist() == pytest.approx(mean(of_class(unit, labels, 0)), abs=1e-6)


def test_centre_loss_with_softmax_is_their_weighted_sum_on_the_centres_before_the_update() -> None:
    features, labels = sample()
    loss = CentreLoss(3, COUNTS, weight=0.3)
    loss(features, labels)
    before = loss.rule.centres()
    found = loss(features, labels)
    assert found["centre"].item() == pytest.approx(centre_loss(features, labels, before).item() / 7, rel=1e-5)
    assert found["loss"].item() == pytest.approx((found["softmax"] + 0.3 * found["centre"]).item(), rel=1e-6)
    assert not torch.equal(loss.rule.centres(), before)


def test_without_weight_centre_loss_is_cross_entropy() -> None:
    features, labels = sample()
    found = CentreLoss(3, COUNTS, weight=0.0)(features, labels)
    assert found["loss"].item() == found["softmax"].item()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MovingAverage(4, 3, decay=1.0), "decay is 1.0"),
        (lambda: CentreLossRule(4, 3, rate=0.0), "rate is 0.0"),
        (lambda: ClassifierWeights(4, 3, scale=0.0), "scale 0.0"),
        (lambda: CentreTriplet(3, COUNTS, mining="soft"), "'soft' is not known; give hard or plain"),  # type: ignore[arg-type]
        (lambda: CentreTriplet(3, COUNTS, margin=-1.0), "margin is -1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]
