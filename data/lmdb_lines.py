"""Lines in an LMDB, in the key format of the field: `num-samples`, `image-000000001`, `label-000000001`, from 1.

Three optional keys a line are ours: `columns-%09d` (float32 bytes, characters x 2), `key-%09d` (where the line
came from) and `group-%09d` (the receipt, page or writer it belongs to); other readers of the format pass over them.
A line without a label has no label key.
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
from data.picture import decode_shared, picture_size

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
    group: what it came from with others (a receipt, page or writer); lines of one group are split together.
    """

    encoded: bytes
    text: str | None
    key: str
    columns: NDArray[np.float32] | None = None
    group: str | None = None


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
        self._groups: list[str | None] | None = None
        self._length = self._stored_length()

    def __reduce__(self) -> tuple[type[LmdbLines], tuple[Path]]:
        return LmdbLines, (self.path,)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Line:
        return self.reduced(index, 0)

    def reduced(self, index: int, least_height: int) -> Line:
        if not 0 <= index < self._length:
            raise IndexError(f"{self.path} holds {self._length} lines; there is no line {index}")
        number = index + 1
        with self._reading(), self._opened().begin(buffers=True) as transaction:  # nothing is copied before decoding
            encoded = transaction.get(b"image-%09d" % number)
            label = transaction.get(b"label-%09d" % number)
            columns = transaction.get(b"columns-%09d" % number)
            name = transaction.get(b"key-%09d" % number)
            key = self._place(number) if name is None else _decode_text(name, self._place(number), "key")
            if encoded is None:
                raise ValueError(
                    f"{self._place(number)} is missing although num-samples is {self._length}; make the LMDB anew"
                )
            text = None if label is None else unicodedata.normalize("NFC", _decode_text(label, self._place(number)))
            picture = decode_shared(encoded, key if name is None else f"{key} ({self._place(number)})", least_height)
            found = None if columns is None else _decode_columns(columns, text, self._place(number))
        return Line(picture, text, key, found)

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

    def groups(self) -> Sequence[str | None]:
        if self._groups is None:
            groups: list[str | None] = [None] * self._length
            for number, value in self._values(b"group"):
                groups[number - 1] = _decode_text(bytes(value), self._place(number), "group")
            self._groups = groups
        return self._groups

    def entry(self, index: int) -> Entry:
        if not 0 <= index < self._length:
            raise IndexError(f"{self.path} holds {self._length} lines; there is no line {index}")
        number = index + 1
        place = self._place(number)
        with self._reading(), self._opened().begin() as transaction:
            encoded, label, columns, name, group = (
                transaction.get(b"%s-%09d" % (kind, number))
                for kind in (b"image", b"label", b"columns", b"key", b"group")
            )
        if encoded is None:
            raise ValueError(f"{place} is missing although num-samples is {self._length}; make the LMDB anew")
        text = None if label is None else _decode_text(label, place)
        return Entry(
            encoded,
            text,
            place if name is None else _decode_text(name, place, "key"),
            None if columns is None else _decode_columns(columns, text, place),
            None if group is None else _decode_text(group, place, "group"),
        )

    def encoded(self, index: int) -> bytes:
        return self.entry(index).encoded

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
                if digits.isdigit() and 1 <= int(digits) <= self._length:
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
    needed = _bytes_needed(environment)
    if status.st_size < needed:
        raise ValueError(
            f"{path} is cut off: {status.st_size} bytes where {needed} are needed; copy it again or make it anew"
        )
    return environment


def _bytes_needed(environment: lmdb.Environment) -> int:
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _decode_text(value: bytes | memoryview, place: str, what: str = "label") -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the {what} of {place} is not UTF-8 ({bytes(value[:40])!r}); make the LMDB anew") from error


