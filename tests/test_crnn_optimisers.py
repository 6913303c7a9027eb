"""Which optimiser trains: the flags of every training command, and what the loop does with them."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from crnn import fit as fit_module
from crnn import train as train_module
from crnn.characters.episodes_cli import EpisodeOptions
from crnn.characters.train_cli import CharacterTrainOptions
from crnn.checkpoint import load_checkpoint
from crnn.commands import FitOptions, parse_options
from crnn.objectives.recognition import Recognition
from crnn.train import train
from crnn.train_cli import TrainOptions
from distill.cli import DistillOptions
from distill.extend_cli import ExtendOptions


def tiny(out: Path, **fit: Any) -> TrainOptions:
    """A run of a few seconds on lines drawn here."""
    chosen: dict[str, Any] = {"until": ("6",), "batch_lines": 4, "workers": 0, "save_every": 2, "threads": 1}
    return TrainOptions(
        out=out, data=("synth-easy",), backbone="resnet18", width=0.125, features=32, hidden=8, layers=1,
        charset="alphanumeric", validation="0", fit=FitOptions(**(chosen | fit)),
    )  # fmt: skip


def logged(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".log.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    "chosen",
    [{"optimiser": "gradient-direction", "momentum": 0.5}, {"optimiser": "sgd"}],
    ids=lambda chosen: chosen["optimiser"],
)
def test_a_resumed_run_ends_with_the_same_weights_and_steps_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, Any]
) -> None:
    monkeypatch.setattr(fit_module, "LOG_EVERY", 1)
    train(tiny(tmp_path / "whole.pt", **chosen), "crnn train")
    real, calls = fit_module._update, []

    def killed(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 6:
            raise Interrupted
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "_update", killed)
        with pytest.raises(Interrupted):
            train(tiny(tmp_path / "parts.pt", **chosen), "crnn train")
    train(replace(tiny(tmp_path / "parts.pt", **chosen), resume=True), "crnn train")
    whole, parts = load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "parts.pt")
    assert all(torch.equal(whole.weights[name], parts.weights[name]) for name in whole.weights)
    assert logged(tmp_path / "whole.pt") == logged(tmp_path / "parts.pt")


def test_the_log_has_the_computed_step_and_how_it_shrinks_to_a_share_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "LOG_EVERY", 1)
    made: list[Recognition] = []

    class Seen(Recognition):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(train_module, "Recognition", Seen)
    train(tiny(tmp_path / "t.pt", optimiser="gradient-direction"), "crnn train")
    network = int(load_checkpoint(tmp_path / "t.pt").info.provenance["parameters"])
    count = network + sum(p.numel() for p in made[0].parameters())
    first = 0.0014 * count**0.5
    rows = logged(tmp_path / "t.pt")
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([first * 0.01 ** (t / 6) for t in range(6)])
    assert all(float(row["skipped_share"]) == 0 for row in rows)
    assert all(float(row["gradient_norm"]) > 0 for row in rows)


def test_a_gradient_that_is_not_finite_is_left_out_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_module, "LOG_EVERY", 1)

    class Steep(Recognition):
        """A loss that is finite, with a slope at step 3 that is not a number."""

        def forward(self, outputs: Any, targets: Any, step: int) -> dict[str, torch.Tensor]:
            terms = super().forward(outputs, targets, step)
            return terms | {"loss": terms["loss"] + (terms["loss"] * 0).sqrt()} if step == 3 else terms

    monkeypatch.setattr(train_module, "Recognition", Steep)
    train(tiny(tmp_path / "t.pt", optimiser="gradient-direction", step_decay=0.1), "crnn train")
    rows = logged(tmp_path / "t.pt")
    assert [float(row["skipped_share"]) for row in rows] == [0, 0, 0, 1, 0, 0]
    rates = [float(row["learning_rate"]) for row in rows]
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([0.9, 0.9, 0.9, 1.0, 0.9])
    assert "1 of 6 steps were left out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the gradient at step 3 is not finite"):
        train(tiny(tmp_path / "adamw.pt"), "crnn train")


def test_what_is_not_given_is_the_optimisers_own_default() -> None:
    network = torch.nn.Linear(99, 1, bias=False)
    made = {
        name: fit_module._optimiser(network, FitOptions(until=("50",), optimiser=name))
        for name in ("adamw", "sgd", "gradient-direction")  # type: ignore[arg-type]
    }
    settings = {name: optimiser.param_groups[0] for name, optimiser in made.items()}
    assert settings["adamw"]["lr"] == 2e-3
    assert (settings["sgd"]["lr"], settings["sgd"]["momentum"]) == (0.05, 0.9)
    direction = settings["gradient-direction"]
    assert (direction["lr"], direction["momentum"]) == (pytest.approx(0.0014 * 99**0.5), 0)
    assert (1 - direction["decay"]) ** 50 == pytest.approx(0.01)


def test_what_is_given_reaches_the_optimiser() -> None:
    network = torch.nn.Linear(3, 1)
    plain = FitOptions(optimiser="sgd", momentum=0.0, learning_rate=0.5, warm_up=0)
    assert fit_module._optimiser(network, plain).param_groups[0]["momentum"] == 0
    assert fit_module._set_rate(fit_module._optimiser(network, plain), 0, plain) == 0.5
    chosen = FitOptions(
        optimiser="gradient-direction", learning_rate=0.5, step_decay=0.0003, step_threshold=0.6, step_floor=0.1
    )
    group = fit_module._optimiser(network, chosen).param_groups[0]
    assert (group["lr"], group["decay"], group["floor"], group["shrinks"]) == (0.5, 0.0003, 0.1, False)


def test_frozen_parameters_do_not_count() -> None:
    network = torch.nn.Linear(100, 1)
    network.weight.requires_grad_(False)
    optimiser = fit_module._optimiser(network, FitOptions(optimiser="gradient-direction"))
    assert optimiser.param_groups[0]["lr"] == 0.0014


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"momentum": 0.9}, "--momentum 0.9"),
        ({"step_decay": 0.1}, "--step-decay 0.1"),
        ({"optimiser": "sgd", "step_decay_to": 0.1}, "--step-decay-to 0.1"),
        ({"optimiser": "gradient-direction", "warm_up": 50}, "--warm-up 50"),
        ({"optimiser": "gradient-direction", "final_rate": 0.5}, "--final-rate 0.5"),
        ({"optimiser": "gradient-direction", "clip": 1.0}, "--clip 1.0"),
        ({"optimiser": "gradient-direction", "weight_decay": 0.1}, "--weight-decay 0.1"),
    ],
)
def test_a_flag_that_the_optimiser_does_not_know_is_refused(fields: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=f"{flag} has no part in --optimiser"):
        FitOptions(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"momentum": 1.0, "optimiser": "sgd"}, {"step_decay": 1.0}, {"step_decay_to": 0.0}, {"step_floor": -0.1},
        {"learning_rate": -1.0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_with_their_flag(fields: dict[str, Any]) -> None:
    (name,) = set(fields) - {"optimiser"}
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is "):
        FitOptions(**fields)


def test_two_ways_to_say_how_the_step_shrinks_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="--step-decay and --step-decay-to"):
        FitOptions(optimiser="gradient-direction", step_decay=0.0003, step_decay_to=0.1)


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        (TrainOptions, ["--out", "m.pt"]),
        (DistillOptions, ["--teacher", "m.pt"]),
        (ExtendOptions, ["--model", "m.pt", "--add", "x", "--out", "n.pt"]),
        (CharacterTrainOptions, ["--out", "m.pt", "--data", "crops"]),
        (EpisodeOptions, ["--out", "m.pt", "--data", "crops"]),
    ],
)
def test_every_training_command_takes_the_flags(kind: Any, needed: list[str]) -> None:
    flags = ["--optimiser", "gradient-direction", "--step-decay", "0.0003", "--learning-rate", "0.3"]
    usual = parse_options(kind, needed, "crnn", "").fit
    fit = replace(usual, optimiser="gradient-direction", step_decay=0.0003, learning_rate=0.3)
    assert parse_options(kind, [*needed, *flags], "crnn", "").fit == fit
    with pytest.raises(ValueError, match=r"--clip 2\.0 has no part in --optimiser gradient-direction"):
        parse_options(kind, [*needed, *flags, "--clip", "2"], "crnn", "")
