"""Training a few-shot model by episodes: what an episode holds, the objective, the file, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from crnn.characters.crops import crop_spec
from crnn.characters.episodes import TURNS, ClassCrops, EpisodeObjective, EpisodeWindows, open_classes, train
from crnn.characters.episodes_cli import EpisodeFitOptions, EpisodeOptions
from crnn.characters.few_shot import FewShotOutputs, load_few_shot
from crnn.characters.regions import MatchingOptions, RegionMatcher
from crnn.checkpoint import FEW_SHOT_FORMAT, has_format, load_tensors
from crnn.objectives.recognition import DeviceBatch
from data.batches import UNKNOWN, Batch

FAMILIES = {"capital": "ABCD", "small": "bdpq", "digit": "2345"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One folder a class, in one folder a family; four crops of each."""
    for family, letters in FAMILIES.items():
        for letter in letters:
            place = tmp_path / "crops" / family / letter
            place.mkdir(parents=True)
            for i in range(4):
                picture = np.full((40, 36, 3), 230, np.uint8)
                cv2.putText(picture, letter, (4 + i, 32 - i), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (20, 20, 20), 2)
                cv2.imwrite(str(place / f"{i}.png"), picture)
    return tmp_path / "crops"


def tiny(out: Path, folder: Path, until: str = "4", **changes: Any) -> EpisodeOptions:
    loop = EpisodeFitOptions(
        until=(until,), batch_lines=12, workers=0, warm_up=1, threads=1, validate_every=2, save_every=2,
        precision="fp32",
    )  # fmt: skip
    chosen: dict[str, Any] = {"data": (str(folder),), "width": 0.125, "validation": "0", "fit": loop}
    return EpisodeOptions(out=out, **(chosen | changes))


def windows(**changes: Any) -> EpisodeWindows:
    squares = np.repeat(np.arange(24, dtype=np.uint8), 64 * 64).reshape(24, 64, 64, 1) * 10
    names = [f"{'ab'[i // 12]}/{i // 4}" for i in range(24)]
    crops = ClassCrops.of(squares, names, [str(i) for i in range(24)])
    chosen: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 1, "turned": False, "composed": 0.0, "seed": 0}
    return EpisodeWindows(crops, crop_spec(32, 1), **(chosen | changes))


def classes_of(batch: Batch) -> list[int]:
    return [int(n) for n in batch.targets[:, 0]]


