"""What the commands share: where they write, the progress bar, and how they end."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

USER_ERROR = 2
PARTLY_FAILED = 3
FAULTY = 3
"""Of `check`: there are errors."""
DOUBTFUL = 4
"""Of `check`: there are warnings and no errors."""


def fail(message: str, code: int = USER_ERROR) -> NoReturn:
    """Print a user's mistake as one line and end."""
    sys.stderr.write(f"asymseg: {' '.join(message.split())}\n")
    sys.exit(code)


def make_console() -> "Console":
    """Messages and progress go to standard error, results to standard output."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


@contextmanager
def progress_bar(
    console: "Console", title: str, unit: str = "images", *, waits: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A bar with speed and remaining time; gives a function of (units done, units in all).

    With `waits` it also has the share of the time that was spent waiting for images to be read.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from asymseg.data.prefetching import timed_waits

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        *([TextColumn("{task.fields[waiting]}")] if waits else []),
    )
    with timed_waits() as waited, Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, speed="", waiting="")
        started = time.monotonic()

        def advance(done: int, total: int) -> None:
            seconds = max(time.monotonic() - started, 1e-9)
            waiting = f"waiting for data {waited.seconds / seconds:.0%}"
            bar.update(task, completed=done, total=total, speed=f"{done / seconds:.1f} {unit}/s", waiting=waiting)

        yield advance


@contextmanager
def progress_words(console: "Console") -> Iterator[Callable[[str], None]]:
    """What is being done, as words before a spinner, or where there is no terminal a line for each; gives a function of
    "what" or "what: how far".
    """
    with console.status("starting") as status:
        told = ""

        def tell(words: str) -> None:
            nonlocal told
            status.update(words)
            what = words.partition(":")[0]
            if what != told and not console.is_terminal:
                console.print(what, highlight=False, markup=False)
            told = what

        yield tell


@contextmanager
def warnings_in_a_line(console: "Console") -> Iterator[None]:
    """Show warnings without the place in the code that they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: console.print(f"warning: {message}", markup=False)
        yield


def say_compile_time(seconds: dict[tuple[int, ...], float], console: "Console") -> None:
    """Tell how much of the time went on compiling."""
    if seconds:
        console.print(
            f"of that, {sum(seconds.values()):.0f} s compiled the network for {len(seconds)} size(s) of image"
        )


def say_failure(failure: str, console: "Console") -> None:
    """Tell in a line what could not be done; names of files may hold what looks like rich's markup."""
    from rich.text import Text

    console.print(Text.assemble(("failed", "red"), " ", failure), highlight=False)
