"""Synthetic lines as a source: item i of seed s is the same picture in every process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import cv2
import numpy as np
from numpy.typing import NDArray

from data.lines import Line, Picture, split_source
from data.synthesis import looks
from data.synthesis.backgrounds import Backgrounds
from data.synthesis.degrade import Degradations, moved_columns, photometric
from data.synthesis.fonts import Font, FontSet, find_fonts
from data.synthesis.geometry import Alpha, Frame, Looseness, bent, frame_around
from data.synthesis.render import EM, Mask, draw
from data.synthesis.shaping import require_shaper
from data.synthesis.texts import DEFAULT_KINDS, PRINTABLE, TextMaker, TextOptions, WordSet

LONGEST = 250
"""Longer texts would not fit the columns of the widest picture that a model takes."""

_EASY_LONGEST = 5
_EASY_PLAINNESS = 0.55
_ORNATE = 0.42
_SQUARE = np.ones((3, 3), np.uint8)
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True)
class SynthesisOptions:
    """What synthetic lines say and look like.

    Attributes:
        characters: only these occur in texts; where a recogniser is trained, its charset takes their place.
        shortest: least characters of a text.
        longest: most characters of a text.
        fonts: the side of the split of font families that is drawn with.
        words: the side of the split of the word list.
        strength: of the degradations; 0 none, 1 as hard as real pictures, at most 2.
        easy: a start stage: dark on light, mild, at most five characters, plain fonts.
        looks: weights of scene text, documents, receipts and 1-bit scans.
        phrases: share of texts made of several words, where the space is among the characters.
        kinds: what texts are, each with :weight: word, number, price, date, time, code, random, address, label, email,
            url, street, phone; empty: the mix of TextOptions.
        including: every text holds at least one of these characters, for lines rich in rare ones.
        corpus: a UTF-8 file of texts, one a line, used for corpus_share of the lines; longer ones are cut at spaces.
        corpus_share: share of texts from the corpus.
        degradations: factors on single degradations, as glare:1 or jpeg:0; see Degradations in degrade.py.
        backgrounds: a folder of pictures, behind half of the scene texts.
        font_folders: take fonts from these folders only; empty: every font of the system.
    """

    characters: str = PRINTABLE
    shortest: int = 1
    longest: int = 25
    fonts: FontSet = "training"
    words: WordSet = "training"
    strength: float = 1.0
    easy: bool = False
    looks: tuple[float, float, float, float] = (0.66, 0.15, 0.14, 0.05)
    phrases: float = 0.1
    kinds: tuple[str, ...] = ()
    including: str = ""
    corpus: Path | None = None
    corpus_share: float = 0.5
    degradations: tuple[str, ...] = ()
    backgrounds: Path | None = None
    font_folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Look:
    """One kind of picture: how it is laid out, painted, and how much of the degradations it gets."""

    looseness: Looseness
    paint: Callable[[Alpha, Mask, Frame, float, np.random.Generator], Picture]
    share: float


_SCENE = _Look(Looseness(0.16, 0.75, 0.05, 0.22, 0.4, 0.1, 0.25), looks.scene, 1.0)
_DOCUMENT = _Look(Looseness(0.07, 0.4, 0.012, 0.04, 0.0, 0.5, 0.2), looks.document, 0.75)
_RECEIPT = _Look(Looseness(0.16, 0.4, 0.012, 0.04, 0.0, 0.5, 0.2), looks.receipt, 0.75)
_SCAN = _Look(Looseness(0.07, 0.4, 0.012, 0.04, 0.0, 0.5, 0.2), looks.scan, 0.25)
_LOOKS = (_SCENE, _DOCUMENT, _RECEIPT, _SCAN)


class SynthesisSource:
    """Lines that are drawn when they are asked for.

    Each item depends on the options, the fonts found, the seed and its index alone; the fonts travel with the source
    when it is pickled, so that workers neither search for them nor find others.
    Raises ValueError or FileNotFoundError where the options leave no text or no font (see TextMaker, find_fonts).
    """

    def __init__(self, options: SynthesisOptions, seed: int, size: int = 10**9) -> None:
        if not 0 <= options.strength <= 2:
            raise ValueError(f"strength is {options.strength}; degradations go from 0 to 2")
        if seed < 0 or size < 1:
            raise ValueError(
                f"seed is {seed} and size {size}; a source needs a seed of at least 0 and a size of at least 1"
            )
        if not 0 <= options.phrases <= 1:
            raise ValueError(f"phrases are {options.phrases}; give a share from 0 to 1")
        weights = options.looks
        if len(weights) != len(_LOOKS) or not all(0 <= w < np.inf for w in weights) or not sum(weights):
            raise ValueError(f"looks are {options.looks}; give {len(_LOOKS)} weights, none negative and not all zero")
        if options.longest > LONGEST:
            raise ValueError(f"longest is {options.longest}; synthetic lines have at most {LONGEST} characters")
        self.options = options
        self.seed = seed
        self.size = size
        shortest, longest = options.shortest, options.longest
        if options.easy and shortest <= longest:
            shortest, longest = min(shortest, _EASY_LONGEST), min(longest, _EASY_LONGEST)
        require_shaper(options.characters)
        self.fonts = _of_script(find_fonts(options.font_folders or None, options.fonts), options.characters)
        self._maker = TextMaker(
            TextOptions(
                characters=options.characters,
                shortest=shortest,
                longest=longest,
                words=options.words,
                phrases=0.0 if options.easy else options.phrases,
                corpus=options.corpus,
                corpus_share=options.corpus_share,
                kinds=tuple(map(split_source, options.kinds)) or DEFAULT_KINDS,
                including=options.including,
                together=_together(self.fonts, options.characters),
            )
        )
        plain = [font for font in self.fonts if font.plainness >= _EASY_PLAINNESS and _has(font, options.characters)]
        self._shelf = _FontShelf.of(plain if options.easy and plain else self.fonts)
        self._fixed_shelf = _FontShelf.of([font for font in self.fonts if font.fixed] or self.fonts)
        self._degradations = Degradations.of(options.degradations)
        self._backgrounds = Backgrounds(Path(options.backgrounds)) if options.backgrounds else None
        self._limits = (np.cumsum(options.looks) / np.sum(options.looks)).tolist()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Line:
        text = self.text(index)
        index %= self.size
        rng = self._generator(index, 1)
        look = _DOCUMENT if self.options.easy else self._pick_look(rng)
        shelf = self._shelf
        if look is _RECEIPT and rng.random() < 0.5 and self._fixed_shelf.covers(text):
            shelf = self._fixed_shelf
        font = shelf.pick(text, rng)
        picture, columns = _draw_line(text, font, look, self.options, self._degradations, self._backgrounds, rng)
        return Line(picture, text, f"synthesis seed {self.seed} item {index}", columns)

    def text(self, index: int) -> str:
        """The label of an item, without drawing it."""
        if not -self.size <= index < self.size:
            raise IndexError(f"item {index} of {self.size} synthetic lines")
        return self._maker.make(self._generator(index % self.size, 0))

    def texts(self) -> Sequence[str | None]:
        """The labels, each made when it is asked for."""
        return _Texts(self)

    def _pick_look(self, rng: np.random.Generator) -> _Look:
        value = rng.random()
        return _LOOKS[sum(value >= limit for limit in self._limits[:-1])]

    def _generator(self, index: int, stream: int) -> np.random.Generator:
        """Stream 0 makes the text and 1 the picture, so that a text can be had without its picture."""
        words = self.seed, index, stream
        # The same entropy either way; an array of words is taken as it is, twice as fast.
        entropy = words if max(words) >> 32 else np.array(words, np.uint32)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


class _Texts(Sequence[str | None]):
    """The labels of a source, each made when it is asked for."""

    def __init__(self, source: SynthesisSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> str | None: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str | None]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str | None] | None:
        if isinstance(index, slice):
            return [self._source.text(i) for i in range(*index.indices(len(self)))]
        return self._source.text(index)


@dataclass(frozen=True)
class _FontShelf:
    """Fonts by design; one is drawn by design first, so that families of forty files do not rule."""

    designs: tuple[tuple[tuple[Font, frozenset[str]], ...], ...]
    limits: tuple[float, ...]

    @classmethod
    def of(cls, fonts: Sequence[Font]) -> _FontShelf:
        """Ornate designs are drawn half as often as others."""
        by_design: dict[str, list[tuple[Font, frozenset[str]]]] = {}
        for font in fonts:
            by_design.setdefault(font.design, []).append((font, frozenset(font.characters)))
        designs = tuple(tuple(by_design[name]) for name in sorted(by_design))
        weights = [0.5 if max(font.plainness for font, _ in design) < _ORNATE else 1.0 for design in designs]
        return cls(designs, tuple((np.cumsum(weights) / np.sum(weights)).tolist()))

    def covers(self, text: str) -> bool:
        """Whether some font has every character of the text."""
        return any(characters.issuperset(text) for design in self.designs for _, characters in design)

    def pick(self, text: str, rng: np.random.Generator) -> Font:
        """A font that has every character of the text; ValueError where none has."""
        for _ in range(60):
            design = self.designs[bisect_left(self.limits, rng.random())]
            font, characters = design[int(rng.integers(len(design)))]
            if characters.issuperset(text):
                return font
        for design in self.designs:
            for font, characters in design:
                if characters.issuperset(text):
                    return font
        raise ValueError(f"no font has all characters of {text!r}; install one that has them or leave them out")


def drawable(characters: str, font_folders: Sequence[Path] = ()) -> str:
    """Those of the characters that lines of both sides of the split of fonts can hold; errors as of SynthesisSource.

    What is in fonts of one side alone could be learnt and not validated, or the other way round.
    """
    sides: tuple[FontSet, ...] = ("training", "held-out")
    fonts = [_of_script(find_fonts(font_folders or None, side), characters) for side in sides]
    have = [frozenset[str]().union(*(font.characters for font in of_side)) for of_side in fonts]
    return "".join(c for c in characters if all(c in of_side for of_side in have))


def _has(font: Font, text: str) -> bool:
    return all(c in font.characters for c in text)


def _of_script(fonts: Sequence[Font], characters: str) -> tuple[Font, ...]:
    """The fonts with at least one of the letters, for others would never be drawn; ValueError where none has one."""
    letters = frozenset(c for c in characters if c.isalpha()) or frozenset(characters)
    found = tuple(font for font in fonts if not letters.isdisjoint(font.characters))
    if not found:
        raise ValueError(
            f"none of {len(fonts)} fonts has one of the letters {''.join(sorted(letters))[:40]!r}; install a font that "
            "has them or leave them out"
        )
    return found


def _together(fonts: Sequence[Font], characters: str) -> tuple[frozenset[str], ...]:
    """Sets of characters that one font can draw; empty where some font has all, so that any text can be drawn.

    ValueError naming the characters that no font has.
    """
    wanted = frozenset(characters)
    sets = {wanted.intersection(font.characters) for font in fonts}
    missing = wanted.difference(*sets)
    if missing:
        raise ValueError(
            f"none of {len(fonts)} fonts has {''.join(sorted(missing))[:40]!r}; install a font that has "
            "them or leave them out"
        )
    if wanted in sets:
        return ()
    return tuple(sorted((s for s in sets if not any(s < other for other in sets)), key=sorted))


def _draw_line(
    text: str,
    font: Font,
    look: _Look,
    options: SynthesisOptions,
    of: Degradations,
    backgrounds: Backgrounds | None,
    rng: np.random.Generator,
) -> tuple[Picture, NDArray[np.float32]]:
    """uint8 (height, width, 3) and float32 (len(text), 2)."""
    strength = options.strength * (0.35 if options.easy else 1.0)
    spacing = 0.0
    if not options.easy:
        value = rng.random()
        if value < 0.06 and " " not in text:
            spacing = EM * rng.uniform(0.15, 0.5)
        elif value < 0.35:
            spacing = EM * rng.uniform(-0.03, 0.12)
    drawn = draw(text, font, EM, spacing)
    mask = drawn.mask
    if not options.easy and not font.bold and rng.random() < 0.15:
        mask = cv2.dilate(mask, _SQUARE if rng.random() < 0.4 else _CROSS).astype(np.uint8, copy=False)
    if look is _SCENE and len(text) > 2 and rng.random() < 0.06 * strength * of.bend:
        mask = bent(mask, rng, of.bend)
    frame = frame_around(text, drawn, mask, look.looseness, strength, rng, of)
    columns = moved_columns(drawn.columns, frame.matrix, mask.shape[0] / 2, frame.width)
    around = 0.0 if options.easy else of.neighbours
    if look is _SCENE:
        picture = looks.scene(frame.place(mask), mask, frame, around, rng, backgrounds)
    else:
        picture = look.paint(frame.place(mask), mask, frame, around, rng)
    picture = photometric(picture, rng, look.share * strength, of)
    return np.ascontiguousarray(picture), columns
