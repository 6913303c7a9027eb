"""Synthetic lines as a source."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

from data.lines import Line, required_columns
from data.picture import InputSpec, natural_width
from data.synthesis.fonts import plain_font_file
from data.synthesis.source import SynthesisOptions, SynthesisSource

LUMINANCE = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def options() -> SynthesisOptions:
    """The fonts that come with matplotlib only: the same on every machine."""
    return SynthesisOptions(longest=12, font_folders=(plain_font_file().parent,))


def same(a: Line, b: Line) -> bool:
    assert a.columns is not None
    assert b.columns is not None
    return a.text == b.text and np.array_equal(a.picture, b.picture) and np.array_equal(a.columns, b.columns)


def item(source: SynthesisSource, index: int) -> Line:
    return source[index]


def test_an_item_is_the_same_in_every_process(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=4)
    here = [source[i] for i in (3, 700_000)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = list(pool.map(item, [source] * 2, [3, 700_000]))
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_an_item_does_not_depend_on_what_was_drawn_before(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=4)
    forward = [source[i] for i in range(30)]
    backward = [source[i] for i in reversed(range(30))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))


def test_a_pickled_source_gives_the_same_lines(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=4)
    again = pickle.loads(pickle.dumps(source))
    assert all(same(source[i], again[i]) for i in range(20))


def test_seeds_and_items_differ(options: SynthesisOptions) -> None:
    one, other = SynthesisSource(options, seed=1), SynthesisSource(options, seed=2)
    assert sum(same(one[i], other[i]) for i in range(20)) == 0
    assert len({one.text(i) for i in range(200)}) > 150


def test_the_labels_are_known_without_drawing(options: SynthesisOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SynthesisSource(options, seed=4)
    drawn = [source[i].text for i in range(40)]
    monkeypatch.setattr("data.synthesis.source.draw", lambda *_: pytest.fail("a picture was drawn"))
    texts = source.texts()
    assert len(texts) == len(source) == 10**9
    assert list(texts[:40]) == drawn
    assert texts[7] == drawn[7]


def test_a_source_ends_at_its_size(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=4, size=5)
    assert [source.text(i) for i in range(5)] == list(source.texts())
    assert same(source[-1], source[4])
    for index in (5, -6):
        with pytest.raises(IndexError, match="of 5"):
            source[index]


def test_lines_are_colour_pictures_with_a_label_a_key_and_columns(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=9)
    for i in range(60):
        line = source[i]
        assert line.text is not None
        assert line.columns is not None
        assert line.picture.dtype == np.uint8
        assert line.picture.ndim == 3
        assert line.picture.shape[2] == 3
        assert line.picture.flags.c_contiguous
        assert line.columns.shape == (len(line.text), 2)
        assert line.columns.dtype == np.float32
        assert str(i) in line.key


def test_columns_run_in_reading_order_within_the_picture(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=9)
    for i in range(200):
        columns = source[i].columns
        assert columns is not None
        assert ((columns >= 0) & (columns <= 1)).all()
        assert (columns[:, 1] >= columns[:, 0]).all()
        assert (np.diff(columns.mean(axis=1)) > 0).all()


def test_the_ink_lies_in_the_columns(options: SynthesisOptions) -> None:
    source = SynthesisSource(replace(options, easy=True, strength=0.0), seed=9)
    for i in range(60):
        line = source[i]
        assert line.columns is not None
        ink = 255 - (line.picture @ LUMINANCE)
        ink = np.clip(ink - np.median(ink[:, :1]) - 25, 0, None).sum(axis=0)
        inside = np.zeros(len(ink), bool)
        for left, right in line.columns * len(ink):
            inside[max(0, int(left) - 1) : int(np.ceil(right)) + 1] = True
        assert ink[inside].sum() >= 0.97 * ink.sum()


@pytest.mark.parametrize("longest", [12, 60])
def test_every_line_has_one_column_more_than_its_label_needs(options: SynthesisOptions, longest: int) -> None:
    source = SynthesisSource(replace(options, longest=longest), seed=2)
    for i in range(300):
        line = source[i]
        assert line.text is not None
        width = natural_width(line.picture.shape[0], line.picture.shape[1], InputSpec())
        assert width // 4 >= required_columns(line.text) + 1, line.text


def test_narrow_letters_get_enough_columns_too(options: SynthesisOptions, tmp_path: Path) -> None:
    corpus = tmp_path / "narrow.txt"
    corpus.write_text("illilliill\n!!!!\n.,..,,..\n" + "i" * 25 + "\n", encoding="utf-8")
    source = SynthesisSource(replace(options, longest=25, corpus=corpus), seed=2)
    for i in range(200):
        line = source[i]
        assert line.text is not None
        width = natural_width(line.picture.shape[0], line.picture.shape[1], InputSpec())
        assert width // 4 >= required_columns(line.text) + 1, line.text


def test_the_longest_texts_fit_too(options: SynthesisOptions, tmp_path: Path) -> None:
    corpus = tmp_path / "long.txt"
    corpus.write_text("MW" * 125 + "\n", encoding="utf-8")
    source = SynthesisSource(replace(options, shortest=250, longest=250, corpus=corpus), seed=2)
    line = next(line for i in range(20) if (line := source[i]).text == "MW" * 125)
    assert natural_width(line.picture.shape[0], line.picture.shape[1], InputSpec()) // 4 >= 251


def test_a_text_can_be_told_from_its_background(options: SynthesisOptions) -> None:
    source = SynthesisSource(replace(options, longest=8), seed=6)
    spreads = []
    for i in range(200):
        grey = source[i].picture @ LUMINANCE
        low, high = np.percentile(grey, (3, 97))
        spreads.append(high - low)
    assert min(spreads) > 12
    assert np.percentile(spreads, 10) > 40


def test_both_polarities_colours_and_grey_occur(options: SynthesisOptions) -> None:
    source = SynthesisSource(options, seed=6)
    pictures = [source[i].picture for i in range(200)]
    dark_grounds = np.mean([np.median(p @ LUMINANCE) < 100 for p in pictures])
    grey = np.mean([np.ptp(p.astype(int), axis=2).max() < 3 for p in pictures])
    black_and_white = np.mean([len(np.unique(p)) == 2 for p in pictures])
    assert 0.1 < dark_grounds < 0.7
    assert 0.05 < grey < 0.6
    assert black_and_white > 0


def test_easy_lines_are_short_and_dark_on_light(options: SynthesisOptions) -> None:
    source = SynthesisSource(replace(options, easy=True), seed=6)
    for i in range(100):
        line = source[i]
        assert line.text is not None
        assert len(line.text) <= 5
        grey = line.picture @ LUMINANCE
        assert np.percentile(grey, 90) > 150
        assert grey.max() - grey.min() > 60


def test_training_and_held_out_lines_share_neither_fonts_nor_words(options: SynthesisOptions) -> None:
    training = SynthesisSource(options, seed=0)
    kept = SynthesisSource(replace(options, fonts="held-out", words="held-out"), seed=0)
    assert not {font.design for font in training.fonts} & {font.design for font in kept.fonts}
    assert not {w.casefold() for w in training._maker.words} & {w.casefold() for w in kept._maker.words}


def test_a_text_is_never_drawn_with_a_font_that_lacks_its_characters(options: SynthesisOptions, tmp_path: Path) -> None:
    shutil.copy(plain_font_file(), tmp_path / "whole.ttf")
    font = TTFont(plain_font_file().parent / "DejaVuSansMono.ttf")
    for table in font["cmap"].tables:
        for character in "aeiou":
            table.cmap.pop(ord(character), None)
    font.save(tmp_path / "gaps.ttf")
    source = SynthesisSource(replace(options, fonts="all", font_folders=(tmp_path,)), seed=3)
    rng = np.random.default_rng(0)
    assert {Path(source._shelf.pick("moon", rng).path).name for _ in range(30)} == {"whole.ttf"}


def test_characters_that_no_font_has_are_named(options: SynthesisOptions) -> None:
    with pytest.raises(ValueError, match="字"):
        SynthesisSource(replace(options, characters="ab字"), seed=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"strength": 3.0}, "strength"),
        ({"looks": (0.0, 0.0, 0.0, 0.0)}, "looks"),
        ({"longest": 1000}, "longest"),
        ({"shortest": 9, "longest": 4}, "shortest"),
    ],
)
def test_impossible_options_are_refused(options: SynthesisOptions, change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SynthesisSource(replace(options, **change), seed=0)  # type: ignore[arg-type]


def test_a_negative_seed_is_refused(options: SynthesisOptions) -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        SynthesisSource(options, seed=-1)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with one red picture, and another one below it."""
    folder = tmp_path / "backgrounds"
    (folder / "more").mkdir(parents=True)
    red = np.full((90, 200, 3), (200, 20, 20), np.uint8)
    for name in ("a.png", "more/b.jpg"):
        cv2.imwrite(str(folder / name), red[:, :, ::-1])
    return folder


