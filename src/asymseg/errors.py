"""What can go wrong that is not a bug of ours.

    AsymsegError             a user can mend it; the command line prints one line and exits 2
    ├── ConfigError          a setting that is unknown, out of range or contradicts another
    ├── DataError            an image, mask, class list or data folder that cannot be used as it is
    ├── CheckpointError      weights or a model folder that do not fit
    ├── ExportError          a file that would not be equal to the network, or a runtime that is not there
    └── TrainingError        a run that cannot go on: a loss that is not finite, a folder in use

The message says what is wrong, where, and the cure. Anything else that is raised is a bug and keeps its traceback.
"""


class AsymsegError(Exception):
    """A mistake that the user can mend; its message says what, where and the cure."""


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
