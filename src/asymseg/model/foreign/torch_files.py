"""torch's checkpoint files, both forms, read with `weights_only` after what that leaves open has been checked.

`torch.load(weights_only=True)` runs no stranger's code. It does unpack compressed records whatever their size, and
believes what a file says of the length of its records. So the pickle is followed here first, with nothing behind the
names, and every storage that it speaks of must be as long in the file as it says.
"""

import io
import mmap
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from asymseg.errors import CheckpointError
from asymseg.model.foreign.pickles import (
    FAULTS,
    NUMPY_SCALARS,
    ArrayUnpickler,
    Ordered,
    RefusedError,
    Stream,
    check_instructions,
    damage,
    encode,
    refusal,
)

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickled number, with which torch.save began its files until 1.6."""

ZIP_START = b"PK\x03\x04"

ITEM_SIZES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}


class Nothing:
    """Stands for whatever a pickle makes; it takes everything and keeps nothing."""

    __slots__ = ()

    def __init__(self, *parts: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class StorageKind:
    """Stands for one of torch's storage classes."""

    __slots__ = ("item_size",)

    def __init__(self, item_size: int) -> None:
        self.item_size = item_size


NAMES: dict[str, Any] = {
    "collections.OrderedDict": Ordered,
    "torch._utils._rebuild_tensor": Nothing,
    "torch._utils._rebuild_tensor_v2": Nothing,
    "torch._utils._rebuild_parameter": Nothing,
    "torch.Size": Nothing,
    "_codecs.encode": encode,
    **{f"torch.{name}": StorageKind(size) for name, size in ITEM_SIZES.items()},
    **NUMPY_SCALARS,
}
"""All that a checkpoint may name: far less than torch would take."""

Length = Callable[[str], int | None]


class StorageChecker(ArrayUnpickler):
    """Follows torch's pickle for the lengths of its storages; `length` tells what there is of each in the file."""

    def __init__(self, file: Stream, length: Length) -> None:
        super().__init__(file, NAMES)
        self.length = length
        self.claimed: dict[str, int] = {}

    def persistent_load(self, pid: Any) -> Nothing:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], StorageKind):
            raise RefusedError("something stored outside the pickle that is no tensor")
        key, count = str(pid[2])[:100], pid[4]
        if type(count) is not int or count < 0:
            raise ValueError(f"a tensor of {str(count)[:20]} numbers")
        there, said = self.length(key), count * pid[1].item_size
        if there is not None and said > there:
            raise ValueError(f"record {key} is said to have {said} bytes and has {there}")
        self.claimed[key] = said
        return Nothing()


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote: containers of tensors, numbers and texts. Raises CheckpointError."""
    source = str(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(len(ZIP_START)) == ZIP_START  # by which torch tells the two apart
        (_check_zip if zipped else _check_legacy)(path)
        scalars = [(function, name) for name, function in NUMPY_SCALARS.items()]
        with warnings.catch_warnings(), torch.serialization.safe_globals(scalars):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of torch about its own older files
            return torch.load(path, map_location="cpu", weights_only=True)
    except RefusedError as error:
        raise refusal(source, str(error)) from None
    except zipfile.BadZipFile as error:
        raise damage(source, error) from None
    except (*FAULTS, RuntimeError, AssertionError, OSError) as error:  # the last of places before the file's start
        raise damage(source, error) from None


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        packed = [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise ValueError(f"{packed[0][:60]!r} is compressed, as torch never writes it")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records add up to more than the file")
        lengths = {record.filename: record.file_size for record in records}
        if len(lengths) < len(records):
            raise ValueError("two records have one name")
        pickles = [name for name in lengths if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{path}: a zip file, but not a checkpoint (no data.pkl in it)")
        folder = pickles[0].removesuffix("data.pkl")
        content = io.BytesIO(archive.read(pickles[0]))
    _follow(content, lambda key: lengths.get(f"{folder}data/{key}", -1))


def _check_legacy(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        size = len(content)
        for _ in ("magic number", "protocol", "system"):
            _follow(content, lambda key: -1)
        claimed = _follow(content, lambda key: None)
        _follow(content, lambda key: -1)  # the order of the tensors that come after it
        if sum(claimed.values()) > size:
            raise ValueError(f"its tensors are said to have {sum(claimed.values())} bytes, the file has {size}")


def _follow(content: Stream, length: Length) -> Mapping[str, int]:
    """Follow the pickle at the current place of the stream, which is left after it."""
    start = content.tell()
    check_instructions(content)
    content.seek(start)
    checker = StorageChecker(content, length)
    checker.load()
    return checker.claimed
