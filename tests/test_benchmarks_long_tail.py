"""The long-tail benchmark: how a set is cut, what is kept, and what its table says of claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.character_runs import (
    CropSet,
    Training,
    embeddings,
    kept,
    shuffled_batches,
    spread,
    train_characters,
    with_rates,
)
from benchmarks.long_tail import (
    ARMS,
    SETTINGS,
    LongTailOptions,
    arms_so_far,
    claims,
    figures,
    holds,
    long_tail_table,
    long_tailed,
)
from crnn.objectives.classification import CrossEntropy


def crops(classes: int = 5, each: int = 40) -> CropSet:
    """Crops of one grey a class, in the order of classes."""
    numbers = np.repeat(np.arange(classes), each)
    pictures = np.broadcast_to((numbers * 50)[:, None, None, None], (len(numbers), 16, 16, 1)).astype(np.uint8)
    return CropSet(pictures, numbers, tuple("abcdefgh"[:classes]))


def test_counts_fall_exponentially_from_all_to_one() -> None:
    made = crops()
    cut = long_tailed(made, seed=3, most_held=10)
    counts = np.bincount(made.numbers[cut.training], minlength=5)[cut.order]
    assert counts.tolist() == [round(40 * 40 ** (-rank / 4)) for rank in range(5)]


def test_each_class_keeps_its_first_crops() -> None:
    cut = long_tailed(crops(), seed=0, most_held=10)
    for number in range(5):
        own = [i for i in cut.training if i // 40 == number]
        assert own == list(range(40 * number, 40 * number + len(own)))


def test_what_is_held_out_is_not_trained_on() -> None:
    cut = long_tailed(crops(), seed=0, most_held=10)
    assert not set(cut.training) & set(cut.held_out)
    held = np.bincount(cut.held_out // 40, minlength=5)[cut.order]
    assert held.tolist() == [0, 10, 10, 10, 10]


def test_another_seed_orders_classes_differently_and_the_same_seed_alike() -> None:
    orders = [long_tailed(crops(), seed, 10).order.tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_every_arm_tries_as_many_settings() -> None:
    assert {len(tried) for tried in SETTINGS.values()} == {4}
    assert list(SETTINGS) == list(ARMS)
    assert with_rates((1.0, 2.0), {"a": 3}) == [{"learning_rate": 1.0, "a": 3}, {"learning_rate": 2.0, "a": 3}]


def test_a_small_network_learns_greys_and_is_read_by_thirds() -> None:
    torch.set_num_threads(1)
    made = crops(3)
    training = Training(epochs=6, batch=20, learning_rate=0.01, side=16, embedding=8)
    model = train_characters(
        lambda: CrossEntropy(8, torch.tensor([40, 40, 40])), made, training, 0, shuffled_batches(120, 20, 0)
    )
    assert embeddings(model, made, training).shape == (120, 8)
    found = figures(model, made, training, np.array([2, 0, 1]))
    assert found["macro"] == pytest.approx((found["many"] + found["medium"] + found["few"]) / 3)
    assert found["accuracy"] > 0.6


def test_the_same_seed_trains_the_same_network() -> None:
    torch.set_num_threads(1)
    made, training = crops(3), Training(epochs=1, batch=60, learning_rate=0.01, side=16, embedding=8)
    one, other = (
        train_characters(
            lambda: CrossEntropy(8, torch.tensor([40, 40, 40])), made, training, 4, shuffled_batches(120, 60, 4)
        )
        for _ in range(2)
    )
    assert np.array_equal(embeddings(one, made, training), embeddings(other, made, training))


def test_batches_hold_every_crop_once() -> None:
    batches = list(shuffled_batches(50, 16, seed=0)(epoch=2))
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert [len(batch) for batch in batches] == [17, 17, 16]


def test_a_finished_run_is_not_made_again_unless_its_settings_changed(tmp_path: Path) -> None:
    made: list[int] = []

    def run() -> dict[str, Any]:
        made.append(1)
        return {"value": len(made)}

    path = tmp_path / "deep" / "run.json"
    assert kept(path, {"a": (1, 2)}, run)["value"] == 1
    assert kept(path, {"a": (1, 2)}, run)["value"] == 1
    assert kept(path, {"a": (1, 3)}, run)["value"] == 2


def test_a_runs_setting_is_known_again() -> None:
    run = {"learning_rate": 0.01, "weight_decay": 0.05, "loss": {"margin": 0.5}, "deferred": False}
    assert holds(run, {"learning_rate": 0.01, "margin": 0.5})
    assert not holds(run, {"learning_rate": 0.003, "margin": 0.5})
    assert not holds(run, {"learning_rate": 0.01, "margin": 0.5, "deferred": True})
    assert not holds(run, {"learning_rate": 0.01})


def test_arms_that_were_not_run_stand_empty(tmp_path: Path) -> None:
    rows = arms_so_far(LongTailOptions(out=tmp_path), "chars_hwdb")
    assert [row["arm"] for row in rows] == list(ARMS)
    assert all(row["runs"] == [] and row["chosen"] is None for row in rows)


def arm(name: str, few: list[float], many: float = 0.6, macro: float = 0.4) -> dict[str, Any]:
    runs = [
        {"seed": seed, "few": value, "many": many, "medium": 0.4, "macro": macro, "recall_at_1": 0.5, "map": 0.3}
        for seed, value in enumerate(few)
    ]
    return {"arm": name, "runs": runs}


def rows(ours: list[float], many: float = 0.6, macro: float = 0.4) -> list[dict[str, Any]]:
    others = [arm(name, [0.10, 0.12]) for name in ARMS if name != "long-tail"]
    return [*others, arm("long-tail", ours, many, macro)]


def test_claims_are_judged_by_the_mean_of_paired_differences() -> None:
    few, many, level = claims(rows([0.15, 0.14]))
    assert few.found == pytest.approx((5.0, 2.0))
    assert (few.verdict, many.verdict, level.verdict) == ("confirmed",) * 3


def test_claims_that_fail_are_called_not_confirmed() -> None:
    few, many, level = claims(rows([0.12, 0.14], many=0.58, macro=0.385))
    assert (few.verdict, many.verdict, level.verdict) == ("not confirmed",) * 3


def test_claims_without_runs_are_not_run() -> None:
    assert [claim.verdict for claim in claims(rows([]))] == ["not run"] * 3


def test_the_table_names_what_was_not_run() -> None:
    assert long_tail_table({}).count("not run") == 4
    content = {
        "set": "chars_hwdb", "classes": 75, "training": 1641, "largest": 100, "smallest": 1, "test": 2241,
        "thirds": {"many": [22, 100], "medium": [5, 21], "few": [1, 4]}, "arms": rows([]),
    }  # fmt: skip
    made = long_tail_table({"chars_hwdb": content})
    assert "| ours (method 3) | not run |" in made
    assert "11.0 (10.0 to 12.0)" in made


def test_spread_is_the_mean_and_the_ends() -> None:
    assert spread([]) == "not run"
    assert spread([1.0]) == "1.0"
    assert spread([1.0, -2.0], "+") == "-0.5 (-2.0 to +1.0)"
