"""The shape of the repository: what is installed, what imports what, and what things may be called."""

from __future__ import annotations

import ast
import email
import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

from crnn.cli import COMMANDS
from data.synthesis.fonts import packaged_folders

MAY_IMPORT = {
    "data": {"data"},
    "crnn": {"crnn", "data"},
    "distill": {"distill", "crnn", "data"},
    "export": {"export", "crnn", "data"},
    "benchmarks": {"benchmarks", "distill", "export", "crnn", "data"},
}
"""Package -> those of ours that it may import, at any depth of its code; crnn/cli.py alone is exempt."""

READS_WITHOUT_TORCH = (
    "crnn",
    "data.lines",
    "data.picture",
    "data.folder_lines",
    "data.lmdb_lines",
    "crnn.charset",
    "crnn.checkpoint",
    "crnn.ctc",
    "crnn.recogniser",
    "crnn.runtimes",
    "crnn.runtimes.archive",
    "crnn.runtimes.litert_runtime",
    "crnn.runtimes.mnn_adapter",
    "crnn.runtimes.ncnn_adapter",
    "crnn.runtimes.onnx_runtime",
    "crnn.read",
)
"""What reading with an exported file imports."""

SAYS_NOTHING = {"common", "helper", "helpers", "misc", "tools", "util", "utils"}


def sources(repository: Path) -> list[Path]:
    """Every module of the packages, relative to the repository."""
    found = (path.relative_to(repository) for package in MAY_IMPORT for path in (repository / package).rglob("*.py"))
    return sorted(found)


