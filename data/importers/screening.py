"""What an imported line must be: a picture that decodes whole, and a label that the charset holds."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from PIL import Image

from data.lmdb_lines import Entry
from data.picture import decode_picture


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


def screened(entries: Iterable[Entry], screening: Screening, dropped: Counter[str], origin: str) -> Iterator[Entry]:
    """The entries that pass, labels normalised and without space at either end; dropped counts the others by reason.

    Raises ValueError naming the key and origin of the first line that falls short and is not to be dropped.
    """
    for entry in entries:
        try:
            yield _checked(entry, screening)
        except _Refused as refusal:
            if not (screening.drop_outside_charset if refusal.reason == OUTSIDE else screening.drop_bad):
                raise ValueError(f"{entry.key} of {origin} {refusal}") from refusal
            dropped[refusal.reason] += 1


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _checked(entry: Entry, screening: Screening) -> Entry:
    _check_picture(entry)
    if screening.unlabelled:
        return replace(entry, text=None, columns=None)
    text = screening.normalise(entry.text or "").strip()
    if not text:
        raise _Refused(EMPTY, "has an empty label; label it, or leave such lines out with --drop-bad")
    outside = screening.outside(text) if screening.outside is not None else ""
    if outside:
        raise _Refused(
            OUTSIDE,
            f"is labelled {text!r}, of which {outside!r} is not in the charset; extend --charset, "
            "or leave such lines out with --drop-outside-charset",
        )
    return replace(entry, text=text)


def _check_picture(entry: Entry) -> None:
    """Refuses what the readers cannot decode, and what was cut off, which some versions of OpenCV fill with grey."""
    try:
        decode_picture(entry.encoded, entry.key)
        with Image.open(io.BytesIO(entry.encoded)) as picture:
            picture.load()
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _Refused(
            BROKEN,
            f"does not decode whole as a picture ({len(entry.encoded)} bytes); replace it, "
            "or leave such lines out with --drop-bad",
        ) from error