def _decode_columns(value: bytes | memoryview, text: str | None, place: str) -> NDArray[np.float32]:
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

    Written to the hidden folder .NAME.part beside path and moved when the context ends well: an LMDB that was there is
    replaced only when the new one is whole, and whatever stops the writing leaves it as it was. What lies in the
    hidden folder has no num-samples before it is whole. Texts are stored in NFC.

    map_size: bytes, where the map begins; it grows as needed.
    made_of: what the lines are made of, so that a writer that was killed can be gone on with: another writer of the
        same made_of begins with the lines that were committed. Every transaction is synced then, add does not commit
        by itself, and after an error or an interrupt the hidden folder stays too, if it holds a line and the disk is
        not full. What another made_of or none left is removed.
    lines: how many there are by now; after entering the context, how many were committed before.
    note: what the caller gave with the last commit.
    complete: the killed writer had finished, only the move into place is left.
    Raises OSError naming path where the disk is full, FileExistsError where path is something else than an LMDB or
    written by another process, ValueError where there are no entries, or where columns do not fit their text.
    """

    def __init__(self, path: Path | str, map_size: int = FIRST_MAP_SIZE, made_of: str | None = None) -> None:
        self.path = Path(path)
        self.lines = 0
        self.note = ""
        self.complete = False
        self._map_size = map_size
        self._made_of = made_of
        self._batch: list[Entry] = []
        self._batch_bytes = 0
        self._part = self.path.parent / f".{self.path.name}.part"
        self._set = self._part / "set"

    @property
    def full(self) -> bool:
        """Whether what was added since the last commit fills a transaction."""
        return len(self._batch) >= TRANSACTION_LINES or self._batch_bytes >= TRANSACTION_BYTES

    @property
    def interrupted(self) -> bool:
        """Whether another writer of the same made_of left something to go on with."""
        made_of = self._part / MADE_OF
        if self._made_of is None or not made_of.exists() or not (self._set / "data.mdb").exists():
            return False
        return made_of.read_text("utf-8") == self._made_of

    def discard(self) -> None:
        """Removes what a killed writer left; for one that is not entered."""
        shutil.rmtree(self._part, ignore_errors=True)

    def __enter__(self) -> LmdbWriter:
        path = self.path
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "data.mdb").exists()):
            raise FileExistsError(f"{path} exists and is not an LMDB; choose another --out")
        with self._writing():
            self._part.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._part / "lock", path)
        with self._writing():
            if not (self.interrupted and self._goes_on()):
                self._begins()
        return self

    def add(self, entry: Entry) -> None:
        """One more line; it is numbered in the order of the calls."""
        self._batch.append(entry)
        self._batch_bytes += len(entry.encoded)
        if self._made_of is None and self.full:
            self.commit()

    def commit(self, note: str = "") -> None:
        """Writes what was added, and the note, in one transaction."""
        self._commit(note, {PROGRESS: b"%d %s" % (self.lines + len(self._batch), note.encode())}, NUMBER)

    def finish(self, note: str = "") -> None:
        """Writes what was added and makes the LMDB whole; it is moved when the context ends."""
        if not self.lines and not self._batch:
            raise ValueError(f"there are no lines to write to {self.path}; check the source and what is left out")
        with self._writing():
            _write_synced(self._part / NOTE, note)
        self._commit(note, {NUMBER: b"%d" % (self.lines + len(self._batch))}, PROGRESS)
        with self._writing():
            self._environment.sync(True)
        self.complete = True

    def rewind(self, lines: int) -> None:
        """Goes on after so many lines, of those that were committed; ValueError where there are fewer."""
        if lines > self.lines:
            raise ValueError(
                f"{self._part} holds {self.lines} lines where {lines} were written before the interruption; "
                "remove it and its neighbours named .part, and begin anew"
            )
        self.lines = lines

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        moved = False
        try:
            if kind is None:
                if not self.complete:
                    self.finish(self.note)
                with self._writing():
                    self._environment.close()
                    _move_into_place(self._set, self.path)
                moved = True
        finally:
            self._environment.close()
            if moved or self._made_of is None or not self.lines:
                shutil.rmtree(self._part, ignore_errors=True)
            os.close(self._lock)

    def _goes_on(self) -> bool:
        """Opens what a killed writer left; False where there is nothing whole."""
        file = self._set / "data.mdb"
        try:
            self._open()
        except lmdb.Error:
            return False
        if file.stat().st_size < _bytes_needed(self._environment):
            self._environment.close()
            return False
        with self._environment.begin() as transaction:
            number, progress = transaction.get(NUMBER), transaction.get(PROGRESS, b"0 ")
        self.complete = number is not None
        lines, _, note = progress.decode().partition(" ")
        self.lines = int(number if number is not None else lines)
        self.note = (self._part / NOTE).read_text("utf-8") if self.complete else note
        return True

    def _begins(self) -> None:
        (self._part / MADE_OF).unlink(missing_ok=True)  # before what it vouches for
        shutil.rmtree(self._set, ignore_errors=True)
        self._set.mkdir()
        self._open()
        if self._made_of is not None:
            _write_synced(self._part / MADE_OF, self._made_of)

    def _open(self) -> None:
        # Without made_of nothing is synced before the end: until it is moved, nobody reads it.
        self._environment = lmdb.open(
            str(self._set), map_size=self._map_size, lock=False, sync=self._made_of is not None, mode=0o644
        )

    def _commit(self, note: str, put: dict[bytes, bytes], delete: bytes) -> None:
        with self._writing():
            while not self._batch_fits(put, delete):
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
        self.lines += len(self._batch)
        self.note = note
        self._batch, self._batch_bytes = [], 0

    def _batch_fits(self, put: dict[bytes, bytes], delete: bytes) -> bool:
        """Writes the batch in one transaction; False, with nothing written, where the map is too small."""
        try:
            with self._environment.begin(write=True) as transaction:
                for number, entry in enumerate(self._batch, start=self.lines + 1):
                    for key, value in _stored_values(entry, number):
                        transaction.put(key, value)
                for key, value in put.items():
                    transaction.put(key, value)
                transaction.delete(delete)
        except lmdb.MapFullError:
            return False
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            shutil.rmtree(self._part, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise OSError(
                f"{self.path} could not be written ({reason}); free some disk space or choose another --out; "
                "what was there before is unchanged"
            ) from error


NUMBER, PROGRESS = b"num-samples", b"progress"
MADE_OF, NOTE = "made_of", "note"


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _locked(file: Path, path: Path) -> int:
    """An open descriptor that holds the lock until it is closed or the process ends, however it ends."""
    import fcntl  # only for writing: reading works where there is none

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a fork does not inherit it
    except OSError as error:
        os.close(descriptor)
        raise FileExistsError(
            f"{path} is being written by another process; wait for it or choose another --out"
        ) from error
    return descriptor


def _stored_values(entry: Entry, number: int) -> Iterator[tuple[bytes, bytes]]:
    yield b"image-%09d" % number, entry.encoded
    yield b"key-%09d" % number, entry.key.encode()
    if entry.group is not None:
        yield b"group-%09d" % number, entry.group.encode()
    if entry.text is not None:
        text = unicodedata.normalize("NFC", entry.text)
        yield b"label-%09d" % number, text.encode()
        if entry.columns is not None:
            if entry.columns.shape != (len(text), 2):
                raise ValueError(f"{entry.key}: columns of shape {entry.columns.shape} do not fit the text {text!r}")
            yield b"columns-%09d" % number, entry.columns.astype(np.float32).tobytes()


def _move_into_place(made: Path, path: Path) -> None:
    """One rename, so that path is at every moment the old LMDB or the new one."""
    if path.is_dir() and any(path.iterdir()):
        os.replace(made / "data.mdb", path / "data.mdb")
        (path / "lock.mdb").unlink(missing_ok=True)  # of the old file, by other readers
    else:
        os.replace(made, path)
