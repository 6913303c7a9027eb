"""Verdicts on method 1's claims follow from the intervals and from all seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import distillation
from benchmarks.distillation import (
    ARMS,
    LINES,
    SEEDS,
    DistillationOptions,
    Run,
    chosen,
    claims_table,
    done_runs,
    faster,
    planned,
    rates_table,
    sizes_table,
)

Json = dict[str, Any]


def results(*each: float, interval: tuple[float, float] = (0.01, 0.03)) -> Json:
    row = {"first": "published", "second": "scratch", "seeds": list(range(len(each))), "each": list(each),
           "difference": sum(each) / len(each), "interval": interval}  # fmt: skip
    return {"differences": [row], "arms": [{"arm": "published", "lines": LINES, "runs": []}]}


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
    told = claims_table({"differences": [], "arms": [{"arm": "published", "lines": LINES, "runs": []}]})
    assert told.count("not run") == len(told.splitlines()) - 2


def curve(*accuracies: float, seconds: float = 60.0) -> Json:
    points = [{"lines": 100 * (i + 1), "accuracy": a, "seconds": seconds * (i + 1)} for i, a in enumerate(accuracies)]
    return {"seed": 0, "curve": points}


def arms(taught: Json, *twins: Json) -> Json:
    named = {"published": taught} | dict(zip(("scratch", "scratch-columns"), twins, strict=False))
    entries = [{"arm": name, "lines": LINES, "runs": [run]} for name, run in named.items()]
    missing = [
        {"arm": name, "lines": LINES, "runs": []} for name in ("scratch", "scratch-columns") if name not in named
    ]
    return {"arms": entries + missing}


def test_how_fast_is_told_beside_where_the_better_twin_ends() -> None:
    found = faster(arms(curve(0.5, 0.8, 0.9), curve(0.1, 0.2, 0.3), curve(0.3, 0.6, 0.7)))
    assert found == ("200 lines, 2.0 min (twin 300, 3.0 min)", "confirmed (one seed)")


def test_a_student_that_never_gets_there_was_not_faster() -> None:
    found = faster(arms(curve(0.5, 0.6), curve(0.1, 0.9), curve(0.1, 0.2)))
    assert found == ("never (twin 200, 2.0 min)", "refuted (one seed)")


def test_nothing_is_told_before_both_twins_are_there() -> None:
    assert faster(arms(curve(0.5), curve(0.1))) == ("not run", "")


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DistillationOptions:
    """Runs are there where a file with their held-out accuracy is."""
    monkeypatch.setattr(distillation, "is_done", lambda options, run: run.file(options).exists())
    monkeypatch.setattr(distillation, "best_accuracy", lambda options, run: float(run.file(options).read_text()))
    return DistillationOptions(out=tmp_path)


def put(options: DistillationOptions, run: Run, accuracy: float) -> None:
    run.file(options).parent.mkdir(exist_ok=True)
    run.file(options).write_text(str(accuracy))


def test_an_arm_has_the_rate_that_read_most_once_all_were_tried(options: DistillationOptions) -> None:
    put(options, Run("l1", LINES, 0, 4e-3), 0.7)
    assert chosen(options, Run("l1", LINES, 1)) is None
    put(options, Run("l1", LINES, 0, 16e-3), 0.8)
    assert chosen(options, Run("l1", LINES, 1)) == Run("l1", LINES, 1, 16e-3)
    assert done_runs(options, "l1", LINES) == [Run("l1", LINES, 0, 16e-3)]


def test_every_arm_is_run_with_every_seed_and_every_rate_with_the_first() -> None:
    runs = planned()
    assert len(runs) == len(set(runs))
    assert {(run.arm, run.seed) for run in runs if run.lines == LINES} == {
        (arm, seed) for arm in ARMS for seed in SEEDS
    }
    assert [run.rate for run in runs if (run.arm, run.lines, run.seed) == ("scratch", LINES, 0)] == [2e-3, 4e-3, 8e-3]
    assert {run.seed for run in runs if run.rate} == {0}


def test_rates_stand_beside_what_they_read_and_untried_ones_are_empty() -> None:
    told = rates_table({"rates": {"l1": {"0.004": 0.7, "0.016": 0.8}, "cosine": {}}})
    assert told.splitlines()[2:] == ["| L1 |  | 70.0 |  | 80.0 |"]


def test_a_size_without_runs_is_not_run() -> None:
    run = {"exact": {"unseen": 0.5}}
    entries = [
        {"arm": name, "lines": size, "runs": [run] if size == LINES else []}
        for name in ("published", "scratch", "both", "kl-classes")
        for size in (2000, 8000, 32_000)
    ]
    assert "| not run | 50.0 | not run |" in sizes_table({"arms": entries})
