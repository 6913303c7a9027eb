"""The one file format of a recogniser: weights, sizes, charset, input spec, and how it was made.

A checkpoint is a dictionary of tensors and one JSON string, read with torch's restricted loader, so
nothing in it can execute. Files are written under a temporary name, synced and renamed: what was there
before stays whole until the new one is. ModelInfo is the part that travels with every exported file too,
so this module imports torch only where weights are touched.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from crnn.charset import Charset
from data.picture import InputSpec

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "pocket-crnn"
CHARACTER_FORMAT = "pocket-crnn characters"
"""Of files that tell single characters apart (crnn/characters/checkpoint.py)."""
FEW_SHOT_FORMAT = "pocket-crnn few-shot"
"""Of files that tell characters apart by a support (crnn/characters/few_shot.py)."""
VERSION = 1
RECOGNISER = "a checkpoint (.pt) of crnn train or distill"
CHARACTERS = "a model (.pt) of crnn characters train, learn or episodes"
EXPORTED = (".onnx", ".tflite", ".ncnn.zip", ".mnn.zip")


@dataclass(frozen=True)
class CrnnSizes:
    """What rebuilds the network.

    backbone: a key of crnn.backbones.BACKBONES.
    width: multiplier of the backbone's channels.
    features: D, what the backbone hands the encoder at every column.
    hidden: cells of one direction of one encoder layer.
    layers: encoder layers.
    bidirectional: BiLSTM or LSTM.
    linear: output size of the linear layer after each encoder layer; 0 for none.
    classes: K, the blank included.
    channels, height: of the input.
    pixels_per_column: input pixels from one column (time step) to the next: 4, or 2.
    extra_columns: how many columns there are beyond width / pixels_per_column: 0 but for networks made elsewhere, whose
        last convolutions take a column away (-1) or add one (1), and for students of those.
    """

    backbone: str
    width: float
    features: int
    hidden: int
    layers: int
    bidirectional: bool
    linear: int
    classes: int
    channels: int = 3
    height: int = 32
    pixels_per_column: int = 4
    extra_columns: int = 0

    def columns(self, width: int) -> int:
        """T of a picture prepared to this width in pixels."""
        return width // self.pixels_per_column + self.extra_columns

    @property
    def encoded(self) -> int:
        """H, what the encoder hands the classifier at every column."""
        return self.linear or self.hidden * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class ModelInfo:
    """Everything about a recogniser but its weights.

    provenance: how it was made: command, options, data, seed, steps, lines, seconds, accuracy, date, versions.
    parity: what the export check measured; empty in a checkpoint.
    pixels_per_column: input pixels that one column (time step) of the output covers.
    ranges: of activations, (low, high) by name, that quantisation-aware training settled on; exporters of int8 keep to
        them. Empty where there was none.
    target: the export format; empty in a checkpoint.
    one_line_at_a_time: the file answers differently in company, or takes no company, so lines are read singly.
    temperature: what log-probabilities are divided by before they are decoded, so that confidences mean something (see
        crnn.ctc.tempered); fitted for each exported file, 1 in a checkpoint.
    """

    charset: Charset
    input_spec: InputSpec
    sizes: CrnnSizes
    provenance: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    pixels_per_column: int = 4
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    target: str = ""
    one_line_at_a_time: bool = False
    temperature: float = 1.0

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"format": FORMAT, "version": VERSION}, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, origin: str) -> ModelInfo:
        """ValueError naming origin where the text is not what to_json writes."""
        try:
            fields = json.loads(text)
            if fields["format"] in (CHARACTER_FORMAT, FEW_SHOT_FORMAT):
                raise ValueError(
                    f"{origin} tells single characters apart and reads no lines; use it with crnn characters classify"
                )
            if fields["format"] != FORMAT:
                raise KeyError("format")
            if fields["version"] > VERSION:
                raise ValueError(f"{origin} is of format version {fields['version']}; upgrade pocket-crnn to read it")
            return cls(
                charset=Charset(**fields["charset"]),
                input_spec=InputSpec.from_json(fields["input_spec"]),
                sizes=CrnnSizes(**fields["sizes"]),
                provenance=fields["provenance"],
                parity=fields["parity"],
                pixels_per_column=fields["pixels_per_column"],
                # files of before there was int8 lack these
                ranges={name: (low, high) for name, (low, high) in fields.get("ranges", {}).items()},
                target=fields.get("target", ""),
                one_line_at_a_time=fields.get("one_line_at_a_time", False),
                temperature=fields.get("temperature", 1.0),
            )
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{origin} does not describe a pocket-crnn model ({error!r}); make it anew") from error


@dataclass(frozen=True)
class Checkpoint:
    """A recogniser in memory: what it is, and its weights by name."""

    info: ModelInfo
    weights: dict[str, Tensor]

    def with_provenance(self, **entries: Any) -> Checkpoint:
        return replace(self, info=replace(self.info, provenance=self.info.provenance | entries))


def save_checkpoint(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Writes the model file; OSError where the disk is full, with the earlier file left as it was.

    half: floats in half precision, half the bytes; load_checkpoint gives float32 either way.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    if half:
        weights = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_tensors(path, {"info": checkpoint.info.to_json(), "weights": weights})


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a model file. FileNotFoundError or ValueError in one sentence; nothing in the file is executed."""
    content = load_tensors(path)
    info, weights = content.get("info"), content.get("weights")
    if not isinstance(info, str) or not isinstance(weights, dict) or not _all_tensors(weights):
        raise ValueError(
            f"{path} holds no pocket-crnn model (keys: {', '.join(map(str, content))[:80]}); give a checkpoint of "
            f"crnn train or distill"
        )
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    return Checkpoint(ModelInfo.from_json(info, str(path)), weights)


