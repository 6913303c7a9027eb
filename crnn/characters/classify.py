"""The story of classifying crops: model, pictures, classes, figures; and the folder that shows them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from crnn.characters.checkpoint import CharacterCheckpoint, CharacterInfo, from_content
from crnn.characters.crops import squared, squares_in_batches
from crnn.characters.few_shot import FewShotModel, few_shot_model
from crnn.characters.metrics import accuracy, by_frequency, look_alikes, macro_accuracy, retrieval
from crnn.characters.model import CharacterModel, centre_probabilities, class_probabilities, embedded
from crnn.characters.reading import learnt_scores, read_classes
from crnn.characters.regions import mean_features
from crnn.characters.support import SupportCrops, support_crops, support_labels
from crnn.checkpoint import CHARACTERS, FEW_SHOT_FORMAT, has_format, load_tensors, write_atomically
from crnn.commands import refuse_writing_into, require_writable, sentence
from crnn.model import available_device
from crnn.progress import with_progress
from crnn.read import escaped, printable
from data.class_folders import open_crops, open_labelled
from data.contact_sheet import contact_sheet
from data.lines import StoredLines, line_name
from data.picture import InputSpec
from data.picture_files import is_picture_name

if TYPE_CHECKING:
    from crnn.characters.classify_cli import ClassifyOptions

SHOWN_PAIRS = 20
"""Pairs of look-alikes that are told."""

FEW_SHOT_BATCH = 128
SAFE = "-_"
"""Beside letters and digits, what a folder's name may hold on every file system."""
LONGEST = 24
"""Characters of a label that its folder's name begins with, and code points that it spells out."""


class Named(NamedTuple):
    """A crop that was classified: its place in the source, the class found, and how sure that is, 0..1."""

    place: int
    found: str
    confidence: float


@dataclass(frozen=True)
class Classified:
    """What was found in a source. embeddings: (N, E), in the order of crops; failed: crops that could not be read."""

    crops: list[Named]
    embeddings: NDArray[np.float32]
    failed: int


class Classes(NamedTuple):
    """counts: label -> crops that it was learnt from. later: those that were not trained, but learnt from a few."""

    counts: dict[str, int]
    later: frozenset[str]

    @classmethod
    def of(cls, info: CharacterInfo) -> Classes:
        counts = [*info.counts, *(entry.crops for entry in info.learnt)]
        return cls(dict(zip(info.classes, counts, strict=True)), frozenset(info.classes[len(info.counts) :]))


def classify(options: ClassifyOptions) -> int:
    """Classifies a source into options.out and prints what was found; see ClassifyOptions. 1 where a crop failed."""
    refuse_used(options)
    require_writable(options.out, "--out")
    if options.embeddings is not None and not options.embeddings.resolve().is_relative_to(options.out.resolve()):
        refuse_writing_into(options.embeddings, [options.source, options.model], "--embeddings")
    device = available_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    content = load_tensors(options.model, CHARACTERS)
    if has_format(content, FEW_SHOT_FORMAT):
        model = few_shot_model(content, options.model).to(device)
        support = support_of(model, options)
        source = open_source(options.source, set(support.labels))
        classes, classified, by = few_shot(source, model, support)
    else:
        if options.support is not None:
            raise ValueError(
                f"{options.model} has classes of its own and no region attention, which --support needs; add classes "
                "to it with crnn characters learn, or give a model of crnn characters episodes"
            )
        checkpoint, by = from_content(content, options.model), options.by
        if by == "nearest-centre" and checkpoint.centres is None:
            raise ValueError(
                f"{options.model} has no class centres yet, which its training writes at the end; let it end, or use "
                "--by classifier"
            )
        classes = Classes.of(checkpoint.info)
        source = open_source(options.source, set(checkpoint.info.classes))
        classified = classified_crops(source, checkpoint, by, device)
    if not classified.crops:
        raise ValueError(f"{options.source} holds no picture that can be read; see the messages above")
    figures = {"source": str(options.source), "model": str(options.model), "by": by, "failed": classified.failed}
    figures |= measured(source, classified, classes, options)
    write_folder(source, classified, options, figures)
    if options.embeddings is not None:
        write_embeddings(options.embeddings, source, classified)
    print(json.dumps(figures, ensure_ascii=False, indent=1) if options.json else told(options.out, figures))
    return 1 if classified.failed else 0


