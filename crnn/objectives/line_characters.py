"""Characters of lines as samples of classes: CTC's alignment cuts a line into them, and character losses follow.

N lines, T columns, K classes with the blank, H encoded, S characters of a batch's longest label, M characters of all
its lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.charset import BLANK
from crnn.model import Outputs
from crnn.objectives.character_losses import CHARACTER_LOSSES, CharacterLoss
from crnn.objectives.recognition import DeviceBatch, Terms

CentresFrom = Literal["read", "all"]
"""Which characters move class centres: those read correctly, or all."""


class Characters(NamedTuple):
    """What character losses take.

    features: (M, H), what the encoder says at each character's spike, the column of its aligned run where its class is
    most probable. labels: int64 (M,), class number - 1, for the blank is none. trusted: bool (M,), see line_characters.
    """

    features: Tensor
    labels: Tensor
    trusted: Tensor


def aligned_characters(log_probs: Tensor, classes: Tensor, lengths: Tensor) -> Tensor:
    """Which character of its label each column shows on the most probable path that reads the label (Viterbi).

    (N, T, K), (N, S), (N,) -> int64 (N, T): index of the character, -1 where the column shows the blank, and in all
    columns of a line without label. As crnn.ctc.align, for a whole batch at once.
    Raises ValueError where a line has too few columns for its label.
    """
    lines, columns, _ = log_probs.shape
    states = classes.new_full((lines, 2 * classes.shape[1] + 1), BLANK)  # blank, first character, blank, second, ...
    states[:, 1::2] = classes
    no_skip = torch.ones_like(states, dtype=torch.bool)  # over the blank before, from another character
    no_skip[:, 3::2] = states[:, 3::2] == states[:, 1:-2:2]
    emitted = log_probs.detach().gather(2, states[:, None].expand(-1, columns, -1))  # (N, T, states)
    score = torch.full_like(emitted[:, 0], -torch.inf)
    score[:, :2] = emitted[:, 0, :2]
    steps = []  # by how many states the best path came forward
    for column in range(1, columns):
        moved = functional.pad(score, (2, 0), value=-torch.inf)  # (N, 2 + states)
        candidates = torch.stack([score, moved[:, 1:-1], moved[:, :-2].masked_fill(no_skip, -torch.inf)])
        score, step = candidates.max(0)  # (N, states)
        score = score + emitted[:, column]
        steps.append(step)
    ends = torch.stack([2 * lengths, (2 * lengths - 1).clamp(min=0)], 1)  # (N, 2): after the last character, or in it
    reached, which = score.gather(1, ends).max(1)
    if bool(((reached == -torch.inf) & (lengths > 0)).any()):
        line = int(((reached == -torch.inf) & (lengths > 0)).nonzero()[0, 0])
        raise ValueError(
            f"line {line} of the batch has {columns} columns, too few for its label of {int(lengths[line])} "
            "characters; give a wider picture or leave the line out"
        )
    state = ends.gather(1, which[:, None])  # (N, 1)
    path = [state]
    for step in reversed(steps):
        state = state - step.gather(1, state)
        path.append(state)
    states_shown = torch.cat(path[::-1], 1)  # (N, T)
    characters = torch.where(states_shown % 2 == 1, states_shown // 2, -1)
    return characters.masked_fill(lengths[:, None] == 0, -1)


def line_characters(encoded: Tensor, log_probs: Tensor, batch: DeviceBatch) -> Characters:
    """The characters of the batch's labelled lines, line by line: (N, T, H), (N, T, K) -> M samples.

    A character is trusted where the best path shows it at its spike. Lines that know their columns are aligned too:
    the classifier reads a character where CTC put its spike, which need not be the middle of its box.
    """
    shown = aligned_characters(log_probs, batch.classes, batch.lengths)  # (N, T)
    positions = torch.arange(batch.classes.shape[1], device=shown.device)  # (S,)
    own = shown[:, None] == positions[:, None]  # (N, S, T)
    probable = log_probs.detach().transpose(1, 2).gather(1, batch.classes[..., None].expand(-1, -1, own.shape[2]))
    spikes = probable.masked_fill(~own, -torch.inf).argmax(2)  # (N, S)
    read = log_probs.detach().argmax(2).gather(1, spikes) == batch.classes  # (N, S)
    features = encoded.gather(1, spikes[..., None].expand(-1, -1, encoded.shape[2]))  # (N, S, H)
    present = positions < batch.lengths[:, None]  # (N, S)
    return Characters(features[present], batch.classes[present] - 1, read[present])


class WithCharacterLosses(nn.Module):
    """An objective, and beside it losses on the characters of labelled lines, each by its weight.

    Prototypes and centres belong to training alone: they are trained with the network and kept in the resume state,
    and no model file holds them. Centres move with every batch, so also between those that one step accumulates.
    """

    def __init__(
        self,
        objective: nn.Module,
        weights: Mapping[CharacterLoss, float],
        features: int,
        counts: Tensor,
        centres_from: CentresFrom = "read",
    ) -> None:
        """features: H. counts: (K - 1,), how often each character of the charset is in the training lines."""
        super().__init__()
        self.objective = objective
        self.weights = dict(weights)
        self.centres_from: CentresFrom = centres_from
        self.losses = nn.ModuleDict({name: CHARACTER_LOSSES[name](features, counts) for name in weights})

    def forward(self, outputs: Outputs, batch: DeviceBatch, step: int) -> Terms:
        terms: Terms = self.objective(outputs, batch, step)
        samples = line_characters(outputs.encoded, outputs.log_probs, batch)
        trusted = samples.trusted if self.centres_from == "read" else None
        total = terms["loss"]
        for name, weight in self.weights.items():
            found = self.losses[name](samples.features, samples.labels, trusted)["loss"]
            terms[name] = found
            total = total + weight * found
        return terms | {"loss": total}
