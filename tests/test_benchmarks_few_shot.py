"""The few-shot benchmark: crops cut to their ink, the official runs, and what its tables claim."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.few_shot import (
    REPRESENTATIONS,
    FewShotOptions,
    alphabets,
    choice_table,
    descriptions_table,
    few_shot_table,
    inked,
    looked,
    official_runs,
    prepare,
)


def page(rows: slice, columns: slice) -> NDArray[np.uint8]:
    picture = np.full((105, 105, 3), 255, np.uint8)
    picture[rows, columns] = 0
    return picture


def encoded(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def test_a_crop_is_its_ink_and_a_margin() -> None:
    assert inked(page(slice(20, 40), slice(50, 60))).shape == (24, 14, 3)


def test_a_background_set_becomes_one_folder_a_character(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "omniglot_background_small1.zip", "w") as archive:
        for name in ("Greek/character01/a.png", "Greek/character02/a.png", "Latin/character01/a.png"):
            archive.writestr(f"images_background_small1/{name}", encoded(page(slice(9, 30), slice(9, 20))))
    options = FewShotOptions(data=tmp_path, out=tmp_path / "out")
    prepare(options, 1)
    assert alphabets(options, 1) == ["Greek", "Latin"]
    assert (tmp_path / "out" / "small1" / "Greek" / "character02" / "a.png").exists()


def test_an_official_run_says_which_picture_each_test_is_of(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as archive:
        for i in (1, 2):
            archive.writestr(f"run01/training/class0{i}.png", encoded(page(slice(0, 10 * i), slice(0, 10))))
            archive.writestr(f"run01/test/item0{i}.png", encoded(page(slice(0, 10 * (3 - i)), slice(0, 10))))
        archive.writestr(
            "run01/class_labels.txt",
            "run01/test/item01.png run01/training/class02.png\nrun01/test/item02.png run01/training/class01.png\n",
        )
    ((support, tests, labels),) = official_runs(tmp_path / "runs.zip")
    assert labels == [1, 0]
    assert all(np.array_equal(support[label], test) for label, test in zip(labels, tests, strict=True))


def test_the_frame_is_on_the_region_that_was_chosen() -> None:
    attention = np.zeros(9, np.float32)
    attention[5] = 1.0  # row 1, column 2 of 3 x 3
    made = looked(np.full((40, 40, 3), 255, np.uint8), attention)
    assert made[24, 60].tolist() == [20, 20, 20]
    assert made[10, 60].tolist() != [20, 20, 20]


def results(errors: dict[str, float], chosen: dict[str, float]) -> dict[str, Any]:
    return {
        "choice": {
            "steps": 9, "held": ["Greek"], "rows": [{"setting": name, "error": e} for name, e in chosen.items()],
        },
        "omniglot": {
            "rows": [
                {"representation": name, "set": number, "trials": 400, "error": e, "interval": [e - 0.01, e + 0.01],
                 "steps": 9, "seconds": 60.0}
                for name, e in errors.items() for number in (1, 2)
            ]
        },
    }  # fmt: skip


def test_the_aim_is_judged_by_the_representation_that_held_out_alphabets_chose() -> None:
    chosen = dict(zip(REPRESENTATIONS, (0.2, 0.4, 0.3), strict=True))
    told = few_shot_table(results({"global": 0.19, "both": 0.01}, chosen))
    assert "chose global: 19.0 and 19.0 %. On both sets at most 20 %: reached, at most 15 %: not reached" in told


def test_an_aim_is_not_judged_before_a_choice() -> None:
    assert "no aim is judged" in few_shot_table(results({"global": 0.1}, {"global": 0.1}))


@pytest.mark.parametrize("made", [few_shot_table, choice_table, descriptions_table])
def test_what_was_not_run_says_so(made: Any) -> None:
    assert made({}).startswith("Not run yet")