def open_source(path: Path, classes: AbstractSet[str]) -> StoredLines:
    """The crops; stderr says so where the names of their folders are almost labels."""
    source, strange = open_crops(path, classes)
    if strange is not None:
        print(
            f"crnn characters classify: folders of {path} are not taken for labels, for {strange!r} is no class of the "
            "model; a labels.tsv tells labels of any kind",
            file=sys.stderr,
        )
    return source


def refuse_used(options: ClassifyOptions) -> None:
    """FileExistsError where out is anything but a place for a new folder; ValueError where it lies in what is read."""
    out = options.out
    for source in (options.source, options.support):
        if source is not None and out.resolve().is_relative_to(source.resolve()) and out.resolve() != source.resolve():
            raise ValueError(f"--out {out} lies in {source}, whose crops the copies would join; give another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already; choose another --out or remove it")


def classified_crops(source: StoredLines, checkpoint: CharacterCheckpoint, by: str, device: torch.device) -> Classified:
    """Every crop that can be read, with its class; a sentence on stderr for each of the others."""
    model, kept = CharacterModel.from_checkpoint(checkpoint).to(device), list[int]()
    embeddings = embedded(model, readable(source, checkpoint.info.input_spec, kept), checkpoint.info.input_spec)
    if by == "nearest-centre":
        assert checkpoint.centres is not None
        probabilities = centre_probabilities(checkpoint.centres[: len(checkpoint.info.counts)], embeddings)
    else:
        probabilities = class_probabilities(model, embeddings)
    learnt = learnt_scores(checkpoint)
    reading = read_classes(probabilities, learnt.margins(embeddings) if learnt else None, checkpoint.info.bias)
    named = [
        Named(index, checkpoint.info.classes[number], float(confidence))
        for index, number, confidence in zip(kept, reading.numbers, reading.confidences, strict=True)
    ]
    return Classified(named, embeddings, len(source) - len(kept))


def readable(source: StoredLines, spec: InputSpec, kept: list[int]) -> Iterator[NDArray[np.uint8]]:
    """Crops that can be read, as squares, their places put into kept; a sentence on stderr for each of the others."""
    for index in with_progress(range(len(source)), "classifying", len(source)):
        try:
            crop = squared(source[index].picture, spec)
        except (OSError, ValueError) as error:
            print(f"crnn characters classify: {sentence(error)}", file=sys.stderr)
            continue
        kept.append(index)
        yield crop


def support_of(model: FewShotModel, options: ClassifyOptions) -> SupportCrops:
    """The crops of --support; ValueError where there are none, or --by asks for what a few-shot model has not."""
    if options.support is None:
        raise ValueError(
            f"{options.model} is a few-shot model and has no classes of its own; show it a few crops of each with "
            "--support"
        )
    if options.by != "classifier":
        raise ValueError(
            f"{options.model} is a few-shot model, which tells classes apart by the support alone; leave out --by"
        )
    given = open_labelled(options.support)
    return support_crops(given, support_labels(given), model.info.input_spec, "crnn characters classify")


def few_shot(source: StoredLines, model: FewShotModel, support: SupportCrops) -> tuple[Classes, Classified, str]:
    """Every crop that can be read, each by itself, with the class of the support that it is nearest to.

    An embedding is the mean of a crop's map, of length 1. A support crop that cannot be read counts as failed.
    """
    names = sorted(set(support.labels))
    numbers = np.array([names.index(label) for label in support.labels], np.int64)
    described = model.support(model.maps(support.squares), numbers, len(names))
    kept, embeddings, named = list[int](), list[NDArray[np.float32]](), list[Named]()
    for crops in squares_in_batches(readable(source, model.info.input_spec, kept), FEW_SHOT_BATCH):
        maps = model.maps(crops)
        embeddings.append(mean_features(maps).cpu().numpy())
        for row in model.probabilities(described, maps):
            named.append(Named(kept[len(named)], names[row.argmax()], float(row.max())))
    found = np.concatenate(embeddings) if embeddings else np.zeros((0, model.map_channels), np.float32)
    classes = Classes(dict(Counter(support.labels)), frozenset())
    return classes, Classified(named, found, len(source) - len(kept) + support.failed), "support"


