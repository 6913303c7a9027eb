"""Options: what flags, run files and the training loop make of them."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from crnn.commands import FitOptions, Until, own_packages_first, parse_options, rate, run_command, run_path, write_run
from crnn.train_cli import TrainOptions
from data.synthesis.source import SynthesisOptions


@dataclass(frozen=True)
class Inner:
    size: int = 3
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outer:
    """One of each type that options use."""

    out: Path
    kind: Literal["one", "two"] = "one"
    share: float = 0.5
    base: Path | None = None
    name: str | None = "x"
    weights: tuple[float, float] = (0.5, 1.0)
    names: tuple[str, ...] = ()
    on: bool = True
    inner: Inner = field(default_factory=Inner)


def parsed(path: Path, *argv: str) -> Outer:
    return parse_options(Outer, ["--options", str(path), *argv], "crnn test", "A test.")


def stored(tmp_path: Path, options: Outer) -> Path:
    """The run file of these options."""
    write_run(tmp_path / "m.pt", "crnn test", options, {"steps": 3})
    return tmp_path / "m.run.json"


def changed(path: Path, **fields: Any) -> Path:
    content = json.loads(path.read_text())
    content["options"] |= fields
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "options",
    [
        Outer(Path("m.pt")),
        Outer(
            Path("m.pt"), "two", 1.0, Path("a/ä"), None, (1.0, 2.0), ("p", "q"), False, Inner(7, (Path("f"), Path("g")))
        ),
    ],
)
def test_a_run_file_gives_the_options_it_was_written_with(tmp_path: Path, options: Outer) -> None:
    assert parsed(stored(tmp_path, options)) == options


def test_the_run_file_of_a_training_gives_its_options(tmp_path: Path) -> None:
    synth = SynthesisOptions(corpus=Path("words.txt"), font_folders=(Path("fonts"),), looks=(1.0, 0.0, 0.0, 0.0))
    fit = FitOptions(until=("20", "loss<0.1"), ema=0.9)
    options = TrainOptions(tmp_path / "m.pt", data=("a.lmdb:2", "synth"), case="lower", synth=synth, fit=fit)
    write_run(options.out, "crnn train", options, {})
    assert parse_options(TrainOptions, ["--options", str(run_path(options.out))], "crnn train", "") == options


def test_flags_on_the_line_override_the_run_file(tmp_path: Path) -> None:
    options = Outer(Path("m.pt"), share=0.25, inner=Inner(7))
    line = parsed(stored(tmp_path, options), "--kind", "two", "--inner.size", "9")
    assert line == replace(options, kind="two", inner=Inner(9))


def test_the_run_file_lies_beside_the_result_and_tells_command_and_result(tmp_path: Path) -> None:
    path = stored(tmp_path, Outer(Path("m.pt")))
    content = json.loads(path.read_text())
    assert content["command"] == "crnn test"
    assert content["result"] == {"steps": 3}
    assert run_path(Path("a/model.v2.pt")) == Path("a/model.v2.run.json")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"colour": "red"}, "colour"),
        ({"inner": {"size": 1, "depth": 2}}, "depth"),
        ({"kind": "three"}, "three is none of one, two"),
        ({"share": "much"}, "'much' where float belongs"),
        ({"share": True}, "True where float belongs"),
        ({"on": "no"}, "'no' where bool belongs"),
        ({"names": "synth"}, "'synth' where a list belongs"),
        ({"weights": [1.0]}, "where 2 values belong"),
        ({"inner": 3}, "3 where options belong"),
        ({"base": 3}, ""),
    ],
)
def test_what_the_run_file_of_another_command_holds_is_refused_and_named(
    tmp_path: Path, fields: dict[str, Any], told: str
) -> None:
    path = changed(stored(tmp_path, Outer(Path("m.pt"))), **fields)
    with pytest.raises(ValueError, match=r"m\.run\.json holds no options of crnn test") as caught:
        parsed(path)
    assert told in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"options": {}}', '{"options": []}', "\xff"])
def test_a_file_that_is_no_run_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"some\.json holds no options of crnn test"):
        parsed(path)


def test_a_run_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json does not exist"):
        parsed(tmp_path / "none.json")
    with pytest.raises(ValueError, match="--options needs the path"):
        parse_options(Outer, ["--out", "m.pt", "--options"], "crnn test", "")


def test_a_run_file_may_be_given_with_an_equals_sign(tmp_path: Path) -> None:
    options = Outer(Path("m.pt"), share=0.25)
    assert parse_options(Outer, [f"--options={stored(tmp_path, options)}"], "crnn test", "") == options


def test_the_rate_rises_in_equal_steps_to_the_whole_at_the_end_of_warm_up() -> None:
    options = FitOptions(until=("100",), warm_up=4, final_rate=0.1)
    assert [rate(step, options) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_the_rate_falls_along_half_a_cosine_to_its_end() -> None:
    options = FitOptions(until=("104",), warm_up=4, final_rate=0.1)
    assert rate(54, options) == pytest.approx(0.55)  # half way
    assert rate(104, options) == pytest.approx(0.1)
    assert rate(10_000, options) == pytest.approx(0.1)
    falling = [rate(step, options) for step in range(4, 105)]
    assert falling == sorted(falling, reverse=True)


def test_without_warm_up_the_rate_is_whole_from_the_start() -> None:
    assert rate(0, FitOptions(until=("10",), warm_up=0)) == 1.0


def test_until_without_a_number_of_steps_ends_at_100_000() -> None:
    assert Until.parse(("accuracy>0.9",)) == Until(100_000, accuracy=0.9)


def test_until_takes_spaces_and_exponents() -> None:
    assert Until.parse(("loss < 1e-2", "50")) == Until(50, loss=0.01)


@pytest.mark.parametrize(
    "fields", [{"batch_lines": 0}, {"accumulate": 0}, {"save_every": 0}, {"learning_rate": 0.0}, {"ema": 1.0}]
)
def test_options_that_train_nothing_are_refused_with_their_flag(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is "):
        FitOptions(**fields)


def test_a_command_has_a_learning_rate_of_its_own_where_none_is_given() -> None:
    assert FitOptions().at_rate(8e-3).learning_rate == 8e-3
    assert FitOptions(learning_rate=1e-3).at_rate(8e-3).learning_rate == 1e-3
    assert FitOptions(optimiser="sgd").at_rate(8e-3).learning_rate is None


def test_resolved_options_are_plain_values_but_for_paths() -> None:
    assert json.loads(json.dumps(asdict(FitOptions())))["until"] == ["10000"]


def test_an_interrupted_command_says_so_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    assert run_command("crnn train", interrupted, []) == 130
    assert capsys.readouterr().err == "crnn train: interrupted\n"


def test_a_character_that_the_terminal_lacks_is_escaped_and_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    assert run_command("crnn read", lambda _: print("5 \u20ac") or 0, []) == 0
    assert shown.getvalue() == b"5 \\u20ac\n"


def test_a_users_own_data_package_is_moved_behind_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    (tmp_path / "data.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path), "elsewhere", str(repository)])
    own_packages_first()
    import sys

    assert sys.path == ["elsewhere", str(repository), str(tmp_path)]
