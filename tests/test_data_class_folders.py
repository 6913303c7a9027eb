"""Crops in one folder a class: the folder is the label."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from crnn.characters.classify import folder_name
from data.class_folders import ClassFolders, open_labelled, spelt_out


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((12, 10), 200, np.uint8))


def test_the_folder_of_a_picture_is_its_label(tmp_path: Path) -> None:
    for name in ("ß/1.png", "ß/2.png", "seven/x.png"):
        write(tmp_path / name)
    assert sorted(open_labelled(tmp_path).texts()) == ["seven", "ß", "ß"]  # type: ignore[type-var]


def test_a_folder_around_all_of_them_is_no_part_of_the_label(tmp_path: Path) -> None:
    for name in ("set/Greek/a/1.png", "set/Greek/b/1.png", "set/Latin/a/1.png"):
        write(tmp_path / name)
    assert open_labelled(tmp_path).texts() == ["Greek/a", "Greek/b", "Latin/a"]


def test_a_zip_of_folders_reads_the_same(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        write(tmp_path / "crops" / name)
    with zipfile.ZipFile(tmp_path / "crops.zip", "w") as archive:
        for path in sorted((tmp_path / "crops").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    assert open_labelled(tmp_path / "crops.zip").texts() == ["a", "b"]


@pytest.mark.parametrize("label", ["a", "A", "/", "€", "ab", "ﬁ", "가"])
def test_folders_that_classify_made_give_their_labels_back(label: str) -> None:
    assert spelt_out(folder_name(label)) == label


def test_a_labels_tsv_goes_before_folders(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    (tmp_path / "labels.tsv").write_text("a/1.png\tq\n", encoding="utf-8")
    assert open_labelled(tmp_path).texts() == ["q"]


def test_a_picture_beside_the_folders_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png lies in no folder of a class"):
        ClassFolders(tmp_path)


def test_pictures_of_one_class_alone_are_of_that_class(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "a" / "2.png")
    assert open_labelled(tmp_path).texts() == ["a", "a"]