def test_half_of_the_scene_texts_stand_on_pictures_of_the_users_folder(
    options: SynthesisOptions, photographs: Path
) -> None:
    chosen = replace(options, backgrounds=photographs, looks=(1, 0, 0, 0), strength=0.0)
    source = SynthesisSource(chosen, seed=3)
    red = [np.abs(np.median(source[i].picture, axis=(0, 1)) - (200, 20, 20)).max() < 12 for i in range(80)]
    assert 0.3 < np.mean(red) < 0.7
    assert same(source[5], pickle.loads(pickle.dumps(source))[5])


def test_a_folder_without_backgrounds_is_named(options: SynthesisOptions, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}.*--backgrounds"):
        SynthesisSource(replace(options, backgrounds=tmp_path), seed=0)


def test_a_background_that_does_not_decode_is_named(options: SynthesisOptions, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    source = SynthesisSource(replace(options, backgrounds=tmp_path, looks=(1, 0, 0, 0)), seed=0)
    with pytest.raises(ValueError, match=r"broken\.png"):
        [source[i] for i in range(30)]


def test_a_seed_above_32_bits_gives_lines_too(options: SynthesisOptions) -> None:
    large, small = SynthesisSource(options, seed=2**40 + 1), SynthesisSource(options, seed=1)
    assert not same(large[0], small[0])


def test_a_line_of_a_seed_is_what_numpy_makes_of_seed_item_and_stream(options: SynthesisOptions) -> None:
    for index in (0, 5, 2**31):
        ours = SynthesisSource(options, seed=7, size=2**33)._generator(index, 1)
        numpys = np.random.Generator(np.random.PCG64(np.random.SeedSequence((7, index, 1))))
        assert ours.random(3).tolist() == numpys.random(3).tolist()
