"""Crops sorted into one folder a class, as file managers and `crnn characters classify` sort them."""

from __future__ import annotations

import contextlib
import os.path
import re
import unicodedata
from collections.abc import Container
from pathlib import Path, PurePosixPath

from data.folder_lines import FolderLines
from data.importers.tsv import LABELS
from data.lines import StoredLines, open_lines

SPELT = re.compile(r"_U\+[0-9A-F]{4,6}(-U\+[0-9A-F]{4,6})*$")
"""Ends the name of a folder that spells its label out, as those of `crnn characters classify` do."""


class ClassFolders(FolderLines):
    """Pictures labelled by the folder they lie in; see StoredLines.

    The label is the folder's path below the deepest folder that holds all pictures, or what its name spells out: a
    folder `a_U+0061` holds pictures of `a`. Raises ValueError where a picture lies in none.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        folders = [str(PurePosixPath(name).parent) for name in self._names]
        top = os.path.commonpath(folders) if len(set(folders)) > 1 else os.path.dirname(folders[0])
        beside = next((name for name, folder in zip(self._names, folders, strict=True) if folder in (top, ".")), None)
        if beside is not None:
            raise ValueError(
                f"{self._files.key(beside)} lies in no folder of a class; give a {LABELS}, or put every picture into a "
                "folder named after its class"
            )
        self._labels = [spelt_out(folder[len(top) :].lstrip("/")) for folder in folders]
        self._texts = [unicodedata.normalize("NFC", label or "") for label in self._labels]

    def __reduce__(self) -> tuple[type[ClassFolders], tuple[Path]]:
        return ClassFolders, (self.path,)


def spelt_out(name: str) -> str:
    """The label that a folder's name stands for: `a_U+0061` -> a, `_U+002F` -> /, `seven` -> seven."""
    found = SPELT.search(name)
    if found is None:
        return name
    return "".join(chr(int(point[2:], 16)) for point in found.group()[1:].split("-"))


def open_labelled(path: Path | str) -> StoredLines:
    """Any source of labelled crops: an LMDB, or a folder or zip with a labels.tsv or with a folder for each class."""
    source = open_lines(path)
    if isinstance(source, FolderLines) and not any(source.texts()):
        return ClassFolders(path)
    return source


def open_crops(path: Path | str, classes: Container[str]) -> tuple[StoredLines, str | None]:
    """Any source of crops; a folder or zip without labels.tsv is labelled by its folders where all are of classes.

    Where some are and others are not, none is taken for a label, and the first of the others is told too.
    """
    source = open_lines(path)
    if isinstance(source, FolderLines) and not any(source.texts()):
        with contextlib.suppress(ValueError):  # pictures in no folder of a class
            folders = ClassFolders(path)
            others = [text for text in folders.texts() if text not in classes]
            if not others:
                return folders, None
            if len(others) < len(folders):
                return source, others[0]
    return source, None
