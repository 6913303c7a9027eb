"""The comparison of synthesis with other generators: what they are given, and what is made of their figures."""

from __future__ import annotations

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import degradations
from benchmarks.other_generators import SCRIPTS, job, one_of_each_design
from benchmarks.synthesis import figures, repeats, write_small_png
from data.synthesis.fonts import plain_font_file
from data.synthesis.source import SynthesisOptions, SynthesisSource


@pytest.fixture(scope="module")
def source() -> SynthesisSource:
    return SynthesisSource(SynthesisOptions(fonts="all", font_folders=(plain_font_file().parent,)), 1)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_of_a_generator_is_python(name: str) -> None:
    ast.parse(SCRIPTS[name])


def test_a_generator_is_given_the_texts_that_ours_draws(source: SynthesisSource) -> None:
    given = job(source, 5, 1)
    assert given["texts"] == [source[i].text for i in range(5)]
    assert all(Path(font).exists() for font in given["fonts"])
    assert len(one_of_each_design(source.fonts)) <= len({font.design for font in source.fonts})


def test_a_generator_with_its_own_words_is_given_none() -> None:
    given = job(None, 5, 1)
    assert (given["texts"], given["fonts"], given["count"]) == ([], [], 5)


def test_the_factor_is_that_of_the_medians() -> None:
    assert figures([50.0, 10.0, 40.0], 800.0, True)["ours_is_times"] == 20.0


def test_no_picture_repeats_among_the_first_lines(source: SynthesisSource) -> None:
    assert repeats(source, 300) == 0


def test_every_degradation_has_a_row_and_strength_nought_leaves_the_picture(tmp_path: Path) -> None:
    picture = degradations.word(2)
    for name, change in degradations.RANGES.items():
        assert not np.array_equal(change(picture, 1.0, np.random.default_rng(11)), picture), name
    write_small_png(tmp_path / "small.png", np.zeros((50, 2000, 3), np.uint8))
    assert cv2.imread(str(tmp_path / "small.png")).shape == (25, 1000, 3)
