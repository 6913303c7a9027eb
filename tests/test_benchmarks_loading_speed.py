"""Our reading beside the usual Dataset's: the same lines, timed in full swing."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.loading_speed import RightPadding, UsualLines, clocked, opencv_picture, ours, pillow_picture, usual
from crnn.charset import Charset
from data.batches import Batching, Stream, Windows
from data.lines import open_lines
from data.lmdb_lines import Entry, write_lmdb
from data.picture import InputSpec


def jpeg(height: int, width: int) -> bytes:
    smooth = np.linspace(30, 220, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
    file = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_lmdb(tmp_path / "x.lmdb", [Entry(jpeg(30 + i, 90 + i), "ab"[: 1 + i % 2], f"line {i}") for i in range(40)])
    return tmp_path / "x.lmdb"


def test_both_usual_ways_see_nearly_the_same_picture_of_height_32_and_the_width_that_keeps_the_aspect() -> None:
    encoded = jpeg(48, 100)
    one, other = pillow_picture(encoded), opencv_picture(encoded)
    assert one.shape == other.shape == (32, 67, 3)
    assert np.abs(one.astype(int) - other).mean() < 2


def test_usual_lines_come_as_floats_of_minus_1_to_1_with_their_label(stored: Path) -> None:
    tensor, label = UsualLines([stored], [(0, 3)], opencv_picture)[0]
    assert label == "ab"
    assert tensor.shape[:2] == (3, 32)
    assert -1 <= float(tensor.min()) < float(tensor.max()) <= 1


def test_a_usual_batch_is_padded_on_the_right_by_the_last_column() -> None:
    lines = [(torch.rand(3, 32, 8), "a"), (torch.rand(3, 32, 12), "ba")]
    pictures, targets, lengths = RightPadding(Charset.of("ab"))(lines)
    assert torch.equal(pictures[0, :, :, :8], lines[0][0])
    assert torch.equal(pictures[0, :, :, 8:], lines[0][0][:, :, -1:].expand(3, 32, 4))
    assert torch.equal(pictures[1], lines[1][0])
    assert targets.tolist() == [[1, 0], [2, 1]]
    assert lengths.tolist() == [1, 2]


@pytest.mark.parametrize("way", ["ours", "pillow", "opencv"])
def test_every_way_reads_all_lines_of_the_windows(stored: Path, tmp_path: Path, way: str) -> None:
    cv2.setNumThreads(0)
    source = open_lines(stored)
    charset = Charset.of("ab ")
    stream = Stream((source,), (1.0,), 0)
    windows = Windows(stream, InputSpec(), charset.encode, charset.normalise, Batching(stretch=1.0, margins=0.0))
    copy = tmp_path / "copy.lmdb"
    write_lmdb(copy, [source.entry(i) for i in range(len(source))])
    walk = ours(windows, 0) if way == "ours" else usual(way, windows, [copy], 0, 1)
    sizes: dict[int, int] = {}
    for window, size in walk:
        if window == 2:
            break
        sizes[window] = sizes.get(window, 0) + size
    assert sizes == {0: 1024, 1: 1024}


def test_the_clock_counts_the_lines_from_window_2_on() -> None:
    turn = clocked(iter([(0, 5), (1, 5), (2, 7), (2, 3), (3, 9), (4, 1), (5, 100)]), 2)
    assert turn.rate > 0
    assert turn.cpu >= 0


def test_a_walk_that_ends_before_its_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="ended after 7 lines of 2 windows; give fewer --windows"):
        clocked(iter([(0, 5), (1, 5), (2, 7)]), 2)
