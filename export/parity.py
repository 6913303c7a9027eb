"""An exported file is believed only when it answers as the network does: same lines, same numbers, same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.ctc import blank_outside, greedy
from data.lines import Line
from data.picture import InputSpec, natural_width, prepare, shown_columns

Batch = NDArray[np.float32]
"""float32: pictures (N, C, H, W) or log-probabilities (N, T, K)."""

WIDTHS = (64, 128, 320)
"""Pixels; some lines are brought to each of these, so that shapes change however alike the lines are."""
COMPANY = 3
"""Lines of a batch, where a batch may hold more than one."""
AGAIN = 10
"""Every so many lines one is read twice in a row."""
LEAST_RIGHT = 0.5
"""A network that reads fewer of the lines right has no texts worth comparing."""
SURE = 0.8
"""Confidence from which a reading counts where no label tells whether it is right: of 300 lines of IIIT5K three
students read 70 to 75 % so surely, nine in ten of them right, and 73 to 77 % right in all."""

FEW = 100
"""Lines of which a share of a few per cent says little: the error of 95 % of them is 2 points or more."""

ROUNDINGS = 3
"""Two orders of summation each err as far as float32 is from float64, or so, and not the same way; and half as much."""

Measure = Literal["largest", "relative"]


@dataclass(frozen=True)
class Gate:
    """What a format must hold.

    tolerance, measure: how far log-probabilities may be from the network's: the largest difference, or the root mean
        square of all differences as a share of the standard deviation of the network's.
    least_same: share of the lines whose text must be the network's; of those that the network reads right, or surely
        where there are no labels. Below 1 a single line may always differ: of few, it would be more than the share.
    """

    tolerance: float
    measure: Measure
    least_same: float


@dataclass(frozen=True, eq=False)
class Expected:
    """A line as the network reads it.

    picture: (1, C, H, W). log_probs: (1, T, K). shown: first and end of the columns that show more than margin.
    label: as the charset writes it; None where it has none. confidence: of the text, 0 to 1.
    compared: whether its text counts; not where it was brought to another width than its own.
    """

    picture: Batch
    log_probs: Batch
    shown: tuple[int, int]
    text: str
    label: str | None
    compared: bool = True
    confidence: float = 1.0


@dataclass(frozen=True)
class Case:
    """All lines of one width and batch size.

    difference: the largest between two log-probabilities; nan where either gave one. differing_texts: of the lines.
    """

    width: int
    batch: int
    lines: int
    difference: float
    differing_texts: int


@dataclass(frozen=True)
class Parity:
    """How a file read, beside the network.

    relative: root mean square of the differences over the standard deviation of the network's log-probabilities.
    lines: that were compared by text; same: of them with the network's text.
    labelled: of them with a label; right_network, right_file: of those; same_right: of those that the network reads
        right.
    sure_network: lines that the network reads with a confidence of SURE or more; same_sure: of those.
    repeated: lines that were read twice in a row; unlike: of them that read differently the second time, by any bit.
    """

    gate: Gate
    difference: float
    relative: float
    lines: int
    same: int
    labelled: int
    right_network: int
    right_file: int
    same_right: int
    sure_network: int
    same_sure: int
    repeated: int
    unlike: int
    cases: tuple[Case, ...]

    @property
    def judged_by(self) -> Literal["numbers and texts", "numbers alone"]:
        """Numbers alone where the network itself reads under half of the labelled lines; surely, where none is."""
        read, lines = (self.right_network, self.labelled) if self.labelled else (self.sure_network, self.lines)
        return "numbers and texts" if _enough(read, lines) else "numbers alone"

    @property
    def judged(self) -> tuple[int, int]:
        """Lines that the network reads right, or surely where there are no labels: with the same text, and all."""
        return (self.same_right, self.right_network) if self.labelled else (self.same_sure, self.sure_network)

    @property
    def same_share(self) -> float:
        """Of the lines judged by their text; 1 where there are none."""
        same, lines = self.judged
        return same / lines if lines else 1.0

    @property
    def texts_fail(self) -> bool:
        """Whether more texts differ than the format may change."""
        same, lines = self.judged
        one_allowed = self.gate.least_same < 1 and lines - same <= 1
        return self.judged_by == "numbers and texts" and self.same_share < self.gate.least_same and not one_allowed

    @property
    def lost(self) -> float:
        """Share of the lines that the file loses: right ones where there are labels, else sure ones read otherwise."""
        if self.labelled:
            return (self.right_network - self.right_file) / self.labelled
        return (self.sure_network - self.same_sure) / max(self.lines, 1)

    @property
    def failures(self) -> list[str]:
        """What does not hold, one clause each."""
        found = []
        measured = self.difference if self.gate.measure == "largest" else self.relative
        if not measured <= self.gate.tolerance:  # so that nan fails
            name = "by" if self.gate.measure == "largest" else "in relation to their spread by"
            found.append(f"log-probabilities differ {name} {measured:.3g} where {self.gate.tolerance:g} is allowed")
        if self.texts_fail:
            same, lines = self.judged
            found.append(f"{same} of {lines} texts are the network's where {self.gate.least_same:.1%} are asked for")
        if self.unlike:
            found.append(f"{self.unlike} of {self.repeated} lines read differently the second time")
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "judged_by": self.judged_by,
            "tolerance": self.gate.tolerance,
            "measure": self.gate.measure,
            "least_same": self.gate.least_same,
            "difference": self.difference,
            "relative": self.relative,
            "lines": self.lines,
            "same_texts": self.same,
            "labelled": self.labelled,
            "right_network": self.right_network,
            "right_file": self.right_file,
            "same_texts_of_right_network": self.same_right,
            "sure_network": self.sure_network,
            "same_texts_of_sure_network": self.same_sure,
            "read_twice": self.repeated,
            "unlike_the_second_time": self.unlike,
            "cases": [asdict(case) for case in self.cases],
        }


def widened(parity: Parity, rounding: float) -> Parity:
    """The same with a tolerance of ROUNDINGS times what float32 leaves open in this network, where that is more."""
    tolerance = max(parity.gate.tolerance, ROUNDINGS * rounding)
    return replace(parity, gate=replace(parity.gate, tolerance=tolerance))


def _enough(read: int, lines: int) -> bool:
    """Whether texts say something."""
    return read >= LEAST_RIGHT * lines


def reads_enough(expected: Sequence[Expected]) -> bool:
    """Whether the network reads at least half of the labelled lines right; where none is labelled, half surely."""
    compared = [one for one in expected if one.compared]
    labelled = [one for one in compared if one.label is not None]
    if labelled:
        return _enough(sum(one.text == one.label for one in labelled), len(labelled))
    return _enough(sum(one.confidence >= SURE for one in compared), len(compared))


def expect(
    network: Callable[[Batch], Batch], lines: Sequence[Line], charset: Charset, spec: InputSpec,
    pixels_per_column: int = 4, extra_columns: int = 0,
) -> tuple[Expected, ...]:  # fmt: skip
    """The lines as the network reads them, in the order in which files will: widths grow, then shrink.

    Besides each line at its own width some are brought to each of WIDTHS, within the spec's bounds. pixels_per_column,
    extra_columns: of the network.
    """
    multiple = spec.width_multiple
    bounded = {min(max(round(w / multiple) * multiple, spec.min_width), spec.max_width) for w in WIDTHS}
    forced = [(line, width) for width in sorted(bounded) for line in lines[:COMPANY]]
    own = [(line, natural_width(line.picture.shape[0], line.picture.shape[1], spec)) for line in lines]
    ordered = sorted([*((line, width, False) for line, width in forced), *((line, width, True) for line, width in own)],
                     key=lambda entry: entry[1])  # fmt: skip
    up_and_down = ordered[::2] + ordered[1::2][::-1]
    expected = []
    for line, width, compared in up_and_down:
        picture = prepare(line.picture, spec, None if compared else width)[None]
        log_probs = network(picture)
        shown = (0, log_probs.shape[1])
        if compared:
            height, own_width = line.picture.shape[:2]
            shown = shown_columns(height, own_width, spec, pixels_per_column, extra_columns)
        label = None if line.text is None else charset.normalise(line.text)
        reading = greedy(blank_outside(log_probs[0], *shown), charset)
        expected.append(Expected(picture, log_probs, shown, reading.text, label, compared, reading.confidence))
    return tuple(expected)


def compare(
    candidate: Callable[[Batch], Batch],
    expected: Sequence[Expected],
    charset: Charset,
    gate: Gate,
    company: bool,
) -> Parity:
    """Reads every line with the file, one after the other, some twice, and with company in batches of COMPANY too.

    ValueError where an output has another shape than the network's.
    """
    cases: list[Case] = []
    squares, spread, unlike = [], [], 0
    given_texts: list[str] = []
    for number, one in enumerate(expected):
        given = candidate(one.picture)
        cases.append(_case(one.picture, one.log_probs, given, charset))
        if number % AGAIN == 0 and not np.array_equal(given, candidate(one.picture)):
            unlike += 1
        squares.append(np.square(given - one.log_probs).ravel())
        spread.append(one.log_probs.ravel())
        given_texts.append(greedy(blank_outside(given[0], *one.shown), charset).text)
    if company:
        for some in _batches(expected):
            pictures, log_probs = (
                np.concatenate(parts) for parts in zip(*((e.picture, e.log_probs) for e in some), strict=True)
            )
            cases.append(_case(pictures, log_probs, candidate(pictures), charset))
    texts = [(one, text) for one, text in zip(expected, given_texts, strict=True) if one.compared]
    labelled = [(one, text) for one, text in texts if one.label is not None]
    right = [(one, text) for one, text in labelled if one.text == one.label]
    sure = [(one, text) for one, text in texts if one.confidence >= SURE]
    relative = float(np.sqrt(np.concatenate(squares).mean()) / max(float(np.concatenate(spread).std()), 1e-9))
    return Parity(
        gate=gate,
        difference=float(np.max([case.difference for case in cases])),  # nan where one is nan
        relative=relative,
        lines=len(texts),
        same=sum(one.text == text for one, text in texts),
        labelled=len(labelled),
        right_network=len(right),
        right_file=sum(one.label == text for one, text in labelled),
        same_right=sum(one.text == text for one, text in right),
        sure_network=len(sure),
        same_sure=sum(one.text == text for one, text in sure),
        repeated=len(range(0, len(expected), AGAIN)),
        unlike=unlike,
        cases=_by_shape(cases),
    )


def _batches(expected: Sequence[Expected]) -> list[list[Expected]]:
    """One batch of COMPANY lines at each width that has as many, widths growing and shrinking in turns."""
    by_width: dict[int, list[Expected]] = {}
    for one in expected:
        by_width.setdefault(one.picture.shape[-1], []).append(one)
    widths = [width for width in sorted(by_width) if len(by_width[width]) >= COMPANY]
    return [by_width[width][:COMPANY] for width in widths[::2] + widths[1::2][::-1]]


def _case(pictures: Batch, expected: Batch, given: Batch, charset: Charset) -> Case:
    number, width = pictures.shape[0], pictures.shape[-1]
    if expected.shape != given.shape:
        raise ValueError(
            f"for {number} pictures {width} pixels wide the file gives an output of shape {given.shape}, the network "
            f"one of {expected.shape}; the file would misread such lines, so it is not kept"
        )
    pairs = zip(expected, given, strict=True)
    differing = sum(greedy(a, charset).text != greedy(b, charset).text for a, b in pairs)
    return Case(width, number, number, float(np.max(np.abs(expected - given))), differing)


def _by_shape(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Cases of one width and batch size as one, by batch size and width."""
    shapes: dict[tuple[int, int], list[Case]] = {}
    for case in cases:
        shapes.setdefault((case.batch, case.width), []).append(case)
    return tuple(
        Case(
            width,
            batch,
            sum(c.lines for c in own),
            float(np.max([c.difference for c in own])),
            sum(c.differing_texts for c in own),
        )
        for (batch, width), own in sorted(shapes.items())
    )