def test_an_episode_holds_each_class_with_its_support_and_its_queries() -> None:
    for batch in windows()[0]:
        numbers = [n // TURNS for n in classes_of(batch)]
        assert numbers == [n for n in dict.fromkeys(numbers) for _ in range(3)]
        assert len(set(batch.keys)) == 9
        assert all(int(key) // 4 == number for key, number in zip(batch.keys, numbers, strict=True))


def test_about_half_of_the_episodes_are_of_one_family() -> None:
    drawn = [batch for window in range(8) for batch in windows()[window]]
    alone = sum(len({n // TURNS // 3 for n in classes_of(batch)}) == 1 for batch in drawn)
    assert 0.4 < alone / len(drawn) < 0.75


def test_a_window_is_the_same_every_time() -> None:
    first, again = (windows(turned=True, composed=0.5)[3] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.pictures, other.pictures)


def test_turned_classes_are_classes_of_their_own() -> None:
    numbers = {n % TURNS for batch in windows(turned=True)[0] for n in classes_of(batch)}
    assert len(numbers) > 4


def test_composed_classes_are_no_class_of_the_training_set() -> None:
    assert {n for batch in windows(composed=1.0)[0] for n in classes_of(batch)} == {UNKNOWN}


def test_a_class_of_fewer_crops_than_an_episode_takes_gives_some_twice() -> None:
    batch = windows(shots=4, queries=2)[0][0]
    assert len(batch) == 18
    assert len(set(batch.keys)) == 12


def on_torch(classes: list[int]) -> DeviceBatch:
    none = torch.zeros(0)
    return DeviceBatch(none, torch.tensor(classes)[:, None], none, none, none)


def objective(shots: int, queries: int, weight: float = 0.0) -> EpisodeObjective:
    torch.manual_seed(0)
    return EpisodeObjective(RegionMatcher(MatchingOptions()), shots, queries, 6, 5, weight)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_queries() -> None:
    maps, own = torch.rand(9, 6, 2, 2), objective(2, 1)
    terms = own(FewShotOutputs(maps), on_torch([0, 0, 0, 1, 1, 1, 2, 2, 2]), 0)
    support = own.matcher.support(maps[[0, 1, 3, 4, 6, 7]], torch.tensor([0, 0, 1, 1, 2, 2]), 3)
    similarity = own.matcher(support, maps[[2, 5, 8]]).similarity
    expected = functional.cross_entropy(own.matcher.sharpness.exp() * similarity, torch.arange(3))
    assert float(terms["loss"]) == pytest.approx(float(expected), rel=1e-5)


@torch.no_grad()
def test_without_queries_each_support_picture_is_told_by_the_others_of_its_class() -> None:
    maps, own = torch.rand(4, 6, 2, 2), objective(2, 0)
    found, labels = own.compared(maps)
    by_the_second = own.matcher.support(maps[[1, 3]], torch.tensor([0, 1]), 2)
    torch.testing.assert_close(found[:2], own.matcher.log_probs(own.matcher(by_the_second, maps[[0, 2]]).similarity))
    assert labels.tolist() == [0, 1, 0, 1]


@torch.no_grad()
def test_composed_classes_have_no_part_in_the_classification() -> None:
    maps, own = torch.rand(6, 6, 2, 2), objective(1, 1, weight=1.0)
    known = own(FewShotOutputs(maps), on_torch([3, 3, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]), 0)["classification"]
    directions = functional.normalize(maps.mean((2, 3)))[:2]
    scores = own.sharpness.exp() * directions @ functional.normalize(own.prototypes).T
    expected = functional.cross_entropy(scores, torch.tensor([3, 3]), reduction="sum") / 6
    assert float(known) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("representation", ["global", "local", "both"])
def test_a_run_writes_a_model_that_loads_and_compares(tmp_path: Path, folder: Path, representation: str) -> None:
    train(tiny(tmp_path / "f.pt", folder, representation=representation), "crnn characters episodes")
    model = load_few_shot(tmp_path / "f.pt")
    assert has_format(load_tensors(tmp_path / "f.pt"), FEW_SHOT_FORMAT)
    assert model.info.matching.representation == representation
    maps = model.maps(np.zeros((3, 32, 32, 1), np.uint8) + np.array([0, 90, 200], np.uint8)[:, None, None, None])
    assert maps.shape[2] * maps.shape[3] == model.regions
    probabilities = model.probabilities(model.support(maps, np.arange(3), 3), maps)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_families_are_held_out_whole(tmp_path: Path, folder: Path) -> None:
    training, held, _ = open_classes(tiny(tmp_path / "f.pt", folder, validation="0.5"))
    families = [{(text or "").split("/")[0] for s in part for text in s.texts()} for part in (training, held)]
    assert families[0] & families[1] == set()
    assert families[0] | families[1] == set(FAMILIES)


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    train(tiny(tmp_path / "whole.pt", folder), "c")
    with monkeypatch.context() as patched:
        patched.setattr("crnn.characters.episodes.saver", lambda out: stop)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "cut.pt", folder), "c")  # its state is that of step 2
    train(tiny(tmp_path / "cut.pt", folder, resume=True), "c")
    whole, cut = (load_few_shot(tmp_path / name).state_dict() for name in ("whole.pt", "cut.pt"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_run_that_was_cut_off_does_not_go_on_with_other_crops(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("crnn.characters.episodes.saver", lambda out: stop)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "cut.pt", folder), "c")
    next((folder / "digit" / "2").glob("*.png")).unlink()
    with pytest.raises(ValueError, match=r'"lines of training source 1": [0-9]+ then, "lines'):
        train(tiny(tmp_path / "cut.pt", folder, resume=True), "c")


def test_a_share_that_holds_out_one_class_is_refused_with_what_to_do(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "held" / "x").mkdir(parents=True)
    (folder / "digit" / "2" / "0.png").rename(tmp_path / "held" / "x" / "0.png")
    with pytest.raises(ValueError, match="one class alone is held out, 'x'; raise --validation, name a source"):
        train(tiny(tmp_path / "f.pt", folder, validation=str(tmp_path / "held")), "c")


def test_one_class_is_refused(tmp_path: Path, folder: Path) -> None:
    (folder / "digit" / "2").rename(tmp_path / "2")
    (tmp_path / "one").mkdir()
    (tmp_path / "2").rename(tmp_path / "one" / "2")
    with pytest.raises(ValueError, match="leaves one class to train on"):
        train(tiny(tmp_path / "f.pt", tmp_path / "one"), "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 0}, "give --shots 2"),
        ({"shots": 0}, "--shots is 0"),
        ({"shots": 9}, "leaves 1 classes in an episode"),
        ({"composed": 2.0}, "--composed is 2.0"),
        ({"classification": -1.0}, "--classification is -1.0"),
        ({"data": ()}, "no --data was given"),
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    fit = EpisodeFitOptions(batch_lines=12)
    with pytest.raises(ValueError, match=message):
        EpisodeOptions(**({"out": tmp_path / "f.pt", "data": ("x",), "fit": fit} | changes))


def test_a_weighted_source_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="every class counts the same"):
        open_classes(tiny(tmp_path / "f.pt", folder, data=(f"{folder}:2",)))
