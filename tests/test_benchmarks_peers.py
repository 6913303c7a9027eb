"""Peers stand in the table as our models do; one that is not installed is refused with what to install."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.bench import BenchOptions, main
from benchmarks.peers import PEERS, Peer, PeerCharset, PeerRecogniser, chosen_peers, open_peer, stored_numbers
from data.lines import Picture


def read_red(picture: Picture) -> tuple[str, float]:
    """An a for every eight columns that are red, and how much of the picture that is."""
    red = (picture[0, :, 0] > 200) & (picture[0, :, 1] < 50)
    return "a" * int(red.sum() // 8), float(red.mean())


@pytest.fixture
def reads_red(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A peer that reads the letter a alone stands in the table, and says that it can write nothing else."""
    file = tmp_path / "red.bin"
    file.write_bytes(bytes(1000))

    def opened(threads: int) -> PeerRecogniser:
        return PeerRecogniser("looks for red", file, None, threads, PeerCharset(frozenset("a")), read_red)

    monkeypatch.setitem(PEERS, "red", Peer("looks for red", opened, ("numpy",)))


@pytest.fixture
def lines(tmp_path: Path, paint: Callable[[str], Picture]) -> Path:
    folder = tmp_path / "lines"
    folder.mkdir()
    for name, text in {"1": "aa..", "2": "a.a.", "3": "ab.."}.items():
        cv2.imwrite(str(folder / f"{name}.png"), paint(text)[:, :, ::-1])
    (folder / "labels.tsv").write_text("1.png\taa\n2.png\taa\n3.png\tab\n")
    return folder


def test_a_peer_stands_in_the_same_table_and_page(
    reads_red: None, lines: Path, colour_reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "r.json", tmp_path / "r.html"
    arguments = ["--models", str(colour_reader), "--peers", "red", "--data", str(lines), "--json", str(out)]
    arguments += ["--report", str(page), "--latency-lines", "3", "--latency-rounds", "1", "--readings"]
    assert main(arguments) == 0
    results = json.loads(out.read_text())
    ours, peer = results["models"]
    assert (peer["name"], peer["bytes"], peer["parameters"], peer["target"]) == ("red", 1000, None, "peer")
    assert peer["packages"] == {"numpy": np.__version__}
    first, second = results["results"]
    assert (first["exact"], second["exact"]) == (2 / 3, 2 / 3)
    assert second["uncovered_lines"] == 1
    assert [reading["text"] for reading in results["readings"]["red"]["lines"]] == ["aa", "aa", "a"]
    assert ours["latency"]["ends_at"] == peer["latency"]["ends_at"] == "text"
    assert "looks for red" in page.read_text()
    assert "recogniser of others" in page.read_text()
    assert "from the picture to the text" in page.read_text()
    assert "red" in capsys.readouterr().out


def test_without_peers_time_is_of_the_network_alone(lines: Path, colour_reader: Path, tmp_path: Path) -> None:
    main(["--models", str(colour_reader), "--data", str(lines), "--json", str(tmp_path / "r.json")])
    (model,) = json.loads((tmp_path / "r.json").read_text())["models"]
    assert model["latency"]["ends_at"] == "log_probs"


def test_peers_can_stand_alone(reads_red: None, lines: Path, tmp_path: Path) -> None:
    assert main(["--peers", "red", "--data", str(lines), "--json", str(tmp_path / "r.json")]) == 0


def test_all_are_all_but_variants_of_others() -> None:
    assert chosen_peers(("all",)) == ("tesseract", "easyocr", "pp-ocr-v4", "pp-ocr-v6-small")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [(("abbyy",), "no peer 'abbyy'; known are all, tesseract"), (("easyocr",) * 2, "given twice")],
)
def test_an_unknown_peer_is_told_the_known_ones(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        BenchOptions(data=(Path("lines"),), peers=names)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="--models or --peers, and --data"):
        BenchOptions(data=(Path("lines"),))


def test_a_reading_is_in_nfc_and_its_confidence_a_share() -> None:
    peer = PeerRecogniser("", Path("x"), None, 1, PeerCharset(None), lambda picture: ("e\u0301", 1.5))
    (reading,) = peer.read([np.zeros((4, 4, 3), np.uint8)])
    assert (reading.text, reading.confidence) == ("\u00e9", 1.0)


def test_what_a_peer_cannot_write_is_told_where_it_says() -> None:
    assert PeerCharset(frozenset("ab")).missing("abcc") == "c"
    assert PeerCharset(None).missing("abcc") == ""


def test_numbers_of_an_onnx_file_are_counted(colour_reader: Path) -> None:
    assert stored_numbers(colour_reader) == 12


MODULES = {
    "tesseract": "tesserocr",
    "tesseract-word": "tesserocr",
    "easyocr": "easyocr",
    "pp-ocr-v4": "rapidocr_onnxruntime",
    "pp-ocr-v4-unpadded": "rapidocr_onnxruntime",
    "pp-ocr-v6-small": "rapidocr",
}


@pytest.mark.parametrize("name", list(PEERS))
def test_a_peer_that_is_not_installed_is_refused_with_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, MODULES[name], None)  # as if it were not there
    with pytest.raises(ValueError, match=rf"the peer {name} needs .*pip install 'pocket-crnn\[peers\]'"):
        open_peer(name)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(PEERS))
def test_an_installed_peer_reads_a_word(name: str) -> None:
    pytest.importorskip(MODULES[name], reason=f"{MODULES[name]} is not installed")
    picture = np.full((48, 200, 3), 255, np.uint8)
    cv2.putText(picture, "Total", (20, 36), cv2.FONT_HERSHEY_DUPLEX, 1.3, (0, 0, 0), 2, cv2.LINE_AA)
    peer = open_peer(name)
    (reading,) = peer.read([picture])
    assert reading.text == "Total"
    assert 0 < reading.confidence <= 1
    assert peer.file.stat().st_size > 1e6
    assert peer.charset.missing("Total 12.50") == ""
