"""Which fonts there are, which characters each one truly has, and which families are kept for evaluation."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import freetype
import numpy as np
from numpy.typing import NDArray

from data.synthesis.shaping import SHAPED_BLOCKS

FontSet = Literal["training", "held-out", "all"]

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc", ".pfb")
SPLIT_SALT = "pocket-crnn fonts 63"
SCAN_VERSION = 5
"""Part of the cache's name: raise it when a record's meaning changes."""

_BLOCKS = (
    (0x21, 0x2FF), (0x370, 0x58F), (0x10A0, 0x10FF), (0x1E00, 0x1FFF), (0x2010, 0x205E), (0x2070, 0x20BF),
    (0x2100, 0x22FF), (0x2460, 0x24FF), (0x25A0, 0x266F), (0x2700, 0x27BF), (0x2C60, 0x2C7F), (0x2E00, 0x2E7F),
    (0x3001, 0x30FF), (0x3400, 0x9FFF), (0xA720, 0xA7FF), (0xAB30, 0xAB6F), (0xAC00, 0xD7A3), (0xE000, 0xF8FF),
    (0xFB00, 0xFB06), (0xFF01, 0xFFEE),
    *SHAPED_BLOCKS,
)  # fmt: skip
"""What synthesis can draw. In the first a character is one glyph whatever its neighbours: Latin, Greek, Cyrillic,
Armenian, Georgian, Chinese, Japanese, Korean, punctuation, signs, and the private use of editions of old prints."""

_LEAST_LETTERS = 20
"""Of a font without Latin letters; with fewer it is a font of signs."""

_STRAY_LETTERS = 10
"""A font with at most so many Latin letters is one of another script, which has them as signs: R for a king or
a registered trade mark. They are not drawn with it."""

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_DIGITS = "0123456789"
_TELLING = "abdefghnqrt"
"""Lower-case letters that differ from their capitals in shape, not only in size."""

_REFUSED_NAMES = (
    "initials", "keyboard", "lastresort", "barcode", "dingbat", "ornament", "symbol", "stixsiz", "stixnonuni",
    "stixintegrals", "stixvariants", "cmex", "cmsy", "cmmi", "cmr10", "cmb10", "cmss10", "cmti10", "cmtt10", "emoji",
    "braille", "redacted", "blokk", "dsegs", "dseg7", "dseg14",
)  # fmt: skip

_STYLE_WORDS = frozenset({
    "condensed", "cond", "cn", "cd", "compressed", "narrow", "extended", "expanded", "semicondensed", "semiexpanded",
    "semi-condensed", "display", "caption", "text", "thin", "hairline", "light", "extralight", "ultralight", "book",
    "regular", "medium", "semibold", "demi", "demibold", "bold", "extrabold", "heavy", "black", "extra", "std", "pro",
    "no2", "no3", "lt", "med", "ext", "minus", "titling", "style", "upright", "italic", "inclined", "oblique",
    "variable", "classic", "08", "10", "12", "13", "beta", "b", "c", "d", "e", "f", "s", "x", "em", "eem", "series",
    "subset", "vf", "gwf",
})  # fmt: skip
"""Words at the end of a family's name that name a weight, a width or an edition of one design."""

_SAME_DESIGN = {
    "arimo": "helvetica", "liberation sans": "helvetica", "nimbus sans": "helvetica", "tex gyre heros": "helvetica",
    "freesans": "helvetica", "tinos": "times", "liberation serif": "times", "nimbus roman": "times",
    "tex gyre termes": "times", "freeserif": "times", "stixgeneral": "times", "stix": "times", "stix math": "times",
    "cousine": "liberation mono", "nimbus mono ps": "courier", "tex gyre cursor": "courier",
    "freemono": "courier", "urw bookman": "bookman", "tex gyre bonum": "bookman", "c059": "schoolbook",
    "tex gyre schola": "schoolbook", "p052": "palatino", "tex gyre pagella": "palatino", "z003": "chancery",
    "tex gyre chorus": "chancery", "urw gothic": "avant garde", "tex gyre adventor": "avant garde",
    "carlito": "lato", "hack": "dejavu sans mono", "noto mono": "noto sans mono", "bitstream vera sans": "dejavu sans",
    "bitstream vera serif": "dejavu serif", "bitstream vera sans mono": "dejavu sans mono", "gillius adf": "gillius",
    "verana": "dejavu sans", "verana sans": "dejavu sans", "dejavu math tex gyre": "dejavu serif",
    "linux libertine o": "linux libertine", "cmu classical serif": "cmu serif", "ocra": "ocr a", "ocrabold": "ocr a",
    "ocracondensed": "ocr a", "ocraitalic": "ocr a", "gentium basic": "gentium", "gentium book basic": "gentium",
    "cmu typewriter text variable width": "cmu typewriter", "berenis adf pro math": "berenis adf",
    "linux libertine display o": "linux libertine", "linux libertine mono o": "linux libertine",
    "courier prime code": "courier prime",
    "betecknags": "beteckna", "betecknagscondensed": "beteckna",
}  # fmt: skip
"""Families that share their drawings under different names: they go to the same side of the split."""