def require_same(kept: Callable[[Batch], Batch], proven: Callable[[Batch], Batch], one: Expected, name: str) -> None:
    """ValueError where the file that is kept, with the figures of its check inside, is not the one that was checked."""
    if not np.allclose(kept(one.picture), proven(one.picture), atol=1e-5):
        raise ValueError(
            f"{name} reads differently once the figures of its check are written into it, and is not kept; this is a "
            "fault of the export, so please report it"
        )


def require(parity: Parity, name: str) -> None:
    """ValueError with the numbers, naming the file, where it does not hold what its format must."""
    if not parity.failures:
        return
    worst = sorted(parity.cases, key=lambda case: -case.difference)[:5]
    cases = ", ".join(f"{c.width} px x {c.batch}: {c.difference:.2g}" for c in worst)
    fault = "this is a fault of the export, so please report it"
    few = parity.texts_fail and len(parity.failures) == 1 and parity.gate.least_same < 1 and parity.judged[1] < FEW
    # what float32 leaves open is the largest of few differences, and may be told too small: 3.1 times it was seen in 25
    near = parity.gate.measure == "largest" and parity.difference < 2 * parity.gate.tolerance and parity.lines < FEW
    unsure = few or (near and len(parity.failures) == 1 and not parity.texts_fail)
    advice = f"check on more lines (--data, --lines); where that fails too, {fault}" if unsure else fault
    raise ValueError(
        f"{name} does not read as the network does and is not kept: {'; '.join(parity.failures)} "
        f"({parity.lines} lines; the widest apart {cases}); {advice}"
    )
