"""Labels in JSON: of MMOCR (`data_list`, or an object a line) and docTR (labels.json), read piece by piece.

A label file of a million lines is a few hundred megabytes, which as Python objects would be gigabytes.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from data.importers.rows import Label, LabelsAt, text_lines

BLOCK = 1 << 16
LONGEST_VALUE = 1 << 24
"""Characters; what is longer is no label, and not worth reading on for in a file that is malformed."""
NAME_KEYS = ("img_path", "filename", "file_name")
"""What the picture is called in MMOCR 1, in MMOCR 0, and in the metadata.jsonl of Hugging Face."""


def mmocr_labels(file: LabelsAt) -> Iterator[Label]:
    """The labels of MMOCR's JSON: `{"data_list": [{"img_path": ..., "instances": [{"text": ...}]}, ...]}`.

    ValueError naming line and entry where the JSON ends early or has another form.
    """
    with JsonPieces(file) as pieces:
        lists = 0
        for key in pieces.members():
            if key == "data_list":
                lists += 1
                for number, (entry, line) in enumerate(pieces.elements(), start=1):
                    yield _label(entry, f"entry {number} (line {line}) of {file.origin}")
            else:
                pieces.value()
        pieces.expect_end()
    if not lists:
        raise ValueError(f"{file.origin} has no data_list, as MMOCR's label files do; give --format, or another file")


def jsonl_labels(file: LabelsAt) -> Iterator[Label]:
    """The labels of an object a line: `{"filename": ..., "text": ...}`, or the fields of mmocr_labels.

    ValueError naming the line that is no such object.
    """
    for number, line in text_lines(file):
        place = f"line {number} of {file.origin}"
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{place} is no JSON ({error}); mend it or copy the file again") from error
        yield _label(entry, place)


def doctr_labels(file: LabelsAt) -> Iterator[Label]:
    """The labels of docTR's recognition sets: `{"img_1.png": "text", ...}`.

    ValueError naming line and entry where the JSON ends early or has another form.
    """
    with JsonPieces(file) as pieces:
        for number, name in enumerate(pieces.members(), start=1):
            place = f"entry {number} (line {pieces.line()}) of {file.origin}"
            yield Label(_text(name, place), _text(pieces.value(), place), place)
        pieces.expect_end()


def _label(entry: Any, place: str) -> Label:
    if not isinstance(entry, dict):
        raise ValueError(f"{place} is {_shown(entry)} where an object with img_path and text belongs; mend it")
    name = next((entry[key] for key in NAME_KEYS if key in entry), None)
    if not isinstance(name, str):
        raise ValueError(f"{place} names no picture; it needs one of {', '.join(NAME_KEYS)}")
    if "instances" in entry:
        instances = entry["instances"]
        if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], dict):
            found = len(instances) if isinstance(instances, list) else _shown(instances)
            raise ValueError(
                f"{place} has {found} instances, but a line has one, with its text; give a recognition set"
            )
        entry = instances[0]
    if "text" not in entry:
        raise ValueError(f"{place} has no text; label it, or remove it")
    return Label(_text(name, place), _text(entry["text"], place), place)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place} has {_shown(value)} where a text belongs; give a recognition set")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place} holds half of a character ({value[:40]!r}), which UTF-8 cannot; mend it") from error
    return value


def _shown(value: Any) -> str:
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)[:40]


class JsonPieces:
    """One JSON document, read from its beginning and never held whole; a context that closes the file.

    members() and elements() walk through the object or array that comes next; within a member its value must be
    taken, by value(), members() or elements(). ValueError naming the line for what is no JSON.
    """

    def __init__(self, file: LabelsAt) -> None:
        self._file = file
        self._text, self._at, self._whole = "", 0, False
        self._line, self._counted = 1, 0
        self._decoder = json.JSONDecoder()
        self._stack = ExitStack()

    def __enter__(self) -> JsonPieces:
        self._content = self._stack.enter_context(self._file.open())
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def line(self) -> int:
        """The number of the line where the next piece begins."""
        self._next()
        return self._line_at(self._at)

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next."""
        self._expect("{")
        while self._next() != "}":
            key = self.value()
            if not isinstance(key, str):
                raise self._wrong("a key is no text")
            self._expect(":")
            yield key
            if self._next() != "}":
                self._expect(",")
        self._at += 1

    def elements(self) -> Iterator[tuple[Any, int]]:
        """(value, number of its line) of the array that comes next."""
        self._expect("[")
        while self._next() != "]":
            line = self.line()
            yield self.value(), line
            if self._next() != "]":
                self._expect(",")
        self._at += 1

    def value(self) -> Any:
        """The value that comes next, whole."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # What is cut at the end of the text so far may be whole in the file.
                if len(self._text) - self._at > LONGEST_VALUE or not self._more():
                    raise self._wrong(error.msg, min(error.pos, len(self._text))) from error
                continue
            except RecursionError as error:
                raise self._wrong("it is nested too deep") from error
            if end < len(self._text) or not self._more():  # 12 at the end may be the half of 1234
                self._at = end
                return value

    def expect_end(self) -> None:
        """ValueError where something follows."""
        if self._next():
            raise self._wrong("more follows where it should end")

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._wrong(f"expecting {character}")
        self._at += 1

    def _more(self) -> bool:
        """Reads on, and forgets what was taken; False at the end of the file."""
        if self._whole:
            return False
        block = self._content.read(max(BLOCK, len(self._text) - self._at))
        try:
            text = self._utf8.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = self._text[self._at :] + error.object[: error.start].decode("utf-8", "replace")
            line = self._line_at(self._at) + before.count("\n")
            raise ValueError(f"line {line} of {self._file.origin} is not UTF-8; save the file as UTF-8") from error
        self._whole = not block
        self._line_at(self._at)
        self._text, self._at, self._counted = self._text[self._at :] + text, 0, 0
        return not self._whole

    def _line_at(self, position: int) -> int:
        """The line of a position at or after the last one that was asked for."""
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def _wrong(self, what: str, position: int | None = None) -> ValueError:
        at = self._at if position is None else position
        if self._whole and (what.startswith("Unterminated") or not self._text[at:].strip()):
            line = self._line_at(max(self._counted, len(self._text.rstrip())))
            return ValueError(
                f"line {line} of {self._file.origin}, its last, ends in the middle of its JSON; copy the file again"
            )
        line = self._line_at(max(self._counted, at))
        return ValueError(f"line {line} of {self._file.origin} is no JSON ({what}); mend it or copy the file again")
