"""Model files: what is written is read, and what is not a whole model file is refused and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crnn.charset import Charset
from crnn.checkpoint import (
    Checkpoint,
    CrnnSizes,
    ModelInfo,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    write_atomically,
)
from data.picture import InputSpec

INFO = ModelInfo(
    Charset.of("abß ", "lower"),
    InputSpec(channels=1, narrow="margins"),
    CrnnSizes("resnet18", 0.125, 8, 8, 1, True, 0, 5, channels=1),
    {"command": "crnn train", "data": ["synth"], "validation_accuracy": 0.5},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file of one tensor."""
    save_checkpoint(tmp_path / "a.pt", Checkpoint(INFO, {"w": torch.arange(6.0).reshape(2, 3)}))
    return tmp_path / "a.pt"


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The model file with its description changed."""
    content = load_tensors(path)
    fields = json.loads(content["info"])
    change(fields)
    save_tensors(path, content | {"info": json.dumps(fields)})
    return path


def refusal(path: Path) -> str:
    """The sentence that the file is refused with."""
    with warnings.catch_warnings(), pytest.raises(ValueError, match="; ") as caught:
        load_checkpoint(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(str(path))
    return sentence


def test_what_was_saved_is_loaded(path: Path) -> None:
    loaded = load_checkpoint(path)
    assert loaded.info == INFO
    assert list(loaded.weights) == ["w"]
    assert torch.equal(loaded.weights["w"], torch.arange(6.0).reshape(2, 3))


def test_weights_in_half_precision_are_loaded_in_float32_and_counters_stay_whole(tmp_path: Path) -> None:
    weights = {"half": torch.ones(2, dtype=torch.float16), "count": torch.tensor(3)}
    save_checkpoint(tmp_path / "a.pt", Checkpoint(INFO, weights))
    loaded = load_checkpoint(tmp_path / "a.pt").weights
    assert loaded["half"].dtype == torch.float32
    assert loaded["count"].dtype == torch.int64


def test_a_link_is_followed_and_a_pipe_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", lambda file: file.write(b"through"))
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_provenance_is_added_to_a_copy() -> None:
    checkpoint = Checkpoint(INFO, {})
    assert checkpoint.with_provenance(steps=3).info.provenance == INFO.provenance | {"steps": 3}
    assert "steps" not in checkpoint.info.provenance


def test_a_cut_file_is_refused_wherever_it_was_cut(path: Path) -> None:
    content = path.read_bytes()
    for length in range(1, len(content) - 1, 61):
        path.write_bytes(content[:length])
        refusal(path)


def test_a_weight_that_was_changed_on_disk_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weight = next(iter(load_checkpoint(path).weights.values())).numpy().tobytes()
    content[content.index(weight) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        load_checkpoint(path)


def test_an_empty_file_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    assert "copy it again or train it anew" in refusal(path)


def test_bytes_that_are_nothing_are_refused_in_one_sentence_each(path: Path) -> None:
    generator = random.Random(0)
    for _ in range(150):
        path.write_bytes(generator.randbytes(generator.randrange(1, 200)))
        refusal(path)


@pytest.mark.parametrize(
    ("name", "what"), [("photo.png", "a picture"), ("s.int8.onnx", "an exported file"), ("notes", "no checkpoint")]
)
def test_a_file_of_another_kind_is_told_from_a_damaged_checkpoint(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"something else")
    assert refusal(tmp_path / name) == f"{tmp_path / name} is {what}; give a checkpoint (.pt) of crnn train or distill"


class Intruder:
    """What a malicious file would hold: unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("place", ["plain", "torch", "weights"])
def test_nothing_that_a_file_holds_is_executed(path: Path, tmp_path: Path, place: str) -> None:
    intruder = Intruder(tmp_path / "marker")
    if place == "plain":
        path.write_bytes(pickle.dumps(intruder))
    elif place == "torch":
        torch.save(intruder, path)
    else:
        torch.save({"info": INFO.to_json(), "weights": {"w": intruder}}, path)
    assert "holds more than tensors and plain values" in refusal(path)
    assert not (tmp_path / "marker").exists()
    torch.load(path, weights_only=False) if place != "plain" else pickle.loads(path.read_bytes())
    assert (tmp_path / "marker").exists()  # the intruder would have worked


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder, not a checkpoint" in refusal(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt does not exist"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": torch.zeros(1), "epoch": 3},
        {"info": "{}"},
        {"info": INFO.to_json(), "weights": {"w": 1}},
        {"info": INFO.to_json(), "weights": {1: torch.zeros(1)}},
        [torch.zeros(1)],
        torch.zeros(2),
    ],
)
def test_tensors_of_something_else_are_refused(path: Path, content: object) -> None:
    torch.save(content, path)
    assert "pocket-crnn" in refusal(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", '{"format": "other", "version": 1}'])
def test_a_description_that_is_not_ours_is_refused(path: Path, text: str) -> None:
    save_tensors(path, {"info": text, "weights": {}})
    assert "does not describe a pocket-crnn model" in refusal(path)


def test_a_description_with_an_unknown_size_is_refused(path: Path) -> None:
    assert "gates" in refusal(rewritten(path, lambda fields: fields["sizes"].update(gates=4)))


def test_a_newer_format_is_refused_and_not_guessed_at(path: Path) -> None:
    assert "upgrade pocket-crnn" in refusal(rewritten(path, lambda fields: fields.update(version=2)))


SAVE = """
import resource, sys
from pathlib import Path
import torch
from crnn.charset import Charset
from crnn.checkpoint import Checkpoint, CrnnSizes, InputSpec, ModelInfo, save_checkpoint
info = ModelInfo(Charset.of("ab"), InputSpec(), CrnnSizes("resnet18", 0.125, 8, 8, 1, True, 0, 3))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    save_checkpoint(Path(sys.argv[1]), Checkpoint(info, {"w": torch.zeros(500_000)}))
except OSError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("limit", [0, 500, 100_000])
def test_a_full_disk_is_one_sentence_and_the_earlier_file_stays(path: Path, repository: Path, limit: int) -> None:
    before = path.read_bytes()
    command = [sys.executable, "-c", SAVE, str(path), str(limit)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=300, check=False)
    assert run.returncode == 1
    assert run.stderr == (
        f"{path} could not be written (File too large); free some disk space or choose another place; "
        "what was there before is unchanged\n"
    )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_writing_that_is_interrupted_leaves_the_earlier_file_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()

    def interrupted(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_folders_of_a_new_file_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", lambda file: file.write(b"whole"))
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"whole"
    assert (tmp_path / "a" / "b" / "c.txt").stat().st_mode & 0o777 == 0o644
