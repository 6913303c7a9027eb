"""`crnn bench` on lines whose text a model of colours reads, so that every figure is known beforehand."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.bench import BenchOptions, bench, distinct, main
from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint, save_checkpoint
from data.lines import Picture
from export.command import main as export_main
from export.targets import NOT_IN_ALL, TARGETS


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[..., Path]:
    """A function: name, pictures with labels -> a zip with labels.tsv."""

    def make(name: str, lines: list[tuple[Picture, str]]) -> Path:
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            rows = ""
            for number, (picture, label) in enumerate(lines):
                archive.writestr(f"images/{number}.png", cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
                rows += f"images/{number}.png\t{label}\n"
            archive.writestr("labels.tsv", rows)
        return path

    return make


@pytest.fixture
def colours(paint: Callable[[str], Picture], zipped: Callable[..., Path]) -> Path:
    """Five lines: two right, one right but for case, one with a wrong letter, one with a letter that has no colour."""
    return zipped(
        "colours",
        [
            (paint("ab.c"), "abc"),
            (paint("c.c."), "cc"),
            (paint("ba.."), "BA"),
            (paint("abca"), "abba"),
            (paint("a..b"), "axb"),
        ],
    )


@pytest.fixture
def results(colour_reader: Path, colours: Path, tmp_path: Path) -> dict[str, Any]:
    json_path, report = tmp_path / "results.json", tmp_path / "report.html"
    arguments = ["--models", str(colour_reader), "--data", str(colours), "--readings", "--latency-lines", "2"]
    assert main([*arguments, "--json", str(json_path), "--report", str(report)]) == 0
    found: dict[str, Any] = json.loads(json_path.read_text())
    return found


def test_figures_never_take_the_place_of_what_is_read(colour_reader: Path, colours: Path, tmp_path: Path) -> None:
    given = ["--models", str(colour_reader), "--data", str(colours)]
    before = colour_reader.read_bytes(), colours.read_bytes()
    for flags in (["--json", str(colour_reader)], ["--json", str(tmp_path / "r.json"), "--report", str(colours)]):
        with pytest.raises(ValueError, match="is, or belongs to, what is read here"):
            main([*given, *flags])
    assert (colour_reader.read_bytes(), colours.read_bytes()) == before
    with pytest.raises(ValueError, match="give each a name of its own"):
        main([*given, "--json", str(tmp_path / "r.x"), "--report", str(tmp_path / "r.x")])
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file/r.json"):  # said before anything is read
        with pytest.raises(OSError, match=r"is a folder|File exists|Not a directory"):
            main([*given, "--json", str(place)])


def test_a_place_that_cannot_be_written_is_named_before_anything_is_read(
    colour_reader: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", read_only)
    monkeypatch.setattr("benchmarks.bench.read_sets", None)
    given = ["--models", str(colour_reader), "--data", str(colours), "--json", str(tmp_path / "r.json")]
    with pytest.raises(OSError, match=r"--json .*r\.json cannot be written \(Read-only file system\); choose another"):
        main(given)


def test_accuracy_counts_lines_and_letters(results: dict[str, Any]) -> None:
    (figures,) = results["results"]
    assert (figures["model"], figures["set"], figures["lines"]) == ("colours.onnx", "colours", 5)
    assert figures["exact"] == 2 / 5
    assert figures["acc36"] == 3 / 5
    assert figures["cer"] == pytest.approx((2 + 1 + 1) / (3 + 2 + 2 + 4 + 3))
    low, high = figures["exact_interval"]
    assert 0 <= low < 0.4 < high <= 1


def test_a_label_outside_the_charset_counts_as_wrong_and_is_told(results: dict[str, Any]) -> None:
    assert results["results"][0]["uncovered_lines"] == 2  # x, and the upper case that this charset keeps


def test_without_case_the_upper_case_line_is_right(colour_reader: Path, colours: Path, tmp_path: Path) -> None:
    options = BenchOptions((colour_reader,), (colours,), tmp_path / "r.json", case_blind=True, latency_lines=0)
    results = bench(options, "crnn bench ...")
    assert results["results"][0]["exact"] == 3 / 5
    assert results["models"][0]["latency"] is None


SCHEMA: dict[str, Any] = {
    "version": int,
    "command": str,
    "date": str,
    "seed": int,
    "threads": int,
    "case_blind": bool,
    "machine": {"cpu": str, "cores": int, "system": str, "python": str, "versions": {"torch": str, "onnxruntime": str}},
    "models": [
        {
            "name": str,
            "file": str,
            "parameters": int,
            "bytes": int,
            "threads": int,
            "characters": int,
            "case": str,
            "sizes": {"backbone": str, "width": float},
            "latency": {"p50_ms": float, "p95_ms": float, "timings": int, "lines": int, "rounds": int, "batch": int},
        }
    ],
    "sets": [{"name": str, "file": str, "lines": int, "unlabelled": int}],
    "frequency": {"many": str, "medium": str, "few": str},
    "characters": {"colours.onnx": {"macro": float, "outside": int, "many": {"held": int, "read": float}}},
    "confidence": {"colours.onnx": {"calibration_error": float, "kept": dict, "accuracy_of_surest": [float]}},
    "results": [{"exact": float, "exact_interval": [float], "acc36": float, "acc36_lines": int, "same_text": dict}],
    "confusions": {"colours.onnx": [{"label": str, "read": str, "count": int}]},
}


def check(value: Any, schema: Any, place: str) -> None:
    if isinstance(schema, Mapping):
        for key, inner in schema.items():
            assert key in value, f"{place} lacks {key}"
            check(value[key], inner, f"{place}.{key}")
    elif isinstance(schema, list):
        assert value, f"{place} is empty"
        for entry in value:
            check(entry, schema[0], place)
    else:
        assert isinstance(value, schema), f"{place} is {value!r}"


def test_the_json_has_what_a_later_reader_needs(results: dict[str, Any]) -> None:
    check(results, SCHEMA, "results")
    assert results["command"].startswith("crnn bench --models ")


def test_characters_are_grouped_by_the_sets_themselves_where_no_model_says_what_it_learnt(
    results: dict[str, Any], tmp_path: Path
) -> None:
    groups = results["frequency"]
    assert groups["counts_of"] is None
    # of the labels abc, cc, BA, abba and axb: 14 characters of 6 kinds, so an even share is 2.3, a fifth of it 0.5
    assert (groups["many"], groups["medium"], groups["few"]) == ("abc", "ABx", "")
    found = results["characters"]["colours.onnx"]
    assert (found["many"]["held"], found["many"]["read"]) == (11, pytest.approx(10 / 11))
    assert (found["medium"]["held"], found["medium"]["read"]) == (3, 0.0)
    assert found["few"] == {"characters": 0, "held": 0, "read": None, "interval": None}
    assert found["macro"] == pytest.approx((1 + 3 / 4 + 1 + 0 + 0 + 0) / 6)
    assert found == results["results"][0]["characters"]  # there is one set
    assert "Frequent and rare characters" in (tmp_path / "report.html").read_text()


def test_characters_are_grouped_by_what_the_first_model_learnt_from(
    random_checkpoint: Callable[..., Path], colour_reader: Path, colours: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(random_checkpoint(charset=Charset.of("abcx")))
    taught = checkpoint.with_provenance(characters={"lines": 9, "counts": [900, 60, 0, 40]})
    save_checkpoint(tmp_path / "taught.pt", taught)
    options = BenchOptions((colour_reader, tmp_path / "taught.pt"), (colours,), tmp_path / "r.json", latency_lines=0)
    results = bench(options, "crnn bench ...")
    groups = results["frequency"]
    assert (groups["counts_of"], groups["many"], groups["medium"], groups["few"]) == ("taught.pt", "a", "b", "cx")
    found = results["characters"]["colours.onnx"]
    assert (found["few"]["held"], found["few"]["read"]) == (4, pytest.approx(3 / 4))
    assert found["outside"] == 2  # B and A


def test_without_case_both_cases_of_a_character_are_one(colour_reader: Path, colours: Path, tmp_path: Path) -> None:
    options = BenchOptions((colour_reader,), (colours,), tmp_path / "r.json", case_blind=True, latency_lines=0)
    found = bench(options, "crnn bench ...")
    assert found["frequency"]["many"] == "ab"
    assert found["characters"]["colours.onnx"]["many"]["held"] == 10


def test_times_are_of_single_lines_and_in_order(results: dict[str, Any]) -> None:
    latency = results["models"][0]["latency"]
    assert 0 < latency["p50_ms"] <= latency["p95_ms"]
    assert (latency["batch"], latency["lines"], latency["timings"]) == (1, 2, 2 * latency["rounds"])
    assert latency["widths"] == {"least": 32, "median": 32, "most": 32}


def test_a_model_reads_with_known_words_beside_itself_and_is_timed_to_the_text(
    colour_reader: Path, paint: Callable[[str], Picture], zipped: Callable[..., Path], tmp_path: Path
) -> None:
    doubtful = np.ascontiguousarray(paint("c.b.b."))
    doubtful[:, 16:24] = (240, 255, 0)  # a little greener than red: b before a, and "cab" is listed
    options = BenchOptions(
        (colour_reader,), (zipped("doubtful", [(doubtful, "cab")]),), tmp_path / "r.json", words=True, latency_rounds=1
    )
    found = bench(options, "crnn bench")
    assert [(row["model"], row["exact"]) for row in found["results"]] == [
        ("colours.onnx", 0.0), ("colours.onnx +words", 1.0),
    ]  # fmt: skip
    assert {model["latency"]["ends_at"] for model in found["models"]} == {"text"}


def test_readings_are_kept_where_asked(results: dict[str, Any]) -> None:
    readings = results["readings"]["colours.onnx"]["colours"]
    assert [reading["text"] for reading in readings] == ["abc", "cc", "ba", "abca", "ab"]
    assert readings[3]["key"].endswith("images/3.png")
    assert all(0.9 < reading["confidence"] <= 1 for reading in readings)


def test_confusions_name_what_was_read_for_what(results: dict[str, Any]) -> None:
    assert results["confusions"]["colours.onnx"] == [
        {"label": "b", "read": "c", "count": 1},
        {"label": "x", "read": "", "count": 1},
    ]


class Page(HTMLParser):
    """What a page shows and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                self.fetched.append(value)
        self.pictures += tag == "img"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_holds_figures_and_mistakes_and_fetches_nothing(results: dict[str, Any], tmp_path: Path) -> None:
    page = Page()
    page.feed(html := (tmp_path / "report.html").read_text())
    shown = " ".join(page.text)
    assert "40.0" in shown  # exact
    assert "60.0" in shown  # acc36
    assert f"{results['models'][0]['latency']['p50_ms']:.1f}" in shown
    assert results["machine"]["cpu"] in shown
    assert page.pictures == 2  # abba and axb; the line that is right but for case is no mistake worth a picture
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_the_same_network_in_another_format_reads_the_same(
    random_checkpoint: Callable[..., Path],
    draw_word: Callable[[str], Picture],
    zipped: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = random_checkpoint()
    file = tmp_path / "s.onnx"
    data = zipped("words", [(draw_word(text), text) for text in ("Milk", "2.50", "Total", "book")])
    export_main(["--model", str(checkpoint), "--out", str(file), "--data", str(data)])
    capsys.readouterr()
    arguments = ["--models", str(checkpoint), str(file), "--data", str(data), "--latency-rounds", "1"]
    assert main([*arguments, "--json", str(tmp_path / "r.json"), "--report", str(tmp_path / "r.html")]) == 0
    first, second = json.loads((tmp_path / "r.json").read_text())["results"]
    assert second["same_text"] == {"resnet18.pt": 4}
    assert first["difference"] is None
    assert second["difference"] == {"to": "resnet18.pt", "exact": 0.0, "exact_interval": [0.0, 0.0]}
    sentence = "s.onnx gives the same text as resnet18.pt on 4 of 4 lines."
    assert sentence in capsys.readouterr().out
    assert sentence in (tmp_path / "r.html").read_text()


def test_fewer_lines_are_drawn_by_seed(colour_reader: Path, colours: Path, tmp_path: Path) -> None:
    def keys(seed: int) -> list[str]:
        options = BenchOptions(
            (colour_reader,), (colours,), tmp_path / "r.json", limit=2, seed=seed, readings=True, latency_lines=0
        )
        return [line["key"] for line in bench(options, "")["readings"]["colours.onnx"]["colours"]]

    assert len(keys(0)) == 2
    assert keys(0) == keys(0)
    assert len({tuple(keys(seed)) for seed in range(6)}) > 1


def test_a_set_without_labels_is_refused(colour_reader: Path, tmp_path: Path, paint: Callable[[str], Picture]) -> None:
    (tmp_path / "plain").mkdir()
    cv2.imwrite(str(tmp_path / "plain" / "a.png"), np.ascontiguousarray(paint("abc")[:, :, ::-1]))
    with pytest.raises(ValueError, match=r"plain has 1 lines, but no labels"):
        bench(BenchOptions((colour_reader,), (tmp_path / "plain",), tmp_path / "r.json"), "")
    assert not (tmp_path / "r.json").exists()


def test_a_line_with_an_empty_label_is_not_scored(
    colour_reader: Path, tmp_path: Path, paint: Callable[[str], Picture], zipped: Callable[..., Path]
) -> None:
    lines = zipped("some", [(paint("abc"), "abc"), (paint("abc"), "")])
    found = bench(BenchOptions((colour_reader,), (lines,), tmp_path / "r.json", latency_lines=0), "")
    assert (found["sets"][0]["lines"], found["sets"][0]["unlabelled"]) == (1, 1)
    assert found["results"][0]["exact"] == 1


def test_two_files_of_one_name_are_told_apart_by_their_path() -> None:
    assert distinct([Path("a/s.pt"), Path("b/s.pt"), Path("t.pt")], ["s.pt", "s.pt", "t.pt"]) == [
        "a/s.pt",
        "b/s.pt",
        "t.pt",
    ]
    with pytest.raises(ValueError, match="is given twice"):
        distinct([Path("s.pt"), Path("s.pt")], ["s.pt", "s.pt"])


@pytest.mark.parametrize("flag", ["threads", "batch", "latency_rounds"])
def test_a_number_below_one_is_refused_by_its_flag(flag: str) -> None:
    with pytest.raises(ValueError, match=f"--{flag.replace('_', '-')} is 0"):
        BenchOptions((Path("s.pt"),), (Path("a.zip"),), **{flag: 0})  # type: ignore[arg-type]


def test_every_export_format_can_be_compared(
    random_checkpoint: Callable[..., Path],
    draw_word: Callable[[str], Picture],
    zipped: Callable[..., Path],
    tmp_path: Path,
) -> None:
    checkpoint = random_checkpoint()
    data = zipped("words", [(draw_word(text), text) for text in ("Milk", "2.50", "Total", "book")])
    out = ["--out", str(tmp_path), "--fixed-width", "96"]
    export_main(["--model", str(checkpoint), "--to", "all", "--data", str(data), *out])
    written = [name for name in TARGETS if name not in NOT_IN_ALL]
    files = [tmp_path / f"resnet18{TARGETS[name].suffix}" for name in written]
    options = BenchOptions((checkpoint, *files), (data,), tmp_path / "r.json", latency_lines=2, latency_rounds=1)
    models = bench(options, "crnn bench ...")["models"]
    assert [model["target"] for model in models] == ["", *written]
    assert all(model["bytes"] > 0 and model["latency"]["p50_ms"] > 0 for model in models)
