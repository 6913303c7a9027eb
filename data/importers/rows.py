"""What every format gives: a set of lines that can be walked through, a Row a line, its picture not read yet."""

from __future__ import annotations

import hashlib
import posixpath
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data.picture_files import PICTURE_SUFFIXES, PictureFiles, is_picture_name


@dataclass(frozen=True)
class Row:
    """One line of a set.

    name: of the picture within the set, the same wherever the set lies; becomes the key.
    text: the label as it is written; None where there is none.
    place: where the label stands, for messages: `line 3 of labels.tsv`; "" where the name says it all.
    read: gives the picture's file; FileNotFoundError where it is missing.
    columns, group: as in Entry.
    """

    name: str
    text: str | None
    place: str
    read: Callable[[], bytes]
    columns: NDArray[np.float32] | None = None
    group: str | None = None


class Survey(NamedTuple):
    """rows: how many there are. digest: changes with what the set holds, told without reading its pictures."""

    rows: int
    digest: str


class LineSet(Protocol):
    """A set of lines in the format of some other program; origin is what messages call it."""

    @property
    def origin(self) -> str: ...

    def survey(self) -> Survey:
        """Walks through the labels once; ValueError or FileNotFoundError in one sentence for what is malformed."""
        ...

    def rows(self) -> Iterator[Row]:
        """Every line in the order of the set."""
        ...


class Label(NamedTuple):
    """One entry of a label file; place as in Row."""

    name: str
    text: str
    place: str
    group: str | None = None


