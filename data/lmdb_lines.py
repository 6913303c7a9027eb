"""Lines in an LMDB, in the key format of the field: `num-samples`, `image-000000001`, `label-000000001`, from 1.

Two optional keys a line are ours: `columns-%09d` (float32 bytes, characters x 2) and `key-%09d` (where the line
came from); other readers of the format pass over them. A line without a label has no label key.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb
import numpy as np
from numpy.typing import NDArray

from data.lines import Line
from data.picture import decode_picture, picture_size

TRANSACTION_LINES = 1000
TRANSACTION_BYTES = 64 << 20
FIRST_MAP_SIZE = 64 << 20


@dataclass(frozen=True)
class Entry:
    """One line as it is stored.

    encoded: the bytes of a JPEG, PNG or other picture file.
    text: the label; None where the line has none.
    key: where the line came from, for messages.
    columns: float32 (len(text), 2) as in Line, or None.
    """

    encoded: bytes
    text: str | None
    key: str
    columns: NDArray[np.float32] | None = None


class LmdbLines:
    """The lines of an LMDB folder (or single file); see StoredLines.

    The number of lines is read at once, everything else on demand. The environment is opened on first use in each
    process, so an instance may be read after a fork, pickled, and read by many workers at a time.
    Raises FileNotFoundError or ValueError in one sentence where path is missing, no LMDB, or cut off.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._environment: lmdb.Environment | None = None
        self._pid = 0
        self._texts: list[str | None] | None = None
        self._sizes: list[tuple[int, int]] | None = None
        self._keys: list[str] | None = None
        self._length = self._stored_length()

    def __reduce__(self) -> tuple[type[LmdbLines], tuple[Path]]:
        return LmdbLines, (self.path,)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Line:
        if not 0 <= index < self._length:
            raise IndexError(f"{self.path} holds {self._length} lines; there is no line {index}")
        number = index + 1
        with self._reading(), self._opened().begin() as transaction:
            encoded = transaction.get(b"image-%09d" % number)
            label = transaction.get(b"label-%09d" % number)
            columns = transaction.get(b"columns-%09d" % number)
            name = transaction.get(b"key-%09d" % number)
        place = self._place(number)
        key = _decode_text(name, place) if name is not None else place
        if encoded is None:
            raise ValueError(f"{place} is missing although num-samples is {self._length}; make the LMDB anew")
        text = None if label is None else unicodedata.normalize("NFC", _decode_text(label, place))
        picture = decode_picture(encoded, key if name is None else f"{key} ({place})")
        return Line(picture, text, key, None if columns is None else _decode_columns(columns, text, place))

    def texts(self) -> Sequence[str | None]:
        if self._texts is None:
            texts: list[str | None] = [None] * self._length
            for number, value in self._values(b"label"):
                texts[number - 1] = unicodedata.normalize("NFC", _decode_text(bytes(value), self._place(number)))
            self._texts = texts
        return self._texts

    def keys(self) -> Sequence[str]:
        if self._keys is None:
            keys = [self._place(number) for number in range(1, self._length + 1)]
            for number, value in self._values(b"key"):
                keys[number - 1] = _decode_text(bytes(value), self._place(number))
            self._keys = keys
        return self._keys

    def sizes(self) -> Sequence[tuple[int, int]]:
        if self._sizes is None:
            sizes = {number: picture_size(value, self._place(number)) for number, value in self._values(b"image")}
            missing = next((number for number in range(1, self._length + 1) if number not in sizes), None)
            if missing is not None:
                place = self._place(missing)
                raise ValueError(f"{place} is missing although num-samples is {self._length}; make the LMDB anew")
            self._sizes = [sizes[number] for number in range(1, self._length + 1)]
        return self._sizes

    def _place(self, number: int) -> str:
        return f"image-{number:09d} of {self.path}"

    def _stored_length(self) -> int:
        with self._reading(), self._opened().begin() as transaction:
            stored = transaction.get(b"num-samples")
        if stored is None or not stored.isdigit():
            raise ValueError(
                f"{self.path} is an LMDB without lines (num-samples is {stored!r}); give one made by crnn data import"
            )
        return int(stored)

    def _values(self, kind: bytes) -> Iterator[tuple[int, memoryview]]:
        """(number, value) of every key `kind-%09d` up to num-samples; a value lives until the next one."""
        with self._reading(), self._opened().begin(buffers=True) as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(kind + b"-"):
                return
            for key, value in cursor:
                found, _, digits = bytes(key).rpartition(b"-")
                if found != kind:
                    return
                if 1 <= int(digits) <= self._length:
                    yield int(digits), memoryview(value)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise ValueError(f"{self.path} is damaged ({error}); copy it again or make it anew") from error

    def _opened(self) -> lmdb.Environment:
        if self._environment is None or self._pid != os.getpid():
            self._environment, self._pid = _environment(self.path), os.getpid()
        return self._environment


# LMDB wants a file opened once a process. Keyed by process, device and inode: two LmdbLines of one path share, and
# a path whose LMDB was replaced is opened anew while older readers keep the old one.
_open_environments: WeakValueDictionary[tuple[int, int, int], lmdb.Environment] = WeakValueDictionary()


