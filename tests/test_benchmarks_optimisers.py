"""The optimisers' benchmark: what it trains, what it chooses and what its tables say."""

from __future__ import annotations

import re
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch

from benchmarks import optimisers as benchmark
from benchmarks.charts import Curve, curves, spread
from benchmarks.cifar10 import read_cifar10
from benchmarks.optimiser_tables import claims, claims_table, optimisers_picture, optimisers_table, reached, text_table
from benchmarks.optimisers import (
    EPOCHS,
    MARKS,
    PEERS,
    SEEDS,
    CifarRun,
    Pictures,
    best_multiples,
    best_rate,
    grey,
    published_runs,
    remaining_runs,
    small_network,
    train_cifar,
)


def noise(count: int, seed: int = 0) -> Pictures:
    """Pictures whose class shows: the brighter, the higher."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 10, (count,), generator=generator)
    pictures = torch.randint(0, 20, (count, 3, 32, 32), generator=generator) + 23 * classes[:, None, None, None]
    return Pictures(pictures.to(torch.uint8), classes)


def finished(accuracy: float, falls: float = 0.0) -> dict[str, Any]:
    """A run that climbs evenly to its best, two epochs before the end, and then falls."""
    climb = [accuracy * (epoch + 1) / (EPOCHS - 2) for epoch in range(EPOCHS - 2)]
    seconds = [5.0 * (epoch + 1) for epoch in range(EPOCHS)]
    return {"rate": 1e-3, "accuracy": [*climb, accuracy - falls / 2, accuracy - falls], "seconds": seconds}


def as_published() -> dict[str, Any]:
    """Runs that show what is published."""
    ends = {
        "gradient-direction": (0.6440, 0.0),
        "adam": (0.635, 0.005),
        "rmsprop": (0.62, 0.006),
        "momentum": (0.591, 0.0),
    }
    runs = {
        CifarRun("colour", peer, seed).name: finished(*ends.get(peer, (0.29, 0.0)))
        for peer in PEERS
        for seed in range(2)
    }
    for seed in range(2):
        runs[CifarRun("colour", "gradient-direction", seed).name]["accuracy"] = [0.5] * 5 + [0.6441] * 15
    return {"cifar": {"runs": runs}}


def test_the_small_network_has_the_published_number_of_parameters() -> None:
    counts = [sum(p.numel() for p in small_network(channels).parameters()) for channels in (3, 1)]
    assert counts == [62_006, 61_706]


def test_all_runs_are_planned_once_and_all_seeds_of_both_kinds_of_pictures() -> None:
    planned = [*published_runs(), *remaining_runs()]
    assert len({run.name for run in planned}) == len(planned) == 2 * len(PEERS) * SEEDS + 4 * len(PEERS)


@pytest.mark.parametrize("peer", PEERS)
def test_every_optimiser_trains_the_small_network(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "EPOCHS", 2)
    record = train_cifar(CifarRun("colour", peer, 0), noise(150), noise(60, seed=1))
    assert record["loss"][1] < record["loss"][0]
    assert len(record["accuracy"]) == len(record["seconds"]) == 2


def test_runs_of_one_seed_start_alike_and_see_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "EPOCHS", 1)
    monkeypatch.setattr(benchmark, "BATCH", 1000)  # the loss of the only batch is that of the initial weights
    first, second, other = (
        train_cifar(CifarRun("colour", peer, seed), noise(80), noise(10))["loss"]
        for peer, seed in (("adam", 3), ("sgd", 3), ("sgd", 4))
    )
    assert first == second != other


def test_grey_is_luma() -> None:
    colour = Pictures(torch.tensor([255, 0, 100], dtype=torch.uint8).view(1, 3, 1, 1), torch.tensor([0]))
    assert grey(colour).pictures.flatten().tolist() == [round(0.299 * 255 + 0.114 * 100)]


def test_mosaics_are_read_tile_by_tile_in_rgb(tmp_path: Path) -> None:
    mosaic = np.zeros((1600, 1600, 3), np.uint8)
    mosaic[32:64, 64:96] = (0, 0, 255)  # row 1, column 2; red, since OpenCV writes BGR
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("mosaic_000.jpg", cv2.imencode(".jpg", mosaic)[1].tobytes())
        archive.writestr("labels.txt", "\n".join(str(i % 10) for i in range(2500)))
    pictures, labels = read_cifar10(tmp_path / "c.zip")
    assert pictures.shape == (2500, 32, 32, 3)
    assert labels[:3].tolist() == [0, 1, 2]
    red = pictures[:, 16, 16, 0] > 200
    assert np.flatnonzero(red).tolist() == [52]
    assert pictures[52, 16, 16, 2] < 50


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar10_train\.zip does not exist"):
        read_cifar10(tmp_path / "cifar10_train.zip")


def test_the_rate_is_chosen_by_the_end_on_held_out_pictures_once_all_are_tried() -> None:
    tried = PEERS["adam"].multiples
    runs = {CifarRun("colour", "adam", 0, m, True).name: finished(0.5 + 0.01 * i) for i, m in enumerate(tried)}
    runs[CifarRun("colour", "adam", 0, tried[0], True).name] = finished(0.9, falls=0.6)
    assert best_multiples(runs) == {"adam": tried[-1]}
    del runs[CifarRun("colour", "adam", 0, tried[1], True).name]
    assert best_multiples(runs) == {}


def test_epochs_and_time_to_a_mark_are_medians_and_say_how_many_came_there() -> None:
    runs = [
        {"accuracy": [0.1, 0.64, 0.7], "seconds": [5, 10, 15]},
        {"accuracy": [0.1, 0.2, 0.3], "seconds": [5, 9, 15]},
    ]
    assert reached(runs, MARKS[1]) == "2 epochs, 10 s (1 of 2)"
    assert reached(runs[1:], MARKS[1]) == "never (0 of 1)"
    assert reached([], MARKS[1]) == "not run"


def test_runs_as_published_confirm_every_claim() -> None:
    found = claims(as_published())
    assert [verdict for _, _, verdict in found] == ["confirmed"] * len(found)
    assert "| confirmed |" in claims_table(as_published())


def test_runs_that_are_not_as_published_confirm_none() -> None:
    results = as_published()
    for name in results["cifar"]["runs"]:
        if "gradient-direction" in name:
            results["cifar"]["runs"][name] = finished(0.6, falls=0.1)
    assert {verdict for _, _, verdict in claims(results)} == {"not confirmed"}


def test_what_was_not_run_stands_in_the_table_as_such() -> None:
    for results in ({}, {"cifar": {"runs": {}}}):
        assert optimisers_table(results).count("not run") == 4 * 3 * len(PEERS)
        assert claims_table(results) == text_table(results) == "Not run yet.\n"
        assert optimisers_picture(results) == ""


def test_the_tables_show_mean_and_spread_over_the_seeds_that_there_are() -> None:
    results = as_published()
    results["cifar"]["runs"][CifarRun("colour", "adam", 1).name] = finished(0.646)
    row = next(row for row in optimisers_table(results).splitlines() if row.startswith("| Adam, colour"))
    assert "63.0" in row  # published
    assert "63.8 ± 1.1" in row  # 63.0 and 64.6
    assert "(1 of 2)" in row


def test_the_picture_has_a_named_curve_for_every_optimiser_and_is_well_formed() -> None:
    picture = ElementTree.fromstring(optimisers_picture(as_published()))
    names = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"gradient direction", "Adam", "RMSprop", "SGD, momentum 0.9", "SGD (below)"} <= names
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}polyline"))) == len(PEERS)


def test_a_better_curve_lies_higher_and_later_epochs_lie_right() -> None:
    drawn = curves(
        [Curve("a", (0.2, 0.4), (0.2, 0.4), (0.2, 0.4)), Curve("b", (0.3, 0.3), (0.3, 0.3), (0.3, 0.3))], "x", "y"
    )
    a, b = (
        [[float(v) for v in corner.split(",")] for corner in line.split()]
        for line in re.findall(r'polyline points="([^"]+)"', drawn)
    )
    assert a[0][0] < a[1][0]
    assert a[0][1] > b[0][1] == b[1][1] > a[1][1]


def test_names_at_the_ends_lie_apart_in_the_order_of_their_curves() -> None:
    places = spread([100.0, 102.0, 101.0, 20.0], 15, 200)
    assert sorted(range(4), key=lambda i: places[i]) == [3, 0, 2, 1]
    ordered = sorted(places)
    assert all(b - a >= 15 for a, b in pairwise(ordered))


def test_the_text_tasks_best_rate_takes_the_fewest_steps_and_then_the_best_end() -> None:
    def row(rate: float, accuracy: dict[str, float], seed: int = 0) -> dict[str, Any]:
        return {"optimiser": "adamw", "rate": rate, "seed": seed, "accuracy": accuracy}

    slow, fast = row(1e-3, {"50": 0.1, "100": 0.9}), row(2e-3, {"50": 0.85})
    assert best_rate([slow, fast, row(4e-3, {"50": 0.99}, seed=1)], "adamw") == 2e-3
    assert best_rate([row(1e-3, {"50": 0.3}), row(2e-3, {"50": 0.4})], "adamw") == 2e-3


def test_the_text_table_tells_the_steps_of_every_seed_and_the_computed_step() -> None:
    run = {"optimiser": "gradient-direction", "rate": 1, "seed": 0, "accuracy": {"50": 0.6, "100": 0.85}}
    results = {"text": {"steps": 1500, "marks": [0.5, 0.8], "first_step": 1.656, "runs": [run, run | {"seed": 1}]}}
    told = text_table(results)
    assert "| gradient-direction, 1.66 (computed) | 2 | 50, 50 | 100, 100 |" in told
    assert "| adamw, 0.002 | 0 | not run | not run |" in told
