"""Files in a folder or in a zip, read by name alike."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2"
)  # fmt: skip
Unreadable = Callable[[OSError], None]
"""What is called for a folder that cannot be listed."""
UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError)
ABSENT = (KeyError, FileNotFoundError, NotADirectoryError, IsADirectoryError)


class PictureFiles:
    """The files below a folder or in a zip; names are relative, with forward slashes.

    Hidden files are passed over. A zip is opened on first use in each process, for a fork shares file positions.
    Raises FileNotFoundError or ValueError in one sentence where path is neither.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a folder or a zip of pictures")
        self._is_zip = not self.path.is_dir()
        self._zip: zipfile.ZipFile | None = None
        self._pid = 0

    def __reduce__(self) -> tuple[type[PictureFiles], tuple[Path]]:
        return PictureFiles, (self.path,)

    def names(self) -> list[str]:
        """All files, sorted."""
        return list(self.walk())

    def walk(self, unreadable: Unreadable | None = None) -> Iterator[str]:
        """All files in sorted order; of a folder, only the names of one subfolder are held at a time.

        A link to a folder that it lies in is not followed. unreadable: takes the error of a subfolder that cannot be
        listed, and the others follow; without it the error is raised.
        """
        if not self._is_zip:
            yield from _below(str(self.path), "", unreadable, (os.path.realpath(self.path),))
            return
        names = (entry.filename for entry in self._opened().infolist() if not entry.is_dir())
        yield from sorted(name for name in names if not any(map(_is_hidden, name.split("/"))))

    def pictures(self) -> list[str]:
        """The files with the suffix of a picture, sorted."""
        return [name for name in self.walk() if is_picture_name(name)]

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._opened().NameToInfo if self._is_zip else (self.path / name).is_file()

    def stamp(self, name: str) -> str:
        """What changes with the file's content: size and time of change, in a zip size and checksum."""
        if self._is_zip:
            entry = self._opened().getinfo(name)
            return f"{entry.file_size} {entry.CRC}"
        status = (self.path / name).stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def read(self, name: str) -> bytes:
        """The bytes of one file; FileNotFoundError or ValueError naming it."""
        with self.opened(name) as file:
            try:
                return file.read()
            except (*UNREADABLE, EOFError, zlib.error, lzma.LZMAError) as error:
                raise self._unreadable(name, error) from error

    def opened(self, name: str) -> IO[bytes]:
        """One file to read from its beginning; FileNotFoundError or ValueError naming it."""
        try:
            return self._opened().open(name) if self._is_zip else (self.path / name).open("rb")
        except ABSENT as error:
            if not self._is_zip and (self.path / name).is_symlink():
                raise FileNotFoundError(
                    f"{self.key(name)} is a link to a file that is not there; mend or remove it"
                ) from error
            raise FileNotFoundError(f"there is no {name} in {self.path}; add it or remove its label") from error
        except UNREADABLE as error:
            raise self._unreadable(name, error) from error

    def key(self, name: str) -> str:
        """How messages call the file."""
        return f"{self.path}/{name}"

    def _unreadable(self, name: str, error: Exception) -> ValueError:
        return ValueError(f"{name} of {self.path} cannot be read ({error}); make the zip anew")

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None or self._pid != os.getpid():
            try:
                self._zip, self._pid = zipfile.ZipFile(self.path), os.getpid()
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self.path} is neither a folder nor a whole zip ({error}); give either") from error
        return self._zip


def is_picture_name(name: str) -> bool:
    """Whether a file's suffix is one of a picture."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def _below(folder: str, prefix: str, unreadable: Unreadable | None, above: tuple[str, ...]) -> Iterator[str]:
    """above: the real paths of folder and of those that it was reached through."""
    try:
        with os.scandir(folder) as entries:
            # A folder sorts as its files do, with the slash that follows its name.
            found = sorted((e.name + "/" * _is_folder(e), e.path) for e in entries if not _is_hidden(e.name))
    except OSError as error:
        if unreadable is None or not prefix:
            raise
        unreadable(error)
        return
    for name, path in found:
        if not name.endswith("/"):
            yield prefix + name
        elif (real := os.path.realpath(path)) not in above:
            yield from _below(path, prefix + name, unreadable, (*above, real))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_hidden(part: str) -> bool:
    return part.startswith((".", "__MACOSX"))
