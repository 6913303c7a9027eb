"""PK batches: what they hold, that they come again, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from crnn.objectives.pk_sampling import PKSampler

LABELS = [7] * 10 + [3] * 5 + [9] * 2 + [4]


def test_a_batch_has_p_distinct_classes_with_k_samples_each() -> None:
    for batch in PKSampler(LABELS, classes=3, samples=2, batches=20):
        assert sorted(Counter(LABELS[i] for i in batch).values()) == [2, 2, 2]


def test_a_class_with_enough_samples_gives_each_at_most_once() -> None:
    for batch in PKSampler(LABELS, classes=4, samples=5, batches=20):
        own = [i for i in batch if LABELS[i] in (7, 3)]
        assert len(set(own)) == len(own)


def test_a_short_class_repeats_its_samples_evenly() -> None:
    for batch in PKSampler(LABELS, classes=4, samples=5, batches=20):
        assert sorted(Counter(i for i in batch if LABELS[i] == 9).values()) == [2, 3]
        assert Counter(i for i in batch if LABELS[i] == 4) == {17: 5}


def test_a_short_class_is_refused_by_name_where_asked() -> None:
    with pytest.raises(ValueError, match="class 4 has 1 samples, and K = 2"):
        PKSampler(LABELS, classes=2, samples=2, batches=1, short="refuse")


def test_more_classes_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="P = 5 classes were asked for, and the labels have 4"):
        PKSampler(LABELS, classes=5, samples=2, batches=1)


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"samples": 0}, {"batches": 0}])
def test_nothing_to_draw_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give at least 1 each"):
        PKSampler(LABELS, **{"classes": 2, "samples": 2, "batches": 1} | wrong)


def test_batches_come_again_by_seed_epoch_and_number() -> None:
    one, same, other = (PKSampler(LABELS, 2, 3, 4, seed=seed) for seed in (1, 1, 2))
    assert list(one) == list(same)
    assert list(one) != list(other)
    first = list(one)
    one.epoch = 1
    assert list(one) != first
    one.epoch = 0
    assert one.batch(2) == first[2]


def test_every_class_and_every_sample_is_drawn_in_time() -> None:
    drawn = [i for batch in PKSampler(LABELS, 2, 2, 200) for i in batch]
    assert set(drawn) == set(range(len(LABELS)))
    classes = Counter(LABELS[i] for i in drawn)
    assert min(classes.values()) > 0.7 * max(classes.values())


def test_it_serves_a_loader_as_batch_sampler() -> None:
    sampler = PKSampler(LABELS, 3, 2, 5)
    loader = DataLoader(TensorDataset(torch.tensor(LABELS)), batch_sampler=sampler)
    assert [len(labels) for (labels,) in loader] == [6] * 5
    assert len(loader) == 5