@dataclass(frozen=True)
class LabelsAt:
    """A label file, in a folder or in a zip: what messages call it, and how it is opened."""

    origin: str
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures that a label file names.

    read_labels: the format, one of formats.LABEL_READERS. below: a folder of files to which names are relative, "" or
    ending in a slash.
    """

    files: PictureFiles
    file: LabelsAt
    read_labels: Callable[[LabelsAt], Iterator[Label]]
    below: str = ""

    @property
    def origin(self) -> str:
        return str(self.files.path)

    def survey(self) -> Survey:
        count, double = count_names(self.labels)
        if double is not None:
            raise ValueError(f"{double.place} labels {double.name} a second time; keep one of the two")
        if not count:
            raise ValueError(f"{self.file.origin} names no picture; give pictures and their labels")
        digest = hashlib.sha256()
        with self.file.open() as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return Survey(count, digest.hexdigest())

    def labels(self) -> Iterator[Label]:
        """The labels, their names brought to one form and within the folder."""
        for label in self.read_labels(self.file):
            name = self.below + name_inside(label.name, label.place)
            yield label._replace(name=found_name(name, self.files.has))

    def rows(self) -> Iterator[Row]:
        for name, text, place, group in self.labels():
            yield Row(name, text, place, partial(self.files.read, name), group=group)


@dataclass(frozen=True)
class TextBesidePictures:
    """Pairs of a picture and a text file of one line, as kraken and ocropus keep them: a.png and a.gt.txt.

    The texts tell what the lines are; a picture without text is passed over. Where several pictures belong to a text
    the first of PAIRED_SUFFIXES is taken.
    """

    files: PictureFiles

    @property
    def origin(self) -> str:
        return str(self.files.path)

    def survey(self) -> Survey:
        return _survey_of_files(
            self.files,
            (name for name in self.files.walk() if name.endswith(TEXT_SUFFIX)),
            f"texts named *{TEXT_SUFFIX}",
        )

    def rows(self) -> Iterator[Row]:
        for name in self.files.walk():
            if not name.endswith(TEXT_SUFFIX):
                continue
            stem = name.removesuffix(TEXT_SUFFIX)
            pictures = (stem + suffix for suffix in PAIRED_SUFFIXES)
            picture = next((p for p in pictures if self.files.has(p)), stem + PAIRED_SUFFIXES[0])
            text = self._text(name)
            yield Row(picture, text, self.files.key(name), partial(self.files.read, picture))

    def _text(self, name: str) -> str:
        origin = self.files.key(name)
        lines = [text for _, text in text_lines(LabelsAt(origin, partial(self.files.opened, name))) if text.strip()]
        if len(lines) > 1:
            raise ValueError(f"line 2 of {origin} is a second line of text; a picture shows one line, so cut it in two")
        return lines[0] if lines else ""


TEXT_SUFFIX = ".gt.txt"
# Ocropus keeps binarised, flattened and dewarped forms beside each other.
PAIRED_SUFFIXES = (
    ".png",
    *(suffix for suffix in PICTURE_SUFFIXES if suffix != ".png"),
    *(suffix.upper() for suffix in PICTURE_SUFFIXES),
    ".bin.png",
    ".nrm.png",
    ".dew.png",
)


@dataclass(frozen=True)
class UnlabelledPictures:
    """Every picture of a folder or zip, without a label."""

    files: PictureFiles

    @property
    def origin(self) -> str:
        return str(self.files.path)

    def survey(self) -> Survey:
        return _survey_of_files(self.files, filter(is_picture_name, self.files.walk()), "pictures")

    def rows(self) -> Iterator[Row]:
        for name in filter(is_picture_name, self.files.walk()):
            yield Row(name, None, "", partial(self.files.read, name))


def _survey_of_files(files: PictureFiles, names: Iterator[str], what: str) -> Survey:
    count, digest = 0, hashlib.sha256()
    for name in names:
        count += 1
        try:
            digest.update(f"{name}\0{files.stamp(name)}\n".encode())
        except UnicodeEncodeError as error:
            raise ValueError(f"the name {name!r} in {files.path} is not UTF-8; rename the file") from error
    if not count:
        raise ValueError(f"{files.path} holds no {what}; give a folder or a zip of them")
    return Survey(count, digest.hexdigest())


def found_name(name: str, is_there: Callable[[str], bool]) -> str:
    """The name of a picture that is there: as it is written, or with / where it was written on Windows."""
    if "\\" not in name or is_there(name):
        return name
    other = name.replace("\\", "/")
    return other if is_there(other) else name


def name_inside(name: str, place: str) -> str:
    """A picture's name without `./` and the like; ValueError naming place where it leads out of the folder."""
    if not name.strip():
        raise ValueError(f"{place} names no picture; write its path, or remove the entry")
    if _is_absolute(name):
        raise ValueError(f"{place} names {name}, an absolute path; write it relative to the folder of the pictures")
    if not is_inside(name):
        raise ValueError(
            f"{place} names {name}, which leads out of the folder of the pictures; move it into the folder"
        )
    return posixpath.normpath(name)


def is_inside(name: str) -> bool:
    """Whether a name stays below the folder that it is relative to, on this system and on others."""
    return not _is_absolute(name) and posixpath.normpath(name.replace("\\", "/")).split("/")[0] not in ("..", ".")


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) is not None


def count_names(labels: Callable[[], Iterator[Label]]) -> tuple[int, Label | None]:
    """(how many labels there are, the first whose name came before; None where all differ).

    Names are held as hashes of 8 bytes, so that a million take 8 MB; only where two agree are names compared.
    """
    hashes = array("q")
    for label in labels():
        hashes.append(hash(label.name))
    ordered = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.zeros(0, np.int64)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: set[str] = set()
    for label in labels() if suspects else ():
        if label.name in seen:
            return len(hashes), label
        if hash(label.name) in suspects:
            seen.add(label.name)
    return len(hashes), None


def text_lines(file: LabelsAt) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of the lines that are not empty.

    A byte order mark and CRLF are fine. ValueError naming the line that is not UTF-8.
    """
    with file.open() as content:
        # Not by the lines of text: a label may hold characters that Unicode counts as line breaks.
        for number, line in enumerate(content, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"line {number} of {file.origin} is not UTF-8; save the file as UTF-8") from error
            if "\0" in text:
                raise ValueError(
                    f"line {number} of {file.origin} holds a zero byte, as UTF-16 does; save the file as UTF-8"
                )
            text = text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
            if text:
                yield number, text
