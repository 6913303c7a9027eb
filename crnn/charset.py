"""Characters <-> class numbers. The CTC blank is class 0, here and nowhere else."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

BLANK = 0
Case = Literal["keep", "lower", "upper"]

NAMED_CHARSETS = {
    "digits": string.digits,
    "alphanumeric-lower": string.digits + string.ascii_lowercase,
    "alphanumeric": string.digits + string.ascii_letters,
    "ascii": "".join(chr(c) for c in range(32, 127)),
}


@dataclass(frozen=True)
class Charset:
    """The characters a recogniser knows: class 0 is the blank, class i is characters[i - 1].

    characters: single code points in NFC, sorted, the space last where there is one.
    case: what happens to a label before it is encoded.
    """

    characters: str
    case: Case = "keep"

    def __post_init__(self) -> None:
        if not self.characters:
            raise ValueError("a charset needs at least one character; none was given")
        if self.case not in get_args(Case):
            raise ValueError(f"case is {self.case!r}; it can be {', '.join(get_args(Case))}")
        twice = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if twice:
            raise ValueError(f"the charset holds {''.join(twice)!r} more than once; write each character once")
        decomposed = [c for c in self.characters if unicodedata.normalize("NFC", c) != c]
        if decomposed:
            raise ValueError(f"the charset holds {''.join(decomposed)!r}, which is not in NFC; normalise it first")
        breaks = [c for c in self.characters if c.splitlines() != [c]]
        if breaks:
            raise ValueError(f"the charset holds line breaks ({breaks}), which model files cannot list; remove them")
        changed = [c for c in self.characters if self.normalise(c) != c]
        if changed:
            raise ValueError(f"with case {self.case} the characters {''.join(changed)!r} can never occur; remove them")
        ordered = sorted_characters(self.characters)
        if ordered != self.characters:
            raise ValueError("the charset's characters are not in order; make it with Charset.of")

    @classmethod
    def of(cls, characters: Iterable[str], case: Case = "keep") -> Charset:
        """A charset of these characters in any order; a duplicate is refused."""
        return cls(sorted_characters(characters), case)

    @classmethod
    def named(cls, name: str, case: Case = "keep") -> Charset:
        """One of NAMED_CHARSETS, less what case makes impossible; ValueError lists them."""
        if name not in NAMED_CHARSETS:
            raise ValueError(f"there is no charset named {name!r}; known are {', '.join(NAMED_CHARSETS)}")
        return cls.from_texts([NAMED_CHARSETS[name]], case)

    @classmethod
    def from_spec(cls, spec: str, case: Case = "keep") -> Charset:
        """A charset as users write it: a name, `chars:` and the characters, or a UTF-8 file of characters.

        Line breaks in the file do not count. ValueError tells the three forms where spec is none of them.
        """
        if spec.startswith("chars:"):
            return cls._written(spec.removeprefix("chars:"), spec, case)
        if spec in NAMED_CHARSETS:
            return cls.named(spec, case)
        path = Path(spec)
        if not path.is_file():
            raise ValueError(
                f"there is no charset {spec!r}; give one of {', '.join(NAMED_CHARSETS)}, "
                "a file of characters, or chars:..."
            )
        try:
            content = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"the charset file {spec} is not UTF-8 ({error}); save it as UTF-8") from error
        return cls._written(content, f"the charset file {spec}", case)

    @classmethod
    def _written(cls, content: str, origin: str, case: Case) -> Charset:
        """Of characters in the order of a user, where a letter before a combining mark means one character."""
        if unicodedata.normalize("NFC", content) != content:
            raise ValueError(f"{origin} is not in NFC; normalise it first, for combining marks change its length")
        return cls.of(content.replace("\n", ""), case)  # read_text turns every line end into this one

    @classmethod
    def from_texts(cls, texts: Iterable[str], case: Case = "keep") -> Charset:
        """The characters that occur in these labels."""
        found: set[str] = set()
        for text in texts:
            found.update(normalise(text, case))
        return cls.of(found, case)

    @property
    def classes(self) -> int:
        """K: the blank and the characters."""
        return len(self.characters) + 1

    def normalise(self, text: str) -> str:
        """NFC and the charset's case."""
        return normalise(text, self.case)

    def missing(self, text: str) -> str:
        """The characters of text, once each, that the charset does not hold (after case and NFC)."""
        return "".join(sorted(set(self.normalise(text)) - set(self.characters)))

    def encode(self, text: str, key: str = "the label") -> list[int]:
        """Class numbers of text; ValueError naming key and the characters that are not in the charset."""
        numbers = self._numbers()
        text = self.normalise(text)
        try:
            return [numbers[c] for c in text]
        except KeyError:
            raise ValueError(
                f"{key}: the label {text!r} holds {self.missing(text)!r}, which the charset of "
                f"{len(self.characters)} characters does not; extend the charset or drop such lines"
            ) from None

    def decode(self, classes: Sequence[int]) -> str:
        """The text of class numbers without blanks."""
        return "".join(self.characters[c - 1] for c in classes)

    def _numbers(self) -> dict[str, int]:
        cached: dict[str, int] | None = self.__dict__.get("_cache")
        if cached is None:
            cached = {c: i for i, c in enumerate(self.characters, start=BLANK + 1)}
            object.__setattr__(self, "_cache", cached)
        return cached


def normalise(text: str, case: Case) -> str:
    """NFC, then case; a case mapping that changes the number of characters (ß -> SS) leaves the character."""
    text = unicodedata.normalize("NFC", text)
    if case == "keep":
        return text
    return "".join(m if len(m := (c.lower() if case == "lower" else c.upper())) == 1 else c for c in text)


def sorted_characters(characters: Iterable[str]) -> str:
    """By code point, the space last: readers that append the space themselves then agree with the file."""
    return "".join(sorted(characters, key=lambda c: (c == " ", c)))
