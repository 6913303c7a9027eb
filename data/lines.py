"""Lines of text as pictures: what one is, and what any source of them can do."""

from __future__ import annotations

import hashlib
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from data.lmdb_lines import Entry

Picture = NDArray[np.uint8]
"""uint8 (height, width, 3), RGB."""


@dataclass(frozen=True)
class Line:
    """One picture of one line or word.

    picture: uint8 (height, width, 3), RGB, any size; read-only where a grey one is one channel seen three times.
    text: the label in NFC; None where the line has no label.
    key: names the line in messages: a path, an LMDB key, a synthesis item.
    columns: float32 (len(text), 2), where each character lies: left and right edge as fractions
        of the picture's width, in reading order; None where it is not known (real lines).
    """

    picture: Picture
    text: str | None
    key: str
    columns: NDArray[np.float32] | None = None


class LineSource(Protocol):
    """A sequence of lines that can be opened anew in any worker process."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Line:
        """The line at index; ValueError naming its key where the stored value cannot be decoded."""
        ...

    def texts(self) -> Sequence[str | None]:
        """The labels of all lines, without opening a picture."""
        ...


@runtime_checkable
class ReducibleLines(Protocol):
    """Lines whose pictures can be decoded at a reduced scale."""

    def reduced(self, index: int, least_height: int, /) -> Line:
        """The line at index; a JPEG that stays at least so high may come at a half, a quarter or an eighth."""
        ...


class StoredLines(LineSource, ReducibleLines, Protocol):
    """Lines that lie on disk: finite, the same on every visit."""

    @property
    def path(self) -> Path: ...

    def sizes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of every picture from its header, without decoding it."""
        ...

    def keys(self) -> Sequence[str]:
        """The key of every line, without opening a picture."""
        ...

    def groups(self) -> Sequence[str | None]:
        """What each line came from with others (a receipt, page or writer), where that is known."""
        ...

    def entry(self, index: int, /) -> Entry:
        """The line as it is stored: the picture's bytes and the label before NFC; ValueError where one is missing."""
        ...

    def encoded(self, index: int, /) -> bytes:
        """The picture's bytes as they are stored, whatever its name; ValueError where they are missing."""
        ...


def required_columns(text: str) -> int:
    """Columns that CTC needs for this text: one a character and one blank between equal neighbours."""
    repeats: Iterable[bool] = map(operator.eq, text, text[1:])
    return len(text) + sum(repeats)


@dataclass(frozen=True)
class Subset:
    """Some lines of a stored source."""

    source: StoredLines
    indices: tuple[int, ...]

    @property
    def path(self) -> Path:
        return self.source.path

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Line:
        return self.source[self.indices[index]]

    def reduced(self, index: int, least_height: int) -> Line:
        return self.source.reduced(self.indices[index], least_height)

    def texts(self) -> Sequence[str | None]:
        texts = self.source.texts()
        return [texts[i] for i in self.indices]

    def keys(self) -> Sequence[str]:
        keys = self.source.keys()
        return [keys[i] for i in self.indices]

    def groups(self) -> Sequence[str | None]:
        groups = self.source.groups()
        return [groups[i] for i in self.indices]

    def entry(self, index: int) -> Entry:
        return self.source.entry(self.indices[index])

    def encoded(self, index: int) -> bytes:
        return self.source.encoded(self.indices[index])

    def sizes(self) -> Sequence[tuple[int, int]]:
        sizes = self.source.sizes()
        return [sizes[i] for i in self.indices]


@dataclass(frozen=True)
class WithoutLabels:
    """Stored lines whose labels are not looked at, where they have some.

    Where their characters lie stays, for that tells drawn lines, which are degraded already, from real ones.
    """

    source: StoredLines

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Line:
        return replace(self.source[index], text=None)

    def reduced(self, index: int, least_height: int) -> Line:
        return replace(self.source.reduced(index, least_height), text=None)

    def texts(self) -> Sequence[str | None]:
        return [None] * len(self.source)


