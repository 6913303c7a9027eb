"""Model files of formats that have no place for our JSON: a zip, stored and not packed, of their own files and it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crnn.checkpoint import ModelInfo

INFO, PARAMETERS = "pocket_crnn.json", "parameters.txt"


@dataclass(frozen=True)
class Archive:
    """files: by name, as the format's own library wants them. parameters: numbers that the model stores."""

    files: Mapping[str, bytes]
    info: ModelInfo
    parameters: int


def pack(archive: Archive) -> bytes:
    """The zip; the same bytes every time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as written:
        own = {INFO: archive.info.to_json().encode(), PARAMETERS: f"{archive.parameters}\n".encode()}
        for name, data in (own | dict(archive.files)).items():
            written.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's own date is always 1980
    return content.getvalue()


def unpack(path: Path, names: Sequence[str]) -> Archive:
    """What pack wrote. ValueError in one sentence where the file is no whole zip, or lacks one of names or the JSON."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in names}
            info, parameters = archive.read(INFO), archive.read(PARAMETERS)
    except KeyError as error:
        raise ValueError(
            f"{path} is a zip, but not this kind of model ({error.args[0]}); give a file that crnn export wrote"
        ) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip ({error}); export it again with crnn export") from error
    try:
        return Archive(files, ModelInfo.from_json(info.decode(), str(path)), int(parameters))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds a {INFO} that is not UTF-8; export it again with crnn export") from error
