"""Characters of lines: the alignment against every path there is, what a sample is, and the losses beside an objective.

One hand-sized example is used throughout: classes 0 (blank), 1 and 2, a few columns.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crnn.ctc import align
from crnn.model import Outputs
from crnn.objectives.centres import CentreTriplet
from crnn.objectives.line_characters import WithCharacterLosses, aligned_characters, line_characters
from crnn.objectives.long_tail import LongTail
from crnn.objectives.recognition import DeviceBatch, Recognition, Terms


def text_of(path: tuple[int, ...]) -> list[int]:
    """Repeats merged, blanks taken out."""
    return [c for c, _ in itertools.groupby(path) if c]


def characters_of(path: tuple[int, ...]) -> list[int]:
    """Which character each column of a path shows, -1 for the blank."""
    shown, character = [], -1
    for before, here in zip((0, *path), path, strict=False):
        character += here != before and here != 0
        shown.append(character if here else -1)
    return shown


def best_by_enumeration(log_probs: Tensor, label: list[int]) -> list[int]:
    """The most probable of all K^T paths that read the label."""
    columns, classes = log_probs.shape
    paths = [p for p in itertools.product(range(classes), repeat=columns) if text_of(p) == label]
    best = max(paths, key=lambda path: sum(float(log_probs[t, c]) for t, c in enumerate(path)))
    return characters_of(best)


def random_lines(lines: int, columns: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(lines, columns, classes, generator=generator)).log_softmax(-1)


def batch_of(labels: list[list[int]]) -> DeviceBatch:
    longest = max(1, *map(len, labels))
    classes = torch.tensor([label + [0] * (longest - len(label)) for label in labels])
    lengths = torch.tensor([len(label) for label in labels])
    nothing = torch.empty(0)
    return DeviceBatch(nothing, classes, lengths, nothing, nothing)


@pytest.mark.parametrize("seed", range(4))
def test_the_alignment_is_the_best_of_all_paths_that_read_the_label(seed: int) -> None:
    labels = [[1], [2, 1], [1, 1], [1, 2, 1], [2, 2], [1, 2, 2]]
    log_probs = random_lines(len(labels), 5, 3, seed)
    batch = batch_of(labels)
    found = aligned_characters(log_probs, batch.classes, batch.lengths)
    assert found.tolist() == [best_by_enumeration(line, label) for line, label in zip(log_probs, labels, strict=True)]


def test_a_batch_is_aligned_as_its_lines_are_one_by_one_in_numpy() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = [torch.randint(1, 40, (n,), generator=generator).tolist() for n in (1, 12, 7, 3, 20)]
    labels[1][3:6] = [9, 9, 9]
    log_probs = random_lines(len(labels), 48, 40, 5)
    batch = batch_of(labels)
    found = aligned_characters(log_probs, batch.classes, batch.lengths)
    for line, label in enumerate(labels):
        expected = [-1] * 48
        for character, span in enumerate(align(log_probs[line].numpy(), label)):
            expected[span.start : span.end] = [character] * (span.end - span.start)
        assert found[line].tolist() == expected


def test_equal_neighbours_have_a_blank_between_them() -> None:
    log_probs = torch.tensor([[0.0, 9.0, 0.0]] * 5).log_softmax(-1)[None]  # all columns say 1
    shown = aligned_characters(log_probs, torch.tensor([[1, 1]]), torch.tensor([2]))[0].tolist()
    assert shown.count(-1) == 1
    assert shown[shown.index(-1) - 1] == 0
    assert shown[shown.index(-1) + 1] == 1


def test_a_line_without_label_has_no_characters() -> None:
    log_probs = random_lines(2, 4, 3, 0)
    batch = batch_of([[], [1]])
    assert aligned_characters(log_probs, batch.classes, batch.lengths)[0].tolist() == [-1] * 4
    samples = line_characters(torch.rand(2, 4, 6), log_probs, batch)
    assert samples.labels.tolist() == [0]
    empty = line_characters(torch.rand(2, 4, 6), log_probs, batch_of([[], []]))
    assert [len(part) for part in empty] == [0, 0, 0]


def test_a_label_with_too_few_columns_is_refused() -> None:
    batch = batch_of([[1], [1, 1]])
    with pytest.raises(ValueError, match="line 1 of the batch has 2 columns, too few for its label of 2 characters"):
        aligned_characters(random_lines(2, 2, 3, 0), batch.classes, batch.lengths)


def test_a_sample_is_what_the_encoder_says_in_the_column_where_its_character_is_most_probable() -> None:
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.7, 0.1, 0.2], [0.4, 0.5, 0.1]])
    encoded = torch.arange(10.0).reshape(1, 5, 2)
    samples = line_characters(encoded, probabilities.log()[None], batch_of([[1, 2]]))
    # 1 takes columns 1 and 2 and peaks in 2; 2 is nowhere the most probable, and the path passes it in column 3 at best
    assert samples.features.tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert samples.labels.tolist() == [0, 1]
    assert samples.trusted.tolist() == [True, False]


def losses_beside(objective: nn.Module, **changes: object) -> WithCharacterLosses:
    torch.manual_seed(0)
    chosen = {"long-tail": 0.1, "centre-triplet": 0.5}
    return WithCharacterLosses(objective, chosen, 6, torch.tensor([30, 4]), **changes)  # type: ignore[arg-type]


def outputs_of(lines: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    encoded = torch.randn(lines, 8, 6, generator=generator).requires_grad_()
    return Outputs(torch.randn(lines, 8, 4, generator=generator), encoded, random_lines(lines, 8, 3, seed))


def test_each_loss_is_a_term_and_the_total_is_their_weighted_sum() -> None:
    batch, outputs = batch_of([[1, 2], [2]]), outputs_of(2, 1)
    terms: Terms = losses_beside(Recognition(4, 3))(outputs, batch, 0)
    assert set(terms) == {"loss", "ctc", "long-tail", "centre-triplet"}
    expected = terms["ctc"] + 0.1 * terms["long-tail"] + 0.5 * terms["centre-triplet"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    samples = line_characters(outputs.encoded, outputs.log_probs, batch)
    torch.manual_seed(0)
    alone = LongTail(6, torch.tensor([30, 4]))(samples.features, samples.labels)
    assert terms["long-tail"].item() == pytest.approx(alone["loss"].item(), rel=1e-6)


def test_gradients_reach_the_encoder_at_the_spikes_alone_and_the_prototypes() -> None:
    objective, outputs, batch = losses_beside(Recognition(4, 3)), outputs_of(1, 2), batch_of([[1, 2]])
    objective(outputs, batch, 0)["loss"].backward()
    samples = line_characters(outputs.encoded, outputs.log_probs, batch)
    spikes = [outputs.encoded[0].tolist().index(feature.tolist()) for feature in samples.features.detach()]
    assert outputs.encoded.grad is not None
    assert sorted(outputs.encoded.grad[0].abs().sum(1).nonzero()[:, 0].tolist()) == sorted(spikes)
    prototypes = dict(objective.named_parameters())["losses.long-tail.prototypes"]
    assert prototypes.grad is not None
    assert prototypes.grad.abs().sum() > 0


@pytest.mark.parametrize("centres_from", ["read", "all"])
def test_centres_move_with_the_characters_asked_for(centres_from: str) -> None:
    objective = losses_beside(Recognition(4, 3), centres_from=centres_from)
    outputs, batch = outputs_of(3, 4), batch_of([[1, 2, 1, 2, 1], [2, 1, 2, 1], [1, 2, 2, 1]])
    objective(outputs, batch, 0)
    samples = line_characters(outputs.encoded, outputs.log_probs, batch)
    assert 0 < samples.trusted.sum() < len(samples.trusted)
    moving = samples.trusted if centres_from == "read" else torch.ones_like(samples.trusted)
    rule = objective.losses["centre-triplet"]
    assert isinstance(rule, CentreTriplet)
    for label in (0, 1):
        own = samples.features[moving & (samples.labels == label)]
        expected = own.mean(0) if len(own) else torch.zeros(6)
        assert torch.allclose(rule.rule.centres()[label], expected, atol=1e-6)


def test_a_batch_without_labels_adds_nothing() -> None:
    outputs, batch = outputs_of(2, 5), batch_of([[], []])
    terms = losses_beside(Recognition(4, 3))(outputs, batch, 0)
    assert terms["loss"].item() == 0
    terms["loss"].backward()
    assert outputs.encoded.grad is not None
    assert outputs.encoded.grad.abs().sum() == 0


def test_accumulated_batches_give_the_mean_of_their_gradients() -> None:
    pairs = [(outputs_of(2, seed), batch_of([[1, 2], [2]])) for seed in (6, 7)]
    prototypes = []
    for some in (pairs, pairs[:1], pairs[1:]):
        objective = losses_beside(Recognition(4, 3))
        for outputs, batch in some:
            (objective(outputs, batch, 0)["loss"] / len(some)).backward()
        (found,) = (p.grad for name, p in objective.named_parameters() if name.endswith("prototypes"))
        assert found is not None
        prototypes.append(found)
    assert torch.allclose(prototypes[0], (prototypes[1] + prototypes[2]) / 2, atol=1e-7)


def test_under_autocast_the_losses_are_those_of_float32() -> None:
    outputs, batch = outputs_of(2, 8), batch_of([[1, 2], [2]])
    plain = losses_beside(Recognition(4, 3))(outputs, batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = losses_beside(Recognition(4, 3))(outputs, batch, 0)
    assert plain["long-tail"].item() == cast["long-tail"].item()
    assert plain["centre-triplet"].item() == cast["centre-triplet"].item()


def test_what_is_learnt_beside_the_network_is_in_the_state_and_comes_back(tmp_path: Path) -> None:
    objective = losses_beside(Recognition(4, 3))
    objective(outputs_of(2, 9), batch_of([[1, 2], [2]]), 0)
    names = set(objective.state_dict())
    assert {"losses.long-tail.prototypes", "losses.centre-triplet.rule.kept"} <= names
    torch.save(objective.state_dict(), tmp_path / "state.pt")
    again = losses_beside(Recognition(4, 3))
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, value in again.state_dict().items():
        assert torch.equal(value, objective.state_dict()[name])