def open_lines(path: Path | str, absent_pictures: bool = False) -> StoredLines:
    """An LMDB, a folder of pictures or a zip of them; FileNotFoundError or ValueError in one sentence.

    absent_pictures: open a set that lists pictures which are not there, too: reading such a line raises then.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give an LMDB, a folder or a zip of pictures")
    if (path / "data.mdb").exists() or path.suffix == ".lmdb":
        from data.lmdb_lines import LmdbLines

        return LmdbLines(path)
    from data.folder_lines import FolderLines

    return FolderLines(path, absent_pictures)


def split_source(text: str) -> tuple[str, float]:
    """ "SOURCE[:weight]" -> source and weight, 1 where none is given; ValueError for a weight that is not above 0."""
    source, colon, number = text.rpartition(":")
    if not colon or "/" in number or "\\" in number:
        return text, 1.0
    try:
        weight = float(number)
    except ValueError:
        return text, 1.0
    if not 0 < weight < math.inf:
        raise ValueError(f"{text!r} gives its source the weight {number}; give a number above 0")
    return source, weight


def hold_out(source: StoredLines, share: float, group_by: str | None = None) -> tuple[StoredLines, StoredLines]:
    """(rest, held-out share), drawn by a hash of each line's group, or of its name where it has none.

    So it is the same lines on every machine, and no group is in both parts. A name is the key without the source's
    own path, so a folder, a zip of it and the LMDB made of it agree. The hash is another than that of
    `crnn data import --validation`, which would leave nothing to hold out of what it kept.
    group_by: see group_of; it takes the place of the groups that the source knows; none or empty leaves those.
    """
    held: list[int] = []
    rest: list[int] = []
    for i, (key, group) in enumerate(zip(source.keys(), source.groups(), strict=True)):
        name = line_name(key, source.path)
        if group_by:
            group = group_of(name, group_by, source.path)
        (held if is_held_out(f"training/{split_name(name, group)}", share) else rest).append(i)
    return Subset(source, tuple(rest)), Subset(source, tuple(held))


def line_name(key: str, path: Path) -> str:
    """The key without the path of its source: the same in a folder, a zip of it and the LMDB made of it."""
    return key.removeprefix(f"{path}/").removesuffix(f" of {path}")


def split_name(name: str, group: str | None) -> str:
    """What decides on which side of a split a line falls: its group, or where it has none its own name."""
    return name if group is None else f"group {group}"


def group_of(name: str, pattern: str, origin: Path | str) -> str | None:
    """The group that a regular expression finds in a line's name: its first bracket, or without one all it matches.

    None, and the line stands alone, where the bracket takes no part in the match: `(receipt\\d+)|$` lets other
    names pass. ValueError where the pattern is none, or the name does not match, for a silent miss would split a group.
    """
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ValueError(f"--group-by {pattern!r} is no regular expression ({error}); correct it") from error
    if match is None:
        raise ValueError(
            f"{name} of {origin} does not match --group-by {pattern!r}; widen it, or end it with |$ to let such lines "
            "stand alone"
        )
    group: str | None = match[1] if match.re.groups else match[0]
    return group or None


def is_held_out(name: str, share: float) -> bool:
    """Whether a hash of the name falls into the held-out share; a larger share holds every name of a smaller one."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32 < share


def fitting_lines(
    source: StoredLines,
    missing: Callable[[str], str],
    columns: Callable[[int, int], int],
    drop: bool,
    unlabelled: bool,
    normalise: Callable[[str], str] = str,
) -> tuple[StoredLines, dict[str, int]]:
    """The lines that can be learnt from, checked before training starts, without opening a picture.

    missing: label -> its characters outside the charset; columns: (height, width) -> T of the model;
    normalise: label -> label as it is learnt, for "Aa" in lower case needs one column more.
    A label outside the charset, a line with fewer columns than its label needs, and (unless unlabelled is allowed)
    a line without label are refused with their key, or with drop left out and counted by reason. ValueError where
    none is left, unless unlabelled is allowed.
    """
    counts: dict[str, int] = {}
    kept: list[int] = []
    labels, keys, sizes = source.texts(), source.keys(), source.sizes()
    for i, (text, key, (height, width)) in enumerate(zip(labels, keys, sizes, strict=True)):
        reason = ""
        place = key if key.startswith(str(source.path)) else f"{key} of {source.path}"
        if not text:
            reason = "" if unlabelled else "no label"
            sentence = f"{place} has no label; label it, or leave such lines out with --drop-bad"
        elif outside := missing(text):
            reason = "outside the charset"
            sentence = (
                f"{place}: the label {text!r} holds {outside!r}, which the charset does not; extend the "
                f"charset or use --drop-bad"
            )
        elif (have := columns(height, width)) < (need := required_columns(normalise(text))):
            reason = "too few columns"
            sentence = (
                f"{place}: the label {text!r} needs {need} columns and the picture of {width} x {height} "
                f"pixels gives {have}; use --drop-bad to leave such lines out"
            )
        if not reason:
            kept.append(i)
        elif not drop:
            raise ValueError(sentence)
        else:
            counts[reason] = counts.get(reason, 0) + 1
    if not kept and not unlabelled:
        raise ValueError(
            f"{source.path} holds no line that can be learnt from ({counts or 'it is empty'}); check its labels"
        )
    return (source if len(kept) == len(source) else Subset(source, tuple(kept))), counts
