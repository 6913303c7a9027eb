"""Verdicts on method 1's claims follow from the intervals and from all seeds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import distillation
from benchmarks.distillation import (
    ARMS,
    LINES,
    SEEDS,
    SIZES,
    DistillationOptions,
    Run,
    Runs,
    all_runs,
    arm_runs,
    by_run,
    chosen,
    chosen_runs,
    differences,
    digest,
    known_runs,
    packed,
    rate_runs,
    refuse_other_lines,
    trained,
    unpacked,
)
from benchmarks.distillation_tables import (
    PICTURES,
    claims_table,
    faster,
    picture,
    rates_table,
    sizes_table,
)
from benchmarks.recipes import TEACHER

Json = dict[str, Any]


def results(*each: float, interval: tuple[float, float] = (0.01, 0.03)) -> Json:
    row = {"first": "published", "second": "scratch", "seeds": list(range(len(each))), "each": list(each),
           "difference": sum(each) / len(each), "interval": interval}  # fmt: skip
    return {"differences": [row], "runs": []}


def verdict(found: Json) -> str:
    (line,) = (line for line in claims_table(found).splitlines() if "same network from scratch, plain CTC" in line)
    return line.rsplit("|", 2)[1].strip()


@pytest.mark.parametrize(
    ("each", "interval", "expected"),
    [
        ((0.02, 0.02, 0.02), (0.01, 0.03), "confirmed"),
        ((-0.02, -0.02, -0.02), (-0.03, -0.01), "refuted"),
        ((0.02, 0.0, 0.01), (-0.01, 0.03), "undecided"),
        ((0.05, 0.05, -0.01), (0.01, 0.05), "undecided"),
        ((0.02,), (0.01, 0.03), "confirmed (one seed)"),
    ],
)
def test_a_claim_is_confirmed_where_its_interval_and_every_seed_say_so(
    each: tuple[float, ...], interval: tuple[float, float], expected: str
) -> None:
    assert verdict(results(*each, interval=interval)) == expected


def test_a_claim_whose_runs_are_missing_is_not_run() -> None:
    told = claims_table({"differences": [], "runs": []})
    assert told.count("not run") == len(told.splitlines()) - 2


def figures(run: Run, *accuracies: float, right: Sequence[bool] = (True, False)) -> Runs:
    """A finished run that was validated every minute and every hundred lines."""
    curve = [{"lines": 100 * (i + 1), "accuracy": a, "seconds": 60 * (i + 1)} for i, a in enumerate(accuracies)]
    exact = sum(right) / len(right)
    return {
        run: {"arm": run.arm, "training_lines": run.lines, "seed": run.seed, "rate": run.rate, "curve": curve,
              "exact": {"unseen": exact}, "right": {"unseen": packed(right)}}
    }  # fmt: skip


def at_every_rate(arm: str, *accuracies: float) -> Runs:
    """The first seed's runs, all alike."""
    runs: Runs = {}
    for run in rate_runs():
        if run.arm == arm:
            runs |= figures(run, *accuracies)
    return runs


def told(runs: Runs) -> Json:
    return {"runs": list(runs.values()), "differences": []}


def test_how_fast_is_told_beside_where_the_better_twin_ends() -> None:
    runs = at_every_rate("published", 0.5, 0.8, 0.9)
    runs |= at_every_rate("scratch", 0.1, 0.2, 0.3) | at_every_rate("scratch-columns", 0.3, 0.6, 0.7)
    assert faster(told(runs)) == ("200 lines, 2.0 min (twin 300, 3.0 min)", "confirmed (one seed)")


def test_a_student_that_never_gets_there_was_not_faster() -> None:
    runs = at_every_rate("published", 0.5, 0.6)
    runs |= at_every_rate("scratch", 0.1, 0.9) | at_every_rate("scratch-columns", 0.1, 0.2)
    assert faster(told(runs)) == ("never (twin 200, 2.0 min)", "refuted (one seed)")


def test_nothing_is_told_before_both_twins_are_there() -> None:
    runs = at_every_rate("published", 0.5) | at_every_rate("scratch", 0.1)
    assert faster(told(runs)) == ("not run", "")


def test_an_arm_has_the_rate_that_read_most_once_all_were_tried() -> None:
    runs = figures(Run("l1", LINES, 0, 4e-3), 0.7)
    assert not arm_runs(runs, "l1")
    runs |= figures(Run("l1", LINES, 0, 16e-3), 0.6, 0.8)
    assert chosen(runs, Run("l1", LINES, 1)) == Run("l1", LINES, 1, 16e-3)
    assert [run["rate"] for run in arm_runs(runs, "l1")] == [16e-3]


def test_a_rate_that_is_only_shown_is_not_chosen() -> None:
    runs = at_every_rate("both", 0.5) | figures(Run("both", LINES, 0, 8e-3), 0.9)
    assert chosen(runs, Run("both", LINES, 1)).rate in (4e-3, 16e-3)


