"""Pickles from strangers, in which nothing runs: what they ask for is checked by name, and arrays alone are built.

A pickle is a program. Its instructions are gone through first, without being followed, for those that would take more
memory than the file can fill. Then it is followed by an unpickler that knows the names below and nothing else; each
stands for a part of this file, so that not even NumPy's own unpickling runs.
"""

import math
import pickle
import pickletools
import re
import struct
from collections.abc import Mapping
from typing import IO, Any, Protocol, cast, runtime_checkable

import numpy as np

from asymseg.errors import CheckpointError

DEEPEST = 100
"""Tuples within tuples; thousands of them overflow the interpreter's own stack."""


@runtime_checkable
class Stream(Protocol):
    """What an unpickler reads: a file, or its bytes mapped into memory."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...

    def seek(self, place: int, /) -> Any: ...

    def tell(self) -> int: ...


FAULTS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,  # Unicode errors too
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    ImportError,
    struct.error,
)
"""What following a damaged or hostile pickle may end in."""


class Ordered(dict[Any, Any]):
    """Stands for `OrderedDict`, without the attributes that a pickle may give it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Dtype:
    """Stands for `numpy.dtype`: numbers of 1 to 8 bytes alone."""

    def __init__(self, kind: Any, align: Any = False, copy: Any = True) -> None:
        if not (isinstance(kind, str) and re.fullmatch(r"[biuf][1248]", kind)):
            raise ValueError(f"an array of {str(kind)[:20]!r}, not of numbers")
        self.numpy = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise ValueError("an array of unknown byte order")
        self.numpy = self.numpy.newbyteorder(order)


class Array:
    """Stands for `numpy.ndarray`, whose numbers must all be in the pickle."""

    def __init__(self) -> None:
        self.numpy: np.ndarray = np.empty(0, dtype=np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, content = state
        content = content.encode("latin1") if isinstance(content, str) else content  # as Python 2 wrote it
        if not (isinstance(dtype, Dtype) and isinstance(content, bytes) and isinstance(shape, tuple)):
            raise ValueError("an array of an unknown form")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("an array of an impossible shape")
        if math.prod(shape) * dtype.numpy.itemsize != len(content):
            raise ValueError(f"an array of shape {str(shape)[:60]} with {len(content)} bytes")
        self.numpy = np.frombuffer(content, dtype.numpy).reshape(shape, order="F" if by_column else "C")


def rebuild_array(kind: Any, shape: Any, code: Any) -> Array:
    """Stands for NumPy's `_reconstruct`, which makes an empty array for `__setstate__` to fill."""
    if kind is not Array:
        raise ValueError("an array of an unknown kind")
    return Array()


def scalar(dtype: Any, content: Any) -> int | float | bool:
    """Stands for NumPy's `scalar`."""
    content = content.encode("latin1") if isinstance(content, str) else content
    if not (isinstance(dtype, Dtype) and isinstance(content, bytes) and len(content) == dtype.numpy.itemsize):
        raise ValueError("a number of an unknown form")
    number: int | float | bool = np.frombuffer(content, dtype.numpy)[0].item()
    return number


def encode(text: Any, encoding: Any) -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes of an unknown encoding")
    return text.encode("latin1")


def pair(parts: Any) -> tuple[Any, ...]:
    """Stands for `tuple`, by which PaddlePaddle writes a tensor as its name and an array."""
    if not isinstance(parts, tuple) or len(parts) != 2:
        raise ValueError("a tuple of an unknown form")
    return parts


NUMPY_SCALARS: dict[str, Any] = {
    "numpy.core.multiarray.scalar": scalar,
    "numpy._core.multiarray.scalar": scalar,
    "numpy.dtype": Dtype,
}
ARRAYS: dict[str, Any] = NUMPY_SCALARS | {
    "numpy.core.multiarray._reconstruct": rebuild_array,
    "numpy._core.multiarray._reconstruct": rebuild_array,
    "numpy.ndarray": Array,
    "collections.OrderedDict": Ordered,
    "_codecs.encode": encode,
    "builtins.tuple": pair,
    "__builtin__.tuple": pair,
}


class RefusedError(Exception):
    """A pickle asked for something by a name that no checkpoint needs."""


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that finds `names` and refuses all others."""

    def __init__(self, file: Stream, names: Mapping[str, Any]) -> None:
        super().__init__(file, encoding="latin1")
        self.names = names

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.names:
            raise RefusedError(full[:100])
        return self.names[full]


def read_arrays(file: Stream, source: str) -> Any:
    """What a pickle of arrays, numbers, texts and containers holds. Raises CheckpointError."""
    try:
        check_instructions(file)
        file.seek(0)
        return ArrayUnpickler(file, ARRAYS).load()
    except RefusedError as error:
        raise refusal(source, str(error)) from None
    except FAULTS as error:
        raise damage(source, error) from None


def refusal(source: str, name: str) -> CheckpointError:
    return CheckpointError(
        f"{source}: asks for {name!r}, which weights do not need; nothing of it was run. If you trust the file, save "
        "its state_dict alone where it came from (mmsegmentation: tools/model_converters/publish_model.py)"
    )


def damage(source: str, error: Exception | str) -> CheckpointError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CheckpointError(f"{source}: damaged or not a checkpoint ({reason}); copy or download it again")


def check_instructions(file: Stream) -> None:
    """Go through one pickle without following it. Raises ValueError for what would take memory beyond its size.

    CPython keeps its memo in an array as long as the highest number in it, and hashes tuples recursively. Texts and
    bytes that say to be longer than the file end the walk themselves.
    """
    depths: list[int] = []  # of the tuple at each place of the stack
    marks: list[int] = []
    memo: dict[int, int] = {}
    for count, (instruction, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
        name = instruction.name
        if name == "MARK":
            marks.append(len(depths))
        elif name == "POP" and marks and marks[-1] == len(depths):
            marks.pop()
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if not isinstance(argument, int) or not 0 <= argument <= count:
                raise ValueError(f"a memo of {argument} entries after {count} instructions")
            memo[argument] = depths[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = depths[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            depths.append(memo[argument] if isinstance(argument, int) else 0)
        else:
            parts = _take(instruction, depths, marks)
            made = len(instruction.stack_after)
            inner = max(parts, default=0)
            depth = 1 + inner if name.startswith("TUPLE") else inner if name == "REDUCE" else 0
            if depth > DEEPEST:
                raise ValueError(f"tuples within tuples, more than {DEEPEST} deep")
            # DUP alone leaves two.
            depths.extend([parts[0] if name == "DUP" else depth] * made)


def _take(instruction: pickletools.OpcodeInfo, depths: list[int], marks: list[int]) -> list[int]:
    """Take off the stack what an instruction takes; IndexError where there is too little."""
    before = instruction.stack_before
    if pickletools.markobject in before:
        start = marks.pop() - before.index(pickletools.markobject)  # APPENDS and SETITEMS take their container too
    else:
        start = len(depths) - len(before)
    if start < 0 or start > len(depths):
        raise IndexError("the stack is empty")
    parts = depths[start:]
    del depths[start:]
    return parts
