"""Learning characters from a few crops and forgetting them: what is added, what stays, and what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from crnn.characters import classify_cli, learn_cli
from crnn.characters.checkpoint import CharacterCheckpoint, LearntClass, Memory, load_characters, save_characters
from crnn.characters.crops import crop_spec, squared
from crnn.characters.learn import Embedded as Crops
from crnn.characters.learn import Old, grown, left_out, support_centres, without
from crnn.characters.model import CharacterModel, class_probabilities, embedded
from crnn.characters.reading import learnt_scores, read_classes
from crnn.characters.train import some_of_each, train
from crnn.characters.train_cli import CharacterTrainOptions
from crnn.commands import FitOptions, run_command
from crnn.info import main as info
from data.folder_lines import FolderLines


def drawn(letter: str, generator: np.random.Generator) -> Any:
    """A letter on light ground, a little different every time."""
    picture = np.full((40, 40, 3), 235, np.uint8)
    place = (int(generator.integers(6, 12)), int(generator.integers(30, 36)))
    cv2.putText(picture, letter, place, cv2.FONT_HERSHEY_SIMPLEX, float(generator.uniform(0.8, 1.0)), (20, 20, 20), 2)
    return picture


def by_label(folder: Path, seed: int = 1, **counts: int) -> Path:
    """A folder with labels.tsv."""
    generator, rows = np.random.default_rng(seed), []
    folder.mkdir()
    for label, count in counts.items():
        for number in range(count):
            cv2.imwrite(str(folder / f"{label}{number}.png"), drawn(label, generator))
            rows.append(f"{label}{number}.png\t{label}\n")
    (folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


def by_folder(folder: Path, seed: int = 1, **counts: int) -> Path:
    """A folder with one folder a label."""
    generator = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / label / f"{number}.png"), drawn(label[0], generator))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of I, O and W that was trained for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    fit = FitOptions(
        until=("90",), batch_lines=16, workers=0, warm_up=1, threads=1, validate_every=90, precision="fp32",
        learning_rate=5e-3,
    )  # fmt: skip
    options = CharacterTrainOptions(
        out=folder / "m.pt", data=(str(by_label(folder / "crops", 0, I=30, O=30, W=30)),), width=0.25, embedding=8,
        side=32, validation="0.4", augment=False, fit=fit,
    )  # fmt: skip
    train(options, "crnn characters train")
    return folder / "m.pt"


def learn(model: Path, support: Path, out: Path, *more: str) -> int:
    arguments = ["--support", str(support), "--model", str(model), "--out", str(out), "--threads", "1", *more]
    return learn_cli.main(arguments)


def forget(model: Path, out: Path, *more: str) -> int:
    return learn_cli.forget_main(["--model", str(model), "--out", str(out), *more])


def readings(model: Path, source: Path, out: Path, *more: str) -> list[list[str]]:
    classify_cli.main([str(source), "--model", str(model), "--out", str(out), "--threads", "1", "--no-copies", *more])
    return [row.split("\t") for row in (out / "classes.tsv").read_text(encoding="utf-8").splitlines()]


def same(one: CharacterCheckpoint, other: CharacterCheckpoint) -> bool:
    assert one.centres is not None
    assert other.centres is not None
    return (
        one.info == other.info
        and torch.equal(one.centres, other.centres)
        and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights | other.weights)
    )


# What is learnt.


def test_a_learnt_character_is_read_and_no_old_one_is_read_as_another_old_one(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert learn(trained, by_label(tmp_path / "support", z=1), tmp_path / "grown.pt", "--may-lose", "0.2") == 0
    said = capsys.readouterr().out
    old = by_label(tmp_path / "old", 5, I=10, O=10, W=10)
    before, after = (readings(m, old, tmp_path / f"{m.stem}-old") for m in (trained, tmp_path / "grown.pt"))
    assert all(row[1] in (was[1], "z") for was, row in zip(before, after, strict=True))
    learn(trained, tmp_path / "support", tmp_path / "careful.pt")
    careful = readings(tmp_path / "careful.pt", old, tmp_path / "careful-old")
    assert [row[1] for row in before] == [row[1] for row in careful]
    new = readings(tmp_path / "grown.pt", tmp_path / "support", tmp_path / "out")
    assert new[0][1] == "z"
    assert "z: 1 crop\n" in said
    assert "old characters, " in said


def test_crops_that_are_left_out_tell_how_well_a_class_is_read(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = by_label(tmp_path / "support", z=2)
    learn(trained, support, tmp_path / "grown.pt", "--json")
    (row,) = json.loads(capsys.readouterr().out)["learnt"]
    made = load_characters(tmp_path / "grown.pt")
    assert made.centres is not None
    right = 0
    for kept, asked in ((0, 1), (1, 0)):  # at the same bias, with the centre that the other crop alone makes
        model, spec = CharacterModel.from_checkpoint(made), made.info.input_spec
        found = embedded(model, [squared(FolderLines(support)[i].picture, spec) for i in (kept, asked)], spec)
        centre = torch.from_numpy(found[:1] / np.linalg.norm(found[0]))
        scores = learnt_scores(replace(made, centres=torch.cat([made.centres[:3], centre])))
        assert scores is not None
        right += int(scores.margins(found[1:])[0, 0] > made.info.bias)
    assert row == {"class": "z", "crops": 2, "leave_one_out": right / 2}
    learn(trained, support, tmp_path / "again.pt")
    assert f"z: 2 crops, {right / 2:.0%} read right when left out" in capsys.readouterr().out


def test_a_weighted_description_is_weighted_where_a_crop_is_left_out_too(tmp_path: Path, trained: Path) -> None:
    before = load_characters(trained)
    model = CharacterModel.from_checkpoint(before)
    source = FolderLines(by_label(tmp_path / "support", z=4, I=2, v=3))
    labels = ["z" if text == "I" else text or "" for text in source.texts()]  # two are unlike their class
    found = embedded(model, [squared(source[i].picture, before.info.input_spec) for i in range(9)], crop_spec(32, 1))
    support = Crops(labels, found, 0)
    assert before.memory is not None
    old = Old("memory", before.memory, class_probabilities(model, before.memory.embeddings.float().numpy()))
    after = grown(before, support, LearntClass(0, "s", 0.5, "memory", "2026-01-01"), True, old)

    def margin(i: int, weighted: bool) -> float:
        rest = [j for j in range(9) if j != i]
        centres = support_centres(found[rest], [labels[j] for j in rest], ["v", "z"], weighted)
        assert after.centres is not None
        scores = learnt_scores(replace(after, centres=torch.cat([after.centres[:3], after.centres[3:4], centres[1:]])))
        assert scores is not None
        return float(scores.margins(found[i : i + 1])[0].max())

    own = [i for i, label in enumerate(labels) if label == "z"]
    apart = max(own, key=lambda i: abs(margin(i, True) - margin(i, False)))
    bias = (margin(apart, True) + margin(apart, False)) / 2
    biased = replace(after, info=replace(after.info, bias=bias))
    scores = learnt_scores(biased)
    assert scores is not None
    for weighted in (True, False):
        expected = [margin(i, weighted) > bias for i in own]
        assert left_out(biased, support, model, scores, weighted)["z"] == sum(expected) / len(own)
    assert (margin(apart, True) > bias) != (margin(apart, False) > bias)


def test_the_weights_of_the_old_stay_bit_for_bit(tmp_path: Path, trained: Path) -> None:
    learn(trained, by_label(tmp_path / "support", z=2), tmp_path / "grown.pt")
    before, after = load_characters(trained), load_characters(tmp_path / "grown.pt")
    assert before.centres is not None
    assert after.centres is not None
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)
    assert torch.equal(after.centres[:3], before.centres)
    assert after.info.classes == ("I", "O", "W", "z")
    assert after.info.counts == before.info.counts
    assert after.info.provenance == before.info.provenance


def test_a_folder_a_class_teaches_the_same_as_labels(tmp_path: Path, trained: Path) -> None:
    learn(trained, by_label(tmp_path / "labels", z=3, T=2), tmp_path / "a.pt")
    learn(trained, by_folder(tmp_path / "folders", z=3, T=2), tmp_path / "b.pt")
    with zipfile.ZipFile(tmp_path / "folders.zip", "w") as file:
        for path in sorted((tmp_path / "folders").rglob("*.png")):
            file.write(path, path.relative_to(tmp_path / "folders"))
    learn(trained, tmp_path / "folders.zip", tmp_path / "c.pt")
    a, b, c = (load_characters(tmp_path / name) for name in ("a.pt", "b.pt", "c.pt"))
    assert a.info.classes == b.info.classes == c.info.classes == ("I", "O", "W", "T", "z")
    assert a.centres is not None
    assert b.centres is not None
    assert torch.allclose(a.centres, b.centres, atol=1e-6)
    assert a.info.bias == pytest.approx(b.info.bias, abs=1e-6) == pytest.approx(c.info.bias, abs=1e-6)


def test_one_class_of_one_crop_is_enough(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert learn(trained, by_label(tmp_path / "support", z=1), tmp_path / "grown.pt", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["learnt"] == [{"class": "z", "crops": 1, "leave_one_out": None}]
    assert found["old"]["from"] == "memory"
    assert found["old"]["accuracy_before"] == found["old"]["accuracy_after"]
    (entry,) = load_characters(tmp_path / "grown.pt").info.learnt
    assert (entry.crops, entry.support, entry.may_lose) == (1, str(tmp_path / "support"), 0.001)


def test_a_greater_share_that_may_be_lost_lowers_the_bias(tmp_path: Path, trained: Path) -> None:
    support = by_label(tmp_path / "support", z=3)
    learn(trained, support, tmp_path / "a.pt", "--may-lose", "0.0001")
    learn(trained, support, tmp_path / "b.pt", "--may-lose", "0.1")
    a, b = (load_characters(tmp_path / name).info.bias for name in ("a.pt", "b.pt"))
    assert a > b


def test_the_most_careful_share_holds_for_all_and_that_is_said(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn(trained, by_label(tmp_path / "z", z=3), tmp_path / "one.pt", "--may-lose", "0.001")
    assert "one bias holds" not in capsys.readouterr().out
    learn(tmp_path / "one.pt", by_label(tmp_path / "T", T=3), tmp_path / "two.pt", "--may-lose", "0.2")
    assert "one bias holds for all learnt classes: that of --may-lose 0.001" in capsys.readouterr().out


def test_characters_learnt_one_after_another_are_those_learnt_together(tmp_path: Path, trained: Path) -> None:
    learn(trained, by_label(tmp_path / "z", z=3), tmp_path / "one.pt")
    learn(tmp_path / "one.pt", by_label(tmp_path / "T", T=3), tmp_path / "two.pt")
    by_label(tmp_path / "zz", z=3)
    support = by_folder(tmp_path / "both", z=0, T=0)
    for label in "zT":
        for number in range(3):
            (support / label / f"{number}.png").write_bytes((tmp_path / label / f"{label}{number}.png").read_bytes())
    learn(trained, support, tmp_path / "both.pt")
    after, together = load_characters(tmp_path / "two.pt"), load_characters(tmp_path / "both.pt")
    assert after.info.classes[3:] == ("z", "T")
    assert together.info.classes[3:] == ("T", "z")
    assert after.info.bias == pytest.approx(together.info.bias, abs=1e-6)


def test_the_bias_can_be_set_on_crops_that_are_given(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, support = by_label(tmp_path / "old", 7, I=8, O=8, W=8), by_label(tmp_path / "support", z=3)
    bare = replace(load_characters(trained), memory=None)
    save_characters(tmp_path / "bare.pt", bare)
    with pytest.raises(ValueError, match=r"keeps no memory of its characters.*--old"):
        learn(tmp_path / "bare.pt", support, tmp_path / "grown.pt")
    learn(tmp_path / "bare.pt", support, tmp_path / "grown.pt", "--old", str(old), "--json")
    assert json.loads(capsys.readouterr().out)["old"] | {"accuracy_before": 0, "accuracy_after": 0} == {
        "from": str(old), "crops": 24, "accuracy_before": 0, "accuracy_after": 0, "changed_readings": 0,
    }  # fmt: skip
    learn(tmp_path / "grown.pt", by_label(tmp_path / "more", T=3), tmp_path / "more.pt")
    assert load_characters(tmp_path / "more.pt").info.learnt[1].bias_set_on == str(old)
    with pytest.raises(ValueError, match=r"learnt classes already.*leave --old out"):
        learn(tmp_path / "grown.pt", by_label(tmp_path / "again", L=3), tmp_path / "x.pt", "--old", str(old))
    forget(tmp_path / "more.pt", tmp_path / "back.pt", "--all")
    assert (tmp_path / "back.pt").read_bytes() == (tmp_path / "bare.pt").read_bytes()


def test_info_tells_what_was_learnt(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn(trained, by_label(tmp_path / "support", z=2), tmp_path / "grown.pt")
    capsys.readouterr()
    info([str(tmp_path / "grown.pt"), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["learnt_later"]["z"]["crops"] == 2
    assert facts["bias"] == load_characters(tmp_path / "grown.pt").info.bias
    assert facts["memory"] > 10
    info([str(tmp_path / "grown.pt")])
    assert "learnt later" in capsys.readouterr().out


def test_classify_tells_trained_from_learnt(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn(trained, by_label(tmp_path / "support", z=5), tmp_path / "grown.pt", "--may-lose", "0.05")
    capsys.readouterr()
    rows = readings(tmp_path / "grown.pt", by_label(tmp_path / "both", 9, I=4, z=4), tmp_path / "out", "--json")
    figures = json.loads(capsys.readouterr().out)
    right = [row[1] == label for row, label in zip(rows, "IIIIzzzz", strict=True)]
    assert figures["trained_and_learnt"] == {
        "trained": {"crops": 4, "accuracy": sum(right[:4]) / 4}, "learnt": {"crops": 4, "accuracy": sum(right[4:]) / 4},
    }  # fmt: skip
    assert figures["by_frequency"]["few"]["classes"] == 2  # both: I has 18 or so training crops, z five
    by_centre = readings(tmp_path / "grown.pt", tmp_path / "both", tmp_path / "out2", "--by", "nearest-centre")
    assert [row[1] for row in by_centre[4:]] == [row[1] for row in rows[4:]]


# Forgetting.


def test_forgetting_gives_the_model_back_byte_for_byte(tmp_path: Path, trained: Path) -> None:
    save_characters(tmp_path / "as-loaded.pt", load_characters(trained))
    learn(trained, by_label(tmp_path / "support", z=2, T=2), tmp_path / "grown.pt")
    forget(tmp_path / "grown.pt", tmp_path / "back.pt", "--all")
    assert (tmp_path / "back.pt").read_bytes() == (tmp_path / "as-loaded.pt").read_bytes()
    assert same(load_characters(tmp_path / "back.pt"), load_characters(trained))


def test_forgetting_what_was_learnt_last_gives_back_what_was_there_before(tmp_path: Path, trained: Path) -> None:
    learn(trained, by_label(tmp_path / "z", z=3), tmp_path / "one.pt", "--may-lose", "0.05")
    learn(tmp_path / "one.pt", by_label(tmp_path / "T", T=3), tmp_path / "two.pt")
    forget(tmp_path / "two.pt", tmp_path / "back.pt", "--classes", "T")
    assert same(load_characters(tmp_path / "back.pt"), load_characters(tmp_path / "one.pt"))
    forget(tmp_path / "two.pt", tmp_path / "other.pt", "--classes", "z")
    assert load_characters(tmp_path / "other.pt").info.classes == ("I", "O", "W", "T")


def test_what_was_not_learnt_is_not_forgotten(tmp_path: Path, trained: Path) -> None:
    learn(trained, by_label(tmp_path / "support", z=1), tmp_path / "grown.pt")
    with pytest.raises(ValueError, match=r"'W' was not learnt later but trained.*train anew"):
        forget(tmp_path / "grown.pt", tmp_path / "back.pt", "--classes", "z", "W")
    with pytest.raises(ValueError, match=r"'q' is no class of .*learnt later are z"):
        forget(tmp_path / "grown.pt", tmp_path / "back.pt", "--classes", "q")
    with pytest.raises(ValueError, match="nothing to forget"):
        forget(trained, tmp_path / "back.pt", "--all")
    with pytest.raises(ValueError, match="--classes with labels, or --all"):
        learn_cli.ForgetOptions(trained, tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()


# What is refused.


def test_a_character_that_is_known_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ValueError, match=r"'W' is known already: the model was trained on \d+ crops"):
        learn(trained, by_label(tmp_path / "a", z=1, W=1), tmp_path / "grown.pt")
    learn(trained, by_label(tmp_path / "z", z=2), tmp_path / "one.pt")
    with pytest.raises(ValueError, match=r"'z' was learnt already, from 2 crops.*forget it first"):
        learn(tmp_path / "one.pt", tmp_path / "z", tmp_path / "grown.pt")
    assert not (tmp_path / "grown.pt").exists()


def test_a_crop_that_does_not_decode_is_named_and_the_others_teach(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = by_label(tmp_path / "support", z=3)
    (support / "z1.png").write_bytes(b"no picture")
    assert learn(trained, support, tmp_path / "grown.pt") == 1
    said = capsys.readouterr()
    assert "z1.png does not decode" in said.err
    assert "1 pictures could not be read" in said.out
    assert load_characters(tmp_path / "grown.pt").info.learnt[0].crops == 2
    for name in ("z0.png", "z2.png"):
        (support / name).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no crop of 'z' in .* can be read"):
        learn(trained, support, tmp_path / "none.pt")


def test_a_support_without_labels_is_refused(tmp_path: Path, trained: Path) -> None:
    support = by_label(tmp_path / "support", z=2)
    (support / "labels.tsv").write_text("z0.png\tz\nz1.png\t\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"z1\.png of --support has no label"):
        learn(trained, support, tmp_path / "grown.pt")
    (support / "labels.tsv").unlink()
    with pytest.raises(ValueError, match=r"z0\.png lies in no folder of a class"):
        learn(trained, support, tmp_path / "grown.pt")


def test_a_model_without_centres_and_a_model_of_lines_are_refused_in_one_sentence(
    tmp_path: Path, trained: Path, random_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    save_characters(tmp_path / "early.pt", replace(load_characters(trained), centres=None))
    support = by_label(tmp_path / "support", z=2)
    with pytest.raises(ValueError, match="no class centres yet"):
        learn(tmp_path / "early.pt", support, tmp_path / "grown.pt")
    arguments = ["--support", str(support), "--model", str(random_checkpoint()), "--out", str(tmp_path / "grown.pt")]
    assert run_command("crnn characters learn", learn_cli.main, arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is no character model" in said


def test_a_file_that_is_there_is_replaced_only_on_demand(tmp_path: Path, trained: Path) -> None:
    model = tmp_path / "m.pt"
    model.write_bytes(trained.read_bytes())
    support = by_label(tmp_path / "support", z=2)
    with pytest.raises(FileExistsError, match="--overwrite"):
        learn(model, support, model)
    assert learn(model, support, model, "--overwrite") == 0
    assert load_characters(model).info.classes[3:] == ("z",)
    assert forget(model, model, "--all", "--overwrite") == 0
    assert same(load_characters(model), load_characters(trained))


@pytest.mark.parametrize(("label", "sentence"), [("q", "labelled 'q', which the model was not trained on")])
def test_old_crops_are_of_trained_classes(tmp_path: Path, trained: Path, label: str, sentence: str) -> None:
    old = by_label(tmp_path / "old", W=12, **{label: 1})
    with pytest.raises(ValueError, match=sentence):
        learn(trained, by_label(tmp_path / "support", z=2), tmp_path / "grown.pt", "--old", str(old))


def test_few_old_crops_are_not_enough_for_a_bias(tmp_path: Path, trained: Path) -> None:
    old = by_label(tmp_path / "old", W=3)
    with pytest.raises(ValueError, match="needs 10; give more of them with --old"):
        learn(trained, by_label(tmp_path / "support", z=2), tmp_path / "grown.pt", "--old", str(old))


@pytest.mark.parametrize("share", ["0", "1", "-0.1"])
def test_a_share_that_may_be_lost_is_between_none_and_all(tmp_path: Path, share: str) -> None:
    with pytest.raises(ValueError, match="--may-lose"):
        learn_cli.LearnOptions(tmp_path, tmp_path, tmp_path, may_lose=float(share))


# The rule.


def test_the_description_is_the_mean_direction_or_the_weighted_one() -> None:
    support = np.array([[3.0, 0.0], [0.0, 5.0], [0.0, 1.0], [2.0, 0.0]], np.float32)
    assert support_centres(support, ["a", "a", "b", "c"], ["a", "b", "c"]).tolist() == [[0.5, 0.5], [0, 1], [1, 0]]
    noisy = np.array([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [-0.2, 1.0], [-1.0, 0.0]], np.float32)
    labels = ["a", "a", "a", "a", "b"]
    plain, weighted = (support_centres(noisy, labels, ["a", "b"], w)[0] for w in (False, True))
    assert weighted[0] > plain[0]  # the fourth crop is unlike the others and counts less


def test_learning_with_the_rule_of_the_report_is_that_of_classify(tmp_path: Path, trained: Path) -> None:
    learn(trained, by_label(tmp_path / "support", z=3), tmp_path / "grown.pt", "--may-lose", "0.05")
    grown_file = load_characters(tmp_path / "grown.pt")
    source = FolderLines(by_label(tmp_path / "both", 11, I=5, O=5, z=5))
    model, spec = CharacterModel.from_checkpoint(grown_file), grown_file.info.input_spec
    found = embedded(model, [squared(source[i].picture, spec) for i in range(15)], spec)
    scores = learnt_scores(grown_file)
    assert scores is not None
    reading = read_classes(class_probabilities(model, found), scores.margins(found), grown_file.info.bias)
    rows = readings(tmp_path / "grown.pt", tmp_path / "both", tmp_path / "out")
    assert [grown_file.info.classes[n] for n in reading.numbers] == [row[1] for row in rows]


def test_classes_taken_out_leave_the_others_as_they_were(trained: Path) -> None:
    known = load_characters(trained)
    assert known.memory is not None
    model = CharacterModel.from_checkpoint(known)
    old = Old("memory", known.memory, class_probabilities(model, known.memory.embeddings.float().numpy()))
    entry = LearntClass(0, "support", 0.01, "memory", "2025-01-01")
    crops = np.random.default_rng(4).normal(size=(4, 8)).astype(np.float32)
    one = grown(known, Crops(["p", "p"], crops[:2], 0), entry, False, old)
    two = grown(one, Crops(["q", "r"], crops[2:], 0), entry, False, old)
    assert [e.crops for e in two.info.learnt] == [2, 1, 1]
    assert same(without(two, ["q", "r"]), one)
    assert same(without(two, ["p", "q", "r"]), known)


# The memory.


def test_training_keeps_a_memory_of_held_out_crops(trained: Path) -> None:
    known = load_characters(trained)
    assert known.memory is not None
    counts = torch.bincount(known.memory.numbers, minlength=3).tolist()
    assert all(5 < count <= 10 for count in counts)
    assert known.info.provenance["memory"] == {"crops": sum(counts), "of": "held-out crops"}
    assert known.memory.embeddings.dtype == torch.float16


def test_without_held_out_crops_the_memory_is_of_training_crops(tmp_path: Path) -> None:
    fit = FitOptions(until=("2",), batch_lines=8, workers=0, warm_up=1, threads=1, precision="fp32")
    options = CharacterTrainOptions(
        out=tmp_path / "m.pt", data=(str(by_label(tmp_path / "crops", 0, I=12, W=4)),), width=0.25, embedding=8,
        side=32, validation="0", fit=fit,
    )  # fmt: skip
    train(options, "crnn characters train")
    made = load_characters(tmp_path / "m.pt")
    assert made.memory is not None
    assert torch.bincount(made.memory.numbers).tolist() == [10, 4]
    assert made.info.provenance["memory"] == {"crops": 14, "of": "training crops"}


def test_the_memory_holds_some_of_each_class_evenly() -> None:
    labels = ["a"] * 5 + ["b"] * 2 + ["a"] * 4
    assert some_of_each(labels, 3, 100) == [0, 4, 5, 6, 10]
    assert some_of_each(labels, 3, 2) == [0, 5]
    assert some_of_each([], 3, 2) == []


def test_files_of_before_there_was_a_memory_load(tmp_path: Path, trained: Path) -> None:
    content: dict[str, Any] = torch.load(trained, weights_only=True)
    del content["memory"]
    torch.save(content, tmp_path / "older.pt")
    older = load_characters(tmp_path / "older.pt")
    assert older.memory is None
    assert older.info.learnt == ()


def test_a_memory_that_does_not_fit_is_refused(tmp_path: Path, trained: Path) -> None:
    known = load_characters(trained)
    for memory in (
        Memory(torch.zeros(2, 3).half(), torch.tensor([0, 1])),
        Memory(torch.zeros(2, 8).half(), torch.tensor([0])),
        Memory(torch.zeros(1, 8).half(), torch.tensor([3])),
    ):
        save_characters(tmp_path / "m.pt", replace(known, memory=memory))
        with pytest.raises(ValueError, match=r"memory of .* does not fit"):
            load_characters(tmp_path / "m.pt")


def test_crops_in_folders_named_after_classes_are_labelled_by_them(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(source: Path, out: str) -> Any:
        arguments = [str(source), "--model", str(trained), "--out", str(tmp_path / out), "--json"]
        assert classify_cli.main(arguments) == 0
        return json.loads(capsys.readouterr().out)

    labelled, folders = by_label(tmp_path / "labelled", 7, I=6, O=6), by_folder(tmp_path / "folders", 7, I=6, O=6)
    assert figures(folders, "one")["accuracy"] == figures(labelled, "two")["accuracy"] is not None
    arguments = [str(by_folder(tmp_path / "others", 7, I=6, q=6)), "--model", str(trained), "--out"]
    assert classify_cli.main([*arguments, str(tmp_path / "three"), "--json"]) == 0
    printed = capsys.readouterr()
    assert "accuracy" not in json.loads(printed.out)
    assert "are not taken for labels, for 'q' is no class of the model" in printed.err
    learn(trained, by_label(tmp_path / "support", z=3), tmp_path / "grown.pt", "--old", str(folders))
