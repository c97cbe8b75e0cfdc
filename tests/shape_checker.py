"""What jaxtyping calls, through conftest.py, to check the arguments and results of every function."""

from collections.abc import Callable
from typing import Any, Self

from beartype import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked by beartype, which cannot know `Self` where it sees a method without its class."""
    return function if Self in function.__annotations__.values() else beartype(function)
