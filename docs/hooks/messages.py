"""Every message that a user can be shown, taken from the code, below the family of errors.md that it belongs to."""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[2] / "src" / "asymseg"
ERRORS = ("AsymsegError", "ConfigError", "DataError", "CheckpointError", "ExportError", "TrainingError")
PLACE = re.compile(r"<!-- messages: (.*?) -->", re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with each `<!-- messages: PATTERN ... -->` replaced by the messages of the files that fit."""
    return PLACE.sub(lambda place: listing(files_of(place[1].split())), markdown)


def files_of(patterns: list[str]) -> list[Path]:
    """Files of the package that fit, such as data/catalog/*.py."""
    return [file for pattern in patterns for file in sorted(PACKAGE.glob(pattern))]


def listing(files: list[Path]) -> str:
    """The messages of the files, folded up below their number."""
    found = list(dict.fromkeys(message for file in files for message in messages(file)))
    rows = "\n".join(f"<li><code>{html.escape(text)}</code> <small>{kind}</small></li>" for kind, text in found)
    heading = f"<summary>Its messages ({len(found)})</summary>"
    return f'<details class="messages">{heading}\n<ul>\n{rows}\n</ul></details>'


def messages(file: Path) -> Iterator[tuple[str, str]]:
    """Kind and text of all errors that a file makes, with … for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS and node.args:
            text = template(node.args[0])
            if any(letter.isalpha() for letter in text):
                yield node.func.id, text  # type: ignore[attr-defined]


def template(node: ast.expr) -> str:
    """The words of a message; what is put in at run time is an ellipsis."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return re.sub(r"…(\s*…)+", "…", "".join(template(part) for part in parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
    return "…"


def raising_files() -> set[Path]:
    """All files of the package that make an error with words of its own."""
    return {file for file in PACKAGE.rglob("*.py") if any(messages(file))}


def listed_files(markdown: str) -> set[Path]:
    """The files whose messages a page lists."""
    return {file for patterns in PLACE.findall(markdown) for file in files_of(patterns.split())}
