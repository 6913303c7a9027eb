"""Lines in a folder or a zip of pictures, labelled by the labels.tsv inside where there is one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from data.importers.rows import found_name
from data.importers.tsv import LABELS, parse_label_file
from data.lines import Line
from data.lmdb_lines import Entry
from data.picture import decode_shared, picture_size
from data.picture_files import PictureFiles


class FolderLines:
    """The pictures of a folder or zip as lines; see StoredLines.

    With a labels.tsv at its top, the lines are those it lists, in its order; without, every picture below path in
    the order of names, with no text. A key is the picture's path. Read after a fork and in workers alike.
    Raises FileNotFoundError or ValueError in one sentence where path is missing or holds no picture, or where
    labels.tsv is malformed or lists a picture that is not there; with absent_pictures only where that line is read.
    """

    def __init__(self, path: Path | str, absent_pictures: bool = False) -> None:
        self.path = Path(path)
        self._absent_pictures = absent_pictures
        self._files = PictureFiles(path)
        names = self._files.names()
        if LABELS in names:
            labels, groups = parse_label_file(self._files.read(LABELS), self._files.key(LABELS))
            present = set(names)
            labels = {found_name(name, present.__contains__): label for name, label in labels.items()}
            groups = {found_name(name, present.__contains__): group for name, group in groups.items()}
            missing = [name for name in labels if name not in present]
            if missing and not absent_pictures:
                others = f" and {len(missing) - 1} others, which are" if len(missing) > 1 else ", which is"
                raise FileNotFoundError(
                    f"{self._files.key(LABELS)} lists {missing[0]}{others} not there; add the pictures, remove the "
                    "rows, or leave them out with crnn data import --drop-bad"
                )
            self._names, self._labels = list(labels), list[str | None](labels.values())
            self._groups = [groups.get(name) for name in self._names]
        else:
            self._names = self._files.pictures()
            self._labels = [None] * len(self._names)
            self._groups = [None] * len(self._names)
        if not self._names:
            empty = f"{self._files.key(LABELS)} names no picture; write its rows, or remove it to have no labels"
            raise ValueError(empty if LABELS in names else f"{path} holds no pictures; give a folder or a zip of them")
        top = self._names[0].partition("/")[0]
        if f"{top}/{LABELS}" in names and all(name.startswith(f"{top}/") for name in names):
            raise ValueError(
                f"{top}/{LABELS} lies in a folder of {path}; give that folder, or make the zip of what it holds"
            )
        self._texts = [None if label is None else unicodedata.normalize("NFC", label).strip() for label in self._labels]
        self._sizes: list[tuple[int, int]] | None = None

    def __reduce__(self) -> tuple[type[FolderLines], tuple[Path, ...] | tuple[Path, bool]]:
        return FolderLines, (self.path, self._absent_pictures)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Line:
        return self.reduced(index, 0)

    def reduced(self, index: int, least_height: int) -> Line:
        if not 0 <= index < len(self._names):
            raise IndexError(f"{self.path} holds {len(self._names)} lines; there is no line {index}")
        key = self._files.key(self._names[index])
        picture = decode_shared(self._files.read(self._names[index]), key, least_height)
        return Line(picture, self._texts[index], key)

    def entry(self, index: int) -> Entry:
        if not 0 <= index < len(self._names):
            raise IndexError(f"{self.path} holds {len(self._names)} lines; there is no line {index}")
        name = self._names[index]
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the name {name!r} in {self.path} is not UTF-8; rename the file") from error
        return Entry(self._files.read(name), self._labels[index], name, group=self._groups[index])

    def encoded(self, index: int) -> bytes:
        if not 0 <= index < len(self._names):
            raise IndexError(f"{self.path} holds {len(self._names)} lines; there is no line {index}")
        return self._files.read(self._names[index])

    def texts(self) -> Sequence[str | None]:
        return self._texts

    def keys(self) -> Sequence[str]:
        return [self._files.key(name) for name in self._names]

    def groups(self) -> Sequence[str | None]:
        return self._groups

    def sizes(self) -> Sequence[tuple[int, int]]:
        if self._sizes is None:
            self._sizes = [picture_size(self._files.read(name), self._files.key(name)) for name in self._names]
        return self._sizes
