"""What an imported line must be: a picture that decodes whole, and a label that the charset holds."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from data.importers.rows import Row
from data.lmdb_lines import Entry
from data.picture import decode_whole


@dataclass(frozen=True)
class Screening:
    """What is asked of a line, and whether one that falls short is refused or dropped.

    normalise: brings a label to NFC and the wanted case.
    outside: the characters of a normalised label that are not in the charset; None where every character is welcome.
    unlabelled: lines keep no label, and none is asked for.
    """

    normalise: Callable[[str], str]
    outside: Callable[[str], str] | None = None
    unlabelled: bool = False
    drop_bad: bool = False
    drop_outside_charset: bool = False


OUTSIDE, EMPTY, BROKEN = "a label outside the charset", "an empty label", "a broken picture"
MISSING = "a missing picture"


def screened(rows: Iterable[Row], screening: Screening, dropped: Counter[str], origin: str) -> Iterator[Entry | None]:
    """Of every row its entry, the label normalised and without space at either end; None where it is dropped.

    dropped counts those by reason. Raises ValueError or FileNotFoundError naming place, key and origin of the first
    row that falls short and is not to be dropped.
    """
    for row in rows:
        place = f"{row.place}: " if row.place else ""
        try:
            yield _checked(row, screening)
        except _Refused as refusal:
            if not (screening.drop_outside_charset if refusal.reason == OUTSIDE else screening.drop_bad):
                raise ValueError(f"{place}{row.name} of {origin} {refusal}") from refusal
            dropped[refusal.reason] += 1
            yield None
        except FileNotFoundError as error:
            if not screening.drop_bad:
                raise FileNotFoundError(f"{place}{error}, or leave such lines out with --drop-bad") from error
            dropped[MISSING] += 1
            yield None


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _checked(row: Row, screening: Screening) -> Entry:
    encoded = picture_of(row)
    _check_picture(encoded, row.name)
    if screening.unlabelled:
        return Entry(encoded, None, row.name, group=row.group)
    text = screening.normalise(row.text or "").strip()
    if not text:
        raise _Refused(EMPTY, "has an empty label; label it, or leave such lines out with --drop-bad")
    outside = screening.outside(text) if screening.outside is not None else ""
    if outside:
        raise _Refused(
            OUTSIDE,
            f"is labelled {text!r}, of which {outside!r} is not in the charset; extend --charset, "
            "or leave such lines out with --drop-outside-charset",
        )
    return Entry(encoded, text, row.name, row.columns, row.group)


def picture_of(row: Row) -> bytes:
    """The bytes of the row's picture; FileNotFoundError where there is none, else OSError naming it."""
    try:
        return row.read()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(f"{row.name[:60]}... is no name of a picture; correct it") from error
        place = f"{row.place}: " if row.place else ""
        raise OSError(f"{place}{row.name} cannot be read ({error.strerror}); mend it or leave it out") from error


def _check_picture(encoded: bytes, name: str) -> None:
    """Refuses what the readers cannot decode, and what was cut off, which some versions of OpenCV fill with grey."""
    try:
        decode_whole(encoded, name)
    except ValueError as error:
        raise _Refused(
            BROKEN,
            f"does not decode whole as a picture ({len(encoded)} bytes); replace it, "
            "or leave such lines out with --drop-bad",
        ) from error
