"""A progress bar on stderr for what lasts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def with_progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a bar while stderr is a terminal."""
    console = Console(stderr=True)
    yield from track(items, what, total, console=console, transient=True, disable=not sys.stderr.isatty())
