"""A griffe extension for the documentation: the examples of a docstring become code blocks."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


class FenceExamples(griffe.Extension):
    """Put every doctest of a docstring into a code block."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object; griffe calls this for every object."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_fence, obj.docstring.value)


def _fence(match: re.Match[str]) -> str:
    indent = match[1]
    before = "" if match.start() == 0 or match.string[: match.start()].endswith("\n\n") else "\n"
    return f"{before}{indent}```pycon\n{match[0]}\n{indent}```"
