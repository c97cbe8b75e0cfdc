"""What the commands show while they work."""

import io

import pytest
from rich.console import Console

from asymseg.cli.terminal import progress_bar, progress_words
from asymseg.data.prefetching import prefetched


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


@pytest.mark.parametrize("waits", [True, False])
def test_a_bar_says_how_fast_it_goes_and_what_it_waits_for(waits: bool) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=160)
    with progress_bar(console, "evaluate", waits=waits) as advance:
        for number in prefetched(range(3), abs, 0):
            advance(number + 1, 3)
    assert "3/3" in shown.getvalue()
    assert "images/s" in shown.getvalue()
    assert "ETA" in shown.getvalue()
    assert ("waiting for data" in shown.getvalue()) is waits
