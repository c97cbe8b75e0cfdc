"""How --help reads at any width: docstrings end their lines for whoever reads the code.

Read as Markdown they would flow by themselves, but without the backticks that set words to be typed apart.
"""

import re
from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter, InlineText

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

WIDEST = 120
_END_OF_LINE = re.compile(r"(?<!\n)\n(?!\n)")


class Flowing(DefaultFormatter):
    """Paragraphs as wide as the terminal, up to `WIDEST`."""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print a table of arguments or commands."""
        for entry in panel.entries:
            _join_lines(entry.description)
        super().__call__(console, options, panel)

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """Print the first line; what follows is printed to the same console."""
        console.width = min(console.width, WIDEST)
        super().render_usage(console, options, usage)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """Print what stands above the tables."""
        _join_lines(description)
        super().render_description(console, options, description)


def _join_lines(text: Any) -> None:
    from rich.text import Text

    if isinstance(text, InlineText) and isinstance(text.primary_renderable, Text):
        text.primary_renderable = Text(_END_OF_LINE.sub(" ", text.primary_renderable.plain))
