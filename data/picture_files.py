"""Files in a folder or in a zip, read by name alike."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")


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
        if self._is_zip:
            names = [entry.filename for entry in self._opened().infolist() if not entry.is_dir()]
        else:
            names = [
                Path(folder, file).relative_to(self.path).as_posix()
                for folder, _, files in os.walk(self.path, followlinks=True)
                for file in files
            ]
        return sorted(name for name in names if not any(p.startswith((".", "__MACOSX")) for p in name.split("/")))

    def pictures(self) -> list[str]:
        """The files with the suffix of a picture, sorted."""
        return [name for name in self.names() if name.lower().endswith(PICTURE_SUFFIXES)]

    def read(self, name: str) -> bytes:
        """The bytes of one file; FileNotFoundError or ValueError naming it."""
        try:
            return self._opened().read(name) if self._is_zip else (self.path / name).read_bytes()
        except (KeyError, FileNotFoundError) as error:
            raise FileNotFoundError(f"there is no {name} in {self.path}; add it or remove its label") from error
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ValueError(f"{name} of {self.path} cannot be read ({error}); make the zip anew") from error

    def key(self, name: str) -> str:
        """How messages call the file."""
        return f"{self.path}/{name}"

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None or self._pid != os.getpid():
            try:
                self._zip, self._pid = zipfile.ZipFile(self.path), os.getpid()
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self.path} is neither a folder nor a whole zip ({error}); give either") from error
        return self._zip
