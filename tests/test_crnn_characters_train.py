"""Training a model of single characters: classes, losses, the file, what is refused, and that a resumed run is it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crnn.characters.checkpoint import (
    CharacterCheckpoint,
    CharacterInfo,
    CharacterSizes,
    LearntClass,
    load_characters,
    save_characters,
)
from crnn.characters.crops import WINDOW_BATCHES, crop_spec, squared
from crnn.characters.model import (
    CHARACTER_BACKBONES,
    CharacterModel,
    CharacterObjective,
    build_losses,
    centre_probabilities,
    class_probabilities,
    embedded,
    mean_directions,
)
from crnn.characters.train import chosen_loss_options, crop_sources, samples_per_class, train, with_centres
from crnn.characters.train_cli import CharacterTrainOptions, character_fit, loss_weights
from crnn.checkpoint import load_checkpoint
from crnn.commands import FitOptions
from crnn.objectives.recognition import DeviceBatch
from data.batches import Stream
from data.folder_lines import FolderLines

LOSSES = (
    "cross-entropy", "balanced-softmax", "logit-adjusted", "ldam", "long-tail", "centre-triplet", "centre-loss",
)  # fmt: skip


def tiny(out: Path, folder: Path, until: str = "4", fit: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A run of a few steps on small crops."""
    loop = FitOptions(
        until=(until,), batch_lines=8, workers=0, warm_up=1, threads=1, validate_every=3, precision="fp32",
        **fit or {},
    )  # fmt: skip
    chosen: dict[str, Any] = {"width": 0.25, "embedding": 16, "side": 32, "validation": "0.2"}
    return CharacterTrainOptions(out=out, data=(str(folder),), fit=loop, **(chosen | changes))


@pytest.fixture
def folder(crops_folder: Callable[..., Path]) -> Path:
    return crops_folder(A=12, a=12, x=12, rare=1)


def small_model(classes: int = 3, loss: str = "cross-entropy", **sizes: Any) -> CharacterModel:
    torch.manual_seed(0)
    made = CharacterSizes(**({"backbone": "plain", "width": 0.25, "embedding": 8, "channels": 1} | sizes))
    return CharacterModel(made, build_losses({loss: 1.0}, made.embedding, [5] * classes, {}))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_its_file_classifies(tmp_path: Path, folder: Path, loss: str) -> None:
    train(tiny(tmp_path / "m.pt", folder, loss=(loss,)), "crnn characters train")
    checkpoint = load_characters(tmp_path / "m.pt")
    assert checkpoint.info.classes == ("A", "a", "rare", "x")
    assert checkpoint.info.losses == {loss: 1.0}
    model = CharacterModel.from_checkpoint(checkpoint)
    crop = squared(FolderLines(folder)[0].picture, checkpoint.info.input_spec)
    probabilities = class_probabilities(model, embedded(model, [crop], checkpoint.info.input_spec))
    assert probabilities.shape == (1, 4)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("backbone", [*CHARACTER_BACKBONES])
def test_every_backbone_embeds_squares_of_any_size(backbone: str) -> None:
    model = small_model(backbone=backbone, channels=3)
    assert model(torch.zeros(2, 3, 48, 48)).embeddings.shape == (2, 8)
    assert model(torch.zeros(2, 3, 64, 64)).embeddings.shape == (2, 8)


