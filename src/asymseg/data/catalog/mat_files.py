"""Label maps in MATLAB's .mat files, read through SciPy."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asymseg.errors import DataError

_MATRIX, _PACKED = 14, 15
_KINDS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, _MATRIX, _PACKED, 16, 17, 18)
_DEEPEST = 20
_MOST_UNPACKED = 2**30


@dataclass(frozen=True)
class MatLabels:
    """Reads the label map `variable` of a .mat file; with `field`, that of the struct `variable`."""

    variable: str
    field: str | None = None

    def __call__(self, path: Path) -> np.ndarray:
        """Raw ids H W."""
        try:
            from scipy.io import loadmat
        except ImportError:
            raise DataError(f'{path}: a .mat file is read through SciPy; pip install "asymseg[formats]"') from None
        _check_kinds(path)
        names = [self.variable]
        content = loadmat(path, variable_names=names).get(self.variable)
        if content is not None and self.field is not None:
            inner = content.dtype.names and self.field in content.dtype.names
            content = content[self.field][0, 0] if inner else None
        if content is None:
            wanted = self.variable if self.field is None else f"{self.variable}.{self.field}"
            raise DataError(f"{path}: holds no label map {wanted}; is this the .mat of another data set?")
        labels = np.asarray(content)
        whole = labels.dtype.kind == "f" and np.array_equal(labels, np.rint(labels))
        if whole and np.abs(labels).max(initial=0) < 2**31:
            return labels.astype(np.int32)  # MATLAB's numbers are doubles unless somebody minds
        return labels


def _check_kinds(path: Path) -> None:
    """Raises DataError where an element of a file of version 5 has a kind that does not exist.

    SciPy looks kinds up in a table with holes: such a file, perhaps cut short and filled with zeros, ends the process.
    """
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is not None and not _known(memoryview(content)[128:], order, 0):
        raise DataError(f"{path}: holds an element of no known kind; it may be cut short or damaged: copy it again")


def _known(content: memoryview, order: str, depth: int) -> bool:
    """Whether all elements there, and those within them, are of a kind that exists."""
    place = 0
    while place + 8 <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # a small one, its length in the upper half and its content in the place of the length
            kind, length, start, end = kind & 0xFFFF, 0, place + 8, place + 8
        else:
            start, end = place + 8, place + 8 + length
        if kind not in _KINDS:
            return False
        inner = content[start:end]
        if kind == _PACKED:
            inner = memoryview(zlib.decompressobj().decompress(inner, _MOST_UNPACKED))
        if kind in (_MATRIX, _PACKED) and depth < _DEEPEST and not _known(inner, order, depth + 1):
            return False
        place = end if kind == _PACKED else -(-end // 8) * 8
    return True
