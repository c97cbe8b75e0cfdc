"""What the hub's library says while it is asked."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def attempts_unsaid() -> Iterator[None]:
    """Keep it from a line or two for each attempt that fails: who asks says in one line that all did."""
    log = logging.getLogger("huggingface_hub.utils._http")

    def wanted(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    log.addFilter(wanted)
    try:
        yield
    finally:
        log.removeFilter(wanted)
