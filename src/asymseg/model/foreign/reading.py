"""Checkpoint files of any dialect: tensors by name, and what lies beside them."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from asymseg.errors import CheckpointError
from asymseg.model.foreign.pickles import Array, damage, read_arrays
from asymseg.model.foreign.torch_files import LEGACY_MAGIC, ZIP_START, read_torch

WEIGHTS = ("state_dict", "model")
"""Where a checkpoint has its weights, in this order, unless it is nothing else."""

LONGEST_KEY = 200

DROPPED = {
    "optimizer": "state of the optimiser",
    "ema_state_dict": "the weights before averaging; state_dict has the averaged ones",
    "message_hub": "training log",
    "param_schedulers": "state of the learning rate",
    "StructuredToParameterName@@": "PaddlePaddle's own names",
}
"""Entries of a checkpoint that no network needs, and why."""


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint by their names there, without `module.`, and what else it holds.

    Takes what torch.save writes, now and before 1.6, PaddlePaddle's `.pdparams` and safetensors, told apart by their
    content. No code of the file runs. Raises CheckpointError that says what is wrong, or what the file asked for.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not weights by name")
    # Not content.items(): a pickle can give an OrderedDict an attribute of that name.
    entries = dict(dict.items(content))
    held = next((name for name in WEIGHTS if isinstance(entries.get(name), dict)), None)
    weights = entries if held is None else dict(dict.items(entries[held]))
    beside = {key: value for key, value in entries.items() if key != held and (held is not None or key in DROPPED)}
    tensors = {
        key: _tensor(path, key, value) for key, value in weights.items() if held is not None or key not in beside
    }
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights")
    if all(key.startswith("module.") for key in tensors):  # as DataParallel saves them
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors, beside


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(len(LEGACY_MAGIC))
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise damage(str(path), error) from None
    if start.startswith(ZIP_START) or start == LEGACY_MAGIC:
        return read_torch(path)
    if start.startswith(b"\x80"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return read_arrays(content, str(path))
    raise CheckpointError(
        f"{path}: neither torch's nor PaddlePaddle's nor a safetensors file (it begins with {start[:12]!r}); "
        "download it again"
    )


def _tensor(path: Path, key: Any, value: Any) -> Tensor:
    """A tensor from a tensor, an array, or PaddlePaddle's pair of a name and an array."""
    if not isinstance(key, str):
        raise CheckpointError(f"{path}: names a tensor by a {type(key).__name__}, not a text")
    if not key.isprintable() or len(key) > LONGEST_KEY:
        raise CheckpointError(f"{path}: names a tensor {key[:60]!r}, which is no name of a tensor")
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if isinstance(value, Array):
        return _from_numpy(value.numpy)
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: {key[:100]!r} is a {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise CheckpointError(f"{path}: {key[:100]!r} is a sparse, quantised or empty tensor, not plain numbers")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: {key[:100]!r} has more numbers than the file holds of it")
    return value.detach()


def _from_numpy(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))  # a copy: the pickle's bytes are read-only
