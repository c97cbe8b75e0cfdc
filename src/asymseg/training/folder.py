"""The folder of a run: one run at a time writes in it, and nothing of another run is overwritten."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from asymseg.atomic import clear_leftovers, surviving_folder
from asymseg.errors import AsymsegError, TrainingError

LOCK = ".lock"


@contextmanager
def claimed_folder(out: Path, resume: bool, active: bool) -> Iterator[None]:
    """Keep other runs out of `out` for the length of the block; what a killed run left half written is removed.

    The lock is the system's own and falls with the process that holds it, however that ends. `active` is false on all
    processes of a run but the first. Raises TrainingError where another run writes there, or has written there and
    `resume` is false.
    """
    if not active:
        yield
        return
    if not resume and (surviving_folder(out / "last") or (out / "log.jsonl").exists()):
        raise TrainingError(f"{out}: holds a run already; go on with it by --resume, or name another folder by --out")
    lock = FileLock(out / LOCK)
    try:
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
    try:
        clear_leftovers(out)
        yield
    finally:
        lock.release()
