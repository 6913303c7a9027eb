"""PK sampling: batches of P classes with K samples of each, as losses that compare samples need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np


class PKSampler:
    """Batches of indices, `classes` classes with `samples` samples each; a DataLoader's batch_sampler.

    labels: of the whole training set, one a sample; any numbers. classes: P. samples: K. batches: in an epoch.
    short: a class with fewer than K samples gives each as often as needed, no one twice more often than another
        ("repeat"; a class of one sample gives it K times), or is refused ("refuse").
    epoch: set it before iterating; batch number b of an epoch is the same whenever it is drawn.
    In a batch classes are distinct, and so are a class's samples where there are K of them.
    Raises ValueError where there are fewer than P classes, or for a short class that is to be refused.
    """

    def __init__(
        self,
        labels: Sequence[int],
        classes: int,
        samples: int,
        batches: int,
        seed: int = 0,
        short: Literal["repeat", "refuse"] = "repeat",
    ) -> None:
        if classes < 1 or samples < 1 or batches < 1:
            raise ValueError(f"{batches} batches of {classes} x {samples} samples were asked for; give at least 1 each")
        values, numbers = np.unique(np.asarray(labels, np.int64), return_inverse=True)
        if classes > len(values):
            raise ValueError(
                f"batches of P = {classes} classes were asked for, and the labels have {len(values)}; give at most that"
            )
        self._members = [np.flatnonzero(numbers == number) for number in range(len(values))]
        if short == "refuse":
            for value, members in zip(values, self._members, strict=True):
                if len(members) < samples:
                    raise ValueError(
                        f"class {value} has {len(members)} samples, and K = {samples} were asked for; "
                        "leave the class out, lower K or let samples repeat"
                    )
        self.classes, self.samples, self.batches, self.seed = classes, samples, batches, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batch(number) for number in range(self.batches))

    def batch(self, number: int) -> list[int]:
        """The indices of a batch of this epoch, class by class."""
        generator = np.random.default_rng([self.seed, self.epoch, number])
        drawn = generator.choice(len(self._members), self.classes, replace=False)
        return [int(i) for c in drawn for i in self._draw(self._members[c], generator)]

    def _draw(self, members: np.ndarray[tuple[int], np.dtype[np.int64]], generator: np.random.Generator) -> list[int]:
        rounds = -(-self.samples // len(members))
        return [int(i) for _ in range(rounds) for i in generator.permutation(members)][: self.samples]