def test_every_arm_is_run_with_every_seed_and_every_rate_with_the_first() -> None:
    assert len(rate_runs()) == len(set(rate_runs()))
    assert [run.rate for run in rate_runs() if run.arm == "scratch"] == [2e-3, 4e-3, 8e-3]
    assert {run.seed for run in rate_runs()} == {0}
    assert {run.arm for run in chosen_runs() if run.rate} == {"published", "both"}  # only shown
    assert {(run.arm, run.seed) for run in chosen_runs() if run.lines == LINES} == {
        (arm, seed) for arm in ARMS for seed in SEEDS
    }
    assert {(run.lines, run.seed) for run in chosen_runs() if run.arm == "both"} == {
        (size, seed) for size in SIZES for seed in SEEDS
    }


def test_rates_stand_beside_what_they_read_and_untried_ones_are_empty() -> None:
    runs = figures(Run("l1", LINES, 0, 4e-3), 0.7) | figures(Run("l1", LINES, 0, 16e-3), 0.8)
    assert rates_table(told(runs)).splitlines()[2:] == ["| L1 |  | 70.0 |  | 80.0 |"]


def test_a_size_without_runs_is_not_run() -> None:
    assert "| not run | 50.0 | not run |" in sizes_table(told(at_every_rate("published", 0.5)))


def test_every_arm_is_in_one_picture_and_method_1_in_all() -> None:
    pictured = Counter(name for arms in PICTURES.values() for name in arms)
    assert pictured == {name: len(PICTURES) if name == "published" else 1 for name in ARMS}


def test_curves_lie_at_the_lines_that_were_learnt_from() -> None:
    assert picture(told({}), "weights") == ""
    runs = at_every_rate("published", 0.5, 0.6) | at_every_rate("w1", 0.5, 0.7)
    runs = {run: figures | {"lines": 20_000 if run.arm == "w1" else 40_000} for run, figures in runs.items()}
    drawn = picture(told(runs), "weights")
    ends = [float(points.split()[-1].split(",")[0]) for points in re.findall(r'polyline points="([^"]*)"', drawn)]
    assert ends[0] > ends[1]
    assert ">40,000</text>" in drawn


def test_which_lines_were_read_is_kept_bit_by_bit() -> None:
    lines = [True, False, False, True, True, False, True, True, False, True]
    assert packed(lines) == "10:9b40"
    assert unpacked(packed(lines)) == lines


def test_arms_are_compared_line_by_line_over_the_seeds_that_both_have() -> None:
    runs: Runs = {}
    for rate in (4e-3, 16e-3):
        runs |= figures(Run("published", LINES, 0, rate), 0.5, right=[True] * 60 + [False] * 40)
        runs |= figures(Run("w1", LINES, 0, rate), 0.5, right=[False] * 40 + [True] * 60)
    runs |= figures(Run("published", LINES, 1, 4e-3), 0.5, right=[True] * 100)
    teacher = {"right": {"unseen": packed([True] * 100)}}
    (row,) = (row for row in differences(runs, teacher) if row["second"] == "w1")
    assert (row["seeds"], row["each"]) == ([0], [0.0])
    assert row["interval"][0] < -0.1
    assert row["interval"][1] > 0.1


def test_runs_of_an_earlier_call_are_known_from_its_results(tmp_path: Path) -> None:
    runs = at_every_rate("l1", 0.7)
    kept = tmp_path / "distillation.json"
    teacher = {"sha256": digest(TEACHER)}
    kept.write_text(json.dumps(told(runs) | {"steps": 3000, "teacher": teacher}), encoding="utf-8")
    assert known_runs(DistillationOptions(out=tmp_path, kept=kept)) == runs == by_run(told(runs))


def test_runs_of_other_steps_or_of_another_teacher_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "distillation.json"
    kept.write_text(json.dumps({"runs": [], "steps": 3000, "teacher": {"sha256": "another"}}), encoding="utf-8")
    with pytest.raises(SystemExit, match="of 3000 steps, not of 10; leave --kept out"):
        known_runs(DistillationOptions(out=tmp_path, kept=kept, steps=10))
    with pytest.raises(SystemExit, match="is of another teacher"):
        known_runs(DistillationOptions(out=tmp_path, kept=kept))


def test_kept_runs_of_other_lines_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "distillation.json"
    kept.write_text(json.dumps({"teacher": {"right": {"unseen": packed([True, False])}}}), encoding="utf-8")
    refuse_other_lines(kept, {"right": {"unseen": packed([True, False])}})
    with pytest.raises(SystemExit, match="the lines drawn or read here are not those of"):
        refuse_other_lines(kept, {"right": {"unseen": packed([True, True])}})


def test_after_a_training_that_failed_no_other_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Run] = []

    def fail(options: DistillationOptions, run: Run) -> Runs:
        begun.append(run)
        raise SystemExit("a stage failed")

    monkeypatch.setattr(distillation, "train", fail)
    with pytest.raises(SystemExit, match="a stage failed"):
        for _ in trained(DistillationOptions(processes=2), rate_runs()):
            pass
    assert len(begun) <= 4


def test_models_are_looked_for_at_every_rate_that_any_arm_may_have() -> None:
    assert {run.rate for run in all_runs() if run.arm == "published"} == {2e-3, 4e-3, 8e-3, 16e-3}
    assert all(run.rate for run in all_runs())
