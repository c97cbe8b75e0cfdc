"""A model as the server holds it: loaded, told apart from its other versions, and watched for a newer one."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from asymseg.atomic import surviving_folder
from asymseg.errors import ConfigError
from asymseg.model.info import ModelInfo
from asymseg.prediction.loading import load
from asymseg.prediction.result import Result

_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<source>.+)")
_UNFIT = re.compile(r"[^\w.-]+")
_FILES = ("config.json", "model.safetensors")

Stamp = tuple[tuple[str, int, int, int], ...]


@runtime_checkable
class Sees(Protocol):
    """What a predictor must have to be served."""

    info: ModelInfo
    parameters: int
    device: Any

    @property
    def attends(self) -> bool: ...

    def several(self, images: Any) -> list[Result]: ...


@dataclass(frozen=True)
class Loaded:
    """One version of a model."""

    name: str
    predictor: Sees
    version: str
    """The beginning of the hash of its files; of published weights, their name."""
    stamp: Stamp


def open_loaded(name: str, source: str, device: str) -> Loaded:
    """The model that lies at `source` now. Raises AsymsegError."""
    stamp = stamp_of(source)
    version = _hash_of(source) or source
    return Loaded(name, load(source, device), version, stamp)


def names_of(models: tuple[str, ...]) -> dict[str, str]:
    """Where each model lies, by its name: the one before NAME=, else that of its run, folder or file.

    Raises ConfigError.
    """
    if not models:
        raise ConfigError("no model to serve; give a model folder such as runs/train/best, or a file NAME.onnx")
    sources: dict[str, str] = {}
    for model in models:
        named = None if Path(model).exists() else _NAMED.fullmatch(model)
        name, source = (named["name"], named["source"]) if named else (_name_of(model), model)
        if name in sources:
            raise ConfigError(f"{sources[name]} and {source} would both be served as {name!r}; write NAME={source}")
        sources[name] = source
    return sources


def stamp_of(source: str) -> Stamp:
    """What changes when a model on the disk is replaced; empty where it is none on the disk, or half of one."""
    try:
        stats = [(str(path), path.stat()) for path in _files_of(source)]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats)


def _name_of(model: str) -> str:
    path = Path(model.rstrip("/"))
    if path.is_file():
        name = path.stem
    else:
        name = path.resolve().parent.name if path.name == "best" else path.name or path.resolve().name
    return _UNFIT.sub("-", name).strip("-.") or "model"


def _files_of(source: str) -> tuple[Path, ...]:
    path = Path(source)
    if path.is_file():
        return (path,)
    best = surviving_folder(path / "best")
    folder = best if best is not None and not (path / _FILES[0]).is_file() else surviving_folder(path)
    return () if folder is None else tuple(folder / name for name in _FILES)


def _hash_of(source: str) -> str:
    digest = hashlib.sha256()
    files = _files_of(source)
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12] if files else ""
