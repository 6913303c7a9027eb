"""What synthetic lines say: words, numbers, dates, prices, codes, addresses, phrases and random strings."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

WordSet = Literal["training", "held-out", "all"]

WORD_SALT = "pocket-crnn words 1"
PRINTABLE = "".join(chr(code) for code in range(33, 127)) + " "
"""The ASCII charset as crnn.charset orders it, the space last."""

_TRIES = 40

_SIGNS_AT_EDGES = 0.9
"""Share of the signs that a text must hold which stand beside a word; the rest, and letters, stand anywhere."""


DEFAULT_KINDS = (
    ("word", 0.60), ("number", 0.10), ("price", 0.05), ("date", 0.04), ("time", 0.02), ("code", 0.05),
    ("random", 0.07), ("address", 0.03), ("label", 0.04),
)  # fmt: skip
"""What texts are, with weights: about what signs, print and receipts hold, and some that no language helps with."""


@dataclass(frozen=True)
class TextOptions:
    """Which texts are drawn.

    characters: only these occur.
    shortest, longest: characters of a text.
    words: the side of the word list: words of training never occur in held-out texts, nor the other way round.
    phrases: share of texts made of several words, where the space is among the characters.
    corpus: a UTF-8 file, one text a line; longer lines are cut at spaces, and what holds other characters is left out.
    corpus_share: share of texts that the corpus gives.
    kinds: see DEFAULT_KINDS; email, url, street and phone may be asked for too.
    including: every text holds at least one of these, put into it where it has none; empty: as it comes.
    together: a text's characters all lie in one of these sets, as some font must have them all; empty: no matter.
    """

    characters: str = PRINTABLE
    shortest: int = 1
    longest: int = 25
    words: WordSet = "training"
    phrases: float = 0.1
    corpus: Path | None = None
    corpus_share: float = 0.5
    kinds: tuple[tuple[str, float], ...] = DEFAULT_KINDS
    including: str = ""
    together: tuple[frozenset[str], ...] = ()


def held_out_word(word: str) -> bool:
    """Whether a word is kept for evaluation: one in five, whatever its case, by SHA-256."""
    digest = hashlib.sha256(f"{WORD_SALT}\n{word.casefold()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 5 == 0


@cache
def word_list(words: WordSet) -> tuple[str, ...]:
    """The shipped English words of one side of the split, sorted."""
    listed = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").splitlines()
    return tuple(w for w in listed if words == "all" or held_out_word(w) == (words == "held-out"))


class TextMaker:
    """Draws texts; make(rng) depends on the options and the generator alone.

    Raises ValueError where the options leave no text, FileNotFoundError where the corpus is missing.
    """

    def __init__(self, options: TextOptions) -> None:
        if not 1 <= options.shortest <= options.longest:
            raise ValueError(
                f"shortest is {options.shortest} and longest {options.longest}; "
                "texts need 1 <= shortest <= longest characters"
            )
        if not options.characters.strip():
            raise ValueError("no characters were given to make texts of; give a charset with at least one letter")
        if not 0 <= options.corpus_share <= 1:
            raise ValueError(f"corpus-share is {options.corpus_share}; give a share from 0 to 1")
        outside = sorted(set(options.including).difference(options.characters))
        if outside or " " in options.including:
            raise ValueError(
                f"including holds {''.join(outside) or ' '!r}, which no text can be made to hold; give visible "
                "characters of the charset"
            )
        self.options = options
        self.allowed = frozenset(options.characters)
        # A mark without the letter that it belongs to is no text: marks come from words and the corpus alone.
        self.visible = "".join(c for c in options.characters if not c.isspace() and not _is_mark(c))
        self.spaced = " " in self.allowed
        self.words = tuple(w for w in word_list(options.words) if len(w) <= options.longest and self._writable(w))
        self.short_words = tuple(w for w in self.words if len(w) <= 5)
        self.corpus = self._read_corpus(options.corpus) if options.corpus is not None else ()
        makers: dict[str, Callable[[np.random.Generator], str]] = {
            "word": self._word, "number": _number, "price": _price, "date": _date, "time": _time, "code": _code,
            "random": self._random, "address": self._address, "label": self._label,
            "email": self._email, "url": self._url, "street": self._street, "phone": _phone,
        }  # fmt: skip
        unknown = [kind for kind, _ in options.kinds if kind not in makers]
        if unknown:
            raise ValueError(f"there is no kind of text named {unknown[0]!r}; known are {', '.join(makers)}")
        self.makers = [makers[kind] for kind, _ in options.kinds]
        weights = np.cumsum([weight for _, weight in options.kinds])
        self.limits = (weights / weights[-1]).tolist()

    def make(self, rng: np.random.Generator) -> str:
        """One text in NFC, of allowed characters only, without a space at either end."""
        options = self.options
        for _ in range(_TRIES):
            if self.corpus and rng.random() < options.corpus_share:
                text = self._with_included(self.corpus[int(rng.integers(len(self.corpus)))], rng)
                if not options.including or self._fits(text):
                    return text
                continue
            if self.spaced and rng.random() < options.phrases:
                text = self._phrase(rng)
            else:
                draw = rng.random()
                maker = next((m for m, limit in zip(self.makers, self.limits, strict=True) if draw < limit), self._word)
                text = maker(rng)
            if text and rng.random() < 0.13:
                text = _punctuated(text, rng)
            text = self._with_included(self._fit(text), rng)
            if self._fits(text):
                return text
        text = self._with_included(self._random(rng), rng)
        if outside := "".join(sorted(set(text) - self.allowed)):
            raise ValueError(
                f"texts that hold one of {self.options.including!r} hold {outside!r} too; allow it or leave one out"
            )
        return text

    def _with_included(self, text: str, rng: np.random.Generator) -> str:
        """One of the characters that every text must hold; a sign where signs stand, a letter anywhere."""
        including = self.options.including
        if not including or any(c in including for c in text):
            return text
        chosen = including[int(rng.integers(len(including)))]
        draw, place = rng.random(), int(rng.integers(len(text) + 1))
        place = 0 if draw < 0.25 else len(text) if draw < 0.5 else place
        place = max(place, int(_is_mark(chosen) and bool(text)))  # a mark needs a letter before it
        if not chosen.isalnum() and not _is_mark(chosen) and rng.random() < _SIGNS_AT_EDGES:
            return self._beside_word(text, chosen, rng)
        taken = int(draw > 0.75 or len(text) >= self.options.longest)  # the character behind makes room
        if place == len(text):
            place -= min(taken, place)
        return unicodedata.normalize("NFC", text[:place] + chosen + text[place + taken :])

    def _beside_word(self, text: str, sign: str, rng: np.random.Generator) -> str:
        """The sign right before or behind a word or number of the text, or alone between spaces."""
        words = text.split(" ")
        at = int(rng.integers(len(words)))
        gap = " " if self.spaced and words[at] and rng.random() < 0.2 else ""
        before = rng.random() < 0.5
        room = self.options.longest - len(text) - len(gap) - 1
        kept = words[at] if room >= 0 else words[at][-room:] if before else words[at][:room]
        words[at] = sign + gap + kept if before else kept + gap + sign
        return " ".join(words)

    def _writable(self, word: str) -> bool:
        return all(c in self.allowed for c in word) or any(
            all(c in self.allowed for c in form) for form in (word.lower(), word.upper())
        )

    def _fits(self, text: str) -> bool:
        return (
            self.options.shortest <= len(text) <= self.options.longest
            and self.allowed.issuperset(text)
            and text == text.strip()
            and not _is_mark(text[0])
            and (not self.options.together or any(some.issuperset(text) for some in self.options.together))
        )

    def _fit(self, text: str) -> str:
        """Characters outside the charset in the other case where that is inside, else left out."""
        if not self.allowed.issuperset(text):
            text = "".join(c if c in self.allowed else c.swapcase() for c in text)
            text = "".join(c for c in text if c in self.allowed)
        if len(text) > self.options.longest:
            text = text[: self.options.longest]
        return text.strip()

    def _word(self, rng: np.random.Generator) -> str:
        if not self.words:
            return self._random(rng)
        pool = self.short_words if self.short_words and rng.random() < 0.2 else self.words
        return _cased(pool[int(rng.integers(len(pool)))], rng)

    def _phrase(self, rng: np.random.Generator) -> str:
        """Words of one case until the length drawn for the text is reached."""
        if not self.words:
            return ""
        room = int(rng.integers(3, max(4, self.options.longest + 1)))
        style = rng.random()
        parts: list[str] = []
        used = 0
        for _ in range(8):
            pool = self.short_words if self.short_words and rng.random() < 0.6 else self.words
            word = pool[int(rng.integers(len(pool)))]
            if rng.random() < 0.12:
                word = _number(rng)
            if used + len(word) + (1 if parts else 0) > room:
                if parts:
                    break
                continue
            used += len(word) + (1 if parts else 0)
            parts.append(word)
        if style < 0.35:
            return " ".join(parts).upper()
        if style < 0.65:
            return " ".join(p[:1].upper() + p[1:] for p in parts)
        if style < 0.8:
            joined = " ".join(parts)
            return joined[:1].upper() + joined[1:]
        return " ".join(parts)

    def _random(self, rng: np.random.Generator) -> str:
        longest = self.options.longest
        shortest = min(self.options.shortest, longest)
        length = int(rng.integers(shortest, min(longest, max(shortest, 12)) + 1))
        pool = self.visible
        if sets := self.options.together:
            one = sets[int(rng.integers(len(sets)))]
            pool = "".join(c for c in pool if c in one) or pool
        draw = rng.random()
        if draw < 0.55:
            pool = "".join(c for c in pool if c.isalnum()) or pool
        elif draw < 0.7:
            pool = "".join(c for c in pool if c.isupper() or c.isdigit()) or pool
        # Without a word around them these cannot be told from 0, 1 and |, not even by a person.
        pool = "".join(c for c in pool if c not in "OIl") or pool
        return "".join(pool[i] for i in rng.integers(len(pool), size=length).tolist())

    def _address(self, rng: np.random.Generator) -> str:
        """An e-mail address, a web address, a file name or a tag."""
        first, second = (self._plain(rng) for _ in range(2))
        ending = _pick(rng, (".com", ".org", ".net", ".co.uk", ".de", ".in", ".my", ".io", ".eu", ".info"))
        draw = rng.random()
        if draw < 0.35:
            return f"{first}@{second}{ending}"
        if draw < 0.6:
            return f"www.{first}{ending}"
        if draw < 0.75:
            return f"{first}{ending}"
        if draw < 0.85:
            return f"http://{first}{ending}"
        if draw < 0.93:
            return f"#{first}"
        return f"{first}_{second}" + _pick(rng, (".jpg", ".txt", ".pdf", ""))

    def _email(self, rng: np.random.Generator) -> str:
        name = self._plain(rng) + _pick(rng, ("", "", f".{self._plain(rng)}", f"_{self._plain(rng)}", _digits(rng, 2)))
        return f"{name}@{self._plain(rng)}{_pick(rng, _DOMAINS)}"

    def _url(self, rng: np.random.Generator) -> str:
        start = _pick(rng, ("www.", "www.", "https://", "http://", "https://www.", ""))
        path = _pick(rng, ("", "", "/", f"/{self._plain(rng)}", f"/{self._plain(rng)}.html", f"?id={_digits(rng, 4)}"))
        return f"{start}{self._plain(rng)}{_pick(rng, _DOMAINS)}{path}"

    def _street(self, rng: np.random.Generator) -> str:
        """A house and its street, a postcode and its town, or a post box."""
        name, number = self._plain(rng).capitalize(), int(rng.integers(1, 400))
        kind = _pick(rng, ("Street", "St.", "Road", "Rd", "Avenue", "Ave.", "Lane", "Drive", "Square", "Way"))
        town = self._plain(rng).capitalize()
        draw = int(rng.integers(6))
        return (
            f"{number} {name} {kind}",
            f"{number}{_pick(rng, 'ABC')} {name} {kind}",
            f"No. {number}, {name} {kind}",
            f"{_digits(rng, 5)} {town}",
            f"{town}, {_pick(rng, 'BCEMNSW')}{_digits(rng, 1)} {_digits(rng, 1)}{_pick(rng, 'ABDEGHJ')}X",
            f"P.O. Box {_digits(rng, 4)}",
        )[draw]

    def _label(self, rng: np.random.Generator) -> str:
        """Print of forms and receipts: "Qty:", "Total (RM)", "No. 12"."""
        word = _cased(self._plain(rng), rng)
        draw = rng.random()
        if draw < 0.35:
            return f"{word}:"
        if draw < 0.5:
            return f"{word} {_number(rng)}"
        if draw < 0.62:
            return f"{word}({_pick(rng, ('RM', '$', '%', 'kg', 'a', 's', 'EUR', '1', '2'))})"
        if draw < 0.72:
            return f"No.{int(rng.integers(1, 999))}"
        if draw < 0.82:
            units = ("kg", "ml", "cm", "g", "L", "pcs", "X", " x", "st", "th")
            return f"{int(rng.integers(1, 100))}{_pick(rng, units)}"
        if draw < 0.92:
            return f"{word}/{_cased(self._plain(rng), rng)}"
        return f"*{word}*"

    def _plain(self, rng: np.random.Generator) -> str:
        pool = self.short_words or self.words
        return pool[int(rng.integers(len(pool)))] if pool else self._random(rng)

    def _read_corpus(self, path: Path) -> tuple[str, ...]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise FileNotFoundError(f"the corpus {path} does not exist; give a UTF-8 file, one text a line") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"the corpus {path} is not UTF-8 ({error}); convert it") from None
        texts = tuple(
            text
            for line in lines
            for text in _pieces(unicodedata.normalize("NFC", line.strip()), self.options.longest)
            if self._fits(text)
        )
        if not texts:
            raise ValueError(
                f"none of the {len(lines)} lines of the corpus {path} has {self.options.shortest} to "
                f"{self.options.longest} characters, all in the charset; widen these or give another corpus"
            )
        return texts


_DOMAINS = (".com", ".org", ".net", ".co.uk", ".de", ".fr", ".in", ".my", ".io", ".eu", ".info", ".edu")


def _pieces(line: str, longest: int) -> list[str]:
    """The line, or where it is too long as many of its words a piece as fit."""
    if len(line) <= longest:
        return [line]
    pieces = [""]
    for word in line.split():
        joined = f"{pieces[-1]} {word}".strip()
        if len(joined) <= longest:
            pieces[-1] = joined
        else:
            pieces.append(word)
    return pieces


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _digits(rng: np.random.Generator, count: int) -> str:
    return "".join(map(str, rng.integers(0, 10, size=count).tolist()))


def _phone(rng: np.random.Generator) -> str:
    return _pick(rng, (
        f"0{_digits(rng, 2)}-{_digits(rng, 7)}", f"+{_digits(rng, 2)} {_digits(rng, 3)} {_digits(rng, 6)}",
        f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}", f"Tel: {_digits(rng, 8)}",
    ))  # fmt: skip


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _cased(word: str, rng: np.random.Generator) -> str:
    """As listed, Capitalised, UPPER, or now and then miXed, about as signs and print have them."""
    draw = rng.random()
    if draw < 0.34:
        return word
    if draw < 0.62:
        return word[:1].upper() + word[1:]
    if draw < 0.95:
        return word.upper()
    if draw < 0.97 and len(word) > 3:
        cut = int(rng.integers(1, len(word) - 1))
        return word[:cut].capitalize() + word[cut:].capitalize()
    return "".join(c.upper() if up else c.lower() for c, up in zip(word, rng.random(len(word)) < 0.5, strict=True))


def _number(rng: np.random.Generator) -> str:
    draw = rng.random()
    digits = "".join(map(str, rng.integers(0, 10, size=int(rng.integers(1, 7))).tolist()))
    if draw < 0.55:
        return digits
    if draw < 0.65:
        return f"{int(rng.integers(1, 1000))},{int(rng.integers(0, 1000)):03d}"
    if draw < 0.72:
        return f"{int(rng.integers(0, 101))}%"
    if draw < 0.80:
        return f"{int(rng.integers(0, 1000))}.{int(rng.integers(0, 100))}"
    if draw < 0.86:
        return f"{int(rng.integers(1800, 2031))}"
    if draw < 0.94:
        tail = "".join(map(str, rng.integers(0, 10, size=int(rng.integers(3, 9))).tolist()))
        area, country = int(rng.integers(1, 10)), int(rng.integers(1, 99))
        return _pick(rng, (f"0{area}-{tail}", f"+{country}{tail}", f"({digits[:3]}){tail}"))
    share = f"{digits}/{int(rng.integers(1, 99))}"
    return _pick(rng, (f"-{digits}", f"#{digits}", share, f"{digits}-{digits[::-1]}", f"No{digits}"))


def _price(rng: np.random.Generator) -> str:
    whole = int(10 ** rng.uniform(0, 4))
    cents = int(rng.integers(0, 100)) if rng.random() < 0.6 else int(_pick(rng, ("0", "50", "90", "95", "99")))
    amount = f"{whole:,}.{cents:02d}" if rng.random() < 0.3 else f"{whole}.{cents:02d}"
    draw = rng.random()
    if draw < 0.4:
        return amount
    if draw < 0.65:
        return "$" + amount
    if draw < 0.8:
        return f"{_pick(rng, ('RM', 'EUR', 'USD', 'Rs.', '£', '€'))}{amount}"
    if draw < 0.9:
        return f"{whole},{cents:02d}"
    return f"${whole}"


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip


def _date(rng: np.random.Generator) -> str:
    year, month, day = int(rng.integers(1950, 2031)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    draw = int(rng.integers(8))
    name = _MONTHS[month - 1]
    return (
        f"{day:02d}/{month:02d}/{year}",
        f"{year}-{month:02d}-{day:02d}",
        f"{day}.{month}.{year}",
        f"{day:02d}/{month:02d}/{year % 100:02d}",
        f"{day} {name[:3]} {year}",
        f"{name} {day}",
        f"{day:02d}-{month:02d}-{year}",
        f"{day:02d}{name[:3].upper()}{year % 100:02d}",
    )[draw]


def _time(rng: np.random.Generator) -> str:
    hour, minute, second = int(rng.integers(24)), int(rng.integers(60)), int(rng.integers(60))
    return (
        f"{hour:02d}:{minute:02d}",
        f"{hour:02d}:{minute:02d}:{second:02d}",
        f"{hour % 12 + 1}:{minute:02d}{_pick(rng, ('am', 'pm', ' AM', 'PM'))}",
        f"{hour % 12 + 1}{_pick(rng, ('am', 'pm'))}-{hour // 2 + 1}pm",
    )[int(rng.integers(4))]


def _code(rng: np.random.Generator) -> str:
    """Plates, article numbers, serial numbers: letters and digits in groups."""
    groups = []
    for _ in range(int(rng.integers(1, 4))):
        pool = _pick(rng, ("ABCDEFGHJKLMNPQRSTUVWXYZ", "0123456789", "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"))
        groups.append("".join(pool[i] for i in rng.integers(len(pool), size=int(rng.integers(1, 6))).tolist()))
    return _pick(rng, ("", "", "-", "/", ".", " ")).join(groups)


def _punctuated(text: str, rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < 0.6:
        return text + _pick(rng, (",", ".", ".", ",", "!", "?", ":", ";", "...", "'s", "-", "!!"))
    if draw < 0.9:
        pair = _pick(rng, ('""', "''", "()", "()", "[]", "**", "<>", "--", "{}"))
        return pair[0] + text + pair[1]
    if draw < 0.95:
        return text + "-" + text[:3].lower()
    return _pick(rng, ("&", "@", "+", "-", "*", "~", "=", "'", "(", '"')) + text
