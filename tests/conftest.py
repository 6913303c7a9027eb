"""What all tests share: one thread each, so that they neither disturb each other nor depend on the number of cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read by torch, OpenMP and OpenCV when they are first imported, in this process and in those that tests start.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENCV_FOR_THREADS_NUM="1", MPLBACKEND="Agg")

import cv2
import lmdb
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from crnn.charset import Charset
from crnn.checkpoint import CrnnSizes, ModelInfo
from data.lines import Picture
from data.lmdb_lines import Entry, write_lmdb
from data.picture import InputSpec


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def draw_word() -> Callable[[str], Picture]:
    """A function: printable ASCII text -> dark on light, uint8 (32, width, 3), the same picture every time."""

    def draw(text: str) -> Picture:
        font, size, thickness = cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2
        (width, _), _ = cv2.getTextSize(text, font, size, thickness)
        picture = np.full((32, width + 8, 3), 235, np.uint8)
        cv2.putText(picture, text, (4, 24), font, size, (20, 20, 20), thickness, cv2.LINE_AA)
        return picture

    return draw


@pytest.fixture
def labelled_folder(tmp_path: Path, draw_word: Callable[[str], Picture]) -> Path:
    """A folder as crnn data import takes it: labels.tsv and images/ with four drawn words."""
    folder = tmp_path / "words"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, text in enumerate(["Milk", "2.50", "Total", "book"]):
        name = f"images/{number:06d}.png"
        cv2.imwrite(str(folder / name), draw_word(text))
        rows.append(f"{name}\t{text}\n")
    (folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def without_keys() -> Callable[[Path, Picture, int], Path]:
    """A function: path, picture, count -> an LMDB of that picture as deep-text-recognition-benchmark makes them."""

    def made(path: Path, picture: Picture, count: int) -> Path:
        encoded = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
        write_lmdb(path, [Entry(encoded, f"w{i}", f"{i}") for i in range(count)])
        with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
            for i in range(count):
                transaction.delete(b"key-%09d" % (i + 1))
        return path

    return made


@pytest.fixture(scope="session")
def colour_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that reads colours: a column of red pixels is an a, green b, blue c, black the blank.

    Whoever paints a picture knows its text, its spans and that every probability is near 1.
    """
    charset = Charset.of("abc")
    sizes = CrnnSizes("resnet18", 0.25, 3, 3, 1, False, 0, charset.classes)
    info = ModelInfo(charset, InputSpec(turn_above=1.5), sizes, {"command": "painted"}, {"largest_difference": 0.0})
    weights = np.array([[0, 10, 0, 0], [0, 0, 10, 0], [0, 0, 0, 10]], np.float32)  # of red, green, blue
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("AveragePool", ["pictures"], ["means"], kernel_shape=[32, 4], strides=[32, 4]),
                helper.make_node("Squeeze", ["means", "rows"], ["columns"]),
                helper.make_node("Transpose", ["columns"], ["sequence"], perm=[0, 2, 1]),
                helper.make_node("MatMul", ["sequence", "weights"], ["logits"]),
                helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1),
            ],
            "colours",
            [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["N", 3, 32, "W"])],
            [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["N", "T", charset.classes])],
            [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2]), "rows")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    helper.set_model_props(model, {"pocket_crnn": info.to_json(), "character": "a\nb\nc"})
    path = tmp_path_factory.mktemp("colours") / "colours.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def paint() -> Callable[[str], Picture]:
    """A function: text of a, b, c and "." for black -> the picture that colour_reader reads so, 8 pixels a letter."""
    colours = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255), ".": (0, 0, 0)}

    def painted(letters: str) -> Picture:
        row = np.array([colours[letter] for letter in letters], np.uint8).repeat(8, axis=0)  # (width, 3)
        return np.ascontiguousarray(np.broadcast_to(row, (32, *row.shape)))

    return painted


@pytest.fixture
def random_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A function: sizes as keywords -> the path of a small checkpoint with random weights that reads nonsense.

    BatchNorm has statistics as after training, and the classifier is loud, so that texts differ from line to line.
    """
    import torch  # only here: reading with an exported file is tested without it

    from crnn.checkpoint import Checkpoint, save_checkpoint
    from crnn.model import Crnn

    def make(backbone: str = "resnet18", **changes: Any) -> Path:
        charset = changes.pop("charset", Charset.named("ascii"))
        chosen = {"width": 0.125, "features": 32, "hidden": 16, "layers": 2, "bidirectional": True, "linear": 0}
        sizes = CrnnSizes(backbone=backbone, classes=charset.classes, **(chosen | changes))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = Crnn(sizes)
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.2)
                    module.running_var.uniform_(0.5, 2)
                    torch.nn.init.uniform_(module.weight, 0.2, 0.6)
                    torch.nn.init.normal_(module.bias, 0, 0.1)
                if isinstance(module, torch.nn.LSTM):
                    for weights in module.parameters():
                        torch.nn.init.normal_(weights, 0, 0.4)
            torch.nn.init.normal_(model.classifier.weight, 0, 3)
        spec = InputSpec(channels=sizes.channels)
        path = tmp_path / f"{backbone}.pt"
        save_checkpoint(path, Checkpoint(ModelInfo(charset, spec, sizes), dict(model.state_dict())))
        return path

    return make


@pytest.fixture
def crops_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function: label=number of crops, ... -> a folder of drawn characters with labels.tsv, no two crops the same."""

    def make(name: str = "crops", seed: int = 0, **counts: int) -> Path:
        generator, rows = np.random.default_rng(seed), []
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        for label, count in counts.items():
            for _ in range(count):
                height, width = (int(n) for n in generator.integers(28, 44, 2))
                picture = np.full((height, width, 3), int(generator.integers(200, 256)), np.uint8)
                place = (int(generator.integers(2, 8)), height - int(generator.integers(4, 9)))
                size = float(generator.uniform(0.7, 1.0))
                cv2.putText(picture, label[0], place, cv2.FONT_HERSHEY_SIMPLEX, size, (30, 30, 30), 2, cv2.LINE_AA)
                rows.append(f"images/{len(rows):04d}.png\t{label}\n")
                cv2.imwrite(str(folder / f"images/{len(rows) - 1:04d}.png"), picture)
        (folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
        return folder

    return make
