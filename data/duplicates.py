"""Pictures that are the same or nearly so, found among a million lines by hashes alone.

The hash is a difference hash (dHash) of 8 rows by 32 columns instead of the usual 8 by 8, for lines are wide: at 8 by 8
the texts of two receipts often look alike.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Picture

ROWS, COLUMNS = 8, 32
HASH_BYTES = ROWS * COLUMNS // 8
LEAST_STEP = 3
"""By so much of 255 of a picture's contrast a cell must be darker than its neighbour: what is flat has no bits."""
LEAST_CONTRAST = 12
"""Grey levels between the darkest and the lightest cell, below which a picture is too plain to be compared."""
SAME_LABEL_BITS, OTHER_LABEL_BITS = 24, 12
"""In how many of the 256 bits the hashes of two lines may differ that are worth a closer look."""
STRETCH = 1.15
"""Factor by which their aspects may differ."""
GREATEST_BUCKET = 128
"""Lines of one bucket are compared all with all; in a larger one each with as many that follow it in order of hash."""

AT_ONCE = 1 << 16
"""Pairs that are compared in one step: what bounds the memory."""

_SET_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16)[:, None].view(np.uint8), axis=1).sum(
    axis=1, dtype=np.uint8
)

Hashes = NDArray[np.uint8]
"""uint8 (lines, HASH_BYTES)."""
Indices = NDArray[np.intp]


def difference_hash(picture: Picture) -> bytes:
    """HASH_BYTES bytes: of 8 x 33 grey cells, whether each is darker than its right neighbour; all 0 where it is plain.

    picture: uint8 (height, width, 3), any size.
    """
    cells = cv2.resize(_grey(picture), (COLUMNS + 1, ROWS), interpolation=cv2.INTER_AREA).astype(np.int32)
    contrast = int(cells.max()) - int(cells.min())
    if contrast < LEAST_CONTRAST:
        return bytes(HASH_BYTES)
    return np.packbits(np.diff(cells, axis=1) * 255 > LEAST_STEP * contrast).tobytes()


def correlation(one: Picture, other: Picture) -> float:
    """How alike two pictures are, -1..1, as grey pictures 32 high and of one width; 1 for the same in another light."""
    aspect = (one.shape[1] / one.shape[0] + other.shape[1] / other.shape[0]) / 2
    size = min(max(16, round(32 * aspect)), 4096), 32
    a, b = (cv2.resize(_grey(p), size, interpolation=cv2.INTER_AREA).astype(np.float64).ravel() for p in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-9))


def _grey(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


@dataclass(frozen=True)
class Pair:
    """Two lines by number, first < second. bits: in which their hashes differ."""

    first: int
    second: int
    bits: int
    same_label: bool


class Prints:
    """What is kept of every line to find its likes: 44 bytes each (hash of the picture, its aspect, hash of the label).

    Labels are compared without case and spaces.
    """

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._aspects = array("f")
        self._labels = array("Q")

    def __len__(self) -> int:
        return len(self._aspects)

    def add(self, picture: Picture | None, label: str | None) -> None:
        """The next line; None for a picture that cannot be compared."""
        self._hashes += bytes(HASH_BYTES) if picture is None else difference_hash(picture)
        self._aspects.append(1.0 if picture is None else picture.shape[1] / picture.shape[0])
        folded = "".join((label or "").split()).casefold()
        self._labels.append(int.from_bytes(blake2b(folded.encode(), digest_size=8).digest(), "little"))

    def pairs(self, others: int = 0) -> list[Pair]:
        """Pairs of lines that may be one picture: for each line its nearest of all before it, of each kind of label.

        others: so many lines at the beginning are of another set; they are not paired among themselves, and a line
        has its nearest among them and its nearest among its own. Plain pictures are in no pair.

        Hashes that differ in at most OTHER_LABEL_BITS agree in one band at least of OTHER_LABEL_BITS + 1, so only
        lines that share a band are compared, whatever their labels; and lines of one label are compared up to
        SAME_LABEL_BITS. Time grows with N log N and with the size of the buckets, up to GREATEST_BUCKET.
        """
        hashes = np.frombuffer(bytes(self._hashes), np.uint8).reshape(-1, HASH_BYTES)
        aspects = np.frombuffer(self._aspects.tobytes(), np.float32)
        labels = np.frombuffer(self._labels.tobytes(), np.uint64)
        halves = hashes.view(np.uint16)
        shown = np.flatnonzero(hashes.any(axis=1))
        order = shown[np.lexsort((shown, *hashes[shown].T[::-1]))]
        found: dict[tuple[int, bool, bool], Pair] = {}

        def keep(one: Indices, other: Indices) -> None:
            ratios = aspects[one] / aspects[other]
            near = (ratios <= STRETCH) & (ratios >= 1 / STRETCH) & (np.maximum(one, other) >= others)
            one, other = one[near], other[near]
            bits = _SET_BITS[halves[one] ^ halves[other]].sum(axis=1, dtype=np.intp)
            same = labels[one] == labels[other]
            near = bits <= np.where(same, SAME_LABEL_BITS, OTHER_LABEL_BITS)
            rows = (values[near].tolist() for values in (one, other, bits, same))
            for a, b, n, equal in zip(*rows, strict=True):
                pair = Pair(min(a, b), max(a, b), n, equal)
                place = pair.second, equal, pair.first < others
                held = found.get(place)
                if held is None or (n, pair.first) < (held.bits, held.first):
                    found[place] = pair

        for keys in (labels[order], *_bands(hashes[order])):
            for one, other in _neighbours(keys):
                for start in range(0, len(one), AT_ONCE):
                    keep(order[one[start : start + AT_ONCE]], order[other[start : start + AT_ONCE]])
        return sorted(found.values(), key=lambda pair: (pair.second, pair.first))


def _bands(hashes: Hashes) -> Iterator[NDArray[np.unsignedinteger]]:
    """uint32 (N,) of each of OTHER_LABEL_BITS + 1 stretches of the hashes."""
    bounds = np.linspace(0, 8 * HASH_BYTES, OTHER_LABEL_BITS + 2).astype(int).tolist()
    for start, end in pairwise(bounds):
        begin = start // 8
        bits = np.unpackbits(hashes[:, begin : -(-end // 8)], axis=1)[:, start - 8 * begin : end - 8 * begin]
        packed = np.packbits(bits, axis=1)
        yield np.pad(packed, ((0, 0), (0, 4 - packed.shape[1]))).view(np.uint32)[:, 0]


def _neighbours(keys: NDArray[np.unsignedinteger]) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of indices with equal keys, at most GREATEST_BUCKET apart among those."""
    order = np.argsort(keys, kind="stable")  # so that a bucket keeps the order of its members
    keys = keys[order]
    active = np.arange(len(keys))
    for step in range(1, GREATEST_BUCKET + 1):
        active = active[active + step < len(keys)]
        active = active[keys[active] == keys[active + step]]
        if not len(active):
            return
        yield order[active], order[active + step]
