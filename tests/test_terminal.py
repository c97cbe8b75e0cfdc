"""What the commands show while they work."""

import io

import pytest
from rich.console import Console

from asymseg.cli.terminal import progress_words


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_being_done_is_said(terminal: bool) -> None:
    shown = io.StringIO()
    with progress_words(Console(file=shown, force_terminal=terminal)) as tell:
        for words in ("reading", "comparing: 1 of 2", "comparing: 2 of 2"):
            tell(words)
    if terminal:
        assert "comparing: 2 of 2" in shown.getvalue()
        assert "comparing\n" not in shown.getvalue()
    else:
        assert shown.getvalue() == "reading\ncomparing\n"
