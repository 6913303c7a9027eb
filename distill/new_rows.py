"""New rows of a classifier, made from what the old model says where lines show the new characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from crnn.characters.descriptions import class_descriptions
from crnn.charset import Charset
from crnn.model import Crnn
from crnn.objectives.line_characters import aligned_characters
from crnn.train import Sources
from data.lines import Line
from data.picture import InputSpec, prepare
from data.synthesis.source import SynthesisSource
from distill.new_biases import steady_biases

SHRINKAGE, ROW_LENGTH = 0.1, 4.0
"""Of new rows, see new_rows: found on a student and five signs; without whitening half as many were read before any
training."""

NEAR = 2
"""Columns of 4 pixels around a new character, whose context changes with it."""


def chosen_examples(of: Sources, charset: Charset, added: Sequence[str], count: int) -> list[Line]:
    """Training lines until each new character was seen count times, or no line is left.

    Of drawn lines, which never end, some are looked at. ValueError naming a character that none of them shows.
    """
    left = dict.fromkeys(added, count)
    chosen = []
    for source in of.training:
        texts = source.texts()
        ends = 20 * count * len(added) if isinstance(source, SynthesisSource) else len(source)
        for i in range(ends):
            text = charset.normalise(texts[i] or "")
            if any(left.get(c, 0) > 0 for c in text):
                chosen.append(source[i])
                for c in text:
                    left[c] = left.get(c, 0) - 1
            if max(left[c] for c in added) <= 0:
                break
    unseen = [c for c in added if left[c] == count]
    if unseen:
        raise ValueError(f"no training line shows {''.join(unseen)!r}; give more lines that do")
    return chosen


@torch.inference_mode()
def new_rows(
    old: Crnn, known: Charset, charset: Charset, examples: Iterable[Line], old_lines: Iterable[Line], spec: InputSpec
) -> tuple[Tensor, Tensor]:
    """Weights (A, H) and biases (A,) of the classes that charset has and known has not.

    A row points from the mean of old characters to the description of the new one (method 5's weighted mean over what
    the encoder says in its columns), in the metric of Fisher's discriminant: the mean of the covariances of old
    characters and of the examples around their descriptions, with SHRINKAGE of its diagonal's mean added; its length is
    ROW_LENGTH times that of old rows on average. Where a line shows a new character the old model cannot say: the
    alignment lets it be any column that is probably no blank. The biases are steady_biases of the old lines; where
    there is none, the columns of the examples that are not near a new character must do.
    """
    added = [c for c in charset.characters if c not in known.characters]
    numbers = torch.tensor([charset.characters.index(c) + 1 for c in added])
    features, labels = [], []
    old_columns = [_outputs(old, line, spec)[0][0] for line in old_lines]  # of each line, (T, H)
    elsewhere = []
    for line in examples:
        encoded, log_probs = _outputs(old, line, spec)
        wild = log_probs.new_empty(1, log_probs.shape[1], charset.classes)
        wild[..., [0, *(charset.characters.index(c) + 1 for c in known.characters)]] = log_probs
        anything = log_probs[..., 1:].logsumexp(-1)
        wild[..., numbers] = anything[..., None]
        classes = torch.tensor([charset.encode(line.text or "", line.key)])
        lengths = torch.tensor([classes.shape[1]])
        shown = aligned_characters(wild, classes, lengths)[0]  # (T,)
        for place, number in enumerate(classes[0].tolist()):
            character = charset.characters[number - 1]
            if character in added:
                columns = (shown == place).nonzero()[:, 0]
                features.append(encoded[0, columns[anything[0, columns].argmax()]])
                labels.append(added.index(character))
        elsewhere.append(encoded[0, ~near_new(wild, classes, lengths, torch.isin(classes, numbers))[0]])
    old_columns = old_columns or [columns for columns in elsewhere if len(columns)]
    found, classes = torch.stack(features), torch.tensor(labels)  # (M, H), (M,)
    descriptions = class_descriptions(found, classes, len(added))  # (A, H)
    encoded = torch.cat(old_columns or [found[:0]])  # (M, H)
    best = old.classifier(encoded).max(-1)  # (M,)
    characters = encoded[best.indices != 0]
    if len(characters) < 2:
        raise ValueError(
            "the model reads nothing in lines of old characters, so nothing can be added to it; train it on, or give "
            "lines in which it reads something with --rehearse or --unlabelled"
        )
    apart = found - descriptions[classes]
    spread = (torch.cov(characters.T) + apart.T @ apart / len(apart)) / 2  # (H, H)
    spread += SHRINKAGE * spread.diagonal().mean() * torch.eye(len(spread))
    directions = torch.linalg.solve(spread, (descriptions - characters.mean(0)).T).T
    length = ROW_LENGTH * old.classifier.weight.norm(dim=-1).mean()
    rows = nn.functional.normalize(directions, dim=-1) * length
    allowed = (best.values[:, None] - encoded @ rows.T).split([len(line) for line in old_columns])
    return rows, steady_biases(torch.stack([line.min(0).values for line in allowed]))


def near_new(log_probs: Tensor, classes: Tensor, lengths: Tensor, is_new: Tensor) -> Tensor:
    """Columns at most NEAR from one that shows a new character: bool (N, T). is_new: bool (N, S), of the labels.

    log_probs (N, T, K), classes (N, S) and lengths (N,) as for CTC.
    """
    shown = aligned_characters(log_probs, classes, lengths)  # (N, T)
    there = is_new.gather(1, shown.clamp(min=0)) & (shown >= 0)
    return nn.functional.max_pool1d(there.float(), 2 * NEAR + 1, 1, NEAR).bool()


def _outputs(model: Crnn, line: Line, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Encoded (1, T, H) and log-probabilities (1, T, K) of one line."""
    outputs = model(torch.from_numpy(prepare(line.picture, spec))[None])
    return outputs.encoded, outputs.log_probs
