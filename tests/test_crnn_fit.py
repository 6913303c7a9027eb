"""The training loop: what it logs, when it stops, and that a resumed run is the run."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.checkpoint import load_checkpoint
from crnn.commands import FitOptions, Until
from crnn.model import Outputs
from crnn.objectives.recognition import DeviceBatch, Recognition, column_loss, ctc_loss
from crnn.train import train
from crnn.train_cli import TrainOptions


def tiny(out: Path, **fit: object) -> TrainOptions:
    """A run of a few seconds on lines drawn here."""
    options = FitOptions(until=("12",), batch_lines=8, workers=0, warm_up=2, save_every=5, threads=1, validate_every=6)
    return TrainOptions(
        out=out, data=("synth-easy",), backbone="resnet18", width=0.125, features=64, hidden=16, layers=1,
        charset="alphanumeric", validation_lines=16, fit=replace(options, **fit),  # type: ignore[arg-type]
    )  # fmt: skip


class Interrupted(Exception):
    """Stands for a kill."""


def test_a_resumed_run_ends_with_the_same_weights_and_losses_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(tmp_path / "whole.pt", ema=0.9), "crnn train")
    from crnn import fit as fit_module

    real = fit_module._update
    calls = {"n": 0}

    def killed(*arguments: object) -> None:
        calls["n"] += 1
        if calls["n"] == 9:
            raise Interrupted
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_module, "_update", killed)
    with pytest.raises(Interrupted):
        train(tiny(tmp_path / "parts.pt", ema=0.9), "crnn train")
    monkeypatch.setattr(fit_module, "_update", real)
    train(replace(tiny(tmp_path / "parts.pt", ema=0.9), resume=True), "crnn train")
    whole, parts = load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "parts.pt")
    assert all(torch.equal(whole.weights[name], parts.weights[name]) for name in whole.weights)
    rows = [(tmp_path / f"{name}.log.csv").read_text().splitlines() for name in ("whole", "parts")]
    seconds = rows[0][0].split(",").index("seconds")
    stripped = [[[c for i, c in enumerate(r.split(",")) if i != seconds] for r in log] for log in rows]
    assert stripped[0] == stripped[1]


def test_two_processes_train_one_model_and_write_one_log(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "crnn", "train"]
    sizes = ["--backbone", "resnet18", "--width", "0.125", "--features", "64", "--hidden", "16", "--layers", "1"]
    run = ["--data", "synth-easy", "--out", "t.pt", "--until", "4", "--batch-lines", "8", "--workers", "0"]
    more = ["--validate-every", "2", "--save-every", "3", "--validation-lines", "8", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(
        [*command, *sizes, *run, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [row.split(",")[0] for row in (tmp_path / "t.log.csv").read_text().splitlines()]
    assert steps == ["step", "2", "4"]
    assert load_checkpoint(tmp_path / "t.pt").info.provenance["lines"] in (32, 64)
    assert done.stdout.count("t.pt: ") == 1


def test_an_interrupted_run_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "t.resume.pt").write_bytes(b"state")
    with pytest.raises(FileExistsError, match="--resume"):
        train(tiny(tmp_path / "t.pt"), "crnn train")
    assert (tmp_path / "t.resume.pt").read_bytes() == b"state"


def test_a_finished_model_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "t.pt").write_bytes(b"model")
    with pytest.raises(FileExistsError, match="--overwrite"):
        train(tiny(tmp_path / "t.pt"), "crnn train")
    assert (tmp_path / "t.pt").read_bytes() == b"model"


def test_resume_without_a_state_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        train(replace(tiny(tmp_path / "t.pt"), resume=True), "crnn train")


def test_a_run_leaves_model_log_and_options_and_nothing_else(tmp_path: Path) -> None:
    train(tiny(tmp_path / "t.pt"), "crnn train")
    assert {p.name for p in tmp_path.iterdir()} == {"t.pt", "t.last.pt", "t.log.csv", "t.run.json"}


def test_the_log_has_the_share_of_blanks_and_every_term(tmp_path: Path) -> None:
    train(tiny(tmp_path / "t.pt"), "crnn train")
    header = (tmp_path / "t.log.csv").read_text().splitlines()[0].split(",")
    assert {"step", "loss", "ctc", "columns", "second_ctc", "blank_share", "gradient_norm", "accuracy", "cer"} <= set(
        header
    )


def test_the_model_file_says_how_it_was_made(tmp_path: Path) -> None:
    train(tiny(tmp_path / "t.pt"), "crnn train --out t.pt")
    provenance = load_checkpoint(tmp_path / "t.pt").info.provenance
    assert provenance["command"] == "crnn train --out t.pt"
    assert provenance["data"] == ["synth-easy"]
    assert provenance["lines"] > 0
    assert provenance["seed"] == 0


def test_until_takes_steps_loss_and_accuracy() -> None:
    until = Until.parse(("200", "loss<0.1", "accuracy>0.95"))
    assert not until.reached(199, 0.2, 0.9)
    assert until.reached(200, 0.2, 0.9)
    assert until.reached(1, 0.05, 0.9)
    assert until.reached(1, 0.2, 0.96)


@pytest.mark.parametrize("part", ["soon", "loss>1", "accuracy>x", "-3", "0"])
def test_until_refuses_what_it_does_not_understand(part: str) -> None:
    with pytest.raises(ValueError, match="--until"):
        FitOptions(until=(part,))


def test_training_stops_at_a_loss_that_is_not_finite_and_names_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crnn import train as train_module

    class Broken(Recognition):
        def forward(self, outputs: object, batch: object, step: int) -> dict[str, torch.Tensor]:
            terms = super().forward(outputs, batch, step)  # type: ignore[arg-type]
            return terms | {"loss": terms["loss"] * float("nan")} if step == 3 else terms

    monkeypatch.setattr(train_module, "Recognition", Broken)
    with pytest.raises(ValueError, match=r"loss at step 3 is not finite \(loss nan, ctc .*synth"):
        train(tiny(tmp_path / "t.pt"), "crnn train")


def test_fine_tuning_starts_from_the_checkpoints_weights_and_charset(tmp_path: Path) -> None:
    train(tiny(tmp_path / "a.pt"), "crnn train")
    tuned = replace(tiny(tmp_path / "b.pt", until=("1",), learning_rate=1e-12), init=tmp_path / "a.pt", charset=None)
    train(tuned, "crnn train")
    a, b = load_checkpoint(tmp_path / "a.pt"), load_checkpoint(tmp_path / "b.pt")
    assert b.info.charset == a.info.charset
    assert torch.allclose(
        a.weights["encoder.layers.0.lstm.weight_hh_l0"], b.weights["encoder.layers.0.lstm.weight_hh_l0"]
    )


def test_another_recognisers_encoder_and_classifier_can_be_the_start(tmp_path: Path) -> None:
    train(tiny(tmp_path / "a.pt"), "crnn train")
    other = replace(
        tiny(tmp_path / "b.pt", until=("1",), learning_rate=1e-12),
        init_encoder=tmp_path / "a.pt",
        backbone="mobilenet_v3_small",
    )
    train(other, "crnn train")
    a, b = load_checkpoint(tmp_path / "a.pt"), load_checkpoint(tmp_path / "b.pt")
    assert b.info.sizes.backbone == "mobilenet_v3_small"
    assert torch.allclose(a.weights["classifier.weight"], b.weights["classifier.weight"])


def batch_of(classes: list[list[int]], columns: torch.Tensor) -> DeviceBatch:
    lengths = torch.tensor([len(c) for c in classes])
    padded = torch.zeros(len(classes), max(1, int(lengths.max())), dtype=torch.long)
    for row, numbers in enumerate(classes):
        padded[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
    return DeviceBatch(torch.zeros(len(classes), 3, 32, 16), padded, lengths, columns, torch.zeros(len(classes), 2))


def test_the_ctc_loss_is_the_likelihood_summed_over_all_paths() -> None:
    log_probs = torch.tensor([[[0.6, 0.4], [0.3, 0.7]]]).log()
    batch = batch_of([[1]], torch.full((1, 2), -1))
    paths = 0.6 * 0.7 + 0.4 * 0.3 + 0.4 * 0.7  # blank-a, a-blank, a-a
    assert ctc_loss(log_probs, batch).item() == pytest.approx(-np.log(paths))


def test_lines_without_label_take_no_part_in_ctc() -> None:
    log_probs = torch.randn(2, 4, 3).log_softmax(-1).requires_grad_()
    batch = batch_of([[1], []], torch.full((2, 4), -1))
    ctc_loss(log_probs, batch).backward()
    assert log_probs.grad is not None
    assert log_probs.grad[0].abs().sum() > 0
    assert log_probs.grad[1].abs().sum() == 0


def test_without_any_label_ctc_is_a_differentiable_zero() -> None:
    log_probs = torch.randn(2, 4, 3).log_softmax(-1).requires_grad_()
    loss = ctc_loss(log_probs, batch_of([[], []], torch.full((2, 4), -1)))
    loss.backward()
    assert loss.item() == 0
    assert log_probs.grad is not None
    assert log_probs.grad.abs().sum() == 0


def test_the_column_loss_is_weighted_cross_entropy_over_known_columns() -> None:
    log_probs = torch.randn(1, 3, 4).log_softmax(-1)
    batch = batch_of([[2]], torch.tensor([[2, -1, 0]]))
    expected = -(log_probs[0, 0, 2] + 0.3 * log_probs[0, 2, 0]) / 1.3
    assert column_loss(log_probs, batch).item() == pytest.approx(expected.item())


def test_under_autocast_the_second_classifier_is_in_float32_as_the_first() -> None:
    log_probs, features = torch.randn(2, 6, 4).log_softmax(-1), torch.randn(2, 6, 32)
    outputs, batch = Outputs(features, features, log_probs), batch_of([[1, 2], [3]], torch.full((2, 6), 1))
    objective = Recognition(32, 4, column_weight=1.0)
    plain = objective(outputs, batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = objective(outputs, batch, 0)
    assert {name: term.item() for name, term in plain.items()} == {name: term.item() for name, term in cast.items()}