@dataclass(frozen=True)
class Font:
    """One face of one font file.

    path, index: where it is; index is the face within a collection.
    family, style: as the file names them.
    design: the family without words of weight and width; faces of one design are never split.
    bold, italic, fixed: the file's flags (fixed: all advances are equal).
    plainness: mean correlation of its letters with those of a plain sans-serif, about 0.3 (ornate) to 1.
    characters: what it can truly draw, sorted, the space included; no lower case where that shows capitals.
    """

    path: str
    index: int
    family: str
    style: str
    design: str
    bold: bool
    italic: bool
    fixed: bool
    plainness: float
    characters: str


def held_out(family: str) -> bool:
    """Whether a family is kept for evaluation: about one in five, by the SHA-256 of its design's name."""
    digest = hashlib.sha256(f"{SPLIT_SALT}\n{design_of(family)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 5 == 0


def design_of(family: str) -> str:
    """The family's name in lower case, without words of weight and width, clones under one name."""
    words = family.lower().replace("_", " ").split()
    while len(words) > 1 and words[-1] in _STYLE_WORDS:
        words.pop()
    words = [w for w in words if not (w.isdigit() and len(w) == 4)] or words
    name = " ".join(words)
    return _SAME_DESIGN.get(name, name)


def find_fonts(folders: Sequence[str | os.PathLike[str]] | None = None, fonts: FontSet = "all") -> tuple[Font, ...]:
    """The usable fonts of this machine, or of the given folders, in an order that does not depend on paths.

    Raises FileNotFoundError where a given folder does not exist, ValueError where no usable font is found.
    """
    if folders is not None:
        for folder in folders:
            if not Path(folder).is_dir():
                raise FileNotFoundError(f"the font folder {folder} does not exist; give a folder with font files")
        places: list[Path] = [Path(folder) for folder in folders]
    else:
        places = font_folders()
    found = _scan(tuple(sorted({str(file) for place in places for file in _font_files(place)})))
    chosen = tuple(f for f in found if fonts == "all" or held_out(f.family) == (fonts == "held-out"))
    if not chosen:
        raise ValueError(
            f"none of {len(found)} usable fonts in {', '.join(map(str, places)) or 'no folder'} is in the set "
            f"{fonts!r}; install more fonts or choose another set"
        )
    return chosen


def font_folders() -> list[Path]:
    """Folders that hold fonts on this machine: the system's, the user's, and those of Python packages."""
    home = Path.home()
    places = [
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        Path("/usr/X11R6/lib/X11/fonts"),
        home / ".fonts",
        home / ".local/share/fonts",
    ]
    if sys.platform == "darwin":
        places += [Path("/Library/Fonts"), Path("/System/Library/Fonts"), home / "Library/Fonts"]
    if sys.platform == "win32":
        places += [
            Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",
            home / "AppData/Local/Microsoft/Windows/Fonts",
        ]
    places += packaged_folders()
    return [place for place in places if place.is_dir()]


def packaged_folders() -> list[Path]:
    """Folders of fonts inside installed Python packages: matplotlib's, and those announced as entry points.

    The entry point groups are those that font-* and fontpkg-* packages use. No package is imported.
    """
    names = {point.value.split(":")[0].split(".")[0] for group in ("fonts_ttf", "fonts_otf", "fontpkg.family")
             for point in importlib.metadata.entry_points(group=group)}  # fmt: skip
    folders = []
    for name in sorted(names):
        folders += _package_folders(name)
    folders += [place / "mpl-data/fonts/ttf" for place in _package_folders("matplotlib")]
    return [folder for folder in folders if folder.is_dir()]


def plain_font_file() -> Path:
    """matplotlib's DejaVu Sans, the font that is always there; FileNotFoundError without matplotlib."""
    for place in _package_folders("matplotlib"):
        file = place / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if file.is_file():
            return file
    raise FileNotFoundError("matplotlib's font DejaVuSans.ttf is not there; reinstall matplotlib")


def _package_folders(name: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []


def _font_files(place: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(place, followlinks=False):
        for file in files:
            if file.lower().endswith(SUFFIXES):
                yield Path(folder) / file


@cache
def _scan(files: tuple[str, ...]) -> tuple[Font, ...]:
    """The usable faces of these files, without copies, sorted by what the files say of themselves."""
    cached = _read_cache()
    records: dict[str, list[dict[str, Any]]] = {}
    sizes: dict[str, int] = {}
    fresh = False
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            continue
        sizes[file] = status.st_size
        key = f"{file}\n{status.st_size}\n{status.st_mtime_ns}"
        if key not in cached:
            cached[key] = [asdict(font) for font in _examine(file)]
            fresh = True
        records[file] = cached[key]
    if fresh:
        _write_cache(cached)
    faces: dict[tuple[str, str, str], tuple[int, str, Font]] = {}
    for file, faces_of_file in records.items():
        for fields in faces_of_file:
            font = Font(**fields)
            name = (font.design, font.family, font.style)
            candidate = (sizes[file], Path(file).name, font)
            if name not in faces or candidate[:2] > faces[name][:2]:
                faces[name] = candidate
    return tuple(faces[name][2] for name in sorted(faces))


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "pocket-crnn" / f"fonts-{SCAN_VERSION}.json"


def _read_cache() -> dict[str, list[dict[str, Any]]]:
    try:
        stored = json.loads(_cache_file().read_text(encoding="utf-8"))
        names = {"path", "index", "family", "style", "design", "bold", "italic", "fixed", "plainness", "characters"}
        return {key: faces for key, faces in stored.items() if all(set(face) == names for face in faces)}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write_cache(records: dict[str, list[dict[str, Any]]]) -> None:
    """The cache only saves time: a folder that cannot be written to is not an error."""
    target = _cache_file()
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(records, file)
            os.replace(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise


def open_face(path: str, index: int) -> Any:
    """A FreeType face with its Unicode character map selected; ValueError where the file cannot be opened."""
    try:
        return freetype.Face(path, index=index)
    except (freetype.FT_Exception, OSError) as error:
        raise ValueError(f"the font {path} cannot be opened: {error}; remove it or rebuild the font list") from error


def glyph_bitmap(face: Any, character: str) -> tuple[NDArray[np.uint8], int, int, float]:
    """(uint8 (rows, columns) coverage, left bearing, top above the baseline, advance in pixels); size set before."""
    return glyph_bitmap_numbered(face, face.get_char_index(character))


def glyph_bitmap_numbered(face: Any, number: int) -> tuple[NDArray[np.uint8], int, int, float]:
    """As glyph_bitmap, of a glyph by its number in the font."""
    face.load_glyph(number, freetype.FT_LOAD_RENDER | freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP)
    slot = face.glyph
    bitmap = slot._FT_GlyphSlot.contents.bitmap
    rows, columns, pitch = bitmap.rows, bitmap.width, bitmap.pitch
    if rows == 0 or columns == 0:
        pixels = np.zeros((0, 0), np.uint8)
    else:
        stored = ctypes.string_at(bitmap.buffer, rows * abs(pitch))
        pixels = np.frombuffer(stored, np.uint8).reshape(rows, abs(pitch))[:, :columns].copy()
    return pixels, slot.bitmap_left, slot.bitmap_top, slot.linearHoriAdvance / 65536


def _examine(file: str) -> list[Font]:
    """The usable faces of a file: broken files, symbol fonts and fonts without Unicode map give none.

    A font with Latin letters must have all capitals and digits, each another shape, but that blackletter has one glyph
    for I and J; see _examine_other_script too.
    """
    fonts = []
    try:
        count = freetype.Face(file).num_faces
        for index in range(count):
            font = _examine_face(file, index, freetype.Face(file, index=index))
            if font is not None:
                fonts.append(font)
    except (freetype.FT_Exception, OSError, UnicodeDecodeError):
        return []
    return fonts


def _examine_face(file: str, index: int, face: Any) -> Font | None:
    family = (face.family_name or b"").decode("utf-8", "replace").strip()
    style = (face.style_name or b"").decode("utf-8", "replace").strip()
    plain_names = family.lower().replace(" ", ""), Path(file).stem.lower().replace(" ", "")
    if not family or not face.is_scalable or any(n in name for n in _REFUSED_NAMES for name in plain_names):
        return None
    if face.charmap is None or face.charmap.encoding != freetype.FT_ENCODING_UNICODE:
        return None
    shapes = _letter_shapes(face, _UPPER + _LOWER + _DIGITS)
    if sum(c in shapes for c in _UPPER + _LOWER) <= _STRAY_LETTERS:
        return _examine_other_script(file, index, face, family, style)
    if any(c not in shapes for c in _UPPER + _DIGITS):
        return None
    capitals = _UPPER.replace("J", "")
    if any(len({shapes[c].tobytes() for c in some}) < len(some) for some in (capitals, _DIGITS)):
        return None
    has_lower = all(c in shapes for c in _LOWER) and not _shows_capitals(shapes)
    reference = _reference_shapes()
    compared = _UPPER + _DIGITS + (_LOWER if has_lower else "")
    likeness = [_correlation(shapes[c], reference[c]) for c in compared]
    plainness = float(np.mean(likeness))
    # Symbols and negatives laid over the letters' codes look like no letter at all.
    if plainness < 0.05:
        return None
    characters = {c for c in _drawable(face) if has_lower or c not in _LOWER}
    if not has_lower:
        characters = {c for c in characters if not c.islower()}
    return _record(file, index, face, family, style, plainness, characters)


def _examine_other_script(file: str, index: int, face: Any, family: str, style: str) -> Font | None:
    """A font without Latin letters to speak of: of use where it has enough others and they are not all one box."""
    characters = set(_drawable(face)).difference(_UPPER + _LOWER)
    letters = sorted(c for c in characters if c.isalpha() and not 0xE000 <= ord(c) <= 0xF8FF)
    if len(letters) < _LEAST_LETTERS:
        return None
    shapes = _letter_shapes(face, "".join(letters[:200]))
    if len({shape.tobytes() for shape in shapes.values()}) < 0.7 * len(shapes):
        return None
    return _record(file, index, face, family, style, _OTHER_PLAINNESS, characters)


_OTHER_PLAINNESS = 0.6
"""Of fonts that cannot be compared with a Latin one: neither ornate nor left out of the easy stage."""


def _record(file: str, index: int, face: Any, family: str, style: str, plainness: float, characters: set[str]) -> Font:
    flags = face.style_flags
    return Font(
        path=file,
        index=index,
        family=family,
        style=style,
        design=design_of(family),
        bold=bool(flags & freetype.FT_STYLE_FLAG_BOLD) or any(w in style.lower() for w in ("bold", "black", "heavy")),
        italic=bool(flags & freetype.FT_STYLE_FLAG_ITALIC) or any(w in style.lower() for w in ("italic", "obliq")),
        fixed=bool(face.is_fixed_width),
        plainness=round(plainness, 4),
        characters=" " + "".join(sorted(characters)),
    )


def _drawable(face: Any) -> Iterable[str]:
    """Characters with a glyph of their own that leaves ink."""
    face.set_char_size(16 * 64)
    for code, number in face.get_chars():
        if not any(first <= code <= last for first, last in _BLOCKS):
            continue
        character = chr(code)
        private = 0xE000 <= code <= 0xF8FF
        if character.isspace() or not (private or character.isprintable()):
            continue
        face.load_glyph(number, freetype.FT_LOAD_NO_SCALE)
        if face.glyph._FT_GlyphSlot.contents.outline.n_points > 2:
            yield character


_SHAPE = 20


def _letter_shapes(face: Any, characters: str) -> dict[str, NDArray[np.float32]]:
    """float32 (20, 20) each: the glyphs stretched to a square, so that only their form counts."""
    face.set_pixel_sizes(0, 48)
    shapes: dict[str, NDArray[np.float32]] = {}
    for c in characters:
        if face.get_char_index(c) == 0:
            continue
        pixels = glyph_bitmap(face, c)[0]
        if pixels.size and pixels.any():
            shape = cv2.resize(pixels.astype(np.float32), (_SHAPE, _SHAPE), interpolation=cv2.INTER_AREA)
            # Blurred, so that thin and thick strokes in the same place are alike.
            shapes[c] = np.asarray(cv2.GaussianBlur(shape, (0, 0), 1.2), np.float32)
    return shapes


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _shows_capitals(shapes: dict[str, NDArray[np.float32]]) -> bool:
    """Whether the lower-case letters are capitals, of the same size or smaller."""
    alike = sum(_correlation(shapes[c], shapes[c.upper()]) > 0.7 for c in _TELLING)
    return alike >= len(_TELLING) // 2


@cache
def _reference_shapes() -> dict[str, NDArray[np.float32]]:
    return _letter_shapes(freetype.Face(str(plain_font_file())), _UPPER + _LOWER + _DIGITS)
