"""Squares of single characters, and the batches made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crnn.characters.crops import CropWindows, altered, crop_spec, evenly, labelled, squared
from data.batches import Batch
from data.folder_lines import FolderLines
from data.lines import Subset
from data.picture import scale


def windows(folder: Path, **changes: object) -> CropWindows:
    source = FolderLines(folder)
    numbers = {name: i for i, name in enumerate(sorted({text or "" for text in source.texts()}))}
    return replace(CropWindows((source,), (1.0,), numbers, crop_spec(32, 1), 8), **changes)  # type: ignore[arg-type]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(np.array_equal(a.pictures, b.pictures) and a.keys == b.keys for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (5, 5), (300, 299), (1, 400), (400, 1)])
def test_a_crop_of_any_shape_becomes_a_square_with_its_aspect_kept(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 200, np.uint8)
    picture[: (shape[0] + 1) // 2] = 40  # the upper half is dark
    made = squared(picture, crop_spec(48, 1))
    assert made.shape == (48, 48, 1)
    assert set(np.unique(made[[0, -1]])) <= set(range(38, 203))


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_what_the_shorter_side_lacks_is_in_the_colour_of_the_edge(ground: int) -> None:
    picture = np.full((12, 36, 3), ground, np.uint8)
    picture[4:8, 10:26] = 255 - ground
    made = squared(picture, crop_spec(48, 3))
    assert made.shape == (48, 48, 3)
    assert (made[:16] == ground).all()
    assert (made[-16:] == ground).all()
    assert (made[24, 20:28] == 255 - ground).all()


def test_a_tall_crop_is_the_wide_one_turned() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    spec = crop_spec(48, 1)
    turned = squared(np.ascontiguousarray(picture.swapaxes(0, 1)), spec)
    assert np.abs(squared(picture, spec).astype(int) - turned.swapaxes(0, 1)).max() <= 1


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (50, 1), (48, 2)])
def test_a_square_that_no_model_takes_is_refused(side: int, channels: int) -> None:
    with pytest.raises(ValueError, match="give"):
        crop_spec(side, channels)


def test_augmentation_keeps_shape_and_ground_and_changes_little() -> None:
    picture = np.full((48, 48, 1), 230, np.uint8)
    picture[14:34, 14:34] = 20
    made = [altered(picture, np.random.default_rng(seed)) for seed in range(20)]
    assert all(crop.shape == (48, 48, 1) and crop.dtype == np.uint8 for crop in made)
    assert all(crop[0, 0, 0] > 150 and crop[24, 24, 0] < 80 for crop in made)
    assert len({crop.tobytes() for crop in made}) == 20


def test_a_window_is_the_same_whenever_it_is_drawn(crops_folder: Callable[..., Path]) -> None:
    folder = crops_folder(a=30, b=10, c=2)
    for samples in (0, 2):
        made = windows(folder, samples=samples)
        later = made[3]
        assert same(later, windows(folder, samples=samples)[3])
        assert not same(later, made[4])


@pytest.mark.parametrize("samples", [0, 2])
def test_each_window_draws_other_crops(crops_folder: Callable[..., Path], samples: int) -> None:
    made = windows(crops_folder(a=30, b=30, c=30), samples=samples, augment=False)
    keys = [[batch.keys for batch in made[number]] for number in range(3)]
    assert keys[0] != keys[1] != keys[2] != keys[0]


def test_every_crop_comes_once_before_any_comes_again(crops_folder: Callable[..., Path]) -> None:
    made = windows(crops_folder(a=60, b=60, c=8), augment=False)[0]
    keys = [key for batch in made for key in batch.keys]
    assert len(keys) == len(set(keys)) == 128
    assert {len(batch) for batch in made} == {8}


def test_pk_batches_hold_each_of_their_classes_k_times_however_rare(crops_folder: Callable[..., Path]) -> None:
    made = windows(crops_folder(a=30, b=1, c=3, d=30, e=2), samples=2)
    for batch in made[0]:
        classes, counts = np.unique(batch.targets, return_counts=True)
        assert len(classes) == 4
        assert (counts == 2).all()


def test_a_batch_of_fewer_classes_than_p_holds_all_of_them(crops_folder: Callable[..., Path]) -> None:
    made = windows(crops_folder(a=5, b=5), samples=2, batch=64)
    assert {len(batch) for batch in made[0]} == {4}


def test_labels_stay_with_their_pictures(crops_folder: Callable[..., Path]) -> None:
    made = windows(crops_folder(a=9, b=9), augment=False)
    source, spec = made.sources[0], made.spec
    batch = made[0][0]
    for picture, target, (_, index) in zip(batch.pictures, batch.targets[:, 0], batch.items, strict=True):
        assert np.array_equal(picture, squared(source[int(index)].picture, spec))
        assert "ab"[target] == source[int(index)].text
    assert scale(batch.pictures, spec).shape == (8, 1, 32, 32)


def test_a_crop_without_a_label_is_named_or_left_out(tmp_path: Path, crops_folder: Callable[..., Path]) -> None:
    folder = crops_folder(a=2, b=1)
    with (folder / "labels.tsv").open() as file:
        rows = file.read().replace("0002.png\tb", "0002.png\t")
    (folder / "labels.tsv").write_text(rows)
    with pytest.raises(ValueError, match=r"0002\.png has no label"):
        labelled(FolderLines(folder), drop=False)
    assert labelled(FolderLines(folder), drop=True) == ([0, 1], 1)
    (folder / "labels.tsv").unlink()
    with pytest.raises(ValueError, match="no labelled crop"):
        labelled(FolderLines(folder), drop=True)


def test_evenly_takes_from_all_of_a_sorted_set(crops_folder: Callable[..., Path]) -> None:
    source = FolderLines(crops_folder(a=10, b=10, c=10))
    assert {line.text for line in evenly(source, 6)} == {"a", "b", "c"}
    assert len(evenly(source, 100)) == 30
    assert evenly(Subset(source, ()), 5) == []
