"""Files and folders that appear whole or not at all: written beside their place, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asymseg.errors import AsymsegError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` if the block ends well, and is removed if not."""
    _make_place(path, path.is_dir())
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; ours are as readable as any other
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which replaces an older one.

    Two renames are needed to replace a folder, so a kill between them leaves the older one as `NAME.previous`;
    `surviving_folder` finds it.
    """
    _make_place(path, path.exists() and not path.is_dir())
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    previous = path.with_name(f"{path.name}.previous")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
            path.rename(previous)
        temporary.rename(path)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def surviving_folder(path: Path) -> Path | None:
    """`path`, or what an interrupted `atomic_folder` left of it, or None."""
    previous = path.with_name(f"{path.name}.previous")
    return next((candidate for candidate in (path, previous) if candidate.is_dir()), None)


def _make_place(path: Path, taken: bool) -> None:
    if taken:
        raise AsymsegError(f"{path}: a {'folder' if path.is_dir() else 'file'} of that name is in the way; remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsymsegError(
            f"{path.parent}: cannot be made or written ({error.strerror}); choose another place"
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
