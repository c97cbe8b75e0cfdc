"""What jaxtyping calls, through conftest.py, to check the arguments and results of every function."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

from beartype import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked by beartype, which cannot know `Self` where it sees a method without its class.

    The check is made when it is first called: most functions are not called by the tests that one process runs.
    Jaxtyping asks for some checks twice.
    """
    if Self in function.__annotations__.values() or hasattr(function, "__wrapped__"):
        return function
    checked: Callable[..., Any] | None = None

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = beartype(function)
        return checked(*arguments, **named)

    return called
