"""Files and folders that appear whole or not at all: written beside their place, then renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asymseg.errors import AsymsegError

_PART = ".part-"
"""In the names of what is not whole yet."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` if the block ends well, and is removed if not."""
    _make_place(path, path.is_dir())
    temporary = path.with_name(f"{_part_of(path.stem)}{path.suffix}")
    with _writable(path):
        temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # as any other file's, even where the writer has made it private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """The same for a folder, which replaces an older one.

    Two renames are needed to replace a folder, so a kill between them leaves the older one as `NAME.previous`;
    `surviving_folder` finds it. If `lasting`, the older one is kept there, and the new one is on the disk, not in the
    system's memory alone, before it gets its name: what a loss of power leaves is whole, too.
    """
    _make_place(path, path.exists() and not path.is_dir())
    temporary = path.with_name(_part_of(path.name))
    with _writable(path):
        temporary.mkdir()
    previous, outdated = previous_folder(path), temporary.with_name(f"{temporary.name}.old")
    try:
        yield temporary
        for entry in temporary.iterdir():
            if entry.is_file():
                entry.chmod(temporary.stat().st_mode & 0o666)  # safetensors makes private files
        if lasting:
            _to_disk(temporary)
        if path.exists():
            if previous.exists():
                previous.rename(outdated)  # in one go: removed file by file, it might be what a kill leaves
            path.rename(previous)
        temporary.rename(path)
        if not lasting:
            shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)


def previous_folder(path: Path) -> Path:
    """Where the folder lies that `path` has replaced."""
    return path.with_name(f"{path.name}.previous")


def surviving_folder(path: Path) -> Path | None:
    """`path`, or what an interrupted `atomic_folder` left of it, or None."""
    return next((candidate for candidate in (path, previous_folder(path)) if candidate.is_dir()), None)


def clear_leftovers(folder: Path) -> None:
    """Remove the half files and folders that killed writers left in `folder`; nobody may be writing there now."""
    for entry in folder.glob(f".*{_PART}*"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _part_of(name: str) -> str:
    """A name of its own for what will be called `name`, and not too long where that is as long as names can be."""
    return f".{name[:40]}{_PART}{secrets.token_hex(4)}"


def _to_disk(folder: Path) -> None:
    """Return when the files below `folder`, and their names, have left the system's memory for the disk."""
    entries = [folder, *folder.rglob("*")]
    for entry in entries:
        if entry.is_dir() and os.name == "nt":
            continue  # there folders cannot be opened, and need not be
        handle = os.open(entry, os.O_RDONLY if entry.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _make_place(path: Path, taken: bool) -> None:
    if taken:
        raise AsymsegError(f"{path}: a {'folder' if path.is_dir() else 'file'} of that name is in the way; remove it")
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to make something beside `path` into an AsymsegError."""
    try:
        yield
    except OSError as error:
        raise AsymsegError(
            f"{path.parent}: cannot be made or written ({error.strerror}); choose another place"
        ) from None
