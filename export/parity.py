"""An exported file is believed only when it answers as the network does: same pictures, same numbers, same text."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.ctc import greedy
from data.lines import Picture
from data.picture import InputSpec, prepare

Batch = NDArray[np.float32]
"""float32: pictures (N, C, H, W) or log-probabilities (N, T, K)."""

WIDTHS = (64, 128, 320)
BATCHES = (1, 3)


@dataclass(frozen=True)
class Case:
    """One batch that was read by both.

    difference: the largest between two log-probabilities; nan where either gave one.
    differing_texts: pictures of the batch whose decoded text differs.
    """

    width: int
    batch: int
    difference: float
    differing_texts: int


@dataclass(frozen=True)
class Parity:
    """All cases in the order in which they were read, and how much they may differ."""

    tolerance: float
    cases: tuple[Case, ...]

    @property
    def difference(self) -> float:
        """The largest of all cases; nan where one is nan."""
        return float(np.max([case.difference for case in self.cases]))

    @property
    def pictures(self) -> int:
        return sum(case.batch for case in self.cases)

    @property
    def differing_texts(self) -> int:
        return sum(case.differing_texts for case in self.cases)

    @property
    def holds(self) -> bool:
        return self.difference <= self.tolerance and not self.differing_texts  # false for nan

    def to_json(self) -> dict[str, Any]:
        return {
            "tolerance": self.tolerance,
            "difference": self.difference,
            "pictures": self.pictures,
            "differing_texts": self.differing_texts,
            "cases": [asdict(case) for case in self._by_shape()],
        }

    def _by_shape(self) -> list[Case]:
        """Cases of one width and batch size as one, in the order in which shapes came first."""
        shapes: dict[tuple[int, int], list[Case]] = {}
        for case in self.cases:
            shapes.setdefault((case.width, case.batch), []).append(case)
        return [
            Case(width, batch, max(c.difference for c in own), sum(c.differing_texts for c in own))
            for (width, batch), own in shapes.items()
        ]


def compare(
    reference: Callable[[Batch], Batch],
    candidate: Callable[[Batch], Batch],
    batches: Iterable[Batch],
    charset: Charset,
    tolerance: float,
) -> Parity:
    """Reads every batch (N, C, H, W) with both, one batch after the other with the same two readers."""
    cases = []
    for pictures in batches:
        expected, given = reference(pictures), candidate(pictures)  # (N, T, K)
        number, width = pictures.shape[0], pictures.shape[-1]
        if expected.shape != given.shape:
            raise ValueError(
                f"for {number} pictures {width} pixels wide the file gives an output of shape {given.shape}, the "
                f"network one of {expected.shape}; the file would misread such lines, so it is not kept"
            )
        texts = zip(expected, given, strict=True)
        differing = sum(greedy(a, charset).text != greedy(b, charset).text for a, b in texts)
        cases.append(Case(width, number, float(np.max(np.abs(expected - given))), differing))
    return Parity(tolerance, tuple(cases))


def require(parity: Parity, name: str) -> None:
    """ValueError with the numbers, naming the file, where it differs from the network by more than it may."""
    if parity.holds:
        return
    cases = ", ".join(f"{c.width} px x {c.batch}: {c.difference:.2g}" for c in parity.cases)
    raise ValueError(
        f"{name} does not read as the network does and is not kept: log-probabilities differ by "
        f"{parity.difference:.3g} where {parity.tolerance:g} is allowed, and {parity.differing_texts} of "
        f"{parity.pictures} texts differ ({cases})"
    )


def drawn_batches(spec: InputSpec, seed: int) -> Iterator[Batch]:
    """Drawn lines at three widths, one and three at a time, first growing, then shrinking.

    What a runtime keeps from a shape it saw before shows only when shapes change in both directions.
    Widths are brought within the spec's bounds.
    """
    multiple = spec.width_multiple
    bounded = [min(max(round(w / multiple) * multiple, spec.min_width), spec.max_width) for w in WIDTHS]
    widths = sorted(set(bounded))
    shapes = [(w, BATCHES[i % 2]) for i, w in enumerate(widths)]
    shapes += [(w, BATCHES[1 - i % 2]) for i, w in reversed(list(enumerate(widths)))]
    generator = np.random.default_rng(seed)
    for width, number in shapes:
        yield np.stack([prepare(draw_line(width, generator), spec, width) for _ in range(number)])


def real_batches(pictures: Sequence[Picture], spec: InputSpec) -> Iterator[Batch]:
    """Real lines at their natural widths, one at a time, in the order given."""
    for picture in pictures:
        yield prepare(picture, spec)[None]


def draw_line(width: int, generator: np.random.Generator) -> Picture:
    """Letters and digits in one colour on another with noise and a change of light: uint8 (32, width, 3)."""
    paper, ink = generator.uniform(0, 255, (2, 3))
    picture = np.empty((32, width, 3), np.uint8)
    picture[:] = paper.astype(np.uint8)
    text = "".join(generator.choice(list(string.ascii_letters + string.digits), width // 14))
    cv2.putText(picture, text, (4, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, ink.tolist(), 2, cv2.LINE_AA)
    left, right = generator.uniform(-40, 40, 2)
    light = np.linspace(left, right, width)[None, :, None]
    noisy = picture + light + generator.normal(0, 8, picture.shape)
    drawn: Picture = np.clip(noisy, 0, 255).astype(np.uint8)
    return drawn
