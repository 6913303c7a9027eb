"""`crnn import-teacher`: a CRNN trained with deep-text-recognition-benchmark or EasyOCR as a checkpoint of ours."""

from __future__ import annotations

import datetime
import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

import tyro

from crnn.charset import NAMED_CHARSETS, Case, Charset
from crnn.checkpoint import Checkpoint, CrnnSizes, ModelInfo, load_tensors, save_checkpoint
from data.picture import InputSpec

if TYPE_CHECKING:
    from torch import Tensor

Origin = Literal["easyocr", "dtrb"]

DIGITS, LOWER, UPPER = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Published(NamedTuple):
    """Characters in the order in which a project numbers its classes from 1 on; class 0 is the blank in both."""

    origin: Origin
    characters: str


PUBLISHED = {
    37: Published("dtrb", DIGITS + LOWER),
    95: Published("dtrb", DIGITS + LOWER + UPPER + PUNCTUATION),
    97: Published("easyocr", DIGITS + PUNCTUATION + " €" + UPPER + LOWER),
}
"""Number of classes -> what a model with so many is: dtrb's default, its --sensitive, EasyOCR's english_g2."""

INPUTS: dict[Origin, InputSpec] = {
    "easyocr": InputSpec(height=64, channels=1, width_multiple=8, min_width=64, max_width=4096),
    "dtrb": InputSpec(height=32, channels=1, width_multiple=4, min_width=100, max_width=100),
}
"""How pictures enter: EasyOCR keeps their aspect; dtrb brings every picture to 100 x 32 unless trained with --PAD."""

FULL_CHANNELS = 512
"""Of the features of a backbone of width 1; EasyOCR's second generation has 256."""

RENAMED = (
    (re.compile(r"FeatureExtraction\.ConvNet\."), "backbone.stages."),
    (re.compile(r"SequenceModeling\.(\d+)\.rnn\."), r"encoder.layers.\1.lstm."),
    (re.compile(r"SequenceModeling\.(\d+)\.linear\."), r"encoder.layers.\1.linear."),
    (re.compile(r"Prediction\."), "classifier."),
)
"""Their names of weights, and ours."""


@dataclass(frozen=True)
class ImportOptions:
    """What `crnn import-teacher` takes.

    Attributes:
        checkpoint: a state_dict as deep-text-recognition-benchmark saves it (best_accuracy.pth) or EasyOCR ships it
            (english_g2.pth).
        out: the checkpoint to write.
        origin: which of the two it is; told from the number of classes where that is 37, 95 (dtrb) or 97 (EasyOCR's
            english_g2).
        charset: its characters in its own order, as --character of dtrb or `characters` of EasyOCR has them: chars:...
            or a UTF-8 file; a published model's are known.
        case: of labels; lower where the charset has lower-case letters of the Latin alphabet and no upper-case ones.
        keep_aspect: of a dtrb model trained with --PAD: pictures keep their aspect and are not brought to 100 x 32.
        overwrite: replace out.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    out: Path
    origin: Origin | None = None
    charset: str | None = None
    case: Case | None = None
    keep_aspect: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix != ".pt":
            raise ValueError(f"--out {self.out} does not end in .pt, by which its runtime is chosen; give such a name")


def main(argv: list[str]) -> int:
    about = "Make a checkpoint of a CRNN that was trained with deep-text-recognition-benchmark or EasyOCR."
    options = tyro.cli(ImportOptions, args=argv, prog="crnn import-teacher", description=about)
    made = import_teacher(options, "crnn import-teacher " + shlex.join(argv))
    sizes = made.info.sizes
    print(
        f"{options.out}: {sizes.backbone} x{sizes.width:g}, {sizes.layers} x {sizes.hidden} cells, "
        f"{len(made.info.charset.characters)} characters, pictures {sizes.height} pixels high"
    )
    return 0


def import_teacher(options: ImportOptions, command: str) -> Checkpoint:
    """Reads the foreign checkpoint with the restricted loader, writes options.out and returns what it holds.

    Raises FileExistsError where options.out is there; FileNotFoundError or ValueError in one sentence where the file
    is none of the architectures that fit, or its charset is not known.
    """
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} is there already; choose another --out or replace it with --overwrite")
    theirs = foreign_weights(options.checkpoint)
    origin, characters = described(options, theirs["Prediction.weight"].shape[0])
    case = options.case or ("lower" if set(LOWER) & set(characters) and not set(UPPER) & set(characters) else "keep")
    charset = Charset.of(characters, case)
    spec = INPUTS[origin]
    if options.keep_aspect:
        if origin != "dtrb":
            raise ValueError("--keep-aspect is for dtrb models, and EasyOCR's keep it always; leave it out")
        spec = InputSpec(channels=1)
    sizes = sizes_of(theirs, options.checkpoint, charset, spec)
    weights = renamed(theirs)
    order = [0, *(characters.index(c) + 1 for c in charset.characters)]  # our class -> theirs
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order]
    made_from = {
        "file": options.checkpoint.name,
        "sha256": hashlib.sha256(options.checkpoint.read_bytes()).hexdigest(),
        "origin": origin,
    }
    provenance = {"command": command, "imported": made_from, "date": datetime.date.today().isoformat()}
    info = ModelInfo(charset, spec, sizes, provenance, pixels_per_column=sizes.pixels_per_column)
    made = Checkpoint(info, weights)
    fitting(made, options.checkpoint)
    save_checkpoint(options.out, made)
    return made


NEEDED = {
    "SequenceModeling.0.rnn.weight_hh_l0": 2,
    "SequenceModeling.0.linear.weight": 2,
    "Prediction.weight": 2,
    "Prediction.bias": 1,
}
"""Weights that tell sizes -> their axes."""


def foreign_weights(path: Path) -> dict[str, Tensor]:
    """The weights without DataParallel's "module."; ValueError where they are of another architecture."""
    try:
        content = load_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not loaded, for it holds more than tensors or is damaged; save model.state_dict() alone and "
            "give that file"
        ) from error
    weights = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    for prefix, what in (
        ("Transformation.", "a spatial transformer (TPS)"),
        ("Prediction.attention_cell", "an attention decoder"),
        ("FeatureExtraction.ConvNet.3.wgf_u", "a gated recurrent feature extractor (RCNN)"),
    ):
        if any(name.startswith(prefix) for name in weights):
            raise ValueError(f"{path} has {what}; only None-VGG-BiLSTM-CTC and None-ResNet-BiLSTM-CTC can be imported")
    for name, axes in NEEDED.items():
        if getattr(weights.get(name), "ndim", None) != axes:
            raise ValueError(
                f"{path} has no {name} of {axes} axes, so it is no state_dict of a None-VGG-BiLSTM-CTC or "
                f"None-ResNet-BiLSTM-CTC (it has {', '.join(list(weights)[:3]) or 'nothing'}); give one of these"
            )
    return weights


