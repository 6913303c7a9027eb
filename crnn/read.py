"""`crnn read`: the text of pictures, one line each, with any model file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from crnn.commands import sentence
from crnn.ctc import Lexicon, Reading, greedy_batch
from crnn.page import is_page
from crnn.recogniser import Recogniser, beam_decoder, load, pixel_spans, words_decoder
from crnn.words import KnownWords, listed_words
from data.lines import Picture
from data.picture import InputSpec, decode_as_shown, missing_margin, refuse_vast_margins
from data.picture_files import PictureFiles, is_picture_name

PROG = "crnn read"
BEAM = 16
NO_PICTURES = (".tsv", ".txt", ".csv", ".json", ".xml", ".md")
"""Ends of what usually lies beside pictures, and is passed over without a word."""
BATCHES_AT_ONCE = 8
"""Pictures of so many batches are open together, so that lines of one width find each other."""


@dataclass(frozen=True)
class ReadOptions:
    """What `crnn read` takes."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILES|FOLDER")]
    """Pictures of one line of text each, turned as their EXIF data says; of a folder or zip, every picture in it."""
    model: Path | None = None
    """A checkpoint (.pt) or an exported file (.onnx, .tflite); left out: the default student that comes with
    the package (crnn info lists what there is)."""
    json: bool = False
    """Print a JSON list with every character's confidence and place instead of path, text and confidence by tabs."""
    draw: Path | None = None
    """A folder for the pictures with their text and the bounds of its characters drawn on."""
    decoder: Literal["greedy", "words", "beam"] | None = None
    """Take the best class of every column; or do so, and weigh words that are in no list against listed ones; or search
    for the most probable text. Left out: words for the model that comes with the package, greedy for others."""
    words: Path | None = None
    """A UTF-8 file of words that are to be known, instead of the English ones that come with the package; it stands for
    --decoder words by itself."""
    beam: int | None = None
    """How many texts the beam search keeps in view; left out: 16."""
    lexicon: Path | None = None
    """A file of words, one a line, for the beam search: only these are read, with single spaces between."""
    min_confidence: float = 0.0
    """Leave out readings less sure than this, 0 to 1; how many were left out is told at the end."""
    batch: int = 32
    """Pictures of one width that are read at once."""
    threads: int | None = None
    """Threads of the model's arithmetic; left out: the runtime's own choice."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        for name, given in (("lexicon", self.lexicon), ("beam", self.beam)):
            if given is not None and self.decoder != "beam":
                raise ValueError(f"--{name} is for the beam search; add --decoder beam")
        if self.words is not None and self.decoder not in ("words", None):
            raise ValueError(f"--words is for --decoder words and not for {self.decoder}; leave one of them out")
        for name, value in (("batch", self.batch), ("beam", self.beam), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}; give at least 1")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min-confidence is {self.min_confidence}; give a number from 0 to 1")


@dataclass(frozen=True)
class Found:
    """A picture file.

    path: as it is printed. name: below the folder it was found in. read: gives its bytes. file: None within a zip.
    """

    path: str
    name: str
    read: Callable[[], bytes]
    file: Path | None


def main(argv: list[str]) -> int:
    """Reads what can be read; 1 where something could not, after one sentence for each on stderr."""
    options = tyro.cli(ReadOptions, args=argv, prog=PROG, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    if not options.inputs:
        raise ValueError("no picture was given; give files or folders")
    recogniser = opened_recogniser(options)
    complaints = Complaints()
    files = found_files(options.inputs, complaints)
    if options.draw is not None:
        refuse_drawing_over(files, options.draw)
        refuse_drawing_into(options.inputs, options.draw)
    count, unsure, entries, taken = 0, 0, [], set[Path]()
    for file, picture, reading in readings(files, recogniser, options, complaints):
        count += 1
        if reading.confidence < options.min_confidence:
            unsure += 1
            continue
        spans = pixel_spans(reading, picture.shape[:2], recogniser.info)
        if options.draw is not None:
            from crnn.drawing import write_drawing  # brings matplotlib, which nothing else here needs

            write_drawing(options.draw / free_name(file.name, taken), picture, reading, spans)
        if options.json:
            entries.append(json_entry(file, reading, spans))
        else:
            print(f"{escaped(file.path)}\t{escaped(reading.text)}\t{reading.confidence:.3f}")
    if options.json:
        print(json.dumps(entries, ensure_ascii=False, indent=1))
    if unsure:
        least = options.min_confidence
        print(f"{PROG}: left out {unsure} of {count} readings, below --min-confidence {least}", file=sys.stderr)
    return 1 if complaints.count else 0


class Complaints:
    """Says on stderr what could not be read, one sentence each, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, error: Exception) -> None:
        self.count += 1
        print(f"{PROG}: {sentence(error)}", file=sys.stderr)


def opened_recogniser(options: ReadOptions) -> Recogniser:
    """The model with the decoder that was asked for."""
    recogniser = load(options.model, options.threads, options.device)
    if options.decoder == "beam":
        lexicon = None if options.lexicon is None else opened_lexicon(options.lexicon, recogniser)
        recogniser.decoder = beam_decoder(options.beam or BEAM, lexicon)
    elif options.words is not None:
        recogniser.decoder = words_decoder(opened_words(options.words, recogniser))
    elif options.decoder == "words":
        recogniser.decoder = words_decoder()
    elif options.decoder == "greedy":
        recogniser.decoder = greedy_batch
    return recogniser


def opened_words(path: Path, recogniser: Recogniser) -> KnownWords:
    """The words of a file; ValueError where the model can write none of them."""
    listed = listed_words(entries(path))
    written = set("".join(recogniser.info.charset.characters).casefold())
    if not any(len(word) > 1 and written.issuperset(word) for word in listed):
        raise ValueError(
            f"{path} holds no word of two letters or more that {recogniser.runtime.path} can write; give a UTF-8 file "
            "of words, one a line"
        )
    return KnownWords(listed)


