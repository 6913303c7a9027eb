"""Degradations: pure functions of picture, generator and strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from numpy.random import Generator

from data.lines import Picture
from data.synthesis import degrade

BAR_LEFT, BAR_RIGHT = 60, 80


def generator(seed: int = 0) -> Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def bar() -> Picture:
    """A white box halfway up a black picture, 32 high and 200 wide."""
    picture = np.zeros((32, 200, 3), np.uint8)
    picture[14:18, BAR_LEFT:BAR_RIGHT] = 255
    return picture


@pytest.fixture
def bar_columns() -> degrade.Columns:
    return np.array([[BAR_LEFT / 200, BAR_RIGHT / 200]], np.float32)


STEPS: dict[str, Callable[[Picture, Generator], Picture]] = {
    "gaussian_blur": lambda p, r: degrade.gaussian_blur(p, 1.2),
    "motion_blur": lambda p, r: degrade.motion_blur(p, 4, 0.4),
    "low_resolution": lambda p, r: degrade.low_resolution(p, 2.2),
    "sensor_noise": lambda p, r: degrade.sensor_noise(p, 12, r),
    "coloured sensor_noise": lambda p, r: degrade.sensor_noise(p, 12, r, coloured=True),
    "jpeg": lambda p, r: degrade.jpeg(p, 30),
    "uneven_light": lambda p, r: degrade.uneven_light(p, 1.0, r),
    "shadow": lambda p, r: degrade.shadow(p, 0.5, r),
    "glare": lambda p, r: degrade.glare(p, 1.0, r),
    "defocus": lambda p, r: degrade.defocus(p, 1.5),
    "contrast": lambda p, r: degrade.contrast(p, 0.5, 128),
    "colour_cast": lambda p, r: degrade.colour_cast(p, 1.0, r),
    "photometric": lambda p, r: degrade.photometric(p, r, 1.5),
    "augment": degrade.augment,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_keeps_size_and_leaves_its_input_alone(name: str, draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Street 42")
    before = picture.copy()
    out = STEPS[name](picture, generator(1))
    assert out.shape == picture.shape
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_depends_on_the_generator_alone(name: str, draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Street 42")
    np.testing.assert_array_equal(STEPS[name](picture, generator(5)), STEPS[name](picture, generator(5)))


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ("photometric", "augment")])
def test_a_step_changes_the_picture(name: str, draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Street 42")
    assert not np.array_equal(STEPS[name](picture, generator(2)), picture)


def test_pictures_of_any_size_are_degraded() -> None:
    for height, width in ((4, 4), (9, 700), (300, 40), (64, 3000)):
        picture = generator().integers(0, 256, (height, width, 3)).astype(np.uint8)
        for seed in range(12):
            out, _ = degrade.degrade(picture, None, generator(seed), 1.5)
            assert out.shape == picture.shape


def test_strength_zero_changes_nothing(bar: Picture, bar_columns: degrade.Columns) -> None:
    picture, columns = degrade.degrade(bar, bar_columns, generator(), 0.0)
    assert picture is bar
    assert columns is bar_columns


def test_columns_follow_the_warp(bar: Picture, bar_columns: degrade.Columns) -> None:
    moved = False
    for seed in range(40):
        picture, columns = degrade.warp(bar, bar_columns, generator(seed), 1.5)
        assert columns is not None
        weight = picture[:, :, 0].sum(axis=0).astype(float)
        middle = float((weight * (np.arange(200) + 0.5)).sum() / weight.sum())
        assert float(columns.mean()) * 200 == pytest.approx(middle, abs=1)
        moved |= abs(float(columns[0, 0]) * 200 - BAR_LEFT) > 2
    assert moved


def test_columns_stay_in_the_picture(bar: Picture) -> None:
    ends = np.array([[0.0, 0.02], [0.98, 1.0]], np.float32)
    for seed in range(40):
        _, columns = degrade.degrade(bar, ends, generator(seed), 1.5)
        assert columns is not None
        assert columns.dtype == np.float32
        assert ((columns >= 0) & (columns <= 1)).all()


def test_without_columns_none_come_back(bar: Picture) -> None:
    assert degrade.degrade(bar, None, generator(), 1.0)[1] is None


def test_low_resolution_loses_detail_and_keeps_brightness(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Street 42")
    out = degrade.low_resolution(picture, 2.5)
    sharpness = [cv2.Laplacian(p, cv2.CV_32F).var() for p in (picture, out)]
    assert sharpness[1] < sharpness[0] / 4
    assert out.mean() == pytest.approx(picture.mean(), abs=2)


def test_contrast_draws_towards_the_middle() -> None:
    picture = np.array([[[0, 100, 255]]], np.uint8)
    assert degrade.contrast(picture, 0.5, 100).tolist() == [[[50, 100, 178]]]


def test_real_lines_are_changed_gently(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Street 42")
    kept = 0
    for seed in range(60):
        out = degrade.augment(picture, generator(seed))
        kept += np.array_equal(out, picture)
        grey, grey_out = picture.mean(axis=2).ravel(), out.mean(axis=2).ravel()
        assert abs(float(np.corrcoef(grey, grey_out)[0, 1])) > 0.5
    assert 5 <= kept <= 30


def test_a_factor_of_nought_turns_a_degradation_off(draw_word: Callable[[str], Picture]) -> None:
    picture = draw_word("Street 42")
    names = [field.name for field in fields(degrade.Degradations)]
    nothing = degrade.Degradations.of([f"{name}:0" for name in names])
    for seed in range(40):
        np.testing.assert_array_equal(degrade.photometric(picture, generator(seed), 1.0, nothing), picture)
    for name in ("glare", "defocus", "jpeg", "noise", "shadow"):
        one = replace(nothing, **{name: 4.0})
        changed = [
            not np.array_equal(degrade.photometric(picture, generator(seed), 1.0, one), picture) for seed in range(60)
        ]
        assert sum(changed) > 0, name


@pytest.mark.parametrize("given", ["fog:1", "jpeg", "jpeg:-1", "jpeg:9", "jpeg:much", "jpeg:nan"])
def test_an_unknown_degradation_or_factor_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=given.partition(":")[0]):
        degrade.Degradations.of([given])


def test_glare_only_brightens() -> None:
    picture = np.full((32, 120, 3), 90, np.uint8)
    for seed in range(20):
        assert (degrade.glare(picture, 1.0, generator(seed)) >= picture).all()


def test_a_ramp_is_that_of_linspace() -> None:
    for size in (2, 7, 300):
        np.testing.assert_array_equal(degrade.ramp(0.37, size), np.linspace(-0.37, 0.37, size, dtype=np.float32))
