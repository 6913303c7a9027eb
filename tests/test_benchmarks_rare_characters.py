"""The comparison of character losses on lines: how its figures are made of readings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import rare_characters
from benchmarks.rare_characters import RareOptions, arms, by_line, exact_figures, share_figures, spread, write_results
from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, CrnnSizes, ModelInfo, load_checkpoint, save_checkpoint
from crnn.model import Crnn
from data.picture import InputSpec

CHOICE: dict[str, Any] = {"chosen": {"long-tail": 0.1, "centre-triplet": 0.05}}
LINES = [("aab", "aab"), ("qa", "ga"), ("bqq", "bqq"), ("ag", "bg")]


def with_text(line: int, text: str) -> list[tuple[str, str]]:
    return [(label, text if i == line else was) for i, (label, was) in enumerate(LINES)]


def test_the_difference_is_that_of_the_shares_and_pairs_lines_and_seeds() -> None:
    better = with_text(1, "qa")
    own = {seed: by_line(better) for seed in (0, 1)}
    other = {0: by_line(LINES), 1: by_line(better)}
    found = share_figures(own, other, frozenset("q"))
    assert found["held"] == 3
    assert found["read"]["mean"] == 1.0
    assert found["difference"]["values"] == [pytest.approx(1 / 3), 0.0]
    low, high = found["interval"]
    assert low == 0.0
    assert high == pytest.approx(
        2 / 3 * 0.5
    )  # both draws are the line that gained: one of its one q, in half the seeds


def test_the_interval_surrounds_the_difference() -> None:
    generator = np.random.default_rng(0)
    labels = ["q" * int(n) for n in generator.integers(1, 4, 300)]
    runs = [
        [(label, "".join(c if generator.random() < p else "g" for c in label)) for label in labels] for p in (0.5, 0.7)
    ]
    found = share_figures({0: by_line(runs[1])}, {0: by_line(runs[0])}, frozenset("q"))
    low, high = found["interval"]
    assert low < found["difference"]["mean"] < high
    assert low > 0.1
    assert high < 0.3


def test_exact_accuracy_is_paired_line_by_line() -> None:
    found = exact_figures({0: with_text(3, "ag")}, {0: LINES})
    assert found["lines"] == 4
    assert found["read"]["mean"] == 3 / 4
    assert found["difference"]["mean"] == 1 / 4


def test_a_spread_needs_two_seeds() -> None:
    assert spread([0.5]) == {"mean": 0.5, "deviation": None, "values": [0.5]}
    assert spread([0.0, 1.0])["deviation"] == pytest.approx(0.5**0.5)


def finished_arm(model: Path, texts: list[tuple[str, str]]) -> None:
    """A model file that says what it learnt from, and the readings that bench left beside it."""
    charset = Charset.of("abgq")
    sizes = CrnnSizes("resnet18", 0.125, 32, 8, 1, True, 0, charset.classes)
    provenance = {"characters": {"lines": 10, "counts": [50, 40, 20, 2]}, "dropped": {}}
    info = ModelInfo(charset, InputSpec(), sizes, provenance)
    save_checkpoint(model, Checkpoint(info, dict(Crnn(sizes).state_dict())))
    lines = [{"label": label, "text": text} for label, text in texts]
    sets = dict.fromkeys((*rare_characters.TEST_SETS, "rich"), lines)
    model.with_suffix(".json").write_text(json.dumps({"readings": {model.name: sets}}))


def test_arms_that_are_not_finished_stand_as_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled_folder: Path
) -> None:
    monkeypatch.setattr(rare_characters, "RESULTS", tmp_path)
    monkeypatch.setattr(rare_characters, "training_set", lambda *_: {})
    finished_arm(tmp_path / "without-0.pt", LINES)
    finished_arm(tmp_path / "long-tail-0.pt", with_text(1, "qa"))
    assert load_checkpoint(tmp_path / "without-0.pt").info.provenance["dropped"] == {}
    write_results(RareOptions(out=tmp_path), CHOICE)
    results = json.loads((tmp_path / "rare_characters.json").read_text())
    assert results["groups"] == {"many": "ab", "medium": "g", "few": "q"}
    assert results["counts"] == {"q": 2}
    rows = {row["arm"]: row for row in results["arms"]}
    assert list(rows) == list(arms(CHOICE["chosen"]))
    assert rows["both"] == {
        "arm": "both",
        "arguments": ["--character-loss", "long-tail:0.1", "centre-triplet:0.05"],
        "seeds": [],
    }
    few = rows["long-tail"]["test"]["few"]
    assert (few["held"], few["read"]["mean"]) == (12, 1.0)
    assert few["difference"]["mean"] == pytest.approx(1 / 3)
    assert "difference" not in rows["without"]["test"]["few"]
    assert rows["without"]["characters"] == {"q": {"held": 12, "read": pytest.approx(2 / 3)}}