def entries(path: Path) -> list[str]:
    """Lines of a UTF-8 file; ValueError where it is not one."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def opened_lexicon(path: Path, recogniser: Recogniser) -> Lexicon:
    """The entries of a file; those that the model cannot write are counted on stderr."""
    listed = entries(path)
    try:
        lexicon = Lexicon(listed, recogniser.info.charset)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if lexicon.left_out:
        print(
            f"{PROG}: {path}: {len(lexicon.left_out)} entries, such as {lexicon.left_out[0]!r}, hold characters the "
            "model does not know and can never be read",
            file=sys.stderr,
        )
    return lexicon


def found_files(inputs: tuple[Path, ...], complaints: Complaints) -> list[Found]:
    """The pictures of files, folders and zips, in this order."""
    found = []
    for path in inputs:
        if not path.is_dir() and path.suffix.lower() != ".zip":
            found.append(Found(str(path), path.name, path.read_bytes, path))
            continue
        try:
            files = PictureFiles(path)
            every = list(files.walk(complaints.add))
            names = [name for name in every if is_picture_name(name)]
            if not names:
                raise ValueError(f"{path} holds no pictures; give a folder or a zip of them")
            folder = path if path.is_dir() else None
            found += [
                Found(files.key(name), name, partial(files.read, name), folder and folder / name) for name in names
            ]
            others = [name for name in every if not is_picture_name(name) and not name.lower().endswith(NO_PICTURES)]
            if others:
                end = f"{len(others)} files that do not end as pictures do, such as" if others[1:] else "one file,"
                print(
                    f"{PROG}: {path}: passed over {end} {escaped(others[0])}; a picture is read when named itself",
                    file=sys.stderr,
                )
        except (OSError, ValueError) as error:
            complaints.add(error)
    return found


def refuse_drawing_over(files: list[Found], folder: Path) -> None:
    """ValueError where a drawing would take the place of a picture that is read, or of another file beside one."""
    taken = set[Path]()
    drawings = [(folder / free_name(file.name, taken)).resolve() for file in files]
    beside = {file.file.resolve().parent for file in files if file.file is not None}
    for drawing in drawings:
        if drawing.parent in beside and drawing.exists():
            raise ValueError(f"--draw {folder} would write over {drawing}; give the drawings a folder of their own")


def refuse_drawing_into(inputs: tuple[Path, ...], folder: Path) -> None:
    """ValueError where the drawings would lie in a folder that is read, and be read with it the next time."""
    for path in inputs:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"--draw {folder} lies in {path}, which is read; give the drawings a place outside it")


def readings(
    files: list[Found], recogniser: Recogniser, options: ReadOptions, complaints: Complaints
) -> Iterator[tuple[Found, Picture, Reading]]:
    """Every file that shows a line, with its picture and reading, in order; the others go to complaints."""
    at_once = BATCHES_AT_ONCE * options.batch
    with progress_bar() as bar:
        task = bar.add_task("reading", total=len(files))
        for start in range(0, len(files), at_once):
            lines = []
            for file in files[start : start + at_once]:
                try:
                    lines.append((file, line_picture(file, recogniser.info.input_spec)))
                except (OSError, ValueError) as error:
                    complaints.add(error)
            texts = recogniser.read([picture for _, picture in lines], options.batch)
            for (file, picture), reading in zip(lines, texts, strict=True):
                yield file, picture, reading
            bar.advance(task, min(at_once, len(files) - start))


def line_picture(file: Found, spec: InputSpec) -> Picture:
    """The decoded picture as viewers show it.

    ValueError or OSError where there is none, it is plainly a page, or it is too high for the spec's margins.
    """
    picture = decode_as_shown(file.read(), file.path)
    height, width = picture.shape[:2]
    refuse_vast_margins(height, width, missing_margin(height, width, spec), file.path)
    if is_page(picture):
        raise ValueError(
            f"{file.path} is a page ({width} x {height} pixels, several lines of text one below the other) and not a "
            "line; cut it into lines first"
        )
    return picture


def progress_bar() -> Progress:
    """On stderr, while that is a terminal and the readings go elsewhere; stdout is left alone."""
    shown = sys.stderr.isatty() and not sys.stdout.isatty()
    return Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, disable=not shown)


def json_entry(file: Found, reading: Reading, spans: list[tuple[float, float]]) -> dict[str, Any]:
    """What --json tells of one picture; pixels of the picture, after it was turned where `turned` is not 0."""
    characters = zip(reading.text, reading.character_confidences, spans, strict=True)
    return {
        "path": printable(file.path),
        "text": reading.text,
        "confidence": round(reading.confidence, 4),
        "turned": reading.turned,
        "characters": [
            {
                "character": character,
                "confidence": round(confidence, 4),
                "left": round(left, 1),
                "right": round(right, 1),
            }
            for character, confidence, (left, right) in characters
        ],
    }


def escaped(field: str) -> str:
    """A path or a text as one field of one line: tabs and line breaks as \\t, \\n, \\r."""
    return printable(field).replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def printable(path: str) -> str:
    """A path whose bytes are not UTF-8 cannot be printed as it is: those are written \\udcXX."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def free_name(name: str, taken: set[Path]) -> Path:
    """name as a PNG below the folder of drawings, numbered where another picture has it already; added to taken."""
    wanted = Path(name.lstrip("/")).with_suffix(".png")
    path, number = wanted, 1
    while path in taken:
        number += 1
        path = wanted.with_stem(f"{wanted.stem}-{number}")
    taken.add(path)
    return path
