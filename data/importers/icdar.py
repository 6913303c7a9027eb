"""Labels as the ICDAR competitions on reading words give them: one `img_1.png, "text"` a line, UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.importers.rows import Label, LabelsAt, text_lines

LINE = re.compile(r'([^,]+),\s*"(.*)"\s*')
ESCAPED = re.compile(r'\\(["\\])')


def icdar_labels(file: LabelsAt) -> Iterator[Label]:
    """The labels of a gt.txt; within quotes `\\"` is a quote and `\\\\` a backslash, another backslash is itself.

    ValueError naming the line that has another form.
    """
    for number, line in text_lines(file):
        place = f"line {number} of {file.origin}"
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f'{place} is {line[:60]!r}; write picture, "text"')
        yield Label(match[1].strip(), ESCAPED.sub(r"\1", match[2]), place)
