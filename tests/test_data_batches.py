"""From lines to batches: which lines, in what order, stretched how."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from data.batches import (
    ENDLESS,
    MOST_STRETCH,
    Batch,
    Batching,
    Stream,
    Windows,
    column_classes,
    iterate,
    widened,
)
from data.lines import Line, LineSource, Picture, Subset, open_lines, required_columns
from data.lmdb_lines import Entry, write_lmdb
from data.picture import InputSpec, decode_picture, natural_width, resize

CHARSET = Charset.of("ab")
BLANK, UNKNOWN = 0, -1


class Drawn:
    """Lines of many widths whose picture tells their number: line i has the grey i and a text of its own."""

    def __init__(self, count: int, texts: Sequence[str | None] = ("a", "ab", "aab"), columns: bool = False) -> None:
        self.count, self.labels, self.columns = count, texts, columns

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Line:
        width = 40 + index * 37 % 211
        text = self.labels[index % len(self.labels)]
        picture = np.full((32, width, 3), index % 251, np.uint8)
        lies = None
        if self.columns and text is not None:
            edges = np.linspace(0.1, 0.9, len(text) + 1, dtype=np.float32)
            lies = np.stack([edges[:-1], edges[1:]], axis=1)
        return Line(picture, text, f"line {index}", lies)

    def texts(self) -> Sequence[str | None]:
        return [self[i].text for i in range(self.count)]


class Endless(Drawn):
    def __len__(self) -> int:
        return ENDLESS


def windows(*sources: LineSource, weights: tuple[float, ...] = (), seed: int = 0, **batching: object) -> Windows:
    chosen = Batching(**({"batch_lines": 4, "window_lines": 24} | batching))  # type: ignore[arg-type]
    stream = Stream(sources, weights or (1.0,) * len(sources), seed)
    return Windows(stream, InputSpec(), CHARSET.encode, CHARSET.normalise, chosen)


def first(made: Windows, batches: int, workers: int = 0, window: int = 0, batch: int = 0) -> list[Batch]:
    return [made for _, _, made in itertools.islice(iterate(made, workers, window, batch), batches)]


def assert_same(one: Sequence[Batch], other: Sequence[Batch]) -> None:
    assert [batch.keys for batch in one] == [batch.keys for batch in other]
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.pictures, b.pictures)
        assert np.array_equal(a.targets, b.targets)
        assert np.array_equal(a.column_classes, b.column_classes)


def brightened(picture: Picture, generator: np.random.Generator) -> Picture:
    return (picture // 2 + np.uint8(generator.integers(100))).astype(np.uint8)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_whatever_the_number_of_workers(workers: int) -> None:
    made = replace(windows(Drawn(50, columns=True), Drawn(30)), augment=brightened)
    assert_same(first(made, 24, workers), first(made, 24))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_walk_goes_on_from_any_position_as_if_it_had_not_stopped(workers: int) -> None:
    made = replace(windows(Drawn(50, columns=True), Drawn(30)), augment=brightened)
    walk = list(itertools.islice(iterate(made, 0), 26))
    for position in (1, 7, 16) if workers == 0 else (7,):
        window, number, _ = walk[position]
        rest = first(made, len(walk) - position, workers, window, number)
        assert_same(rest, [batch for _, _, batch in walk[position:]])


def test_the_position_after_a_windows_last_batch_is_the_next_window() -> None:
    made = windows(Drawn(50))
    count = len(made[0])
    assert_same(first(made, 3, batch=count), first(made, 3, window=1))


def test_processes_share_the_windows_between_them() -> None:
    made = windows(Drawn(50))
    shared = [[w for w, _, _ in itertools.islice(iterate(made, 0, rank, 0, 2), 20)] for rank in range(2)]
    assert set(shared[0]) <= {0, 2, 4, 6}
    assert set(shared[1]) <= {1, 3, 5, 7}


def test_another_seed_is_another_order() -> None:
    assert [b.keys for b in first(windows(Drawn(50)), 5)] != [b.keys for b in first(windows(Drawn(50), seed=1), 5)]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.3), (0.01, 1.0)])
@pytest.mark.parametrize("lines", [24, 1024])
def test_every_line_of_a_source_comes_once_before_any_comes_again(weights: tuple[float, float], lines: int) -> None:
    stream = Stream((Drawn(37), Drawn(101)), weights, 3)
    drawn: dict[int, list[int]] = {0: [], 1: []}
    for number in range(60):
        for source, index in stream.window(number, lines):
            drawn[source].append(index)
    for source, size in ((0, 37), (1, 101)):
        epochs = [drawn[source][i : i + size] for i in range(0, len(drawn[source]) - size + 1, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len(epochs) < 2 or epochs[0] != epochs[1]


def test_an_endless_source_is_walked_through_in_its_own_order() -> None:
    stream = Stream((Endless(1), Drawn(5)), (1.0, 1.0), 0)
    indices = [index for number in range(3) for source, index in stream.window(number, 10) if source == 0]
    assert indices == list(range(15))


def test_lines_are_mixed_by_weight() -> None:
    stream = Stream((Drawn(10), Drawn(20), Drawn(30)), (0.5, 2.0, 1.5), 0)
    counts = Counter(source for number in range(10) for source, _ in stream.window(number, 100))
    assert counts == {0: 125, 1: 500, 2: 375}


def test_a_small_weight_gets_its_share_over_many_windows() -> None:
    stream = Stream((Drawn(10), Drawn(20)), (0.001, 1.0), 0)
    counts = Counter(source for number in range(1000) for source, _ in stream.window(number, 24))
    assert counts[0] == pytest.approx(24, abs=1)


def test_no_line_is_stretched_by_more_than_15_percent_beyond_the_batch() -> None:
    spec, stretch = InputSpec(), 1.1
    made = windows(Drawn(400), batch_lines=16, window_lines=200, stretch=stretch, margins=0.0)
    source = Drawn(400)
    seen = set()
    for number in range(3):
        for batch in made[number]:
            width = batch.pictures.shape[2]
            assert width % spec.width_multiple == 0
            for _, index in batch.items:
                natural = natural_width(32, source[int(index)].picture.shape[1], spec)
                most, rounding = MOST_STRETCH * stretch, spec.width_multiple / 2
                assert natural / most - rounding <= width <= natural * most + rounding
                seen.add(width > natural)
    assert seen == {True, False}


def test_no_batch_is_narrower_than_its_labels_need() -> None:
    source = Drawn(1)
    for length in range(8, 31):
        text = "ab" * length
        source.labels = (text[:length],)
        made = windows(source, stretch=1.5, margins=0.0, window_lines=64, batch_lines=1)

        def narrow(picture: Picture, generator: np.random.Generator, length: int = length) -> Picture:
            return np.zeros((32, 4 * length + 4, 3), np.uint8)

        for batch in replace(made, augment=narrow)[0]:
            assert batch.pictures.shape[2] // 4 >= required_columns(text[:length])


def test_very_long_lines_come_in_smaller_batches() -> None:
    class Long(Drawn):
        def __getitem__(self, index: int) -> Line:
            return Line(np.zeros((32, 1000 if index % 2 else 64, 3), np.uint8), "a", str(index))

    for batch in windows(Long(100), batch_lines=8, window_lines=100, stretch=1.0, margins=0.0)[0]:
        assert len(batch) * batch.pictures.shape[2] <= 8 * 256
        assert len(batch) <= 8


def test_lines_with_a_label_outside_the_charset_are_named() -> None:
    with pytest.raises(ValueError, match="line 0: the label 'axe' holds 'ex'"):
        windows(Drawn(1, ["axe"]))[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [(b"broken", ValueError, "does not decode as a picture"), (None, OSError, "there is no")],
)
def test_a_picture_that_cannot_be_read_is_named_alike_by_a_worker(
    labelled_folder: Path, workers: int, content: bytes | None, kind: type[Exception], sentence: str
) -> None:
    lines = open_lines(labelled_folder)
    picture = labelled_folder / "images/000002.png"
    picture.unlink()
    if content is not None:
        picture.write_bytes(content)
    charset = Charset.named("ascii")
    with pytest.raises(kind, match=sentence) as raised:
        first(replace(windows(lines), encode=charset.encode, normalise=charset.normalise), 1, workers)
    assert "images/000002.png" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_targets_are_padded_with_the_blank_and_their_lengths_told() -> None:
    for batch in windows(Drawn(40, ["a", "bab", None]))[0]:
        for text, row, length in zip(batch.texts, batch.targets, batch.target_lengths, strict=True):
            expected = CHARSET.encode(text) if text is not None else []
            assert length == len(expected)
            assert row.tolist() == expected + [BLANK] * (len(row) - length)


def test_lines_without_label_have_no_text_no_target_and_no_columns() -> None:
    for batch in windows(Drawn(40, [None]))[0]:
        assert set(batch.texts) == {None}
        assert batch.targets.shape == (len(batch), 1)
        assert not batch.target_lengths.any()
        assert (batch.column_classes == UNKNOWN).all()


def test_labels_come_as_the_charset_writes_them() -> None:
    lower = Charset.of("ab", "lower")
    made = replace(windows(Drawn(24, ["AbA"])), encode=lower.encode, normalise=lower.normalise)
    assert {text for batch in made[0] for text in batch.texts} == {"aba"}


@pytest.mark.parametrize("exact", [True, False])
def test_a_batch_has_a_column_class_for_every_column_of_the_model(exact: bool) -> None:
    for batch in windows(Drawn(40, columns=True), exact=exact)[0]:
        assert batch.column_classes.shape == (len(batch), batch.pictures.shape[2] // 4)
        for text, row in zip(batch.texts, batch.column_classes, strict=True):
            assert set(CHARSET.encode(text or "")) <= set(row.tolist())


def test_exact_batches_show_each_line_as_a_reader_gets_it_at_every_visit() -> None:
    source, spec = Drawn(20), InputSpec()
    made = replace(windows(source, exact=True, stretch=1.5, margins=1.0), augment=brightened)
    visits: Counter[int] = Counter()
    for batch in first(made, 40):
        for (_, index), picture in zip(batch.items, batch.pictures, strict=True):
            assert np.array_equal(picture, resize(source[int(index)].picture, spec))
            visits[int(index)] += 1
    assert len(visits) == 20
    assert max(visits.values()) > 1


def test_items_and_keys_tell_the_source_and_the_line() -> None:
    for batch in windows(Drawn(20), Drawn(30))[0]:
        assert batch.keys == tuple(f"line {index}" for _, index in batch.items)
        assert set(batch.items[:, 0].tolist()) <= {0, 1}


def test_only_lines_that_are_not_drawn_are_degraded() -> None:
    made = replace(windows(Drawn(20), Drawn(20, columns=True), margins=0.0), augment=lambda picture, _: 255 - picture)
    for batch in made[0]:
        for (source, index), picture in zip(batch.items, batch.pictures, strict=True):
            assert (picture == (255 - index if source == 0 else index)).all()


def drawn_line() -> Line:
    """Two boxes of 20 pixels, light on dark, at 10 and 50 of 80 pixels."""
    picture = np.zeros((32, 80, 3), np.uint8)
    picture[:, 10:30], picture[:, 50:70] = 100, 200
    return Line(picture, "ab", "x", np.array([[10, 30], [50, 70]], np.float32) / np.float32(80))


@pytest.mark.parametrize("pixels", [0, 1, 13, 40])
def test_a_widened_line_keeps_its_columns_on_its_characters(pixels: int) -> None:
    line = widened(drawn_line(), pixels)
    assert line.picture.shape == (32, 80 + pixels, 3)
    assert line.columns is not None
    assert line.columns.dtype == np.float32
    edges = np.rint(line.columns * (80 + pixels)).astype(int)
    for (left, right), grey in zip(edges, (100, 200), strict=True):
        assert (line.picture[:, left:right] == grey).all()
        assert (line.picture[:, [left - 1, right]] == 0).all()


def test_a_widened_line_without_columns_has_none() -> None:
    assert widened(replace(drawn_line(), columns=None), 10).columns is None


@pytest.mark.parametrize(
    ("columns", "classes", "count", "expected"),
    [
        # a box over columns 0 to 9 of 20: its middle 60 % are columns 2 to 7, within 10 % of an edge lies nothing known
        ([[0.0, 0.5]], [3], 20, [0, -1, 3, 3, 3, 3, 3, 3, -1, 0] + [0] * 10),
        # narrow boxes own the column of their middle
        ([[0.05, 0.15], [0.3, 0.35]], [1, 2], 4, [1, 2, 0, 0]),
        # neighbours that touch: blank between them
        ([[0.0, 0.5], [0.5, 1.0]], [1, 2], 20, [0, -1, *[1] * 6, -1, 0, 0, -1, *[2] * 6, -1, 0]),
        # overlapping boxes: where one is in its middle, the other's edge gives way
        ([[0.0, 0.6], [0.4, 1.0]], [1, 2], 10, [0, 1, 1, 1, 1, 2, 2, 2, 2, 0]),
        ([], [], 4, [0, 0, 0, 0]),
        # boxes that reach over the picture's edge
        ([[-0.2, 0.05], [0.95, 1.2]], [1, 2], 4, [1, 0, 0, 2]),
    ],
)
def test_a_column_shows_the_character_in_the_middle_of_whose_box_it_lies(
    columns: list[list[float]], classes: list[int], count: int, expected: list[int]
) -> None:
    boxes: NDArray[np.float32] = np.array(columns, np.float32).reshape(-1, 2)
    assert column_classes(boxes, classes, count).tolist() == expected


class Tall(Drawn):
    """Lines whose picture tells the least height that they were asked to keep; 0 where they were asked for whole."""

    def __getitem__(self, index: int) -> Line:
        return self.reduced(index, 0)

    def reduced(self, index: int, least_height: int) -> Line:
        return Line(np.full((32, 64, 3), least_height, np.uint8), "a", f"line {index}")


def test_training_may_read_tall_jpegs_reduced_and_exact_batches_read_them_whole() -> None:
    trained = windows(Tall(24), margins=0.0)
    assert {int(batch.pictures.max()) for batch in trained[0]} == {2 * InputSpec().height}
    exact = windows(Tall(24), exact=True)
    assert {int(batch.pictures.max()) for batch in exact[0]} == {0}


def test_every_kind_of_stored_lines_reads_tall_jpegs_reduced(tmp_path: Path) -> None:
    encoded = cv2.imencode(".jpg", np.full((128, 256, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.jpg").write_bytes(encoded)
    write_lmdb(tmp_path / "a.lmdb", [Entry(encoded, "a", "a.jpg")])
    for path in (tmp_path / "pictures", tmp_path / "a.lmdb"):
        source = open_lines(path)
        for lines in (source, Subset(source, (0,))):
            assert lines.reduced(0, 64).picture.shape == (64, 128, 3)
            assert lines.reduced(0, 65).picture.shape == lines[0].picture.shape == (128, 256, 3)
            assert lines.reduced(0, 64).text == lines[0].text


def test_grey_and_colour_lines_of_an_lmdb_come_in_batches_as_a_reader_prepares_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (20 + i, 90 + i, 3)[: 2 + i % 2], np.uint8) for i in range(24)]
    encoded = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    write_lmdb(tmp_path / "x.lmdb", [Entry(e, "a", f"line {i}") for i, e in enumerate(encoded)])
    made = windows(open_lines(tmp_path / "x.lmdb"), stretch=1.0, margins=0.0)
    for batch in made[0]:
        for (_, index), picture in zip(batch.items, batch.pictures, strict=True):
            whole = decode_picture(encoded[int(index)], "x")
            assert np.array_equal(picture, resize(whole, InputSpec(), batch.pictures.shape[2]))
