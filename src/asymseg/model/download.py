"""A file from the web: fetched once, gone on with where it broke off, and checked before it bears its name.

Proxies are those of the environment (`https_proxy`, `no_proxy`). `ASYMSEG_MIRROR` names a server that holds the same
files under the same paths.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from asymseg.errors import CheckpointError, ConfigError

MIRROR = "ASYMSEG_MIRROR"
CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
PATIENCE = 3
"""Tries in a row that may bring nothing."""
PAUSE = 1.0
"""Seconds before the second try; each further one waits twice as long."""
LIMIT = 4 << 30
"""Bytes that no file of weights here has: a server that never ends is cut off."""

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may be others a moment later."""

Advance = Callable[[int, int | None], None]
"""Called with (bytes here, bytes in all or None where the server does not say)."""


class _InterruptedError(Exception):
    """The rest of the file may come by trying again."""


def download(address: str, target: Path, sha256: str = "", advance: Advance | None = None) -> None:
    """Put the file at `address` at `target`, whole and checked or not at all.

    `sha256` is the hash in hexadecimal, or its beginning. A target that has it is left as it is. What a broken download
    brought lies beside the target as NAME.part, and the next call goes on from there. The caller sees to it that no two
    processes fetch the same target. Raises CheckpointError, or ConfigError for a mirror that is no address.
    """
    address = mirrored(address)
    if target.is_file() and file_sha256(target).startswith(sha256):
        return
    part = target.with_name(f"{target.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch(address, part, advance)
        found = file_sha256(part)
        _note(part).unlink(missing_ok=True)
        if not found.startswith(sha256):
            part.unlink()
            raise CheckpointError(
                f"{address}: not the file that was published (its sha256 begins with {found[: len(sha256)]} and not "
                f"{sha256}); it was removed: try again, or another server by {MIRROR}"
            )
        part.replace(target)
    except OSError as error:  # of the disk; those of the network are caught where they arise
        raise CheckpointError(
            f"{error.filename or part}: cannot be written ({error.strerror}); "
            "set ASYMSEG_HOME to a folder with room for it"
        ) from None


def mirrored(address: str) -> str:
    """The address on the server that `ASYMSEG_MIRROR` names, or as it is."""
    mirror = os.environ.get(MIRROR, "")
    if not mirror:
        return address
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise ConfigError(f"{MIRROR} = {mirror!r} is no address; it takes one such as https://mirror.example/weights")
    return mirror.rstrip("/") + urlsplit(address).path


def file_sha256(path: Path) -> str:
    """The file's hash in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(address: str, part: Path, advance: Advance | None) -> None:
    """Fill `part`, over as many connections as it takes while each brings something."""
    idle = 0
    while True:
        before = _size(part)
        try:
            return _fetch_on(address, part, advance)
        except _InterruptedError as interruption:
            idle = 0 if _size(part) > before else idle + 1
            if idle >= PATIENCE:
                kept = f"{_size(part)} bytes are kept, and the same command goes on from there; " if _size(part) else ""
                raise CheckpointError(
                    f"{address}: not fetched ({interruption}); {kept}another server can be named by {MIRROR}"
                ) from None
        time.sleep(PAUSE * 2 ** max(idle - 1, 0))


def _fetch_on(address: str, part: Path, advance: Advance | None) -> None:
    """Add to `part` what it still lacks, over one connection."""
    have, version = _size(part), _read_note(part)
    headers = {"User-Agent": "asymseg", "Accept-Encoding": "identity"}
    if have and version:  # a part of an unknown version of the file is not gone on with
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        answer = _open(address, headers)
    except HTTPError as error:
        with error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
                return  # an earlier run ended between the last byte and the check
            if error.code == 416:
                _drop(part)
            elif error.code not in PASSING:
                raise CheckpointError(
                    f"{address}: the server answers {error.code} {error.reason}; see whether the file has moved, or "
                    f"name another server by {MIRROR}"
                ) from None
            raise _InterruptedError(f"the server answers {error.code} {error.reason}") from None
    with answer:
        if answer.status == 206:
            if not _goes_on(answer.headers, have, version):
                _drop(part)
                raise _InterruptedError("the server sent another part of the file than it was asked for")
        else:
            have = 0
            _drop(part)  # before the note, or a kill in between would pair old bytes with a new version
            _note(part).write_text(_version(answer.headers), encoding="utf-8")
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with part.open("ab") as file:
            for chunk in _chunks(answer):
                file.write(chunk)
                have += len(chunk)
                if advance is not None:
                    advance(have, total)
                if have > LIMIT:
                    break
    if have > LIMIT:
        _drop(part)
        raise CheckpointError(
            f"{address}: longer than {LIMIT >> 30} GiB, which no weights here are; name another server"
        )
    if total is not None and have < total:
        raise _InterruptedError(f"the connection broke off at {have} of {total} bytes")


def _open(address: str, headers: dict[str, str]) -> Any:
    """The server's answer; HTTPError for one that is a refusal."""
    try:
        # A fresh opener, as the one behind urlopen keeps to the proxies that it found first.
        answer = build_opener().open(Request(address, headers=headers), timeout=TIMEOUT)
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _InterruptedError(f"the server could not be reached: {reason or type(error).__name__}") from None
    if address.startswith("https:") and not answer.url.startswith("https:"):
        answer.close()
        raise CheckpointError(f"{address}: leads to {answer.url}, which is not encrypted; name another by {MIRROR}")
    return answer


def _chunks(answer: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk: bytes = answer.read(CHUNK)
        except (OSError, HTTPException) as error:
            raise _InterruptedError(f"the connection broke off: {error or type(error).__name__}") from None
        if not chunk:
            return
        yield chunk


def _goes_on(headers: HTTPMessage, have: int, version: str) -> bool:
    """Whether an answer begins where the part ends, and is of the same file."""
    same = _version(headers) in ("", version)
    return same and headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _version(headers: HTTPMessage) -> str:
    """What tells one content of an address from another: a strong ETag or else the date; empty without."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _note(part: Path) -> Path:
    """Where the version of the file is kept that `part` is the beginning of."""
    return part.with_name(f"{part.name}.version")


def _read_note(part: Path) -> str:
    note = _note(part)
    return note.read_text(encoding="utf-8") if note.is_file() else ""


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
