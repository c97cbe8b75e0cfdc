"""Folders of images and of results, on the disk or in any store that fsspec knows. Needs no torch."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from asymseg.atomic import atomic_file
from asymseg.data.decoding import Content, Source
from asymseg.errors import AsymsegError, ConfigError, DataError

_DISK = "file:/"
_TOGETHER = 1000
"""Small files that are asked of a store at once."""


def is_address(place: str | Path) -> bool:
    """Whether it names something in a store, such as s3://bucket/photos, and not on the disk."""
    return "://" in str(place) and not str(place).startswith(_DISK)


def on_disk(place: str | Path) -> Path:
    """The path that `place` names, by its address too."""
    text = str(place)
    if text.startswith(_DISK):
        return Path(_opened(text)[1])
    return Path(place)


@dataclass(frozen=True)
class Store:
    """A folder by its address; the names in it are relative, with / between their parts.

    Plain text, so that it can be sent to other processes. Settings of stores (keys, endpoints) are those of fsspec:
    its configuration and the environment.
    """

    address: str

    @property
    def local(self) -> Path | None:
        """The folder, where it is one on the disk."""
        return None if is_address(self.address) else Path(self.address)

    def place(self, name: str) -> str:
        """The address of a file in it."""
        return f"{self.address.rstrip('/')}/{name}" if self.local is None else str(self.local / name)

    def has(self, name: str) -> bool:
        """Whether there is such a file. Raises DataError."""
        if self.local is not None:
            return (self.local / name).is_file()
        place = self.place(name)
        system, path = _opened(place)
        with _reading(place):
            return bool(system.exists(path))

    def read(self, name: str) -> Source:
        """A file of it, to be decoded: its path, or what a store holds. Raises DataError."""
        return self.local / name if self.local is not None else Content(self.content(name), self.place(name))

    def content(self, name: str) -> bytes:
        """The bytes of a file. Raises DataError."""
        place = self.place(name)
        with _reading(place):
            if self.local is not None:
                return (self.local / name).read_bytes()
            system, path = _opened(place)
            content: bytes = system.cat_file(path)
            return content

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The names and bytes of many files, from a store many at once. Raises DataError."""
        if self.local is not None:
            yield from ((name, self.content(name)) for name in names)
            return
        for first in range(0, len(names), _TOGETHER):
            places = {_opened(self.place(name))[1]: name for name in names[first : first + _TOGETHER]}
            with _reading(self.address):
                found = _opened(self.address)[0].cat(list(places))
            yield from ((places[path], content) for path, content in found.items())

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole or not at all as far as the store can: object stores do. Raises AsymsegError."""
        place = self.place(name)
        if self.local is not None:
            with _writing(place), atomic_file(self.local / name) as temporary:
                temporary.write_bytes(content)
            return
        system, path = _opened(place)
        with _writing(place):
            try:
                system.pipe_file(path, content)
            except FileNotFoundError:  # a store with true folders
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, content)

    def names(self, below: str = "") -> list[str]:
        """The names of all files in it, or in a folder of it; none where there is no such folder. Raises DataError."""
        if self.local is not None:
            folder = self.local / below
            return [path.relative_to(self.local).as_posix() for path in folder.rglob("*") if path.is_file()]
        place = self.place(below).rstrip("/")
        system, path = _opened(place)
        root = _opened(self.address)[1].rstrip("/")
        with _reading(place):
            return [_below(root, found) for found in system.find(path)]


def find_in_store(address: str) -> tuple[Store, list[str]]:
    """The folder that an address is about, and the names of all files that it means; of one file, of a folder, or of
    those that a pattern fits. Raises DataError, ConfigError for a store that is not known here.
    """
    if glob.has_magic(address):
        whole = address.split("/")
        first = next(number for number, part in enumerate(whole) if glob.has_magic(part))
        store = Store("/".join(whole[:first]))
        system, path = _opened(address)
        root = _opened(store.address)[1].rstrip("/")
        with _reading(address):
            found = system.glob(path, detail=True)
            return store, [_below(root, name) for name, facts in found.items() if facts["type"] == "file"]
    system, path = _opened(address)
    with _reading(address):
        if system.isfile(path):
            folder, _, name = address.rpartition("/")
            return Store(folder), [name]
    return Store(address.rstrip("/")), Store(address.rstrip("/")).names()


def _below(root: str, path: str) -> str:
    return PurePosixPath(path).relative_to(root or "/").as_posix() if path.startswith("/") else path[len(root) + 1 :]


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises ConfigError."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{address}: no such kind of store here ({_reason(error)})") from None
    return system, path


@contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn whatever a store says into a DataError."""
    try:
        yield
    except (AsymsegError, MemoryError):
        raise
    except FileNotFoundError:
        raise DataError(f"{place}: no such file or folder; check the address") from None
    except Exception as error:  # each store raises its own
        raise DataError(f"{place}: cannot be read from there ({_reason(error)}); check the address and keys") from None


@contextmanager
def _writing(place: str) -> Iterator[None]:
    """Turn whatever a store says into an AsymsegError."""
    try:
        yield
    except (AsymsegError, MemoryError):
        raise
    except Exception as error:  # each store raises its own
        reason = _reason(error)
        raise AsymsegError(f"{place}: cannot be written ({reason}); make room, or check the address and keys") from None


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__
