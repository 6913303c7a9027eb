"""The one place that knows every command: a literal table, so that help is instant; only the chosen one is imported."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from crnn.commands import USAGE_ERROR, run_command


class Command(NamedTuple):
    """module: imported when the command is called. function: takes the arguments, gives the exit status."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "train": Command("crnn.train_cli", "main", "train a recogniser on stored and synthetic lines"),
    "read": Command("crnn.read", "main", "read the text of pictures with any model file"),
    "export": Command("export.command", "main", "write a model for other runtimes, parity proven"),
    "bench": Command("benchmarks.bench", "main", "accuracy against size and time, as JSON and HTML"),
    "extend-charset": Command("distill.extend_cli", "main", "teach a model more characters without forgetting others"),
    "rebalance": Command("distill.extend_cli", "rebalance_main", "more of the added characters, or of the old ones"),
    "info": Command("crnn.info", "main", "tell charset, sizes, input and origin of a model file"),
    "characters train": Command("crnn.characters.train_cli", "main", "train a model of single characters on crops"),
    "characters episodes": Command("crnn.characters.episodes_cli", "main", "train a few-shot model by episodes"),
    "characters classify": Command("crnn.characters.classify_cli", "main", "name the characters on crops, and sort"),
    "characters learn": Command("crnn.characters.learn_cli", "main", "new characters from a few crops, untrained"),
    "characters forget": Command("crnn.characters.learn_cli", "forget_main", "take learnt characters out again"),
    "import-teacher": Command("crnn.import_teacher", "main", "a model of EasyOCR or dtrb as a checkpoint of ours"),
    "label": Command("benchmarks.label", "main", "label pictures with any recogniser, for training"),
    "data import": Command("crnn.data_import", "main", "pictures and their labels into an LMDB"),
    "data export": Command("crnn.data_export", "main", "a set of lines as pictures with labels.tsv, or as an LMDB"),
    "data make": Command("crnn.data_make", "main", "synthetic lines into an LMDB"),
    "data check": Command("crnn.data_check", "main", "what is wrong with sets of lines, with keys"),
    "data stats": Command("crnn.data_stats", "main", "lengths, sizes and characters of sets of lines"),
    "data show": Command("crnn.data_show", "main", "a contact sheet of any source of lines"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that argv names and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(help_text(), end="")
        return 0
    if arguments[0] == "--version":
        print(f"pocket-crnn {version()}")
        return 0
    words = 2 if any(name.startswith(arguments[0] + " ") for name in COMMANDS) else 1
    name = " ".join(arguments[:words])
    if words == 2 and (len(arguments) == 1 or arguments[1] in ("--help", "-h", "help")):
        print(help_text(arguments[0]), end="")
        return 0
    if name not in COMMANDS:
        print(unknown_command(arguments), file=sys.stderr)
        return USAGE_ERROR
    command = COMMANDS[name]

    def imported(rest: list[str]) -> int:
        function: Callable[[list[str]], int] = getattr(import_module(command.module), command.function)
        return function(rest)

    return run_command(f"crnn {name}", imported, arguments[words:])


def help_text(group: str = "") -> str:
    """The commands, one a line; of one group, or all."""
    names = [name for name in COMMANDS if name.startswith(group)]
    width = max(map(len, names))
    lines = [f"usage: crnn {group or '[--version] COMMAND'} ...", ""]
    lines += [f"  {name:{width}}  {COMMANDS[name].summary}" for name in names]
    lines += ["", "crnn COMMAND --help tells its flags; `distill` teaches a small recogniser by a large one."]
    return "\n".join(lines) + "\n"


def unknown_command(arguments: list[str]) -> str:
    """Lists the known commands, with the nearest one where there is any."""
    two_words = " ".join(arguments[:2])
    name = two_words if two_words.startswith(("data ", "characters ")) else arguments[0]
    near = difflib.get_close_matches(two_words, COMMANDS, n=1) or difflib.get_close_matches(arguments[0], COMMANDS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"crnn: there is no command {name!r}{hint} known are {', '.join(COMMANDS)}"


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("pocket-crnn")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"