def test_the_embedding_is_linear_in_the_mean_of_the_map() -> None:
    model = small_model().eval()
    crops = torch.randn(3, 1, 48, 48)
    maps = model.trunk(crops).detach().numpy()
    assert maps.shape == (3, 64, 3, 3)
    expected = [
        [
            sum(maps[n, d].mean() * w for d, w in enumerate(row)) + b
            for row, b in zip(model.embedding.weight.tolist(), model.embedding.bias.tolist(), strict=True)
        ]
        for n in range(3)
    ]
    np.testing.assert_allclose(model(crops).embeddings.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_plain_backbone_has_twelve_convolutions() -> None:
    trunk = CHARACTER_BACKBONES["plain"](1.0)
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [32] * 3 + [64] * 3 + [128] * 3 + [256] * 3


def test_several_losses_add_up_by_weight_and_the_first_one_classifies() -> None:
    weights = {"long-tail": 0.5, "centre-triplet": 0.25}
    losses = build_losses(weights, 4, [3, 2], {})
    model = CharacterModel(CharacterSizes("plain", 0.25, 4, 1), losses)
    assert model.classifier is losses["long-tail"]
    outputs = model(torch.randn(4, 1, 32, 32))
    classes = torch.tensor([[0], [0], [1], [1]])
    batch = DeviceBatch(torch.empty(0), classes, torch.ones(4), torch.empty(0), torch.empty(0))
    terms = CharacterObjective(losses, weights)(outputs, batch, 0)
    values = {name: value.item() for name, value in terms.items()}
    assert values["loss"] == pytest.approx(0.5 * values["long-tail"] + 0.25 * values["centre-triplet"])
    assert {"long-tail margin", "long-tail spread", "centre-triplet triplet"} <= set(values)


def test_training_learns_to_tell_drawn_characters_apart(tmp_path: Path, crops_folder: Callable[..., Path]) -> None:
    folder = crops_folder(W=30, I=30)
    train(tiny(tmp_path / "m.pt", folder, "40", {"learning_rate": 5e-3}, augment=False), "crnn characters train")
    accuracy = load_characters(tmp_path / "m.pt").info.provenance["validation_accuracy"]
    assert accuracy > 0.8


def test_a_resumed_run_ends_with_the_same_weights_and_centres_bit_for_bit(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crnn import fit as fit_module

    loss = ("centre-triplet", "cross-entropy:0.5")
    train(tiny(tmp_path / "whole.pt", folder, "10", {"save_every": 4}, loss=loss), "crnn characters train")
    real, calls = fit_module._update, {"n": 0}

    def killed(*arguments: Any) -> None:
        calls["n"] += 1
        if calls["n"] == 7:
            raise KeyboardInterrupt
        real(*arguments)

    options = tiny(tmp_path / "parts.pt", folder, "10", {"save_every": 4}, loss=loss)
    monkeypatch.setattr(fit_module, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(options, "crnn characters train")
    assert load_characters(tmp_path / "parts.pt").centres is None  # of a run that has not ended
    monkeypatch.setattr(fit_module, "_update", real)
    train(replace(options, resume=True), "crnn characters train")
    for name in ("", ".last"):
        whole, parts = (load_characters(tmp_path / f"{run}{name}.pt") for run in ("whole", "parts"))
        assert all(torch.equal(whole.weights[key], parts.weights[key]) for key in whole.weights)
        assert whole.centres is not None
        assert torch.equal(whole.centres, parts.centres)
    assert {p.name for p in tmp_path.glob("parts*")} == {"parts.pt", "parts.last.pt", "parts.run.json", "parts.log.csv"}


def test_an_interrupted_run_is_not_replaced_unless_asked(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "m.resume.pt").write_bytes(b"")
    with pytest.raises(FileExistsError, match="--resume"):
        train(tiny(tmp_path / "m.pt", folder), "crnn characters train")


def test_the_file_knows_classes_counts_and_how_it_was_made(tmp_path: Path, folder: Path) -> None:
    train(tiny(tmp_path / "m.pt", folder, loss=("ldam",), margin=0.3), "crnn characters train --out m.pt")
    info = load_characters(tmp_path / "m.pt").info
    assert dict(zip(info.classes, info.counts, strict=True))["rare"] == 1
    assert sum(info.counts) + info.provenance["validation_lines"] == 37
    assert info.loss_options == {"ldam": {"margin": 0.3}}
    assert info.provenance["command"] == "crnn characters train --out m.pt"
    run = json.loads((tmp_path / "m.run.json").read_text())
    assert run["options"]["loss"] == ["ldam"]
    assert run["result"]["steps"] == 4


def test_the_centres_are_the_mean_directions_of_the_training_crops(tmp_path: Path, folder: Path) -> None:
    options = tiny(tmp_path / "m.pt", folder)
    train(options, "crnn characters train")
    checkpoint = load_characters(tmp_path / "m.pt")
    model = CharacterModel.from_checkpoint(checkpoint)
    (source,) = crop_sources(options).training
    lines = [source[i] for i in range(len(source)) if source.texts()[i] == "A"]
    found = embedded(model, [squared(line.picture, checkpoint.info.input_spec) for line in lines], crop_spec(32, 1))
    mean = (found / np.linalg.norm(found, axis=1, keepdims=True)).mean(0)
    assert checkpoint.centres is not None
    np.testing.assert_allclose(checkpoint.centres[0].numpy(), mean / np.linalg.norm(mean), atol=1e-5)
    again = with_centres(replace(checkpoint, centres=None), model, [source])
    assert torch.allclose(again.centres, checkpoint.centres, atol=1e-6)  # type: ignore[arg-type]


def test_a_broken_crop_that_no_step_draws_does_not_cost_the_run(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tiny(tmp_path / "m.pt", folder, "1", validation="0", samples_per_class=0)
    options = replace(options, fit=replace(options.fit, batch_lines=2))
    (source,) = crop_sources(options).training
    drawn = {i for _, i in Stream((source,), (1.0,), 0).window(0, WINDOW_BATCHES * 2)}
    broken = next(Path(key) for i, key in enumerate(source.keys()) if i not in drawn)
    broken.write_bytes(b"broken")
    train(options, "crnn characters train")
    checkpoint = load_characters(tmp_path / "m.pt")
    assert checkpoint.centres is not None
    assert torch.allclose(checkpoint.centres.norm(dim=1), torch.ones(4))
    assert capsys.readouterr().err.count(f"warning: {broken} ") == 1


def test_a_class_whose_crops_were_all_held_out_gets_one_back(crops_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = crops_folder(**{f"class{i}": 1 for i in range(20)})
    crops = crop_sources(tiny(tmp_path / "m.pt", folder, validation="0.5"))
    assert crops.counts == (1,) * 20
    assert crops.validation == []


def test_the_held_out_crops_are_not_trained_on(folder: Path, tmp_path: Path) -> None:
    crops = crop_sources(tiny(tmp_path / "m.pt", folder, validation="0.4"))
    held = {line.key for line in crops.validation}
    assert held
    assert not held & set(crops.training[0].keys())


def test_a_validation_source_with_a_label_that_is_no_class_is_named(
    tmp_path: Path, folder: Path, crops_folder: Callable[..., Path]
) -> None:
    other = crops_folder("other", A=1, q=1)
    with pytest.raises(ValueError, match=r"0001\.png of --validation is labelled 'q'"):
        crop_sources(tiny(tmp_path / "m.pt", folder, validation=str(other)))


def test_an_empty_source_and_a_source_of_one_class_are_refused(
    tmp_path: Path, crops_folder: Callable[..., Path]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        train(tiny(tmp_path / "m.pt", tmp_path / "empty"), "crnn characters train")
    with pytest.raises(ValueError, match="one class only, 'a'"):
        train(tiny(tmp_path / "m.pt", crops_folder(a=4), validation="0"), "crnn characters train")
    assert not (tmp_path / "m.pt").exists()


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"--loss 'soft'.*cross-entropy, balanced-softmax"):
        tiny(tmp_path / "m.pt", folder, loss=("soft",))
    with pytest.raises(ValueError, match="there is no backbone 'vgg' for characters; known are plain, resnet18"):
        train(tiny(tmp_path / "m.pt", folder, backbone="vgg"), "crnn characters train")
    with pytest.raises(ValueError, match="no centre rule"):
        build_losses({"centre-triplet": 1.0}, 4, [1, 1], {"centre-triplet": {"rule": "mean"}})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"margin": 0.2}, "--margin is for ldam, long-tail, centre-triplet"),
        ({"mining": "hard"}, "--mining is for centre-triplet"),
        ({"centre_rule": "centre-loss"}, "--centre-rule and --normalise are for centre-triplet"),
        (
            {"loss": ("centre-triplet",), "centre_rule": "classifier-weights", "normalise": True},
            "compares directions by itself",
        ),
    ],
)
def test_an_option_of_another_loss_is_refused_rather_than_ignored(
    tmp_path: Path, folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    options = tiny(tmp_path / "m.pt", folder, **changes)
    with pytest.raises(ValueError, match=sentence):
        chosen_loss_options(options, loss_weights(options.loss))


def test_the_centre_rule_reaches_the_loss(tmp_path: Path, folder: Path) -> None:
    options = tiny(
        tmp_path / "m.pt", folder, loss=("centre-triplet",), centre_rule="centre-loss", normalise=True, mining="plain",
        margin=0.3,
    )  # fmt: skip
    chosen = chosen_loss_options(options, loss_weights(options.loss))
    (loss,) = build_losses({"centre-triplet": 1.0}, 4, [2, 2], chosen).values()
    assert type(loss.rule).__name__ == "CentreLossRule"
    assert (loss.rule.normalise, loss.mining, loss.margin) == (True, "plain", 0.3)


def test_losses_that_compare_crops_get_four_of_each_class(tmp_path: Path, folder: Path) -> None:
    options = tiny(tmp_path / "m.pt", folder)
    crops = crop_sources(options)
    assert samples_per_class(options, {"cross-entropy": 1.0}, crops) == 0
    assert samples_per_class(options, {"long-tail": 1.0, "centre-triplet": 0.1}, crops) == 4
    with pytest.raises(ValueError, match="--samples-per-class is 5"):
        samples_per_class(replace(options, samples_per_class=5), {"cross-entropy": 1.0}, crops)
    with pytest.raises(ValueError, match="whatever the weights"):
        samples_per_class(replace(options, samples_per_class=2), {}, replace(crops, weights=(1.0, 2.0)))


def test_a_new_optimiser_is_an_option_here_too(tmp_path: Path, folder: Path) -> None:
    fit = replace(character_fit(), optimiser="gradient-direction", until=("2",), batch_lines=8, workers=0)
    train(replace(tiny(tmp_path / "m.pt", folder), fit=fit), "crnn characters train")
    assert (tmp_path / "m.pt").exists()


def test_a_recogniser_of_lines_and_a_character_model_refuse_each_other_in_one_sentence(
    tmp_path: Path, random_checkpoint: Callable[..., Path]
) -> None:
    path = saved(tmp_path)
    with pytest.raises(ValueError, match="tells single characters apart and reads no lines; use it with crnn char"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="reads lines of text and is no character model; use crnn read"):
        load_characters(random_checkpoint())


def saved(folder: Path, **changes: Any) -> Path:
    """The file of an untrained model of three classes."""
    model = small_model()
    info = CharacterInfo(("A", "a", "/"), (5, 5, 5), crop_spec(48, 1), model.sizes, {"cross-entropy": 1.0})
    made = CharacterCheckpoint(info, model.state_dict(), torch.eye(3, 8))
    save_characters(folder / "m.pt", replace(made, **changes))
    return folder / "m.pt"


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = saved(tmp_path)
    back = load_characters(path)
    save_characters(tmp_path / "again.pt", back)
    again = load_characters(tmp_path / "again.pt")
    assert again.info == back.info
    assert all(torch.equal(again.weights[name], back.weights[name]) for name in back.weights)
    assert torch.equal(again.centres, torch.eye(3, 8))  # type: ignore[arg-type]


def test_a_file_takes_classes_that_only_have_a_centre(tmp_path: Path) -> None:
    back = load_characters(saved(tmp_path))
    with pytest.raises(ValueError, match="1 classes have no training count, and 0 are told to be learnt later"):
        replace(back.info, classes=(*back.info.classes, "€"))
    learnt = (LearntClass(3, "support", 0.001, "memory", "2025-01-01"),)
    info = replace(back.info, classes=(*back.info.classes, "€"), learnt=learnt, bias=0.25)
    save_characters(tmp_path / "grown.pt", replace(back, info=info, centres=torch.eye(4, 8)))
    grown = load_characters(tmp_path / "grown.pt")
    assert grown.info.numbers()["€"] == 3
    assert (grown.info.learnt, grown.info.bias) == (learnt, 0.25)
    assert '"version": 2' in grown.info.to_json()
    assert '"version": 1' in back.info.to_json()
    model = CharacterModel.from_checkpoint(grown)
    embeddings = np.eye(8, dtype=np.float32)[3:4]
    assert class_probabilities(model, embeddings).shape == (1, 3)
    assert grown.centres is not None
    assert centre_probabilities(grown.centres, embeddings).argmax() == 3


def test_damaged_files_are_refused_by_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"centres of .* are not 3 x 8"):
        load_characters(saved(tmp_path, centres=torch.eye(2, 8)))
    weights = small_model().state_dict()
    weights.pop("embedding.bias")
    with pytest.raises(ValueError, match=r"do not fit its sizes \(at embedding.bias\)"):
        CharacterModel.from_checkpoint(load_characters(saved(tmp_path, weights=weights)))
    with pytest.raises(ValueError, match="'A' is there twice"):
        CharacterInfo(("A", "A"), (1, 1), crop_spec(48, 1), small_model().sizes, {})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_characters(tmp_path / "none.pt")


def test_embedding_does_not_depend_on_company_or_batch_size() -> None:
    model, spec = small_model(), crop_spec(48, 1)
    crops = [*np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), dtype=np.uint8)]
    whole = embedded(model, crops, spec)
    alone = np.concatenate([embedded(model, [crop], spec) for crop in crops])
    np.testing.assert_allclose(whole, alone, atol=1e-4)
    np.testing.assert_allclose(whole, embedded(model, iter(crops), spec, batch=2), atol=1e-4)
    assert embedded(model, [], spec).shape == (0, 8)
    assert model.training


def test_mean_directions_do_not_depend_on_lengths_and_are_zero_without_crops() -> None:
    embeddings = np.array([[3, 0], [0, 0.1], [1, 1]], np.float32)
    centres = mean_directions(embeddings, np.array([0, 0, 1]), 3)
    expected = np.array([[1, 1], [1, 1], [0, 0]]) / np.sqrt(2)
    np.testing.assert_allclose(centres.numpy(), expected, atol=1e-6)
