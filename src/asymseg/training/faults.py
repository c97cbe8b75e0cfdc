"""What can happen to a run from outside, in a line that says what it was, and which state the run goes on from."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from asymseg.atomic import surviving_folder
from asymseg.data.readers import Readers
from asymseg.errors import AsymsegError, TrainingError
from asymseg.training.stopping import StoppedError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
"""What a disk answers that is full, or broken, or may not be written any more."""


@contextmanager
def faults_told(out: Path, readers: Readers) -> Iterator[None]:
    """Turn what a disk, the system or the data does to a run in `out` into one line; bugs pass as they are."""
    try:
        yield
    except StoppedError:
        raise
    except AsymsegError as error:
        raise type(error)(f"{error}; {_kept(out)}") from None
    except (OSError, RuntimeError, SafetensorError) as error:
        refusal = _refusal(error)
        if refusal is not None:
            raise TrainingError(f"{out}: cannot be written ({refusal}); free or mend the disk; {_kept(out)}") from None
        if isinstance(error, RuntimeError):
            death = readers.death(error)
            if death is not None:
                raise TrainingError(f"{death}; {_kept(out)}") from None
        raise


def _kept(out: Path) -> str:
    """Which state is left."""
    found = surviving_folder(out / "last")
    return f"the last good state is {found}: go on with --resume" if found else "nothing was saved yet"


def _refusal(error: BaseException | None) -> str | None:
    """What the disk said, where it is the disk that an error of writing comes from."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _DISK else None
    if isinstance(error, SafetensorError):
        return str(error).partition("I/O error: ")[2] or None
    return _refusal(error.__context__) if isinstance(error, RuntimeError) else None  # torch hides it behind its own
