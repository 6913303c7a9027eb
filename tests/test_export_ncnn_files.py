"""How ncnn files are made (that they read as the network does: test_export_mnn_and_ncnn.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from crnn.runtimes.archive import pack, unpack
from crnn.runtimes.ncnn_adapter import BIN, PARAM, NcnnRuntime
from export.calibration import Quantisation
from export.graph import read_graph
from export.ncnn_files import write_ncnn
from export.operators import Graph
from export.report import Written

pytest.importorskip("ncnn", reason="the package ncnn is not installed here")

Export = Callable[..., tuple[Path, Path, Written]]


@pytest.fixture
def exported(random_checkpoint: Callable[..., Path], tmp_path: Path) -> Export:
    """A function: sizes -> checkpoint, ncnn file, what was written."""

    def make(backbone: str = "resnet18", **sizes: object) -> tuple[Path, Path, Written]:
        checkpoint = load_checkpoint(path := random_checkpoint(backbone, **sizes))
        written = write_ncnn(read_graph(Crnn.from_checkpoint(checkpoint)), checkpoint.info, Quantisation())
        out = tmp_path / f"{backbone}.ncnn.zip"
        out.write_bytes(written.content)
        return path, out, written

    return make


def test_the_same_network_makes_the_same_file(exported: Export) -> None:
    assert exported()[2].content == exported()[2].content


def test_a_value_with_several_readers_is_split_for_each(exported: Export) -> None:
    layers = unpack(exported("mobilenet_v3_small")[1], (PARAM,)).files[PARAM].decode().splitlines()
    assert layers[0] == "7767517"
    fields = [line.split() for line in layers[2:]]
    read, made = [], []
    for _, _, inputs, outputs, *names in fields:
        read += names[: int(inputs)]
        made += names[int(inputs) : int(inputs) + int(outputs)]
    assert layers[1] == f"{len(fields)} {len(made)}"
    assert len(set(read)) == len(read)  # ncnn reads a value once
    assert set(made) - set(read) == {"log_probs"}


def test_writing_needs_no_ncnn(random_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    monkeypatch.setitem(sys.modules, "ncnn", None)
    assert write_ncnn(read_graph(Crnn.from_checkpoint(checkpoint)), checkpoint.info, Quantisation()).content


def test_weights_beyond_half_precision_are_refused_with_their_layer(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    checkpoint.weights["classifier.weight"][0, 0] = 1e5
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    with pytest.raises(ValueError, match=r"weights of classifier reach 100000, .*; export to onnx instead"):
        write_ncnn(graph, checkpoint.info, Quantisation())


def test_an_operator_that_ncnn_has_no_layer_for_is_refused_by_name() -> None:
    @dataclass(frozen=True)
    class Gelu:
        output: str = "backbone.gelu"
        input: str = "pictures"

    graph = Graph((cast(Any, Gelu()),), 3, 32, 96)
    with pytest.raises(
        ValueError, match=r"the Gelu at backbone\.gelu is none that ncnn files can hold; export to onnx"
    ):
        write_ncnn(graph, cast(Any, None), Quantisation())


@pytest.mark.parametrize("damaged", [{PARAM: b"hello"}, {BIN: b""}])
def test_an_archive_without_a_whole_model_is_refused(exported: Export, damaged: dict[str, bytes]) -> None:
    out = exported()[1]
    archive = unpack(out, (PARAM, BIN))
    out.write_bytes(pack(replace(archive, files={**archive.files, **damaged})))
    with pytest.raises(ValueError, match=r"resnet18\.ncnn\.zip holds layers that this ncnn cannot load; upgrade"):
        NcnnRuntime(out)