def _environment(path: Path) -> lmdb.Environment:
    file = path / "data.mdb" if path.is_dir() else path
    if not file.exists():
        missing = "is a folder without data.mdb" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {missing}; give an LMDB made by crnn data import or crnn data make")
    pid, status = os.getpid(), file.stat()
    for other, inherited in list(_open_environments.items()):
        if other[0] != pid:  # inherited in a fork; there is no lock file, so closing it here leaves the parent's alone
            inherited.close()
            del _open_environments[other]
    identity = (pid, status.st_dev, status.st_ino)
    environment = _open_environments.get(identity)
    if environment is None:
        try:
            environment = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, create=False, lock=False, readahead=False, meminit=False
            )
        except lmdb.Error as error:
            raise ValueError(f"{path} cannot be opened as an LMDB ({error}); give one of crnn data import") from error
        _open_environments[identity] = environment
    # Reading past the end of a file that was cut off would kill the process.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if status.st_size < needed:
        raise ValueError(
            f"{path} is cut off: {status.st_size} bytes where {needed} are needed; copy it again or make it anew"
        )
    return environment


def _decode_text(value: bytes, place: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the label of {place} is not UTF-8 ({value[:40]!r}); make the LMDB anew") from error


def _decode_columns(value: bytes, text: str | None, place: str) -> NDArray[np.float32]:
    length = 0 if text is None else len(text)
    if len(value) != 8 * length:
        raise ValueError(
            f"the columns of {place} are {len(value)} bytes where {8 * length} belong to {text!r}; make the LMDB anew"
        )
    return np.frombuffer(value, np.float32).reshape(length, 2).copy()


def write_lmdb(path: Path | str, entries: Iterable[Entry], map_size: int = FIRST_MAP_SIZE) -> int:
    """Writes an LMDB of these entries and returns their number; see LmdbWriter. What entries raises passes through."""
    with LmdbWriter(path, map_size) as writer:
        for entry in entries:
            writer.add(entry)
    return writer.lines


class LmdbWriter:
    """Writes an LMDB folder line by line, as a context; the same entries give the same bytes.

    Written to a hidden folder beside path and moved when the context ends well: an LMDB that was there is replaced
    only when the new one is whole, and whatever stops the writing leaves it as it was. Texts are stored in NFC.

    map_size: bytes, where the map begins; it grows as needed.
    Raises OSError naming path where the disk is full, FileExistsError where path is something else than an LMDB,
    ValueError where there are no entries, or where columns do not fit their text.
    """

    def __init__(self, path: Path | str, map_size: int = FIRST_MAP_SIZE) -> None:
        self.path = Path(path)
        self.lines = 0
        self._map_size = map_size
        self._batch: list[Entry] = []
        self._batch_bytes = 0
        self._partial = self.path.parent / f".{self.path.name}.{os.getpid()}.part"

    def __enter__(self) -> LmdbWriter:
        path = self.path
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "data.mdb").exists()):
            raise FileExistsError(f"{path} exists and is not an LMDB; choose another --out")
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
            # Nothing is synced before the end: until it is moved, nobody reads it.
            self._environment = lmdb.open(
                str(self._partial), map_size=self._map_size, lock=False, sync=False, mode=0o644
            )
        return self

    def add(self, entry: Entry) -> None:
        """One more line; it is numbered in the order of the calls."""
        self._batch.append(entry)
        self._batch_bytes += len(entry.encoded)
        if len(self._batch) == TRANSACTION_LINES or self._batch_bytes >= TRANSACTION_BYTES:
            self._write_batch()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._environment.close()
            shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self) -> None:
        if self._batch:
            self._write_batch()
        if not self.lines:
            raise ValueError(f"there are no lines to write to {self.path}; check the source and what is left out")
        with self._writing():
            self._environment.sync(True)
            self._environment.close()
            _move_into_place(self._partial, self.path)

    def _write_batch(self) -> None:
        with self._writing():
            while not self._batch_fits():
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
        self.lines += len(self._batch)
        self._batch, self._batch_bytes = [], 0

    def _batch_fits(self) -> bool:
        """Writes the batch in one transaction; False, with nothing written, where the map is too small."""
        try:
            with self._environment.begin(write=True) as transaction:
                for number, entry in enumerate(self._batch, start=self.lines + 1):
                    for key, value in _stored_values(entry, number):
                        transaction.put(key, value)
                transaction.put(b"num-samples", b"%d" % (self.lines + len(self._batch)))
        except lmdb.MapFullError:
            return False
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise OSError(
                f"{self.path} could not be written ({reason}); free some disk space or choose another --out; "
                "what was there before is unchanged"
            ) from error


def _stored_values(entry: Entry, number: int) -> Iterator[tuple[bytes, bytes]]:
    yield b"image-%09d" % number, entry.encoded
    yield b"key-%09d" % number, entry.key.encode()
    if entry.text is not None:
        text = unicodedata.normalize("NFC", entry.text)
        yield b"label-%09d" % number, text.encode()
        if entry.columns is not None:
            if entry.columns.shape != (len(text), 2):
                raise ValueError(f"{entry.key}: columns of shape {entry.columns.shape} do not fit the text {text!r}")
            yield b"columns-%09d" % number, entry.columns.astype(np.float32).tobytes()


def _move_into_place(partial: Path, path: Path) -> None:
    """One rename, so that path is at every moment the old LMDB or the new one."""
    if path.is_dir() and any(path.iterdir()):
        os.replace(partial / "data.mdb", path / "data.mdb")
        (path / "lock.mdb").unlink(missing_ok=True)  # of the old file, by other readers
    else:
        os.replace(partial, path)
