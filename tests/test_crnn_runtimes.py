from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, CrnnSizes, ModelInfo, save_checkpoint
from crnn.ctc import greedy
from crnn.model import Crnn, parameter_count
from crnn.runtimes import open_runtime
from crnn.runtimes.torch_runtime import TorchRuntime
from data.lines import Picture
from data.picture import InputSpec, prepare


@pytest.fixture(scope="module")
def tiny_crnn() -> tuple[Crnn, ModelInfo]:
    """A random network that is small, with its description."""
    torch.manual_seed(0)
    sizes = CrnnSizes("resnet18", 0.125, 32, 16, 1, True, 0, classes=4)
    return Crnn(sizes).eval(), ModelInfo(Charset.of("abc"), InputSpec(), sizes)


@pytest.fixture(scope="module")
def tiny_checkpoint(tiny_crnn: tuple[Crnn, ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, info = tiny_crnn
    path = tmp_path_factory.mktemp("tiny") / "tiny.pt"
    save_checkpoint(path, Checkpoint(info, model.state_dict()))
    return path


def some_pictures(count: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(width).uniform(-1, 1, (count, 3, 32, width)).astype(np.float32)


def test_an_onnx_file_gives_log_probabilities_of_its_charset(
    colour_reader: Path, paint: Callable[[str], Picture]
) -> None:
    runtime = open_runtime(colour_reader)
    pictures = np.stack([prepare(paint(text), runtime.info.input_spec) for text in ("a.bbc", "ccccc")])
    log_probs = runtime(pictures)
    assert log_probs.shape == (2, 10, 4)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)
    assert [greedy(line, runtime.info.charset).text for line in log_probs] == ["abc", "c"]


def test_an_onnx_file_tells_its_parameters_threads_and_path(colour_reader: Path) -> None:
    runtime = open_runtime(colour_reader, threads=2)
    assert (runtime.parameters, runtime.threads, runtime.path) == (12, 2, colour_reader)
    assert open_runtime(colour_reader).threads >= 1


def test_a_checkpoint_gives_what_its_network_gives(tiny_checkpoint: Path, tiny_crnn: tuple[Crnn, ModelInfo]) -> None:
    model, info = tiny_crnn
    runtime = open_runtime(tiny_checkpoint)
    pictures = some_pictures(2, 64)
    with torch.inference_mode():
        expected = model(torch.from_numpy(pictures)).log_probs.numpy()
    np.testing.assert_array_equal(runtime(pictures), expected)
    assert (runtime.info, runtime.parameters, runtime.threads) == (info, parameter_count(model), 1)


def test_a_network_left_in_training_mode_is_read_in_eval_mode(tiny_crnn: tuple[Crnn, ModelInfo]) -> None:
    model, info = tiny_crnn
    runtime = TorchRuntime(model, info, Path("in-memory"))
    expected = runtime(some_pictures(4, 32))
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    np.testing.assert_array_equal(runtime(some_pictures(4, 32)), expected)
    assert all(torch.equal(value, statistics[name]) for name, value in model.state_dict().items())


def test_a_file_that_is_missing_or_of_no_known_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no model file .*none\.pt"):
        open_runtime(tmp_path / "none.pt")
    other = tmp_path / "model.bin"
    other.write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=r"ends in '\.bin', which no runtime reads; known are \.pt, \.onnx, \.tflite, \.ncnn\.zip and \.mnn\.zip",
    ):
        open_runtime(other)


def test_an_onnx_file_that_is_not_ours_is_refused_in_one_sentence(colour_reader: Path, tmp_path: Path) -> None:
    model = onnx.load(str(colour_reader))
    helper.set_model_props(model, {"character": "a\nb\nc"})
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is an ONNX model, but not one of pocket-crnn") as caught:
        open_runtime(foreign)
    assert "\n" not in str(caught.value)


def test_a_cut_onnx_file_is_refused_in_one_sentence(colour_reader: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(colour_reader.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.onnx is not a whole ONNX model") as caught:
        open_runtime(cut)
    assert "\n" not in str(caught.value)


def test_an_onnx_file_whose_metadata_contradict_its_graph_is_refused(colour_reader: Path, tmp_path: Path) -> None:
    model = onnx.load(str(colour_reader))
    info = replace(open_runtime(colour_reader).info, charset=Charset.of("abcd"))
    helper.set_model_props(model, {"pocket_crnn": info.to_json()})
    path = tmp_path / "contradicting.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="1 outputs and 4 classes, where its metadata describes 1, 1 and 5"):
        open_runtime(path)


@pytest.mark.parametrize("suffix", ["pt", "onnx"])
def test_a_device_that_is_not_there_is_refused_and_not_replaced(
    suffix: str, colour_reader: Path, tiny_checkpoint: Path
) -> None:
    path = colour_reader if suffix == "onnx" else tiny_checkpoint
    with pytest.raises(ValueError, match=r"cuda:99.*(use one of|has): .*cpu"):
        open_runtime(path, device="cuda:99")
    with pytest.raises(ValueError, match="gpu"):
        open_runtime(path, device="gpu")


def test_no_threads_at_all_are_refused(colour_reader: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        open_runtime(colour_reader, threads=0)


def test_opening_an_exported_file_imports_neither_torch_nor_the_parser_of_onnx(colour_reader: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from crnn.runtimes import open_runtime; "
        f"open_runtime(Path({str(colour_reader)!r})); "
        "print([name for name in ('torch', 'torchvision', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
