"""The centres benchmark: which classes are held out, its tasks, and what its table says of claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.centres import (
    ARMS,
    PEERS,
    BatchHard,
    CentresOptions,
    Task,
    centres_picture,
    centres_table,
    claims,
    epochs_to,
    held_out_classes,
    one_run,
    options_of_loss,
    quarter,
    set_task,
    shown_epochs,
    tuning_task,
)
from benchmarks.character_runs import CropSet

OPTIONS = CentresOptions(epochs=4)


def crops(labels: str, each: int) -> CropSet:
    classes = tuple(sorted(labels))
    numbers = np.repeat(np.arange(len(classes)), each)
    return CropSet(np.zeros((len(numbers), 8, 8, 1), np.uint8), numbers, classes)


def test_every_third_class_is_held_out() -> None:
    assert held_out_classes("chars_hwdb", list("abcdefgh")) == ["c", "f"]


def test_a_letter_is_held_out_in_both_cases() -> None:
    assert held_out_classes("chars74k", list("0ABCDEabcde")) == ["B", "E", "b", "e"]


def test_training_holds_no_asked_class_and_files_are_asked_together() -> None:
    task = set_task(OPTIONS, "chars_hwdb", [crops("abcdef", 4), crops("abcdef", 2)])
    assert task.training.classes == ("a", "b", "d", "e")
    assert sorted(task.asked.labels()) == ["c"] * 6 + ["f"] * 6
    assert len(task.training) == 16


def test_arms_are_tuned_on_training_classes_alone() -> None:
    task = tuning_task(OPTIONS, [crops("abcdefghijkl", 4)])
    assert task.asked.classes == ("e", "k")
    assert task.training.classes == ("a", "b", "d", "g", "h", "j")
    assert task.epochs == 2


def test_a_quarter_is_the_first_of_each_class_in_as_many_steps() -> None:
    whole = set_task(OPTIONS, "chars_hwdb", [crops("abc", 8)])
    part = quarter(whole)
    assert np.bincount(part.training.numbers).tolist() == [2, 2]
    assert (part.batches, part.epochs) == (whole.batches, whole.epochs)


def test_every_arm_tries_as_many_settings_and_makes_its_loss() -> None:
    features, labels = torch.randn(8, 6), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for arm in ARMS.values():
        assert len(arm.settings) == 4
        for settings in arm.settings:
            loss = arm.make(6, torch.full((4,), 2), **options_of_loss(settings))
            assert bool(loss(features, labels)["loss"].isfinite())


def test_all_triplets_count_before_the_hardest_do() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(8, 6), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    hard, plain = (BatchHard(6, torch.full((4,), 2)) for _ in range(2))
    plain.mining = "plain"
    assert float(hard(features, labels)["loss"]) > float(plain(features, labels)["loss"])


def test_batch_hard_is_what_plain_loops_give() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(6, 4), [0, 0, 1, 1, 2, 2]
    unit = (features / features.norm(dim=1, keepdim=True)).tolist()

    def apart(i: int, j: int) -> float:
        return sum((a - b) ** 2 for a, b in zip(unit[i], unit[j], strict=True)) ** 0.5

    each = []
    for i in range(6):
        own = max(apart(i, j) for j in range(6) if labels[j] == labels[i] and j != i)
        other = min(apart(i, j) for j in range(6) if labels[j] != labels[i])
        each.append(max(own - other + 0.5, 0.0))
    positive = [value for value in each if value > 0]
    found = BatchHard(4, torch.full((3,), 2), margin=0.5)(features, torch.tensor(labels))["loss"]
    assert found.item() == pytest.approx(sum(positive) / len(positive), rel=1e-4)


def test_a_run_is_asked_after_every_epoch_and_kept(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    made = CropSet(
        np.random.default_rng(0).integers(0, 255, (64, 32, 32, 1), dtype=np.uint8),
        np.arange(64) % 16,
        tuple("abcdefghijklmnop"),
    )
    task = Task(made, made, epochs=2, batches=1)
    options = CentresOptions(out=tmp_path)
    arm = "moving-average-hard"
    found = one_run(options, "x", task, arm, ARMS[arm].settings[0], 0)
    assert len(found["curve"]) == 2
    assert 0 <= found["recall_at_1"] <= 1
    assert one_run(options, "x", task, arm, ARMS[arm].settings[0], 0) == found


def runs(*ends: float) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "recall_at_1": end, "map": 0.2, "curve": [end / 2, end], "crops": 9, "classes": 3, "asked": 6}
        for seed, end in enumerate(ends)
    ]


def content(ours: list[dict[str, Any]], part: list[dict[str, Any]]) -> dict[str, Any]:
    best = "moving-average-hard"
    found = {arm: runs(0.5, 0.6) if arm in PEERS else ours if arm == best else [] for arm in ARMS}
    rows = [{"arm": arm, "settings": {}, "runs": found[arm], "quarter": part if arm == best else []} for arm in ARMS]
    return {"set": "chars_hwdb", "arms": rows}


def test_claims_are_judged_by_paired_differences_beside_both_peers() -> None:
    ours = [run | {"curve": [0.6, 0.7]} for run in runs(0.7, 0.7)]
    made = claims(content(ours, runs(0.4, 0.4)), "moving-average-hard")
    assert [found for _, found, _ in made[::2]] == [
        "+15.0 (+10.0 to +20.0)",
        "+1.0 (+1.0 to +1.0)",
        "-15.0 (-20.0 to -10.0)",
    ]
    assert [verdict for _, _, verdict in made] == ["confirmed"] * 4 + ["not confirmed"] * 2


def test_who_never_comes_to_the_mark_saves_no_epochs() -> None:
    made = claims(content(runs(0.2, 0.2), []), "moving-average-hard")
    assert [verdict for what, _, verdict in made if "fewer epochs" in what] == ["not confirmed"] * 2


def test_a_claim_that_one_seed_denies_is_not_confirmed() -> None:
    made = claims(content(runs(0.9, 0.59), []), "moving-average-hard")
    assert [verdict for what, _, verdict in made if "above" in what] == ["not confirmed"] * 2


def test_nothing_is_judged_beside_a_peer_that_collapsed() -> None:
    made = content(runs(0.7, 0.8), [])
    next(row for row in made["arms"] if row["arm"] == "batch-hard")["runs"] = runs(0.05, 0.07)
    verdicts = {what: verdict for what, _, verdict in claims(made, "moving-average-hard")}
    unjudged = [what for what, verdict in verdicts.items() if verdict == "not judged: a peer collapsed"]
    assert len(unjudged) == 4
    assert verdicts[next(what for what in verdicts if what.startswith("R@1 above softmax"))] == "confirmed"


def test_claims_without_runs_are_not_run() -> None:
    assert {verdict for _, _, verdict in claims(content([], []), "moving-average-hard")} == {"not run"}


def test_epochs_count_from_one_and_some_never_come() -> None:
    run = {"curve": [0.1, 0.3, 0.2]}
    assert epochs_to(run, 0.3) == 2
    assert epochs_to(run, 0.4) is None
    assert shown_epochs([run, {"curve": [0.4]}], 0.4) == "1.0, 1 never"
    assert shown_epochs([], 0.4) == "not run"


def test_the_table_names_what_was_not_run() -> None:
    sets = [
        content(runs(0.7, 0.7), []),
        {"set": "chars74k", "arms": [{"arm": arm, "runs": [], "quarter": []} for arm in ARMS]},
    ]
    made = centres_table({"best_rule": "moving-average-hard", "sets": sets})
    assert "chars74k: not run." in made
    assert "| centre triplet, moving average, hard | 70.0 (70.0 to 70.0) |" in made
    assert "| centre triplet, moving average, plain | not run | not run | not run | not run | 0 |" in made


def test_the_picture_has_both_peers_and_the_better_mining_of_a_rule() -> None:
    made = centres_picture({"sets": [content(runs(0.7, 0.7), [])]})
    assert [name in made for name in ("batch-hard", "softmax + centre", "moving average, hard")] == [True] * 3
    assert "classifier weights" not in made
