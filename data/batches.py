"""From lines to batches of one width: which lines, in what order, stretched how.

Training walks through windows of about a thousand lines. Window w of a seed is always the same lines in
the same batches, whatever the number of workers and wherever a run was resumed, so the position in the
data is two numbers: window and batch. A window's lines are sorted by natural width and cut into batches, so
that no line is padded and few are stretched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Line, LineSource, ReducibleLines, required_columns
from data.picture import InputSpec, missing_margin, natural_width, resize, unshared, with_margins

ENDLESS = 10**8
"""A source of more lines than this is walked through in its own order: its items are independent draws."""
MOST_STRETCH = 1.15
REDUCED_HEIGHT = 2
"""Times the model's height that a JPEG decoded at a reduced scale keeps at least; nearer to it, readings change."""
BLANK_CLASS, UNKNOWN = 0, -1


@dataclass(frozen=True)
class Batch:
    """Lines of one width.

    pictures: uint8 (N, height, width, channels).
    targets: int64 (N, S), class numbers, 0 after a line's end; target_lengths: int64 (N,).
    column_classes: int64 (N, T), the class each column shows, 0 for none, -1 where it is not known.
    items: int64 (N, 2), number of the source and index in it.
    texts: labels as the charset sees them, None where a line has none.
    """

    pictures: NDArray[np.uint8]
    targets: NDArray[np.int64]
    target_lengths: NDArray[np.int64]
    column_classes: NDArray[np.int64]
    items: NDArray[np.int64]
    texts: tuple[str | None, ...]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Batching:
    """How lines become batches.

    batch_lines: lines in a batch, fewer where widths differ too much or lines are very long.
    window_lines: lines that are sorted by width together.
    stretch: greatest factor by which a whole batch is widened or narrowed at random; 1 for none.
    margins: share of lines that get random blank margins, since other systems crop more loosely.
    exact: every batch holds lines of one natural width only and nothing is random: the same picture every time.
    pixels_per_column, extra_columns: of the model, which gives width / pixels_per_column + extra_columns columns.
    """

    batch_lines: int = 32
    window_lines: int = 1024
    stretch: float = 1.1
    margins: float = 0.2
    exact: bool = False
    pixels_per_column: int = 4
    extra_columns: int = 0


@dataclass(frozen=True)
class Stream:
    """Several sources mixed by weight into one endless sequence of windows.

    Every line of a finite source is used once before any is used again.
    """

    sources: tuple[LineSource, ...]
    weights: tuple[float, ...]
    seed: int

    def window(self, number: int, lines: int) -> list[tuple[int, int]]:
        """(source, index) of the lines of one window, by source."""
        items = []
        total = sum(self.weights)
        for source, weight in enumerate(self.weights):
            share = lines * weight / total
            for draw in range(int(number * share), int((number + 1) * share)):
                items.append((source, self._index(source, draw)))
        return items

    def _index(self, source: int, draw: int) -> int:
        size = len(self.sources[source])
        if size >= ENDLESS:
            return draw
        epoch, position = divmod(draw, size)
        return int(self._order(source, epoch)[position])

    def _order(self, source: int, epoch: int) -> NDArray[np.int64]:
        cache: dict[tuple[int, int], NDArray[np.int64]] = self.__dict__.setdefault("_orders", {})
        if (source, epoch) not in cache:
            for old in [k for k in cache if k[0] == source and k[1] < epoch - 1]:
                del cache[old]
            generator = np.random.default_rng([self.seed, source, epoch])
            cache[source, epoch] = generator.permutation(len(self.sources[source]))
        return cache[source, epoch]


class BatchWindows(Protocol):
    """Window number -> its batches, scaled as spec says: what a training run walks through."""

    @property
    def spec(self) -> InputSpec: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> list[Batch]: ...


