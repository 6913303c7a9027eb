"""New characters of a grown model are read more or less often, as its own run found what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint, save_checkpoint
from crnn.cli import main
from distill.extend_cli import RebalanceOptions
from distill.new_biases import Cost, found_costs, with_costs

COSTS = [
    Cost(-1.0, (0.001, 0.0), 0.5),
    Cost(-0.5, (0.002, 0.001), 0.6),
    Cost(0.0, (0.004, 0.002), 0.7),
    Cost(1.0, (0.02, 0.03), 0.8),
]
"""What a run found, which left the biases at -0.5."""


@pytest.fixture
def grown(random_checkpoint: Callable[..., Path]) -> Path:
    """As crnn extend-charset leaves it, which added e and f."""
    path = random_checkpoint(charset=Charset.of("0123456789abcdef "))
    made = load_checkpoint(path).with_provenance(extended={"added": "ef"}, validation_accuracy=0.9)
    save_checkpoint(path, with_costs(made, COSTS, -0.5))
    return path


def rebalance(model: Path, out: Path, *more: str) -> int:
    return main(["rebalance", "--model", str(model), "--out", str(out), *more])


@pytest.mark.parametrize(("may_lose", "by"), [("0.001", -0.5), ("0.002", 0.0), ("0.0075", 0.5), ("0.5", 1.5)])
def test_the_biases_of_the_added_characters_alone_go_as_high_as_what_may_be_lost_allows(
    grown: Path, tmp_path: Path, may_lose: str, by: float
) -> None:
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", may_lose) == 0
    before, after = load_checkpoint(grown), load_checkpoint(tmp_path / "r.pt")
    moved = after.weights["classifier.bias"] - before.weights["classifier.bias"]
    added = [before.info.charset.characters.index(c) + 1 for c in "ef"]
    assert moved[added].tolist() == pytest.approx([by, by])
    assert moved.count_nonzero() == (2 if by else 0)
    others = before.weights.keys() - {"classifier.bias"}
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in others)
    assert found_costs(after) == (COSTS, -0.5 + by)
    assert ("validation_accuracy" in after.info.provenance) == (not by)  # it is of these biases
    assert after.info.provenance["rebalanced"]["model"] == grown.name


def test_what_was_rebalanced_can_be_rebalanced_again(grown: Path, tmp_path: Path) -> None:
    assert rebalance(grown, tmp_path / "all.pt", "--may-lose", "0.5") == 0
    assert rebalance(tmp_path / "all.pt", tmp_path / "back.pt", "--may-lose", "0.002") == 0
    weights = [load_checkpoint(path).weights["classifier.bias"] for path in (grown, tmp_path / "back.pt")]
    assert torch.allclose(*weights)


def test_without_more_it_tells_what_there_is_to_choose(grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rebalance", "--model", str(grown)]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["-1.00", "50.0%", "0.10%"],
        ["-0.50", "60.0%", "0.20%", "(now)"],
        ["+0.00", "70.0%", "0.40%"],
        ["+1.00", "80.0%", "3.00%"],
    ]


def test_where_everything_that_was_tried_costs_more_that_is_said(
    grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0") == 0
    assert "they cost 0.10% of the held-out lines of old characters, more than 0.00%" in capsys.readouterr().out


def test_a_model_that_does_not_tell_its_costs_is_refused(
    grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(grown, with_costs(load_checkpoint(grown), [], 0.0))
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0.1") == 1
    assert "does not say what other biases cost: no line of old characters was held out" in capsys.readouterr().err
    assert not list(tmp_path.glob("r.*"))


def test_a_damaged_account_of_the_biases_is_refused(grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(grown, load_checkpoint(grown).with_provenance(new_biases={"costs": [{"shift": 0}], "moved": 0}))
    assert main(["rebalance", "--model", str(grown)]) == 1
    assert "what the model file says of its biases is damaged" in capsys.readouterr().err


def test_what_is_cut_off_leaves_no_run_that_looks_whole(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "r.pt")

    monkeypatch.setattr("distill.rebalance.save_checkpoint", full)
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0.1") == 1
    assert json.loads((tmp_path / "r.run.json").read_text())["result"] is None
    assert not (tmp_path / "r.pt").exists()


def test_the_state_of_an_interrupted_training_is_not_taken_over(
    grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.resume.pt").write_bytes(b"state")
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0.1", "--overwrite") == 1
    assert "holds an interrupted training; choose another --out" in capsys.readouterr().err


def test_a_model_that_did_not_grow_is_refused(
    random_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rebalance(random_checkpoint(), tmp_path / "r.pt", "--may-lose", "0.1") == 1
    assert "was not made by crnn extend-charset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"may_lose": 0.1}, "--may-lose and --out go together"),
        ({"out": Path("r.pt")}, "--may-lose and --out go together"),
        ({"out": Path("r.pt"), "may_lose": 1.0}, r"--may-lose is 1\.0; give a share from 0 to under 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RebalanceOptions(Path("grown.pt"), **given)


def test_nothing_that_is_there_is_written_over(grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rebalance(grown, grown, "--may-lose", "0.1", "--overwrite") == 1
    assert "is what is read here" in capsys.readouterr().err
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0.1") == 0
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0.2") == 1
    assert "is there already" in capsys.readouterr().err
    assert rebalance(grown, tmp_path / "r.pt", "--may-lose", "0.2", "--overwrite") == 0