def imports(repository: Path, source: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, also inside functions and through import_module."""
    for node in ast.walk(ast.parse((repository / source).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            within = source.parts[0] if node.level else ""
            yield node.lineno, ".".join(part for part in (within, node.module) if part)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield node.lineno, str(name.value)


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy of the tree, for setuptools writes beside what it builds."""
    tree = tmp_path_factory.mktemp("tree")
    for name in (*MAY_IMPORT, "tests"):
        shutil.copytree(repository / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(repository / name, tree / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    built = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = (tree / "dist").glob("pocket_crnn-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def files_of_packages(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode("utf-8")


def requirements(wheel: zipfile.ZipFile) -> dict[str, set[str]]:
    """Extra ("" for none) -> normalised names of the distributions it asks for."""
    found: dict[str, set[str]] = {}
    for line in email.message_from_string(metadata(wheel, "METADATA")).get_all("Requires-Dist", []):
        extra = re.search(r"extra == [\"'](\w+)[\"']", line)
        found.setdefault(extra[1] if extra else "", set()).add(normalised(re.split(r"[^\w.-]", line, maxsplit=1)[0]))
    return found


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def torch_is_imported_by(repository: Path, modules: Sequence[str]) -> str:
    """The first of these modules that brings torch into a new process, or what went wrong; "" where none does."""
    report = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if {'torch', 'torchvision'} & set(sys.modules): sys.exit(name)\n"
    )
    command = [sys.executable, "-c", report, *modules]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True).stderr.strip()


def test_the_wheels_top_level_is_exactly_the_five_packages(wheel: zipfile.ZipFile) -> None:
    top_level = {name.split("/")[0] for name in wheel.namelist()}
    (described,) = (name for name in top_level if name.endswith(".dist-info"))
    assert top_level - {described} == {"crnn", "distill", "export", "data", "benchmarks"}


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(repository: Path, wheel: zipfile.ZipFile) -> None:
    in_tree = {
        path.relative_to(repository).as_posix()
        for package in MAY_IMPORT
        for path in (repository / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files_of_packages(wheel) == in_tree, "write the package or its files into setup.py, or remove the file"


def test_the_wheel_holds_no_tests(wheel: zipfile.ZipFile) -> None:
    names = {name.rsplit("/")[-1] for name in wheel.namelist()}
    assert not {name for name in names if name.startswith("test_") or name == "conftest.py"}


def test_the_console_scripts_name_functions_that_exist(wheel: zipfile.ZipFile) -> None:
    declared = ConfigParser()
    declared.read_string(metadata(wheel, "entry_points.txt"))
    scripts = dict(declared["console_scripts"])
    assert set(scripts) == {"crnn", "distill"}
    for script in scripts.values():
        module, function = script.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_imports_point_one_way(repository: Path) -> None:
    against = [
        f"{source}:{line} imports {name}"
        for source in sources(repository)
        if source != Path("crnn/cli.py")
        for line, name in imports(repository, source)
        if (root := name.split(".")[0]) in {*MAY_IMPORT, "tests"} and root not in MAY_IMPORT[source.parts[0]]
    ]
    assert not against


def test_a_package_of_ours_is_never_imported_by_a_name_that_hides_variables(repository: Path) -> None:
    bare = [
        f"{source}:{line} imports {name}"
        for source in sources(repository)
        for line, name in imports(repository, source)
        if name in ("data", "export", "distill")
    ]
    assert not bare, "write `from data.lines import Line`, not `import data`"


def test_no_module_is_named_after_a_library(repository: Path) -> None:
    imported = {
        name.split(".")[0] for source in sources(repository) for _, name in imports(repository, source)
    } - MAY_IMPORT.keys()
    libraries = imported | set(sys.stdlib_module_names) | {"tensorflow", "tflite", "ncnn"}
    assert not [str(source) for source in sources(repository) if source.stem in libraries]


def test_no_module_has_a_name_that_says_nothing(repository: Path) -> None:
    names = [*sources(repository), *(p.relative_to(repository) for p in (repository / "tests").rglob("*.py"))]
    assert not [str(path) for path in names if SAYS_NOTHING & {part.removesuffix(".py") for part in path.parts}]


def test_the_reading_path_imports_no_torch(repository: Path) -> None:
    assert torch_is_imported_by(repository, READS_WITHOUT_TORCH) == ""


def test_the_help_of_no_command_imports_torch(repository: Path) -> None:
    modules = ["crnn.cli", "distill.cli", *(command.module for command in COMMANDS.values())]
    assert torch_is_imported_by(repository, modules) == ""


def test_every_imported_library_is_declared_and_every_declared_one_is_imported(
    repository: Path, wheel: zipfile.ZipFile
) -> None:
    provided_by = packages_distributions()
    declared = {name for extra, names in requirements(wheel).items() if extra not in ("dev", "fonts") for name in names}
    used: set[str] = set()
    undeclared = []
    for source in sources(repository):
        for line, name in imports(repository, source):
            root = name.split(".")[0]
            if root in MAY_IMPORT or root in sys.stdlib_module_names:
                continue
            distributions = {normalised(provider) for provider in provided_by.get(root, [root])}
            used |= distributions
            if not distributions & declared:
                undeclared.append(f"{source}:{line} imports {name}")
    assert not undeclared
    assert not requirements(wheel)[""] - used


def test_synthesis_finds_the_fonts_of_every_installed_package_of_the_extra(wheel: zipfile.ZipFile) -> None:
    unfound, installed = [], 0
    for name in sorted(requirements(wheel)["fonts"]):
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            continue
        installed += 1
        folders = {Path(str(file.locate())).parent for file in files if file.suffix in (".otf", ".ttf")}
        if not any(folder.is_relative_to(known) for folder in folders for known in packaged_folders()):
            unfound.append(name)
    if not installed:
        pytest.skip("the extra fonts is not installed here")
    assert not unfound


def test_every_dependency_is_explained(repository: Path, wheel: zipfile.ZipFile) -> None:
    explained = (repository / "docs" / "dependencies.md").read_text(encoding="utf-8")
    named = {normalised(name) for name in re.findall(r"`([\w.-]+)`", explained)}
    asked_for = {name for names in requirements(wheel).values() for name in names}
    assert not asked_for - named
