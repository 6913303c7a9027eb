"""How well single characters are told apart, against slow recomputation and against pytorch-metric-learning."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crnn.characters.metrics import (
    accuracy,
    by_frequency,
    class_accuracies,
    look_alikes,
    macro_accuracy,
    retrieval,
)


def drawn(count: int, classes: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Embeddings that lean towards their class, and labels."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, classes, count)
    means = generator.standard_normal((classes, 8))
    return (means[numbers] + generator.standard_normal((count, 8))).astype(np.float32), [f"c{n}" for n in numbers]


def slow_retrieval(embeddings: np.ndarray, labels: list[str]) -> tuple[float, float]:
    """Recall@1 and mAP, one query and one rank after the other."""
    unit = [row / np.linalg.norm(row) for row in embeddings.astype(np.float64)]
    hits, precisions = [], []
    for i, query in enumerate(unit):
        others = sorted((j for j in range(len(unit)) if j != i), key=lambda j: -float(query @ unit[j]))
        same = [labels[j] == labels[i] for j in others]
        if not any(same):
            continue
        hits.append(same[0])
        precisions.append(np.mean([sum(same[: rank + 1]) / (rank + 1) for rank in range(len(same)) if same[rank]]))
    return float(np.mean(hits)), float(np.mean(precisions))


def test_retrieval_is_what_a_slow_ranking_gives() -> None:
    embeddings, labels = drawn(90, 7, 0)
    found = retrieval(embeddings, labels)
    recall, precision = slow_retrieval(embeddings, labels)
    assert found.recall_at_1 == pytest.approx(recall)
    assert found.mean_average_precision == pytest.approx(precision)
    assert (found.queries, found.lone) == (90, 0)


@pytest.mark.filterwarnings("ignore")  # of the peer's dependencies
def test_retrieval_is_what_pytorch_metric_learning_gives() -> None:
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    torch = pytest.importorskip("torch")
    embeddings, labels = drawn(300, 9, 1)
    numbers = torch.tensor([int(label[1:]) for label in labels])
    calculator = calculators.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision"), k=None, device=torch.device("cpu"),
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
    )  # fmt: skip
    theirs = calculator.get_accuracy(torch.from_numpy(embeddings), numbers)
    ours = retrieval(embeddings, labels)
    assert ours.recall_at_1 == pytest.approx(theirs["precision_at_1"])
    assert ours.mean_average_precision == pytest.approx(theirs["mean_average_precision"], abs=1e-6)


def test_a_crop_alone_in_its_class_asks_nothing_but_is_a_wrong_answer_to_others() -> None:
    embeddings = np.array([[1, 0], [0.6, 0.8], [1, 0.1]], np.float32)
    found = retrieval(embeddings, ["a", "a", "b"])
    assert (found.queries, found.lone) == (2, 1)
    assert found.recall_at_1 == 0  # the b lies nearest to both
    assert found.mean_average_precision == pytest.approx(0.5)


def test_without_two_crops_of_a_class_there_is_no_retrieval() -> None:
    found = retrieval(np.eye(3, dtype=np.float32), ["a", "b", "c"])
    assert math.isnan(found.recall_at_1)
    assert (found.queries, found.lone) == (0, 3)


def test_retrieval_does_not_depend_on_lengths() -> None:
    embeddings, labels = drawn(50, 4, 2)
    assert retrieval(embeddings * np.linspace(0.1, 9, 50, dtype=np.float32)[:, None], labels) == retrieval(
        embeddings, labels
    )


def test_blocks_of_queries_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = drawn(64, 5, 3)
    whole = retrieval(embeddings, labels)
    monkeypatch.setattr("crnn.characters.metrics.BLOCK", 7)
    assert retrieval(embeddings, labels) == pytest.approx(whole)


def test_macro_accuracy_counts_every_class_once() -> None:
    labels, found = list("aaab"), list("aaac")
    assert accuracy(labels, found) == 0.75
    assert class_accuracies(labels, found) == {"a": 1.0, "b": 0.0}
    assert macro_accuracy(labels, found) == 0.5


def test_classes_are_grouped_by_their_training_crops() -> None:
    groups = by_frequency(list("aabbcd"), list("abbbcc"), {"a": 101, "b": 100, "c": 20, "d": 19})
    assert groups["many"] == (1, 2, 0.5)
    assert groups["medium"] == (2, 3, 1.0)
    assert groups["few"] == (1, 1, 0.0)


def test_a_class_that_was_never_trained_is_one_of_few() -> None:
    assert by_frequency(["x"], ["a"], {"a": 500})["few"] == (1, 1, 0.0)


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        by_frequency(["a"], ["a"], {"a": 1}, many=5, few=20)


def test_look_alikes_are_pairs_with_both_directions_the_most_frequent_first() -> None:
    assert [tuple(pair) for pair in look_alikes(list("OOO000lIx"), list("0O00OOlxx"))] == [
        ("0", "O", 2, 2, 6),
        ("I", "x", 1, 0, 2),
    ]
    assert look_alikes(list("IIl"), list("llI"))[0] == ("I", "l", 2, 1, 3)
    assert look_alikes(list("ab"), list("ab")) == []


def test_figures_of_nothing_are_nan() -> None:
    assert math.isnan(accuracy([], []))
    assert math.isnan(macro_accuracy([], []))


def test_a_label_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="1 classes were found for 2 labels"):
        accuracy(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="3 embeddings"):
        retrieval(np.eye(3, dtype=np.float32), ["a"])
