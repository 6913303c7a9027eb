"""Ranges of activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from export.calibration import calibrate, gridded_values
from export.graph import read_graph
from export.operators import Graph


def graph_of(path: Path) -> Graph:
    return read_graph(Crnn.from_checkpoint(load_checkpoint(path)))


def noise(width: int, seed: int, size: float = 1.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).uniform(-size, size, (1, 3, 32, width)).astype(np.float32)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_every_gridded_value_gets_a_range_from_lines_of_any_width(
    random_checkpoint: Callable[..., Path], backbone: str
) -> None:
    graph = graph_of(random_checkpoint(backbone))
    ranges = calibrate(graph, [noise(64, 1), noise(200, 2)])
    assert set(gridded_values(graph)) <= set(ranges)


def test_a_range_covers_what_was_seen_in_any_line(random_checkpoint: Callable[..., Path]) -> None:
    graph = graph_of(random_checkpoint())
    one, other = calibrate(graph, [noise(64, 1)]), calibrate(graph, [noise(96, 2, 0.5)])
    both = calibrate(graph, [noise(64, 1), noise(96, 2, 0.5)])
    assert all(both[name] == one[name] | other[name] for name in both)


def test_the_pictures_have_a_range_too(random_checkpoint: Callable[..., Path]) -> None:
    picture = noise(64, 1)
    found = calibrate(graph_of(random_checkpoint()), [picture])["pictures"]
    assert (found.low, found.high) == (picture.min(), picture.max())


def test_what_a_relu_ends_has_no_negative_values(random_checkpoint: Callable[..., Path]) -> None:
    ranges = calibrate(graph_of(random_checkpoint()), [noise(64, 1)])
    assert ranges["backbone.stages.conv1"].low == 0
    assert ranges["backbone.stages.layer1.0"].low == 0
    assert ranges["backbone.stages.layer1.0.conv2"].low < 0


def test_pooling_keeps_the_range_of_its_input(random_checkpoint: Callable[..., Path]) -> None:
    ranges = calibrate(graph_of(random_checkpoint()), [noise(64, 1)])
    assert ranges["backbone.stages.maxpool"] == ranges["backbone.stages.conv1"]


def test_a_hard_swish_lies_between_two_grids(random_checkpoint: Callable[..., Path]) -> None:
    values = gridded_values(graph_of(random_checkpoint("mobilenet_v3_small")))
    assert values[:3] == ["pictures", "backbone.stages.0.0.linear", "backbone.stages.0.0"]


def test_no_line_is_no_calibration(random_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="calibration needs lines"):
        calibrate(graph_of(random_checkpoint()), [])
