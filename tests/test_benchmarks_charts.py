"""Accuracy against size or time as a picture."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from benchmarks.charts import PLOT, Box, Point, log_ticks, place_labels, scatter, share_ticks, x_range


def test_every_model_is_named_and_the_picture_is_well_formed() -> None:
    points = [
        Point("teacher <a>.pt", 57.5, 0.91, 0.90, 0.92, "network"),
        Point("student.onnx", 3.1, 0.88, 0.87, 0.89, "exported"),
    ]
    picture = ElementTree.fromstring(scatter(points, "MB", "exact, %"))
    texts = [element.text for element in picture.iter("text")]
    assert {"teacher <a>.pt", "student.onnx", "MB", "exact, %"} <= set(texts)
    assert len(picture.findall(".//circle")) == 1
    assert len(picture.findall(".//path")) == 1


def test_smaller_is_left_and_better_is_up() -> None:
    points = [Point("s", 1.0, 0.5, 0.4, 0.6, "network"), Point("t", 100.0, 0.9, 0.8, 1.0, "network")]
    picture = scatter(points, "MB", "exact")
    (s, t) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', picture)
    assert float(s[0]) < float(t[0])
    assert float(s[1]) > float(t[1])


def test_names_of_points_that_lie_together_do_not_cover_each_other() -> None:
    places = [(200.0, 150.0), (202.0, 151.0), (204.0, 149.0), (201.0, 152.0), (390.0, 60.0), (60.0, 300.0)]
    bars = [Box(x - 4, y - 20, x + 4, y + 20) for x, y in places]
    boxes = place_labels(
        ["mobilenet_v3_small.onnx", "resnet18.onnx", "s.pt", "t.pt", "far.pt", "left.pt"], places, bars
    )
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(boxes, 2))
    for box in boxes:
        assert PLOT.left <= box.left
        assert box.right <= PLOT.right
        assert PLOT.top <= box.top
        assert box.bottom <= PLOT.bottom


def test_one_model_alone_is_drawn_too() -> None:
    low, high = x_range([3.1])
    assert low < 3.1 < high
    assert "s.pt" in scatter([Point("s.pt", 3.1, 1.0, 1.0, 1.0, "network")], "MB", "exact")


def test_ticks_are_round_and_cover_the_values() -> None:
    assert log_ticks(0.8, 60) == [1, 2, 5, 10, 20, 50]
    assert log_ticks(0.5, 2e4) == [1, 10, 100, 1000, 10000]
    ticks = share_ticks(0.71, 0.88)
    assert ticks[0] <= 0.71
    assert ticks[-1] >= 0.88
    assert share_ticks(0.0, 1.0)[0] == 0
    assert share_ticks(0.0, 1.0)[-1] == pytest.approx(1)
    assert len(share_ticks(1.0, 1.0)) > 1
