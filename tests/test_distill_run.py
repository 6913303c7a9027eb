"""A whole distillation: what is frozen stays frozen, what is written reads back, what cannot work is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from crnn import fit as fit_module
from crnn.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from crnn.commands import LEARNING_RATES, FitOptions, rate
from crnn.model import Crnn, read_lines
from crnn.score import Score
from data.lines import open_lines
from data.lmdb_lines import Entry, write_lmdb
from data.picture import InputSpec
from distill import run as run_module
from distill.cli import DistillOptions
from distill.run import as_trained, column_agreement, distill, read_back
from distill.student import build_student
from export.calibration import gridded_values
from export.graph import read_graph

FIT = FitOptions(until=("4",), batch_lines=4, workers=0, warm_up=1, threads=1, validate_every=2, save_every=2)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """An LMDB of drawn digits."""

    def entries() -> list[Entry]:
        made = []
        for i in range(24):
            text = str(1000 + 37 * i)
            picture = np.full((32, 80, 3), 255, np.uint8)
            cv2.putText(picture, text, (4, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
            made.append(Entry(cv2.imencode(".png", picture)[1].tobytes(), text, f"line {i}", None))
        return made

    write_lmdb(tmp_path / "digits.lmdb", entries())
    return tmp_path / "digits.lmdb"


@pytest.fixture
def teacher(tmp_path: Path, lines: Path, random_checkpoint: Callable[..., Path]) -> Path:
    """A teacher with random weights that says it was trained on the lines."""
    made = load_checkpoint(random_checkpoint("resnet50"))
    save_checkpoint(tmp_path / "teacher.pt", made.with_provenance(data=[str(lines)]))
    return tmp_path / "teacher.pt"


def options(teacher: Path, **changes: Any) -> DistillOptions:
    made = DistillOptions(teacher, out=teacher.with_name("student.pt"), fit=FIT, validation="0.25", drop_bad=True)
    return replace(made, outside_size_bounds="allow", **changes)


def test_encoder_and_classifier_are_the_teachers_bit_for_bit_after_training(teacher: Path) -> None:
    before = load_checkpoint(teacher).weights
    after = load_checkpoint(distill(options(teacher), "distill")).weights
    shared = [name for name in before if name.startswith(("encoder.", "classifier."))]
    assert shared
    assert all(torch.equal(before[name], after[name]) for name in shared)


def test_the_teachers_file_is_not_touched(teacher: Path) -> None:
    before = teacher.read_bytes()
    distill(options(teacher), "distill")
    assert teacher.read_bytes() == before


def test_teacher_and_data_and_widths_come_from_the_teachers_file(teacher: Path, lines: Path) -> None:
    student = load_checkpoint(distill(options(teacher), "distill"))
    taught = load_checkpoint(teacher)
    assert student.info.sizes == replace(taught.info.sizes, backbone="resnet18")
    assert student.info.charset == taught.info.charset
    assert student.info.provenance["data"] == [str(lines)]


def test_data_that_is_no_longer_there_is_named_and_nothing_else_is_used(teacher: Path, lines: Path) -> None:
    lines.rename(lines.with_name("moved.lmdb"))
    with pytest.raises(FileNotFoundError, match=r"digits\.lmdb, which is no longer there; give --data"):
        distill(options(teacher), "distill")
    assert not teacher.with_name("student.pt").exists()


@pytest.mark.parametrize("recorded", ["0.5", "other.lmdb"])
def test_the_student_holds_out_what_its_teacher_held_out(teacher: Path, lines: Path, recorded: str) -> None:
    if recorded == "other.lmdb":
        shutil.copytree(lines, lines.with_name(recorded))
        recorded = str(lines.with_name(recorded))
    save_checkpoint(teacher, load_checkpoint(teacher).with_provenance(validation=recorded))
    made = load_checkpoint(distill(options(teacher, validation=None), "distill")).info.provenance
    assert made["validation"] == recorded


def test_the_teachers_groups_are_those_of_its_own_data_unless_others_are_asked_for(teacher: Path, lines: Path) -> None:
    save_checkpoint(teacher, load_checkpoint(teacher).with_provenance(group_by=r"^line \d"))
    shutil.copytree(lines, lines.with_name("other.lmdb"))
    other = (str(lines.with_name("other.lmdb")),)
    for expected, changes in (
        (r"^line \d", {}),
        (r"^line \d", {"data": (f"{lines}:2",)}),
        ("line", {"group_by": "line", "data": other, "validation": "0"}),
        (None, {"group_by": ""}),
        (None, {"data": other}),
    ):
        made = load_checkpoint(distill(options(teacher, overwrite=True, **changes), "distill")).info.provenance
        assert made.get("group_by") == expected


def test_what_a_teacher_was_validated_on_and_is_gone_is_named(
    teacher: Path, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(teacher, load_checkpoint(teacher).with_provenance(validation="gone.lmdb"))
    with pytest.raises(FileNotFoundError, match=r"gone\.lmdb, which is no longer there; give --validation"):
        distill(options(teacher, validation=None), "distill")
    distill(options(teacher, validation=None, data=(str(lines),)), "distill")
    assert "gone.lmdb, which is no longer there: a share of 0.05 is held out" in capsys.readouterr().err


def test_a_teacher_with_another_encoder_than_asked_is_refused(teacher: Path) -> None:
    have = load_checkpoint(teacher).info.sizes.hidden
    with pytest.raises(ValueError, match=f"--hidden asks for 999 .* has {have}"):
        distill(options(teacher, hidden=999), "distill")


def test_a_student_can_teach_a_smaller_one(teacher: Path) -> None:
    student = distill(options(teacher), "distill")
    smaller = options(student, out=student.with_name("smaller.pt"), student_backbone="mobilenet_v3_small")
    assert load_checkpoint(distill(smaller, "distill")).info.sizes.backbone == "mobilenet_v3_small"


def test_pictures_without_labels_are_enough(teacher: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    for i in range(6):
        cv2.imwrite(str(crops / f"{i}.png"), np.full((32, 64, 3), 40 * i, np.uint8))
    made = distill(options(teacher, unlabelled=(str(crops),), ctc_weight=0.0, validation="0"), "distill")
    assert load_checkpoint(made).info.provenance["data"] == [str(crops)]


@pytest.mark.parametrize("flag", ["data", "unlabelled"])
def test_labels_that_no_ctc_term_learns_from_may_hold_any_character(teacher: Path, lines: Path, flag: str) -> None:
    stored = open_lines(lines)
    foreign = [replace(stored.entry(i), text="\N{SNOWMAN}") for i in range(len(stored))]
    write_lmdb(lines.with_name("foreign.lmdb"), foreign)
    asked: dict[str, Any] = {flag: (str(lines.with_name("foreign.lmdb")),), "ctc_weight": 0.0, "drop_bad": False}
    made = distill(options(teacher, **asked, validation=str(lines)), "distill")
    assert load_checkpoint(made).info.provenance["dropped"] == {}


def test_unlabelled_pictures_with_a_ctc_term_are_refused(teacher: Path) -> None:
    with pytest.raises(ValueError, match="--ctc-weight 0"):
        options(teacher, unlabelled=("crops",))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_kept_teacher_features_give_the_same_student_as_asking_the_teacher_every_time(
    teacher: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "make_windows", exact_windows(run_module.make_windows))
    fit = replace(FIT, until=("12",), precision="fp32", learning_rate=1e-5)
    asked = load_checkpoint(distill(options(teacher, fit=fit), "distill"))
    kept_out = teacher.with_name("kept.pt")
    kept = load_checkpoint(distill(options(teacher, fit=fit, keep_features=where, out=kept_out), "distill"))
    for name, weight in asked.weights.items():
        assert torch.allclose(weight, kept.weights[name], atol=1e-3), name
    assert not list(teacher.parent.glob("*.features"))


def exact_windows(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(sources: Any, charset: Any, spec: Any, fit: Any, augment: bool, exact: bool, sizes: Any) -> Any:
        return make(sources, charset, spec, fit, augment, True, sizes)

    return made


def test_a_student_that_does_not_read_as_reported_is_refused_and_renamed(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "evaluate", lambda *_: Score(lines=4, right=3))
    with pytest.raises(ValueError, match=r"reads 75.00% .* training reported"):
        distill(options(teacher), "distill")
    assert not teacher.with_name("student.pt").exists()
    assert teacher.with_name("student.refused.pt").exists()


def test_outside_the_size_bounds_it_warns_with_the_numbers(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distill(replace(options(teacher, student_width=0.5), outside_size_bounds="warn"), "distill")
    assert "parameters and the teacher" in capsys.readouterr().err


def test_outside_the_size_bounds_it_can_refuse(teacher: Path) -> None:
    with pytest.raises(ValueError, match="choose another --student-backbone or --student-width"):
        distill(replace(options(teacher, student_width=0.5), outside_size_bounds="refuse"), "distill")


def test_a_new_charset_gets_a_trained_classifier_that_keeps_shared_rows(teacher: Path, tmp_path: Path) -> None:
    taught = load_checkpoint(teacher)
    (tmp_path / "more.txt").write_text(taught.info.charset.characters + "€", encoding="utf-8")
    fit = replace(FIT, learning_rate=1e-9)
    student = load_checkpoint(distill(options(teacher, charset=str(tmp_path / "more.txt"), fit=fit), "distill"))
    at = student.info.charset.characters.index("1") + 1
    was = taught.info.charset.characters.index("1") + 1
    assert student.info.charset.classes == taught.info.charset.classes + 1
    assert torch.allclose(student.weights["classifier.weight"][at], taught.weights["classifier.weight"][was], atol=1e-5)


def test_the_run_file_says_how_well_the_columns_agree(teacher: Path) -> None:
    checkpoint = load_checkpoint(teacher)
    model = Crnn.from_checkpoint(checkpoint)
    some = [open_lines(checkpoint.info.provenance["data"][0])[i] for i in range(4)]
    agreement = column_agreement(model, model, some, checkpoint.info.input_spec)
    assert agreement.get("columns_agree", 1.0) == 1.0
    assert agreement.get("spikes_agree", 1.0) == 1.0


@pytest.mark.parametrize("ctc_weight", [0.1, 0.0])
def test_with_simulated_int8_encoder_and_classifier_are_still_the_teachers_bit_for_bit(
    teacher: Path, ctc_weight: float
) -> None:
    before = load_checkpoint(teacher).weights
    after = load_checkpoint(distill(options(teacher, quantise_aware=True, ctc_weight=ctc_weight), "distill")).weights
    shared = [name for name in before if name.startswith(("encoder.", "classifier."))]
    assert all(torch.equal(before[name], after[name]) for name in shared)


def test_a_student_of_simulated_int8_is_an_ordinary_file_with_ranges_beside_its_weights(teacher: Path) -> None:
    plain = load_checkpoint(distill(options(teacher, out=teacher.with_name("plain.pt")), "distill"))
    made = load_checkpoint(distill(options(teacher, quantise_aware=True), "distill"))
    assert made.weights.keys() == plain.weights.keys()
    assert made.info.provenance["parameters"] == plain.info.provenance["parameters"]
    assert not plain.info.ranges
    assert set(made.info.ranges) == set(gridded_values(read_graph(Crnn.from_checkpoint(made))))
    assert all(low <= 0 <= high and high > low for low, high in made.info.ranges.values())
    assert load_checkpoint(teacher.with_name("student.last.pt")).info.ranges


def test_the_report_has_both_accuracies_with_simulated_int8_and_in_float(
    teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = distill(options(teacher, quantise_aware=True), "distill")
    result = json.loads(out.with_name("student.run.json").read_text())["result"]
    assert result["accuracy"] == load_checkpoint(out).info.provenance["validation_accuracy"]
    assert f"with simulated int8; in float it reads {result['float_accuracy']:.1%}" in capsys.readouterr().out


def test_ranges_that_are_not_those_of_training_are_noticed(teacher: Path, lines: Path) -> None:
    """The student reads nonsense, so its own readings serve as labels; they change with its ranges."""
    out = distill(options(teacher, quantise_aware=True), "distill")
    made = load_checkpoint(out)
    stored = open_lines(lines)
    pictures = [stored[i] for i in range(8)]
    spec, charset = made.info.input_spec, made.info.charset
    texts = [reading.text for reading in read_lines(as_trained(made), pictures, charset, spec)]
    labelled = [replace(line, text=text) for line, text in zip(pictures, texts, strict=True)]
    save_checkpoint(out, made.with_provenance(validation_accuracy=1.0))
    read_back(out, labelled, "cpu")
    narrow = {name: (low / 50, high / 50) for name, (low, high) in made.info.ranges.items()}
    spoilt = replace(made, info=replace(made.info, ranges=narrow)).with_provenance(validation_accuracy=1.0)
    save_checkpoint(out, spoilt)
    with pytest.raises(ValueError, match="where training reported"):
        read_back(out, labelled, "cpu")


def test_a_resumed_run_with_simulated_int8_ends_with_the_same_weights_and_ranges(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = replace(FIT, until=("6",), ema=0.9)
    whole = load_checkpoint(distill(options(teacher, quantise_aware=True, fit=fit), "distill"))
    real, calls = fit_module._update, iter(range(100))

    def killed(*arguments: Any) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(fit_module, "_update", killed)
    parts = options(teacher, quantise_aware=True, fit=fit, out=teacher.with_name("parts.pt"))
    with pytest.raises(KeyboardInterrupt):
        distill(parts, "distill")
    monkeypatch.setattr(fit_module, "_update", real)
    resumed = load_checkpoint(distill(replace(parts, resume=True), "distill"))
    assert resumed.info.ranges == whole.info.ranges
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


@pytest.mark.parametrize("changed", ["teacher", "init", "lines"])
def test_a_run_is_not_resumed_with_another_teacher_start_or_set_of_the_same_name(
    teacher: Path, lines: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    start = distill(options(teacher, out=teacher.with_name("start.pt")), "distill")
    real, calls = fit_module._update, iter(range(100))

    def killed(*arguments: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(fit_module, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        distill(options(teacher, init=start), "distill")
    if changed == "lines":
        stored = open_lines(lines)
        write_lmdb(lines, [stored.entry(i) for i in range(len(stored) - 4)])
        sentence = '"lines of training source 1": [0-9]+ then'
    else:
        file = {"teacher": teacher, "init": start}[changed]
        save_checkpoint(file, load_checkpoint(file).with_provenance(date="another"))
        sentence = f'"SHA-256 of {changed}": "[0-9a-f]+" then'
    with pytest.raises(ValueError, match=sentence):
        distill(options(teacher, init=start, resume=True), "distill")


def test_a_student_learns_at_four_times_the_rate_of_training_from_scratch(teacher: Path) -> None:
    with distill(options(teacher), "distill").with_suffix(".log.csv").open(newline="") as file:
        first = float(next(csv.DictReader(file))["learning_rate"])
    assert first == pytest.approx(4 * LEARNING_RATES["adamw"] * rate(1, FIT))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"temperature": 4.0}, "--temperature has no part where there is --distance l2"),
        (
            {"distance": ("kl-classes",), "distance_at": "both"},
            "--distance-at has no part where",
        ),
        ({"distance": ("cosine",), "distance_reduction": "mean"}, "--distance-reduction has no part"),
        ({"centres_from": "all"}, "--centres-from has no part where there is no --character-loss"),
    ],
)
def test_options_that_would_change_nothing_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DistillOptions(Path("t.pt"), **changes)


def test_options_that_have_a_part_are_taken() -> None:
    DistillOptions(Path("t.pt"), distance=("L2",), distance_at="both")  # the unknown name is told later
    DistillOptions(Path("t.pt"), distance=("l2", "kl:0.5"), temperature=2.0, distance_at="both")
    DistillOptions(Path("t.pt"), distance=("kl-characters",), temperature=2.0)


def test_the_run_file_keeps_what_was_asked_for_and_tells_the_rate_that_was_taken(teacher: Path) -> None:
    run = json.loads(distill(options(teacher), "distill").with_suffix(".run.json").read_text())
    assert run["options"]["fit"]["learning_rate"] is None  # so that another optimiser takes a rate of its own
    assert run["result"]["learning_rate"] == 8e-3


def test_a_trained_student_can_be_the_start(teacher: Path) -> None:
    first = distill(options(teacher), "distill")
    fit = replace(FIT, until=("1",), learning_rate=1e-12)
    again = options(teacher, init=first, out=teacher.with_name("again.pt"), fit=fit, quantise_aware=True)
    before, after = load_checkpoint(first).weights, load_checkpoint(distill(again, "distill")).weights
    for name, weight in after.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.allclose(weight, before[name], atol=1e-6), name


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"student_backbone": "resnet34"}, "has backbone resnet18 where the student has resnet34"),
        ({"student_width": 0.25}, r"has width 0.125 where the student has 0.25"),
    ],
)
def test_a_start_of_another_size_is_refused(teacher: Path, changes: dict[str, Any], match: str) -> None:
    first = distill(options(teacher), "distill")
    with pytest.raises(ValueError, match=match):
        distill(options(teacher, init=first, out=teacher.with_name("again.pt"), **changes), "distill")


@pytest.mark.parametrize("sizes", [{"features": 64}, {"hidden": 24}, {"bidirectional": False}])
def test_a_start_that_learnt_for_another_encoder_is_refused(
    teacher: Path, random_checkpoint: Callable[..., Path], sizes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"has {next(iter(sizes))} .*give a student of this teacher"):
        distill(options(teacher, init=random_checkpoint(**sizes)), "distill")


LOSSES = ("long-tail:0.1", "centre-triplet:0.05")


def test_character_losses_reach_the_cnn_and_leave_encoder_and_classifier_bit_for_bit(teacher: Path) -> None:
    before = load_checkpoint(teacher).weights
    plain = load_checkpoint(distill(options(teacher, out=teacher.with_name("plain.pt")), "distill"))
    made = load_checkpoint(distill(options(teacher, character_loss=LOSSES), "distill"))
    shared = [name for name in before if name.startswith(("encoder.", "classifier."))]
    assert all(torch.equal(before[name], made.weights[name]) for name in shared)
    assert made.weights.keys() == plain.weights.keys()
    convolution = "backbone.stages.conv1.weight"
    assert not torch.equal(made.weights[convolution], plain.weights[convolution])
    counts = dict(zip(made.info.charset.characters, made.info.provenance["characters"]["counts"], strict=True))
    texts = "".join(str(1000 + 37 * i) for i in range(24))
    assert 0 < counts["1"] < texts.count("1")  # a quarter is held out
    assert counts["a"] == 0


def test_a_resumed_distillation_with_character_losses_is_the_run_and_its_state_holds_no_teacher(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = replace(FIT, until=("6",))
    whole = load_checkpoint(distill(options(teacher, character_loss=LOSSES, fit=fit), "distill"))
    real, calls = fit_module._update, iter(range(100))

    def killed(*arguments: Any) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(fit_module, "_update", killed)
    parts = options(teacher, character_loss=LOSSES, fit=fit, out=teacher.with_name("parts.pt"))
    with pytest.raises(KeyboardInterrupt):
        distill(parts, "distill")
    names = load_tensors(teacher.with_name("parts.resume.pt"))["module"].keys()
    assert "objective.losses.long-tail.prototypes" in names
    assert not [name for name in names if "teacher" in name]
    monkeypatch.setattr(fit_module, "_update", real)
    resumed = load_checkpoint(distill(replace(parts, resume=True), "distill"))
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


def test_character_losses_without_any_label_are_refused(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"crops/{i}.png"), np.full((32, 64, 3), 40 * i, np.uint8))
    plain = options(teacher, unlabelled=(str(tmp_path / "crops"),), ctc_weight=0.0, validation="0")
    with pytest.raises(
        ValueError, match=r"--character-loss long-tail:0\.1 learns from labels, and no training line has"
    ):
        distill(replace(plain, character_loss=LOSSES), "distill")


def test_an_unknown_character_loss_is_refused(teacher: Path) -> None:
    with pytest.raises(ValueError, match="--character-loss 'long-tail:0' is not understood"):
        options(teacher, character_loss=("long-tail:0",))


@pytest.fixture
def foreign_teacher(tmp_path: Path, random_checkpoint: Callable[..., Path]) -> Path:
    """A teacher as crnn import-teacher makes it of EasyOCR: grey, 64 high, a column fewer than W / 4."""
    made = load_checkpoint(random_checkpoint("dtrb_vgg", channels=1, height=64, linear=24, extra_columns=-1))
    spec = InputSpec(height=64, channels=1, min_width=64, max_width=4096)
    path = tmp_path / "foreign.pt"
    save_checkpoint(path, replace(made, info=replace(made.info, input_spec=spec)))
    return path


@pytest.mark.parametrize(("height", "pixels"), [(None, 4), (32, 2)])
@pytest.mark.parametrize("labelled", [True, False])
def test_an_imported_teacher_teaches_through_its_own_encoder_column_by_column(
    foreign_teacher: Path, lines: Path, height: int | None, pixels: int, labelled: bool
) -> None:
    weight = 0.1 if labelled else 0.0
    chosen = options(foreign_teacher, data=(str(lines),), student_height=height, ctc_weight=weight)
    student = load_checkpoint(distill(chosen, "distill"))
    taught = load_checkpoint(foreign_teacher)
    sizes = student.info.sizes
    assert (sizes.height, sizes.channels, sizes.pixels_per_column, sizes.extra_columns) == (height or 64, 1, pixels, -1)
    assert student.info.pixels_per_column == pixels
    assert student.info.input_spec.height == sizes.height
    assert sizes.columns(10 * sizes.height) == taught.info.sizes.columns(640)
    shared = [name for name in taught.weights if name.startswith(("encoder.", "classifier."))]
    assert all(torch.equal(taught.weights[name], student.weights[name]) for name in shared)
    result = json.loads(foreign_teacher.with_name("student.run.json").read_text())["result"]
    assert 0 <= result["columns_agree"] <= 1


def test_a_height_whose_columns_cannot_lie_at_the_teachers_is_refused(foreign_teacher: Path, lines: Path) -> None:
    with pytest.raises(ValueError, match=r"--student-height is 48, and the teacher reads 64 pixels; give 64 or 32"):
        distill(options(foreign_teacher, data=(str(lines),), student_height=48), "distill")


def test_a_student_of_half_the_height_learns_from_the_picture_that_its_teacher_sees(foreign_teacher: Path) -> None:
    taught = load_checkpoint(foreign_teacher)
    student = build_student(taught, "resnet18", 0.125, taught.info.charset, False, False, 32).eval()
    high = torch.rand(2, 1, 64, 160)
    low = torch.stack([high[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
    with torch.inference_mode():
        torch.testing.assert_close(student(high).log_probs, student(low).log_probs)
        assert student(low).features.shape == Crnn.from_checkpoint(taught)(high).features.shape


def test_a_student_of_a_teacher_of_one_width_has_its_column_more(
    tmp_path: Path, lines: Path, random_checkpoint: Callable[..., Path]
) -> None:
    made = load_checkpoint(random_checkpoint("dtrb_resnet", channels=1, linear=24, extra_columns=1))
    spec = InputSpec(channels=1, width_multiple=4, min_width=100, max_width=100)
    save_checkpoint(tmp_path / "one.pt", replace(made, info=replace(made.info, input_spec=spec)))
    student = load_checkpoint(distill(options(tmp_path / "one.pt", data=(str(lines),)), "distill"))
    assert student.info.input_spec == spec
    with torch.inference_mode():
        read = Crnn.from_checkpoint(student)(torch.rand(1, 1, 32, 100)).log_probs
    assert read.shape[1] == student.info.sizes.columns(100) == 26