def measured(source: StoredLines, classified: Classified, classes: Classes, options: ClassifyOptions) -> dict[str, Any]:
    """Figures as JSON values: counts, and for a labelled source accuracies, retrieval and look-alikes.

    Crops whose label is no class of the model ("foreign") cannot be named right: they are left out of the accuracies
    and counted, and take part in retrieval, which needs no class to be known.
    """
    texts = source.texts()
    found: dict[str, Any] = {
        "crops": len(classified.crops),
        "classes_found": len({crop.found for crop in classified.crops}),
        "mean_confidence": round(float(np.mean([crop.confidence for crop in classified.crops])), 4),
    }
    rows = [row for row, crop in enumerate(classified.crops) if texts[crop.place]]
    if not rows:
        return found
    labels = [texts[classified.crops[row].place] or "" for row in rows]
    ranked = retrieval(classified.embeddings[rows], labels)
    known = [
        (label, classified.crops[row].found) for label, row in zip(labels, rows, strict=True) if label in classes.counts
    ]
    truth, named = [label for label, _ in known], [name for _, name in known]
    groups = by_frequency(truth, named, classes.counts, options.many, options.few)
    parts = {
        name: [pair for pair in known if (pair[0] in classes.later) == later]
        for name, later in (("trained", False), ("learnt", True))
    }
    return found | {
        "labelled": len(labels),
        "foreign": len(labels) - len(known),
        "foreign_labels": sorted({label for label in labels if label not in classes.counts})[:SHOWN_PAIRS],
        "accuracy": _or_none(accuracy(truth, named)),
        "macro_accuracy": _or_none(macro_accuracy(truth, named)),
        "trained_and_learnt": {
            name: {"crops": len(pairs), "accuracy": _or_none(accuracy(*([p[i] for p in pairs] for i in (0, 1))))}
            for name, pairs in parts.items()
        },
        "by_frequency": {
            name: group._asdict() | {"accuracy": _or_none(group.accuracy)} for name, group in groups.items()
        },
        "retrieval": {
            name: _or_none(value) if isinstance(value, float) else value for name, value in ranked._asdict().items()
        },
        "look_alikes": [pair._asdict() for pair in look_alikes(truth, named)[:SHOWN_PAIRS]],
    }


def told(out: Path, figures: dict[str, Any]) -> str:
    """A few lines for a person."""
    lines = [f"{out}: {figures['crops']} crops of {figures['source']}, {figures['classes_found']} classes found"]
    if figures["failed"]:
        lines.append(f"{figures['failed']} pictures could not be read")
    if "labelled" in figures:
        frequency = [
            f"{name} {_percent(group['accuracy'])} ({group['classes']} classes)"
            for name, group in figures["by_frequency"].items()
        ]
        ranked = figures["retrieval"]
        lines += [
            f"accuracy {_percent(figures['accuracy'])}, macro {_percent(figures['macro_accuracy'])}, of "
            f"{figures['labelled'] - figures['foreign']} crops; by training crops: {', '.join(frequency)}",
            *(
                [
                    f"of trained classes {_percent(apart['trained']['accuracy'])}, of those learnt later "
                    f"{_percent(apart['learnt']['accuracy'])}"
                ]
                if (apart := figures["trained_and_learnt"])["learnt"]["crops"]
                else []
            ),
            f"retrieval: Recall@1 {_percent(ranked['recall_at_1'])}, mAP "
            f"{_percent(ranked['mean_average_precision'])}, of {ranked['queries']} crops",
        ]
        if figures["foreign"]:
            shown = ", ".join(figures["foreign_labels"])
            lines.append(f"{figures['foreign']} crops have labels that the model does not know: {shown}")
        if figures["look_alikes"]:
            pairs = [
                f"{p['first']} as {p['second']} {p['taken']} ({p['back']} back)" for p in figures["look_alikes"][:8]
            ]
            lines.append(f"taken for each other: {', '.join(pairs)}")
    return "\n".join(lines)