def _all_tensors(weights: dict[Any, Any]) -> bool:
    from torch import Tensor

    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items())


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors and plain values so that path is either the old file or the whole new one."""
    import torch

    def write(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer hides the error of a failed write behind one of its own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise OSError(str(error).splitlines()[0]) from error

    write_atomically(path, write)


def has_format(content: dict[str, Any], name: str) -> bool:
    """Whether what load_tensors read says that it is of that format (FORMAT, CHARACTER_FORMAT, FEW_SHOT_FORMAT)."""
    info = content.get("info")
    try:
        return isinstance(info, str) and bool(json.loads(info)["format"] == name)
    except (KeyError, TypeError, json.JSONDecodeError):
        return False


def load_tensors(path: Path, wanted: str = RECOGNISER) -> dict[str, Any]:
    """What save_tensors wrote, read with the restricted loader. wanted: what messages ask for."""
    import torch

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a checkpoint (.pt)")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint; give the path of a checkpoint (.pt)")
    try:
        _check_sums(path)
        with warnings.catch_warnings(action="ignore"):  # the loader's doubts about damaged files; ours follow
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the restricted loader stumbles over in a damaged file may be of any kind
        if other := _other_kind(path):
            raise ValueError(f"{path} is {other}; give {wanted}") from error
        if isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path} holds more than tensors and plain values, or is damaged, so it is not loaded; give {wanted}"
            ) from error
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a whole checkpoint ({reason}); copy it again or train it anew") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a pocket-crnn checkpoint; give {wanted}")
    return content


def _other_kind(path: Path) -> str:
    """What a file that the loader refused is instead; empty where it does begin as torch's files do."""
    from data.picture_files import is_picture_name

    if path.name.lower().endswith(EXPORTED):
        return "an exported file"
    if is_picture_name(path.name):
        return "a picture"
    with path.open("rb") as file:
        start = file.read(2)
    return "" if start in (b"", b"P", b"PK") or start[:1] == b"\x80" else "no checkpoint"


def _check_sums(path: Path) -> None:
    """The loader does not look at the sums of torch's zip, so a changed weight would be read as it is."""
    if not zipfile.is_zipfile(path):
        return  # the loader says what it is instead
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the sum of its part {damaged} is wrong")


def is_stream(path: Path) -> bool:
    """Whether path is such as /dev/stdout, which is written to and not replaced."""
    return path.parts[:2] in (("/", "dev"), ("/", "proc")) or path.is_fifo()


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls write with a temporary file beside path, syncs it and renames it to path.

    Raises OSError naming path where anything fails; what path held before is untouched then.
    """
    temporary, given = "", path
    try:
        if is_stream(path):
            with path.open("wb") as file:
                write(file)
            return
        path = Path(os.path.realpath(path))  # a link stays one
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise OSError(
                f"{given} could not be written ({error.strerror or error}); free some disk space or choose another "
                "place; what was there before is unchanged"
            ) from error
        raise
