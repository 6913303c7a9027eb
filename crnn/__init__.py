"""What a line recogniser is, how it learns and how it reads: `crnn.load(path).read(pictures)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crnn.charset import Charset
    from crnn.recogniser import Recogniser, load

__all__ = ["Charset", "Recogniser", "load"]


def __getattr__(name: str) -> object:
    """The public names, imported when first asked for, so that `import crnn` is instant."""
    if name == "Charset":
        from crnn.charset import Charset

        return Charset
    if name in ("Recogniser", "load"):
        from crnn import recogniser

        return getattr(recogniser, name)
    raise AttributeError(f"module 'crnn' has no attribute {name!r}")
