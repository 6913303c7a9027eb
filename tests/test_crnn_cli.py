"""The crnn command: what it lists, how it fails, and that a user's own files do not stand in its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from crnn.cli import COMMANDS, main
from crnn.commands import run_command


def test_help_lists_every_command_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert all(f"  {name} " in printed and command.summary in printed for name, command in COMMANDS.items())


def test_help_imports_nothing_heavy(repository: Path) -> None:
    script = (
        "import sys\nfrom crnn.cli import main\nmain(['--help'])\n"
        "print([m for m in ('torch', 'numpy', 'cv2', 'tyro', 'rich', 'lmdb') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_group_lists_its_own_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == main(["data", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "data import" in printed
    assert "bench" not in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(getattr(import_module(COMMANDS[name].module), COMMANDS[name].function))
    assert main([*name.split(), "--help"]) == 0
    assert f"usage: crnn {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["tran"], "'train'"), (["data", "imprt", "x.zip"], "'data import'"), (["dat", "show"], "'data show'")],
)
def test_an_unknown_command_is_answered_with_the_nearest_and_all_known(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    error = capsys.readouterr().err
    assert f"did you mean {meant}?" in error
    assert all(name in error for name in COMMANDS)


def test_what_resembles_nothing_gets_no_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zzz"]) == 2
    assert "there is no command 'zzz'; known are train, read" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pocket-crnn ")


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def command(argv: list[str]) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (ValueError("x.tsv is empty; fill it"), 1, "crnn do: x.tsv is empty; fill it\n"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), 1, "crnn do: a.png: No such file or directory\n"),
        (OSError("x could not be written; free some space"), 1, "crnn do: x could not be written; free some space\n"),
        (KeyboardInterrupt(), 130, "crnn do: interrupted\n"),
        (SystemExit(2), 2, ""),
        (SystemExit(0), 0, ""),
    ],
)
def test_an_error_is_one_sentence_and_a_status(
    error: BaseException, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("crnn do", raising(error), []) == status
    assert capsys.readouterr().err == sentence


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(AssertionError):
        run_command("crnn do", raising(AssertionError("a fault")), [])


def test_a_traceback_is_shown_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POCKET_CRNN_TRACEBACK", "1")
    assert run_command("crnn do", raising(ValueError("wrong")), []) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("crnn do: wrong\n")


def test_a_reader_that_leaves_early_is_no_error(repository: Path) -> None:
    script = (
        "import sys\nfrom crnn.commands import run_command\n"
        "def endless(argv):\n    while True: print('line')\nsys.exit(run_command('crnn', endless, []))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=repository) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """A working folder with packages and modules of the user's that are called like ours."""
    folder = tmp_path / "project"
    for name in ("data/__init__.py", "data/lines.py", "export.py", "benchmarks.py", "distill/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise RuntimeError('the user module was imported')\n")
    return folder


@pytest.mark.parametrize("way", ["-m", "script", "script and PYTHONPATH"])
def test_commands_work_from_a_folder_with_the_users_own_data_and_export(
    own_files: Path, labelled_folder: Path, repository: Path, way: str
) -> None:
    script = labelled_folder.parent / "crnn"
    script.write_text("import sys\nfrom crnn.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    start = ["-m", "crnn"] if way == "-m" else [str(script)]
    places = [str(own_files)] * (way == "script and PYTHONPATH") + [str(repository)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    for arguments in (
        ["data", "import", str(labelled_folder), "--out", "words.lmdb"],
        ["data", "make", "--out", "drawn.lmdb", "--count", "70", "--workers", "2", "--fonts", "all"],
        ["data", "show", "words.lmdb"],
        ["export", "--help"],
        ["bench", "--help"],
    ):
        command = [sys.executable, *start, *arguments]
        run = subprocess.run(command, cwd=own_files, env=environment, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, "")
    assert (own_files / "sheet.png").exists()
