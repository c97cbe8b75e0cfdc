"""What was predicted so far in a folder of results, and with what: a run that was killed does only the rest.

Beside the results lies a folder .predictions: `run.json` says what they are made with, and in `done/` each file holds
some finished images, a line of JSON for each. No file is ever changed, so that any store will do, and none is whole
before all that it speaks of has been written.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from asymseg.errors import ConfigError, DataError
from asymseg.prediction.many.stores import Store

FORMAT = "asymseg-predictions"
FOLDER = ".predictions"

_RUN = f"{FOLDER}/run.json"
_DONE = f"{FOLDER}/done"


@dataclass(frozen=True)
class Done:
    """An image that is finished, and why it could not be predicted, or ""."""

    image: str
    failed: str = ""


def begin(out: Store, made_with: dict[str, Any]) -> list[Done]:
    """What was finished by earlier runs in `out`, which must have been made with the same.

    Raises ConfigError that names what is not the same, DataError for a manifest that cannot be read.
    """
    made_with = json.loads(json.dumps(made_with))  # as it will be read again
    before = _read_run(out)
    if before is None:
        run = {"format": FORMAT, "asymseg": version("asymseg"), "made_with": made_with}
        out.write(_RUN, f"{json.dumps(run, indent=1)}\n".encode())
        return []
    other = sorted(key for key in before.keys() | made_with.keys() if before.get(key) != made_with.get(key))
    if other:
        change = ", ".join(f"{key} was {_short(before.get(key))} and is {_short(made_with.get(key))}" for key in other)
        raise ConfigError(f"{out.address}: was begun otherwise: {change}; go on as it was, or choose another -o")
    return [done for name, content in out.contents(out.names(_DONE)) for done in _read(out.place(name), content)]


def record(out: Store, finished: Sequence[Done]) -> None:
    """Keep that these images are finished; to say so twice is as good as once."""
    if finished:
        names = "\n".join(done.image for done in finished)
        lines = [
            json.dumps({"image": done.image, **({"failed": done.failed} if done.failed else {})}) for done in finished
        ]
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        out.write(f"{_DONE}/{digest[:16]}.jsonl", "\n".join([*lines, ""]).encode())


def refuse_kept(out: Store) -> None:
    """Raise ConfigError where a manifest says what lies in `out`, for other results would make it untrue."""
    if out.has(_RUN):
        raise ConfigError(f"{out.address}: holds results with a manifest; go on with --resume, or choose another -o")


def _read_run(out: Store) -> dict[str, Any] | None:
    if not out.has(_RUN):
        return None
    try:
        content = json.loads(out.content(_RUN))
        made_with = content["made_with"] if content["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, RecursionError):
        made_with = None
    if not isinstance(made_with, dict):
        raise DataError(f"{out.place(_RUN)}: not the manifest of a prediction; remove it, or choose another -o")
    return made_with


def _read(place: str, content: bytes) -> list[Done]:
    try:
        found = [Done(**json.loads(line)) for line in content.decode().splitlines()]
        if not all(isinstance(word, str) for done in found for word in (done.image, done.failed)):
            raise ValueError("not an image's name")
        return found
    except (ValueError, TypeError, RecursionError):
        raise DataError(f"{place}: damaged; remove it, and its images are predicted again") from None


def _short(value: Any) -> str:
    text = json.dumps(value)
    if isinstance(value, str) and len(value) == 64:  # a hash
        return f'"{value[:12]}..."'
    return text if len(text) <= 80 else f"{text[:20]}...{text[-57:]}"
