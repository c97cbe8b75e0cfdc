"""The folder of a run: one run at a time writes in it, and nothing of another run is overwritten."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from asymseg.atomic import clear_leftovers, surviving_folder
from asymseg.errors import AsymsegError, TrainingError

LOCK = ".lock"


@contextmanager
def claimed_folder(out: Path, resume: bool, active: bool) -> Iterator[None]:
    """Keep other runs out of `out` for the length of the block; what a killed run left half written is removed.

    Where the block is refused before anything was learned, what it has made is gone again. The lock is the system's own
    and falls with the process that holds it, however that ends. `active` is false on all processes of a run but the
    first. Raises TrainingError where another run writes there, or has written there and `resume` is false.
    """
    if not active:
        yield
        return
    if not resume and (surviving_folder(out / "last") or (out / "log.jsonl").exists()):
        raise TrainingError(f"{out}: holds a run already; go on with it by --resume, or name another folder by --out")
    lock = FileLock(out / LOCK)
    try:
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        before = set(out.glob("*"))
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(
            f"{out}: another run is writing there now; wait for its end or stop it, or name another folder by --out"
        ) from None
    except OSError as error:
        raise AsymsegError(
            f"{out}: cannot be made or written ({error.strerror}); name another folder by --out"
        ) from None
    refused = False
    try:
        clear_leftovers(out)
        yield
    except AsymsegError:
        refused = not _has_learned(out)
        if refused:
            _remove(set(out.glob("*")) - before)
        raise
    finally:
        lock.release()  # on Windows this removes its file, which nobody can while it is held
        if refused:
            _remove_empty(made)


def _has_learned(out: Path) -> bool:
    """Whether there is anything in a run's folder to go on from or to look at."""
    log = out / "log.jsonl"
    return surviving_folder(out / "last") is not None or (log.is_file() and log.stat().st_size > 0)


def _remove(entries: set[Path]) -> None:
    """Remove files and folders, but for what the system does not let go."""
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # something else lies there by now
            folder.rmdir()
