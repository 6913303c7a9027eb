"""What a class is, from a few of its pictures: the weighted mean of their representations (method 5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def similarities(representations: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean cosine similarity of each to the others of its class, and to those of other classes, each (M,).

    representations: (M, R); labels: (M,), 0 to classes - 1. One that is alone in its class counts itself; where there
    is no other class the second is 0.
    """
    unit = functional.normalize(representations, dim=-1)
    members = functional.one_hot(labels, classes).to(unit.dtype)  # (M, classes)
    counts = members.sum(0)  # (classes,)
    to_classes = unit @ (members.T @ unit).T  # (M, classes): summed similarity to the members of each class
    own = to_classes.gather(1, labels[:, None])[:, 0]
    itself = (unit * unit).sum(-1)
    others_of_own = counts[labels] - 1
    same = torch.where(others_of_own > 0, (own - itself) / others_of_own.clamp(min=1), itself)
    outside = len(unit) - counts[labels]
    other = torch.where(outside > 0, (to_classes.sum(1) - own) / outside.clamp(min=1), torch.zeros_like(own))
    return same, other


def picture_weights(representations: Tensor, labels: Tensor, classes: int, temperature: Tensor | float = 0.1) -> Tensor:
    """How much each picture counts in its class, (M,); the weights of a class sum to 1.

    The softmax over a class of (similarity to its own class - similarity to others) / temperature, so that a picture
    unlike its class, or like another, counts less. A class of one picture has the weight 1.
    """
    same, other = similarities(representations, labels, classes)
    scores = (same - other) / temperature
    members = functional.one_hot(labels, classes).bool()
    within = scores[:, None].masked_fill(~members, -torch.inf)  # (M, classes)
    return within.softmax(0).masked_fill(~members, 0.0).sum(1)


def class_descriptions(
    representations: Tensor, labels: Tensor, classes: int, temperature: Tensor | float = 0.1, weighted: bool = True
) -> Tensor:
    """(classes, R): the weighted mean of each class's representations, or the plain mean.

    Raises ValueError naming a class without any.
    """
    refuse_bare(labels, classes)
    counts = torch.bincount(labels, minlength=classes)
    members = functional.one_hot(labels, classes).to(representations.dtype)
    if weighted:
        shares = picture_weights(representations, labels, classes, temperature)[:, None] * members
    else:
        shares = members / counts.to(representations.dtype)
    return shares.T @ representations


def refuse_bare(labels: Tensor, classes: int) -> None:
    """ValueError naming the first class that no label is of."""
    counts = torch.bincount(labels, minlength=classes)
    if bool((counts == 0).any()):
        raise ValueError(f"class {int((counts == 0).nonzero()[0])} has no picture to describe it; give at least one")
