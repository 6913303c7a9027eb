"""`python -m crnn` is the `crnn` command."""

from __future__ import annotations

import sys

from crnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
