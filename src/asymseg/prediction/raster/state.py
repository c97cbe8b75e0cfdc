"""What a prediction has done so far, in a hidden folder beside its result, so that it can go on after a kill."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from torch import Tensor, nn

from asymseg.atomic import atomic_file
from asymseg.errors import AsymsegError
from asymseg.model.info import ModelInfo

_STATE = "state.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Unfinished:
    """The folder of an unfinished prediction: pixels that are done, and the sums that the next row of tiles needs.

    Pixels are kept plain, one file for each result, so that a kill can spoil none but those of the row it met; that row
    is done again. `rows` counts the rows of tiles that are done, of `total`; `started_anew` says why an earlier state
    is of no use.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], total: int) -> None:
        self.folder = folder
        self.settings = settings
        self.rows = 0
        self.started_anew = ""
        if self.path(_STATE).exists():
            noted = self._read()
            before = settings if noted is None else noted["settings"]
            other = [name for name in settings if before.get(name) != settings[name]]
            if other:
                self.started_anew = f"the earlier run had another {', '.join(other)}"
            elif noted is None or not 0 < noted["rows"] <= total:
                self.started_anew = "what the earlier run left is damaged"
            else:
                self.rows = noted["rows"]
        if self.rows == 0:
            self._clear()

    def write(self, name: str, block: UInt8[np.ndarray, "n r v"], top: int, left: int, width: int) -> None:
        """Put a block into a file of pixels that is `width` wide and holds all channels of a row beside each other."""
        channels, height, _ = block.shape
        with self.path(name).open("r+b" if self.path(name).exists() else "w+b") as file:
            for row in range(height):
                for channel in range(channels):
                    file.seek(((top + row) * channels + channel) * width + left)
                    file.write(np.ascontiguousarray(block[channel, row]).data)

    def keep_sums(self, row: int, number: int, sums: Tensor) -> None:
        """Keep what tile `number` of a row adds to the row of tiles below."""
        np.save(self.path(f"sums-{row}-{number}.npy"), sums.cpu().numpy())

    def sums(self, row: int, shapes: Sequence[tuple[int, int, int]]) -> Iterator[Tensor]:
        """What a row of tiles adds to the row below, tile after tile, in these shapes. Raises AsymsegError."""
        for number, shape in enumerate(shapes):
            path = self.path(f"sums-{row}-{number}.npy")
            try:
                sums = np.load(path, allow_pickle=False)
                if sums.shape != shape or sums.dtype != np.float32:
                    raise ValueError(f"{sums.dtype} of shape {sums.shape}")
            except Exception as error:  # damaged headers end in whatever they make NumPy stumble over
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise AsymsegError(
                    f"{path}: damaged ({reason}); remove {self.folder} and give the same command again: it starts anew"
                ) from None
            yield torch.from_numpy(sums)

    def advance(self, *names: str) -> None:
        """Note that another row of tiles is done, once the files of pixels are safe on the disk."""
        sizes = {}
        for name in names:
            with self.path(name).open("rb") as file:
                os.fsync(file.fileno())
                sizes[name] = os.fstat(file.fileno()).st_size
        noted = {"rows": self.rows + 1, "settings": self.settings, "sizes": sizes}
        with atomic_file(self.path(_STATE)) as temporary:
            temporary.write_text(json.dumps(noted), encoding="utf-8")
        self.rows += 1
        for path in self.folder.glob(f"sums-{self.rows - 2}-*.npy"):
            path.unlink()

    def path(self, name: str) -> Path:
        """A file in the folder."""
        return self.folder / name

    def remove(self) -> None:
        """Remove the folder: the prediction is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any] | None:
        """What the earlier run noted; None where that is damaged, or the files of pixels are shorter than they were."""
        try:
            noted: dict[str, Any] = json.loads(self.path(_STATE).read_text(encoding="utf-8"))
            rows, settings, sizes = noted["rows"], noted["settings"], noted["sizes"]
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return None
        if not (type(rows) is int and isinstance(settings, dict) and isinstance(sizes, dict) and sizes):
            return None
        there = {entry.name: entry.stat().st_size for entry in self.folder.iterdir()}
        whole = all(type(size) is int and there.get(name, -1) >= size for name, size in sizes.items())
        return noted if whole else None

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()


@contextmanager
def unfinished(out: Path, settings: dict[str, Any], total: int) -> Iterator[Unfinished]:
    """The state of the prediction that writes `out`; kept on whatever ends the block but success.

    `settings` say what the result depends on, and become JSON; `total` is how many rows of tiles there are. Raises
    AsymsegError where another run holds the state, or where the disk is full.
    """
    folder = out.with_name(f".{out.name}.unfinished")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        with lock:
            state = Unfinished(folder, json.loads(json.dumps(settings)), total)
            yield state
            state.remove()
    except Timeout:
        raise AsymsegError(f"{out}: another run is writing it; wait for that, or choose another -o") from None
    except OSError as error:
        if error.errno in _FULL:
            raise AsymsegError(
                f"{folder}: the disk is full; make room and give the same command again: it goes on where it stopped"
            ) from None
        if isinstance(error, PermissionError):
            raise AsymsegError(f"{folder}: cannot be written ({error.strerror}); choose another -o") from None
        raise


def model_key(network: nn.Module, info: ModelInfo) -> str:
    """A hash of all in a model that its predictions depend on."""
    told = asdict(replace(info, metrics={}, source="", license=""))
    told["classes"] = info.classes.to_dict()
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    digest.update(repr(network).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
