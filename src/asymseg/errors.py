"""What can go wrong that is not a bug of ours.

    AsymsegError             a user can mend it; the command line prints one line and exits 2
    ├── ConfigError          a setting that is unknown, out of range or contradicts another
    ├── DataError            an image, mask, class list or data folder that cannot be used as it is
    ├── CheckpointError      weights or a model folder that do not fit
    ├── ExportError          a file that would not be equal to the network, or a runtime that is not there
    └── TrainingError        a run that cannot go on: a loss that is not finite, a folder in use

The message says what is wrong, where, and the cure. Anything else that is raised is a bug and keeps its traceback.
"""

_LONGEST = 2000
"""Characters of a message; of a longer one the middle is left out."""


class AsymsegError(Exception):
    """A mistake that the user can mend; its message says what, where and the cure.

    The message is one line that can be printed, whatever a file has put into it: names and values are quoted from
    files that may be damaged, or made to take over a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class ConfigError(AsymsegError):
    """A setting that is unknown, out of range or contradicts another."""


class DataError(AsymsegError):
    """An image, mask, class list or data folder that cannot be used as it is."""


class CheckpointError(AsymsegError):
    """Weights or a model folder that do not fit what they are loaded into."""


class ExportError(AsymsegError):
    """An exported file that is not equal to its network, or cannot be made here."""


class TrainingError(AsymsegError):
    """A training run that cannot go on."""


def _one_line(text: str) -> str:
    line = " ".join(text.splitlines())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
