"""From a picture of one character to a square that a character model takes, and to batches of such."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.objectives.pk_sampling import PKSampler
from data.batches import UNKNOWN, Batch, Stream
from data.lines import Line, Picture, StoredLines
from data.picture import InputSpec, resize, with_margins

WINDOW_BATCHES = 16
MOST_TURN, MOST_SCALE, MOST_SHEAR, MOST_MOVE = 8.0, 0.12, 0.12, 0.05
"""What augmentation draws up to: degrees, share of the size, slant, share of the side."""
MOST_BLUR = 0.8
BENT, BEND = 0.6, 0.035
"""Share of crops that are bent, and the standard deviation of the field, as a share of the side."""


def crop_spec(side: int, channels: int) -> InputSpec:
    """The input spec of square crops: side x side pixels, aspect kept, the rest in the edges' colour."""
    if side < 16 or side % 8:
        raise ValueError(f"--side is {side} pixels; give a multiple of 8 from 16 on")
    if channels not in (1, 3):
        raise ValueError(f"--channels is {channels}; give 1 (grey) or 3 (colour)")
    return InputSpec(height=side, channels=1 if channels == 1 else 3, min_width=side, max_width=side, narrow="margins")


def squared(picture: Picture, spec: InputSpec) -> NDArray[np.uint8]:
    """A picture of any size -> uint8 (side, side, channels), its longer side as long as the square's.

    Shrinking averages, enlarging is bilinear; what the shorter side lacks is added half on each side, in the mean
    colour of the row or column at that edge, so no frame is drawn around a dark or a coloured ground.
    """
    height, width = picture.shape[:2]
    factor = spec.height / max(height, width)
    rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    small = resize(picture, replace(spec, height=rows, channels=3), columns)
    if columns < spec.height:
        small = with_margins(small, spec.height - columns)
    elif rows < spec.height:
        small = with_margins(small.swapaxes(0, 1), spec.height - rows).swapaxes(0, 1)
    return resize(np.ascontiguousarray(small), spec, spec.height)  # of this size already: grey where that is asked for


def altered(crop: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """A crop turned, scaled, slanted and moved a little, lighter or darker, sometimes blurred."""
    side = crop.shape[0]
    angle = np.deg2rad(generator.uniform(-MOST_TURN, MOST_TURN))
    across, along = 1 + generator.uniform(-MOST_SCALE, MOST_SCALE, 2)
    slant = generator.uniform(-MOST_SHEAR, MOST_SHEAR)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[across, slant], [0.0, along]])
    middle = np.full(2, (side - 1) / 2)
    shift = middle - linear @ middle + generator.uniform(-MOST_MOVE, MOST_MOVE, 2) * side
    matrix = np.hstack([linear, shift[:, None]])
    made = cv2.warpAffine(crop, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if generator.random() < 0.3:
        made = cv2.GaussianBlur(made, (0, 0), generator.uniform(0.3, MOST_BLUR))
    made = cv2.convertScaleAbs(made, alpha=generator.uniform(0.8, 1.1), beta=generator.uniform(0, 25))
    return np.asarray(made, np.uint8).reshape(crop.shape)  # OpenCV drops a single channel


def bent(crop: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Most crops bent by a smooth random field, as one hand bends a character otherwise than another."""
    if generator.random() >= BENT:
        return crop
    side = crop.shape[0]
    coarse = generator.normal(0.0, BEND * side, (2, 4, 4)).astype(np.float32)
    across, along = (cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC) for field in coarse)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    made = cv2.remap(crop, columns + across, rows + along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(made, np.uint8).reshape(crop.shape)


@dataclass(frozen=True)
class CropWindows:
    """Window number -> its batches, as crnn.fit takes them: the same in every process and after a resumption.

    numbers: label -> class. batch: crops in one. samples: K, crops of each class in a batch (PK sampling), 0 for plain
    shuffling. With PK every class is drawn as often as any other, and weights of sources do not count; where there are
    fewer than batch / K classes, a batch holds all of them.
    """

    sources: tuple[StoredLines, ...]
    weights: tuple[float, ...]
    numbers: Mapping[str, int]
    spec: InputSpec
    batch: int
    samples: int = 0
    augment: bool = True
    seed: int = 0

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, number: int) -> list[Batch]:
        generator = np.random.default_rng([self.seed, 7919, number])
        return [self._batch(items, generator) for items in self._items(number, generator)]

    def _items(self, number: int, generator: np.random.Generator) -> list[list[tuple[int, int]]]:
        """(source, index) of every crop of every batch of a window."""
        if self.samples:
            items, sampler = self._sampled
            sampler.epoch = number
            return [[items[i] for i in chosen] for chosen in sampler]
        drawn = Stream(self.sources, self.weights, self.seed).window(number, WINDOW_BATCHES * self.batch)
        order = generator.permutation(len(drawn))
        return [[drawn[i] for i in part] for part in np.array_split(order, max(1, round(len(drawn) / self.batch)))]

    @cached_property
    def _sampled(self) -> tuple[list[tuple[int, int]], PKSampler]:
        items = [(s, i) for s, source in enumerate(self.sources) for i in range(len(source))]
        labels = [self.numbers[text or ""] for source in self.sources for text in source.texts()]
        classes = min(max(1, self.batch // self.samples), len(set(labels)))
        return items, PKSampler(labels, classes, self.samples, WINDOW_BATCHES, self.seed)

    def _batch(self, items: list[tuple[int, int]], generator: np.random.Generator) -> Batch:
        lines = [self.sources[source][index] for source, index in items]
        crops = [squared(line.picture, self.spec) for line in lines]
        if self.augment:
            crops = [altered(crop, generator) for crop in crops]
        return Batch(
            pictures=np.stack(crops),
            targets=np.array([[self.numbers[line.text or ""]] for line in lines], np.int64),
            target_lengths=np.ones(len(lines), np.int64),
            column_classes=np.full((len(lines), 1), UNKNOWN, np.int64),
            items=np.array(items, np.int64),
            texts=tuple(line.text for line in lines),
            keys=tuple(line.key for line in lines),
        )


def labelled(source: StoredLines, drop: bool) -> tuple[list[int], int]:
    """Indices of the crops with a label, and how many have none; ValueError with the first key unless drop."""
    texts = source.texts()
    kept = [i for i, text in enumerate(texts) if text]
    if len(kept) < len(texts) and not drop:
        bare = next(i for i, text in enumerate(texts) if not text)
        raise ValueError(
            f"{source.keys()[bare]} has no label; label it in labels.tsv, or leave such crops out with --drop-bad"
        )
    if not kept:
        raise ValueError(f"{source.path} holds no labelled crop; add a labels.tsv of picture<TAB>character")
    return kept, len(texts) - len(kept)


def evenly(source: StoredLines, count: int) -> list[Line]:
    """At most count of its crops, evenly from first to last, since sets are often sorted by class."""
    chosen = np.linspace(0, max(0, len(source) - 1), min(count, len(source)))
    return [source[round(i)] for i in chosen.tolist()]


def squares_in_batches(crops: Iterable[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Lists of at most size, drawn one after the other."""
    some: list[NDArray[np.uint8]] = []
    for crop in crops:
        some.append(crop)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
