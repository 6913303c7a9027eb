"""The benchmark of learnt characters: what is held out, what is read, and what its table says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import learn_characters
from benchmarks.character_runs import CropSet, Training
from benchmarks.learn_characters import (
    ARMS,
    LOSSES,
    LearnCharactersOptions,
    Lesson,
    Network,
    Read,
    Task,
    apart,
    batches_of,
    best_loss,
    drawn_support,
    figures,
    intervals,
    learn_table,
    new_classes,
    ranks,
    read_rows,
    read_task,
    test_task,
    trained,
    tuning_task,
)

test_task.__test__ = False  # type: ignore[attr-defined]  # a function of the benchmark, no test


def crops(classes: int = 10, each: int = 20) -> CropSet:
    """Squares whose grey tells the class."""
    numbers = np.repeat(np.arange(classes), each)
    greys = (numbers * 200 // classes)[:, None, None, None] + np.random.default_rng(0).integers(0, 12, (1, 16, 16, 1))
    return CropSet(greys.astype(np.uint8), numbers, tuple("abcdefghijklmnopqrst"[:classes]))


def known_task(separated: float = 10.0) -> tuple[Task, Network]:
    """Two old classes and one new, along three axes of an embedding; the classifier scores the first two."""
    generator = np.random.default_rng(1)
    sets, found, scores = {}, {}, {}
    for name, numbers, classes, axis in (
        ("training", [0, 1], "ab", 0), ("memory", [0, 1] * 20, "ab", 0), ("support", [0] * 12, "c", 2),
        ("old", [0, 1] * 15, "ab", 0), ("new", [0] * 9, "c", 2),
    ):  # fmt: skip
        sets[name] = CropSet(np.zeros((len(numbers), 16, 16, 1), np.uint8), np.array(numbers), tuple(classes))
        found[name] = generator.normal(size=(len(numbers), 4)).astype(np.float32)
        found[name][np.arange(len(numbers)), np.array(numbers) + axis] += separated
        scores[name] = found[name][:, :2]
    return Task(**sets), Network(np.eye(2, 4, dtype=np.float32), found, scores)


def test_every_fifth_class_is_new_and_every_tenth_crop_is_remembered() -> None:
    made = crops()
    assert new_classes(made.classes) == ["e", "j"]
    task = test_task(made, made)
    assert task.old.classes == task.training.classes == tuple("abcdfghi")
    assert task.support.classes == task.new.classes == ("e", "j")
    assert (len(task.training), len(task.memory), len(task.support)) == (8 * 18, 8 * 2, 2 * 20)
    assert np.bincount(task.memory.numbers).tolist() == [2] * 8
    with pytest.raises(ValueError, match="differ"):
        test_task(made, crops(9))


def test_tuning_sees_no_crop_of_the_held_out_classes_and_no_crop_twice() -> None:
    made = replace(crops(), pictures=np.arange(200, dtype=np.uint8)[:, None, None, None])
    task = tuning_task(made)
    parts = [getattr(task, name).pictures.ravel().tolist() for name in ("training", "memory", "support", "old", "new")]
    used = [place for part in parts for place in part]
    held_out = set(apart(made)[1].pictures.ravel().tolist())
    assert len(used) == len(set(used)) == 160
    assert not held_out & set(used)
    assert task.new.classes == ("f",)


def test_ranks_count_within_a_class() -> None:
    made = CropSet(np.zeros((5, 1, 1, 1), np.uint8), np.array([1, 0, 1, 1, 0]), ("a", "b"))
    assert ranks(made).tolist() == [0, 0, 1, 2, 1]


def test_every_draw_takes_other_crops_of_every_class() -> None:
    made = crops()
    one, same, other = (drawn_support(made, 5, draw).tolist() for draw in (0, 0, 1))
    assert one == same != other
    assert np.bincount(made.numbers[one]).tolist() == [5] * 10
    assert len(set(one)) == 50


@pytest.mark.parametrize("arm", ARMS)
def test_classes_far_apart_are_read_by_every_arm(arm: str) -> None:
    task, network = known_task()
    read = read_task(task, [network], arm, 5)
    assert read.before.all()
    assert read.after.mean() > 0.99
    assert read.new.shape == (10, 9)
    assert read.new.mean() > 0.99


def test_more_that_may_be_lost_reads_more_new_crops() -> None:
    task, network = known_task(2.0)
    strict, lenient = (read_task(task, [network], arm, 5).new.mean() for arm in ("rule", "lenient"))
    assert strict < lenient


def test_the_peer_takes_the_greatest_cosine_among_all_centres() -> None:
    task, network = known_task(1.0)
    lesson = Lesson(task, network, np.array([0, 3]))
    found = lesson.after("nearest")["old"]
    for crop, number in zip(network.embeddings["old"], found, strict=True):
        support = [e / np.linalg.norm(e) for e in network.embeddings["support"][[0, 3]]]
        mean = (support[0] + support[1]) / 2
        cosines = [crop[0], crop[1], float(crop @ mean) / float(np.linalg.norm(mean))]
        assert number == int(np.argmax(cosines))


def test_cosine_margins_are_what_they_say() -> None:
    task, network = known_task(1.0)
    lesson = Lesson(task, network, np.array([4]))
    margins = lesson.margins("cosine", "new")
    new = network.embeddings["support"][4] / np.linalg.norm(network.embeddings["support"][4])
    for crop, margin in zip(network.embeddings["new"], margins[:, 0], strict=True):
        unit = crop / np.linalg.norm(crop)
        assert margin == pytest.approx(float(unit @ new) - max(unit[0], unit[1]), abs=1e-6)


def test_figures_are_means_over_readings_and_intervals_over_crops() -> None:
    before = np.array([[True, True, False, True], [True, True, False, True]])
    after = np.array([[True, False, False, True], [True, True, False, True]])
    read = Read(before, after, before != after, np.array([[True, False], [True, True]]))
    found = figures(read)
    assert (found["old_before"], found["old_after"], found["lost"], found["worst"]) == (0.75, 0.625, 0.125, 0.25)
    assert (found["changed"], found["new"], found["new_range"]) == (0.125, 0.75, [0.5, 1.0])
    low, high = intervals(read)["lost_interval"]
    assert low == 0
    assert 0.125 < high <= 0.5


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_its_network_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    torch.set_num_threads(1)
    small = Training(1, 64, 4e-3, width=0.25, embedding=8, side=16)
    monkeypatch.setattr(learn_characters, "training_of", lambda options: small)
    made = crops(20, 20)
    task, options = test_task(made, made), LearnCharactersOptions(out=tmp_path)
    network = trained(options, "test", task, loss, 0)
    again = trained(options, "test", task, loss, 0)
    assert network.centres.shape == (16, 8)
    assert {name: len(found) for name, found in network.embeddings.items()} == {
        "memory": 32, "support": 80, "old": 320, "new": 80,
    }  # fmt: skip
    assert np.array_equal(network.embeddings["old"], again.embeddings["old"])
    assert "support" not in network.scores


def test_losses_that_compare_crops_get_several_of_a_class() -> None:
    made = crops(20, 20)
    task = test_task(made, made)
    batch = next(batches_of(task, "centre-triplet", 0)(0))
    assert set(np.bincount(task.training.numbers[batch]).tolist()) == {4}
    assert sum(map(len, batches_of(task, "long-tail", 0)(0))) == len(task.training)


def test_the_loss_that_keeps_the_old_and_reads_most_new_is_taken() -> None:
    rows = [
        {"loss": "a", "lost": 0.002, "new": 0.9}, {"loss": "b", "lost": 0.001, "new": 0.2},
        {"loss": "c", "lost": 0.0, "new": 0.1},
    ]  # fmt: skip
    assert best_loss(rows) == "b"
    assert best_loss(rows[:1]) == "a"


def results(lost: float = 0.0) -> dict[str, Any]:
    task, network = known_task()
    rows = read_rows(task, [network])
    for row in rows:
        row["lost"] = lost
    tuning = [{"loss": "long-tail", "new": 0.1, "lost": 0.0, "recall_at_1": 0.8, "rows": rows}]
    return {
        "classes": {"old": 2, "new": 1}, "crops": {"training": 2, "memory": 40, "old": 30, "new": 9}, "seeds": 1,
        "draws": 10, "loss": "long-tail", "rows": rows, "tuning": tuning,
    }  # fmt: skip


def test_the_table_tells_every_arm_and_judges_the_default() -> None:
    made = learn_table(results())
    assert all(made.count(f"| {what} |") == 2 for what in ARMS.values())
    assert made.count("| confirmed |") == 2
    assert "long-tail (method 3) (chosen)" in made
    assert learn_table(results(0.002)).count("| not confirmed |") == 2
