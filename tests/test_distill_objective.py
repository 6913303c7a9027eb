"""Method 1's loss: each distance against plain loops, what is frozen, and where gradients go."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from crnn.checkpoint import load_checkpoint
from crnn.commands import FitOptions
from crnn.fit import _parameter_groups, _Step
from crnn.model import Crnn
from crnn.objectives.recognition import DeviceBatch
from distill.objective import Distillation, TeacherFeatures, class_distance, distance, parse_distances
from distill.student import build_student, outside_bounds


def rows(sequence: Tensor) -> list[list[float]]:
    return [column.tolist() for line in sequence for column in line]


def softmax(values: list[float], temperature: float) -> list[float]:
    raised = [math.exp(v / temperature) for v in values]
    return [r / sum(raised) for r in raised]


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine", "kl"])
@pytest.mark.parametrize("reduction", ["features", "mean"])
def test_each_distance_is_what_plain_loops_give(kind: str, reduction: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    total = 0.0
    for s, t in zip(rows(student), rows(teacher), strict=True):
        if kind == "l1":
            total += sum(abs(a - b) for a, b in zip(s, t, strict=True)) / (4 if reduction == "mean" else 1)
        elif kind == "l2":
            total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / (4 if reduction == "mean" else 1)
        elif kind == "cosine":
            norms = math.sqrt(sum(a * a for a in s)) * math.sqrt(sum(b * b for b in t))
            total += 1 - sum(a * b for a, b in zip(s, t, strict=True)) / norms
        else:
            p, q = softmax(t, 2.0), softmax(s, 2.0)
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) * 4
    found = distance(kind, student, teacher, reduction, 2.0)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine", "kl"])
def test_equal_features_have_no_distance(kind: str) -> None:
    same = torch.randn(2, 3, 4)
    assert distance(kind, same, same.clone(), "features", 1.0).item() == pytest.approx(0, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["kl-classes", "kl-characters"])
def test_the_distance_of_classes_is_what_plain_loops_give(kind: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4).log_softmax(-1), torch.randn(2, 3, 4).log_softmax(-1)
    teacher[0, 1, 0] = teacher[1, 2, 0] = 3  # the teacher sees a blank there
    found = []
    for s, t in zip(rows(student), rows(teacher), strict=True):
        if kind == "kl-classes" or max(t) != t[0]:
            p, q = softmax(t, 2.0), softmax(s, 2.0)
            found.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) * 4)
    given = class_distance(kind, student, teacher, 2.0)  # type: ignore[arg-type]
    assert given.item() == pytest.approx(sum(found) / len(found), rel=1e-5)


def test_a_teacher_that_sees_no_character_asks_for_nothing() -> None:
    blank = torch.tensor([[[5.0, 0.0], [5.0, 0.0]]]).log_softmax(-1)
    assert class_distance("kl-characters", torch.randn(1, 2, 2).log_softmax(-1), blank, 1.0).item() == 0


def test_no_distance_leaves_ctc_alone_and_the_teacher_in_peace(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    assert parse_distances(("none",)) == {}
    made = batch([1, 2])
    asked = []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    found = Distillation(teacher, {}, ctc_weight=0.1)(student(made.pictures), made, 0)
    assert set(found) == {"loss", "ctc"}
    assert found["loss"].item() == pytest.approx(0.1 * found["ctc"].item(), rel=1e-6)
    assert not asked


def test_distances_of_classes_are_taken_behind_the_classifier_once(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    made = batch([1, 2])
    found = Distillation(teacher, {"l2": 1.0, "kl-classes": 2.0}, "both", ctc_weight=0.0)(
        student(made.pictures), made, 0
    )
    assert set(found) == {"loss", "l2_output", "l2_input", "kl-classes"}
    expected = class_distance("kl-classes", student(made.pictures).log_probs, teacher(made.pictures).log_probs, 1.0)
    assert found["kl-classes"].item() == pytest.approx(expected.item(), rel=1e-4)
    total = found["l2_output"] + found["l2_input"] + 2 * found["kl-classes"]
    assert found["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_distances_are_summed_by_weight() -> None:
    assert parse_distances(("l1", "l2:0.5")) == {"l1": 1.0, "l2": 0.5}


@pytest.mark.parametrize("parts", [("l3",), ("l2:0",), ("l2:x",), ("l2", "l2"), ()])
def test_unknown_distances_are_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="--distance"):
        parse_distances(parts)


@pytest.fixture
def pair(random_checkpoint: Callable[..., Path]) -> tuple[Crnn, Crnn]:
    """A teacher and its untrained student."""
    teacher = load_checkpoint(random_checkpoint("resnet50"))
    student = build_student(teacher, "resnet18", 0.125, teacher.info.charset, False, False)
    return Crnn.from_checkpoint(teacher), student


def batch(label: list[int], items: list[tuple[int, int]] | None = None) -> DeviceBatch:
    torch.manual_seed(1)
    count = 2
    return DeviceBatch(
        torch.rand(count, 3, 32, 64), torch.tensor([label] * count), torch.tensor([len(label)] * count),
        torch.full((count, 16), -1), torch.tensor(items or [(0, 0), (0, 1)]),
    )  # fmt: skip


def test_without_labels_the_students_first_convolution_still_learns(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    objective = Distillation(teacher, {"l2": 1.0}, ctc_weight=0.0)
    made = batch([])
    objective(student(made.pictures), made, 0)["loss"].backward()
    gradient = student.backbone.stages.conv1.weight.grad
    assert isinstance(gradient, Tensor)
    assert gradient.abs().sum() > 0


def test_nothing_is_stored_for_what_is_frozen(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    objective = Distillation(teacher, {"l2": 1.0})
    made = batch([1, 2])
    objective(student(made.pictures), made, 0)["loss"].backward()
    frozen = [*teacher.parameters(), *student.encoder.parameters(), *student.classifier.parameters()]
    assert all(p.grad is None for p in frozen)
    assert all(p.grad is not None for p in student.backbone.parameters())


def test_what_is_frozen_is_not_in_the_optimiser(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    groups = _parameter_groups(_Step(student, Distillation(teacher, {"l2": 1.0}), False), FitOptions().weight_decay)
    optimised = {id(p) for group in groups for p in group["params"]}
    assert optimised == {id(p) for p in student.backbone.parameters()}


def test_the_teachers_statistics_stand_still(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    objective = Distillation(teacher, {"l2": 1.0})
    objective.train()
    before = {name: value.clone() for name, value in teacher.named_buffers()}
    made = batch([1])
    objective(student(made.pictures), made, 0)["loss"].backward()
    assert not teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.named_buffers())


def test_the_students_own_statistics_move(pair: tuple[Crnn, Crnn]) -> None:
    _, student = pair
    before = student.backbone.stages.bn1.running_mean.clone()  # type: ignore[union-attr, operator]
    student.train()
    student(batch([1]).pictures)
    assert not torch.equal(before, student.backbone.stages.bn1.running_mean)  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(
    ("place", "terms"),
    [("output", {"l2_output"}), ("input", {"l2_input"}), ("both", {"l2_output", "l2_input"})],
)
def test_the_distance_is_taken_where_asked(pair: tuple[Crnn, Crnn], place: str, terms: set[str]) -> None:
    teacher, student = pair
    objective = Distillation(teacher, {"l2": 1.0}, place, ctc_weight=0.1)  # type: ignore[arg-type]
    made = batch([1, 2])
    found = objective(student(made.pictures), made, 0)
    assert set(found) == terms | {"loss", "ctc"}
    expected = sum(found[name].item() for name in terms) + 0.1 * found["ctc"].item()
    assert found["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_a_teacher_that_is_its_own_student_has_no_distance(pair: tuple[Crnn, Crnn]) -> None:
    teacher, _ = pair
    objective = Distillation(teacher, {"l2": 1.0}, "both", ctc_weight=0.0)
    made = batch([])
    assert objective(teacher(made.pictures), made, 0)["loss"].item() == pytest.approx(0, abs=1e-6)


def test_kept_features_are_the_teachers_to_half_precision(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    kept = TeacherFeatures(None)
    objective = Distillation(teacher, {"l2": 1.0}, "both", ctc_weight=0.0, features=kept)
    made = batch([])
    first = objective(student(made.pictures), made, 0)["loss"]
    assert (0, 1) in kept
    blank = DeviceBatch(made.pictures * 0, made.classes, made.lengths, made.columns, made.items)
    again = objective(student(made.pictures), blank, 1)["loss"]  # the pictures are not looked at again
    assert again.item() == first.item()


@pytest.mark.parametrize("value", [70_000.0, float("nan")])
def test_features_that_half_precision_cannot_hold_are_not_kept(value: float) -> None:
    with pytest.raises(ValueError, match="too large for --keep-features"):
        TeacherFeatures(None).put((0, 0), torch.full((2, 3), value))


def test_bounds_name_what_is_outside(pair: tuple[Crnn, Crnn]) -> None:
    teacher, student = pair
    assert not any("layers" in clause for clause in outside_bounds(teacher, student))
    clauses = outside_bounds(student, teacher)
    assert len(clauses) == 3
    assert "the student has 50 backbone layers and the teacher 18" in clauses