def described(options: ImportOptions, classes: int) -> tuple[Origin, str]:
    """Where the model comes from, and its characters in its own order; ValueError where neither file nor user says."""
    known = PUBLISHED.get(classes)
    origin = options.origin or (known.origin if known else None)
    if origin is None:
        raise ValueError(
            f"{options.checkpoint} has {classes} classes, as no published model has; say --origin "
            f"{' or '.join(get_args(Origin))} and give its characters, in their order, with --charset"
        )
    if options.charset is not None:
        characters = in_own_order(options.charset)
    elif known and known.origin == origin:
        characters = known.characters
    else:
        raise ValueError(
            f"{options.checkpoint} has {classes} classes, and none of the published models of {origin} has so many; "
            "give its characters, in their order, with --charset"
        )
    if len(characters) != classes - 1:
        raise ValueError(
            f"{options.checkpoint} has {classes} classes, the blank among them, and the charset {len(characters)} "
            "characters; give all of them in the order that the model was trained with"
        )
    return origin, characters


def in_own_order(spec: str) -> str:
    """The characters of chars:..., a named charset or a UTF-8 file, as they stand; line breaks do not count."""
    if spec.startswith("chars:"):
        return spec.removeprefix("chars:")
    if spec in NAMED_CHARSETS:
        return NAMED_CHARSETS[spec]
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"there is no charset {spec!r}; give chars:... or a file of the characters in their order")
    try:
        return path.read_text(encoding="utf-8-sig").replace("\n", "")
    except UnicodeDecodeError as error:
        raise ValueError(f"the charset file {spec} is not UTF-8 ({error}); save it as UTF-8") from error


def sizes_of(weights: dict[str, Tensor], path: Path, charset: Charset, spec: InputSpec) -> CrnnSizes:
    """The sizes that the weights' shapes tell; ValueError where the feature extractor is none that is known."""
    prefix = "FeatureExtraction.ConvNet."
    for backbone, first, last, extra in (  # noqa: B007 - used after the loop
        ("dtrb_vgg", "0.weight", "18.weight", -1),
        ("dtrb_resnet", "conv0_1.weight", "conv4_2.weight", 1),
    ):
        if prefix + first in weights and prefix + last in weights:
            break
    else:
        raise ValueError(f"the feature extractor of {path} is neither VGG nor ResNet; only these can be imported")
    channels, features = weights[prefix + first].shape[1], weights[prefix + last].shape[0]
    if channels != spec.channels:
        raise ValueError(
            f"{path} takes pictures of {channels} channels, and {spec.channels} can be imported (grey); train it "
            "without --rgb"
        )
    layers = len({name.split(".")[1] for name in weights if name.startswith("SequenceModeling.")})
    return CrnnSizes(
        backbone=backbone,
        width=features / FULL_CHANNELS,
        features=features,
        hidden=weights["SequenceModeling.0.rnn.weight_hh_l0"].shape[1],
        layers=layers,
        bidirectional="SequenceModeling.0.rnn.weight_hh_l0_reverse" in weights,
        linear=weights["SequenceModeling.0.linear.weight"].shape[0],
        classes=charset.classes,
        channels=channels,
        height=spec.height,
        extra_columns=extra,
    )


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every weight under our name."""
    found = {}
    for name, tensor in weights.items():
        for pattern, ours in RENAMED:
            name = pattern.sub(ours, name)
        found[name] = tensor
    return found


def fitting(made: Checkpoint, path: Path) -> None:
    """ValueError naming the weight where ours is another network than that of the file."""
    from crnn.model import Crnn

    own, given = Crnn(made.info.sizes).state_dict(), made.weights
    for name in sorted(own.keys() | given.keys()):
        if name not in own or name not in given or own[name].shape != given[name].shape:
            raise ValueError(
                f"{path} is not the published architecture (it differs at {name}); only None-VGG-BiLSTM-CTC and "
                "None-ResNet-BiLSTM-CTC with their own layers can be imported"
            )