@dataclass(frozen=True)
class Windows:
    """Window number -> its batches. A map-style data set for torch's DataLoader.

    encode: label and key -> class numbers; raises ValueError naming the key.
    normalise: label -> label as the charset sees it.
    augment: picture and generator -> picture, for stored lines; None leaves them as they are.
    """

    stream: Stream
    spec: InputSpec
    encode: Callable[[str, str], list[int]]
    normalise: Callable[[str], str]
    batching: Batching
    augment: Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, number: int) -> list[Batch]:
        generator = np.random.default_rng([self.stream.seed, 7919, number])
        read = [self._reader(source) for source in self.stream.sources]
        loaded = [
            ((source, index), self._altered(read[source](index), generator))
            for source, index in self.stream.window(number, self.batching.window_lines)
        ]
        widths = np.array(
            [natural_width(line.picture.shape[0], line.picture.shape[1], self.spec) for _, line in loaded]
        )
        batches = [
            self._batch([loaded[i] for i in group], widths[group], generator)
            for group in self._groups(widths, generator)
        ]
        order = generator.permutation(len(batches))
        return [batches[i] for i in order]

    def _reader(self, source: LineSource) -> Callable[[int], Line]:
        """Index -> line, from tall JPEGs at a reduced scale unless batches are exact."""
        if self.batching.exact or not isinstance(source, ReducibleLines):
            return source.__getitem__
        reduced = source.reduced
        return lambda index: reduced(index, REDUCED_HEIGHT * self.spec.height)

    def _altered(self, line: Line, generator: np.random.Generator) -> Line:
        if line.text is not None:
            line = replace(line, text=self.normalise(line.text))
        if self.batching.exact:
            return line
        if margin := missing_margin(line.picture.shape[0], line.picture.shape[1], self.spec):
            line = widened(line, margin)
        if self.augment is not None and line.columns is None:
            line = replace(line, picture=self.augment(unshared(line.picture), generator))
        if generator.random() < self.batching.margins:
            line = widened(line, round(line.picture.shape[0] * generator.uniform(0.1, 1.0)))
        return line

    def _groups(self, widths: NDArray[np.int64], generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of the lines of each batch: neighbours in width."""
        tie = generator.random(len(widths))
        order = np.lexsort((tie, widths))
        start = 0
        limit = 1.0 if self.batching.exact else MOST_STRETCH**2
        budget = self.batching.batch_lines * 256  # pixels: very long lines come in smaller batches
        for end in range(1, len(order) + 1):
            if (
                end == len(order)
                or end - start >= self.batching.batch_lines
                or widths[order[end]] > widths[order[start]] * limit
                or (end + 1 - start) * widths[order[end]] > budget
            ):
                yield order[start:end]
                start = end

    def _batch(
        self, lines: list[tuple[tuple[int, int], Line]], widths: NDArray[np.int64], generator: np.random.Generator
    ) -> Batch:
        multiple, per_column = self.spec.width_multiple, self.batching.pixels_per_column
        extra = self.batching.extra_columns
        wanted = float(np.sqrt(widths.min() * widths.max()))
        if not self.batching.exact:
            wanted *= np.exp(generator.uniform(-1, 1) * np.log(self.batching.stretch))
            needed = (max(required_columns(line.text or "") for _, line in lines) - extra) * per_column
            wanted = max(wanted, np.ceil(needed / multiple) * multiple)  # rounding must not take a column away
        width = int(np.clip(np.ceil(wanted / multiple - 0.5) * multiple, self.spec.min_width, self.spec.max_width))
        fixed = None if self.batching.exact else width
        pictures = np.empty((len(lines), self.spec.height, width, self.spec.channels), np.uint8)
        for (_, line), out in zip(lines, pictures, strict=True):
            resize(line.picture, self.spec, fixed, out)
        encoded = [[] if line.text is None else self.encode(line.text, line.key) for _, line in lines]
        targets = np.zeros((len(lines), max(1, *map(len, encoded))), np.int64)
        columns = np.full((len(lines), width // per_column + extra), UNKNOWN, np.int64)
        for row, ((_, line), classes) in enumerate(zip(lines, encoded, strict=True)):
            targets[row, : len(classes)] = classes
            if line.columns is not None and len(line.columns) == len(classes):
                columns[row] = column_classes(line.columns, classes, columns.shape[1])
        return Batch(
            pictures=pictures,
            targets=targets,
            target_lengths=np.array([len(c) for c in encoded], np.int64),
            column_classes=columns,
            items=np.array([item for item, _ in lines], np.int64),
            texts=tuple(line.text for _, line in lines),
            keys=tuple(line.key for _, line in lines),
        )


def widened(line: Line, pixels: int) -> Line:
    """The line with so many more pixels of blank margin, its columns moved along."""
    before = line.picture.shape[1]
    picture = with_margins(line.picture, pixels)
    if line.columns is None:
        return replace(line, picture=picture)
    left = pixels // 2
    return replace(line, picture=picture, columns=(line.columns * before + left) / np.float32(before + pixels))


def column_classes(columns: NDArray[np.float32], classes: Sequence[int], count: int) -> NDArray[np.int64]:
    """Which class each of count columns shows, from where the characters lie (S, 2) as fractions of the width.

    A character owns the middle 60 % of its box and at least the column at its middle; what lies outside all
    boxes or within 10 % of a box's edge is blank; the rest is not known.
    """
    centres = (np.arange(count) + 0.5) / count
    out = np.full(count, BLANK_CLASS, np.int64)
    for (left, right), _ in zip(columns, classes, strict=True):
        edge = 0.1 * (right - left)
        out[(centres > left + edge) & (centres < right - edge)] = UNKNOWN
    for (left, right), number in zip(columns, classes, strict=True):
        edge = 0.2 * (right - left)
        out[(centres >= left + edge) & (centres <= right - edge)] = number
        out[min(count - 1, max(0, int((left + right) / 2 * count)))] = number
    return out


def iterate(
    windows: BatchWindows, workers: int, window: int = 0, batch: int = 0, stride: int = 1
) -> Iterator[tuple[int, int, Batch]]:
    """Endless (window, number in it, batch) from a position on; workers 0 loads in this process.

    stride: of windows; several processes start at their own number and take every stride-th window.
    Raises what loading a window raises, from a worker as from this process.
    """
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _ErrorsAsValues(windows),  # type: ignore[arg-type]
        batch_size=None,
        sampler=_Count(window, stride),
        num_workers=workers,
        worker_init_fn=_one_thread if workers else None,
        prefetch_factor=2 if workers else None,
        collate_fn=_as_it_is,
    )
    for number, batches in zip(_Count(window, stride), loader, strict=False):
        if isinstance(batches, Exception):
            raise batches
        for i, made in enumerate(batches):
            if number > window or i >= batch:
                yield number, i, made


@dataclass(frozen=True)
class _ErrorsAsValues:
    """Windows whose refusals are values: one raised in a worker would come with the worker's traceback as its text."""

    windows: BatchWindows

    def __getitem__(self, number: int) -> list[Batch] | Exception:
        try:
            return self.windows[number]
        except (ValueError, OSError) as error:
            return error


class _Count:
    def __init__(self, start: int, stride: int) -> None:
        self.start, self.stride = start, stride

    def __iter__(self) -> Iterator[int]:
        number = self.start
        while True:
            yield number
            number += self.stride


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # the cores belong to the network


def _as_it_is(made: list[Batch] | Exception) -> list[Batch] | Exception:
    return made
