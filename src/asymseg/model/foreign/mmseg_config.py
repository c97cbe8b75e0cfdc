"""mmsegmentation's settings, which a checkpoint carries as Python text: read without running it, and written."""

import ast
from collections.abc import Mapping
from typing import Any

LONGEST = 2**20


def read_settings(text: Any) -> dict[str, Any]:
    """The variables of a configuration as its checkpoint holds it, or nothing where it is no such text.

    Only literals and `dict(...)` are understood, of which mmcv's and mmengine's dumps consist; what else a variable may
    be is left out.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    settings = {}
    for statement in body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    settings[target.id] = _value(statement.value)
                except (ValueError, TypeError, RecursionError):
                    continue
    return settings


def _value(node: ast.expr) -> Any:
    """What an expression says; raises ValueError for all that would have to be computed."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words) if all(word.arg for word in words):
            return {word.arg: _value(word.value) for word in words}
    raise ValueError("not a literal")


def write_settings(settings: Mapping[str, Any]) -> str:
    """The same text for variables made of literals, a line each, whose dictionaries all have names for keys."""
    return "".join(f"{name} = {_text(value)}\n" for name, value in settings.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"dict({', '.join(f'{name}={_text(part)}' for name, part in value.items())})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)