def write_folder(
    source: StoredLines, classified: Classified, options: ClassifyOptions, figures: dict[str, Any]
) -> None:
    """classes.tsv, figures.json, sheets/ and crops/, all under a temporary name first: there whole, or not at all."""
    made = None
    try:
        made = Path(tempfile.mkdtemp(dir=options.out.parent, prefix=f".{options.out.name}.", suffix=".part"))
        made.chmod(0o755)
        keys = source.keys()
        rows = [f"{escaped(keys[c.place])}\t{escaped(c.found)}\t{c.confidence:.3f}\n" for c in classified.crops]
        (made / "classes.tsv").write_text("".join(rows), encoding="utf-8")
        figures_text = printable(json.dumps(figures, ensure_ascii=False, indent=1))
        (made / "figures.json").write_text(figures_text + "\n", encoding="utf-8")
        write_sheets(made, source, classified.crops, options.sheet)
        if options.copies:
            copy_crops(made / "crops", source, classified.crops)
        if options.out.exists():
            options.out.rmdir()  # empty, as refuse_used has seen
        made.rename(options.out)
    except OSError as error:
        raise OSError(
            f"{options.out} could not be written ({error.strerror or error}); free some disk space or choose "
            "another --out"
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def write_sheets(folder: Path, source: StoredLines, crops: Sequence[Named], most: int) -> None:
    """A contact sheet a class, the least sure crops first; one of the least sure of all; one of those named wrong."""
    (folder / "sheets").mkdir()
    texts = source.texts()
    doubtful = sorted(crops, key=lambda crop: crop.confidence)
    for name in with_progress(sorted({c.found for c in crops}), "drawing sheets", len({c.found for c in crops})):
        own = [crop for crop in doubtful if crop.found == name]
        write_sheet(folder / "sheets" / f"{folder_name(name)}.png", source, own, most, f"named {name}")
    write_sheet(folder / "least-sure.png", source, doubtful, most, "least sure")
    wrong = [crop for crop in doubtful[::-1] if (texts[crop.place] or crop.found) != crop.found]
    if wrong:
        write_sheet(folder / "wrong.png", source, wrong, most, "not as labelled, the most sure first")


def write_sheet(path: Path, source: StoredLines, crops: Sequence[Named], most: int, title: str) -> None:
    shown = []
    for crop in crops[:most]:
        line = source[crop.place]
        label = f"{line.text} as {crop.found}" if (line.text or crop.found) != crop.found else crop.found
        shown.append(
            replace(line, text=f"{label}  {crop.confidence:.2f}", key=line_name(line.key, source.path), columns=None)
        )
    sheet = contact_sheet(shown, title, f"{len(shown)} of {len(crops)} crops")
    path.write_bytes(cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())


def copy_crops(folder: Path, source: StoredLines, crops: Sequence[Named]) -> None:
    """The stored bytes of every picture, in the folder of its class, its path in the source as its name."""
    taken, keys = set[Path](), source.keys()
    for crop in with_progress(crops, "copying", len(crops)):
        encoded = source.encoded(crop.place)
        plain = file_name(line_name(keys[crop.place], source.path), encoded)
        wanted = folder / folder_name(crop.found) / plain
        path, number = wanted, 1
        while Path(str(path).casefold()) in taken:
            number += 1
            path = wanted.with_stem(f"{wanted.stem}-{number}")
        taken.add(Path(str(path).casefold()))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)


def folder_name(label: str) -> str:
    """A name that every file system takes and keeps apart from all others: the label where it is letters and digits,
    and its code points: a -> a_U+0061, A -> A_U+0041, / -> _U+002F. Of long labels the end is a hash.
    """
    shown = "".join(c if c.isalnum() or c in SAFE else "" for c in label[:LONGEST])
    points = "-".join(f"U+{ord(c):04X}" for c in label[:LONGEST])
    if len(label) > LONGEST // 2:
        points = f"{points[:47]}-{hashlib.sha256(label.encode()).hexdigest()[:12]}"
    return f"{shown}_{points}"


def file_name(name: str, encoded: bytes) -> str:
    """The name of a crop as one plain file name, ASCII, with the suffix of what it holds."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower() if is_picture_name(path.name) else ".png" if encoded[:4] == b"\x89PNG" else ".jpg"
    stem = name[: len(name) - len(path.suffix)] if is_picture_name(path.name) else name
    plain = "".join(c if c.isascii() and (c.isalnum() or c in SAFE) else "_" for c in stem.strip("/"))
    return f"{plain[-120:] or 'crop'}{suffix}"


def write_embeddings(path: Path, source: StoredLines, classified: Classified) -> None:
    """embeddings float32 (N, E), and N each of labels ("" for none), classes found, and paths, in one .npz."""
    texts, keys = source.texts(), source.keys()
    content = {
        "embeddings": classified.embeddings,
        "labels": np.array([texts[c.place] or "" for c in classified.crops], np.str_),
        "found": np.array([c.found for c in classified.crops], np.str_),
        "paths": np.array([keys[c.place] for c in classified.crops], np.str_),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **content))  # type: ignore[arg-type]


def _or_none(value: float) -> float | None:
    """A share to five places; None where there was nothing to divide."""
    return None if np.isnan(value) else round(value, 5)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
