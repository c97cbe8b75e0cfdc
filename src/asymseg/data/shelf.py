"""Memory that batches are put together in, used again from batch to batch."""

import weakref
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from asymseg.errors import TrainingError


class Recycled:
    """Arrays of one shape, used again when the last tensor on them is gone."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.shape, self.dtype = shape, dtype
        self.free: list[np.ndarray] = []

    def tensor(self) -> Tensor:
        """A tensor of anything."""
        array = self.free.pop() if self.free else np.empty(self.shape, self.dtype)
        held = array.view()  # the tensor's memory holds it, and so do autograd and all that share that memory
        weakref.finalize(held, self.free.append, array).atexit = False
        return torch.from_numpy(held)


class Shelf(NamedTuple):
    """Memory for batches, made once: fresh shared memory costs more than all work on the images that it holds.

    Batch n lies in slot n modulo the count of slots. A worker starts on it when batch n - count + 1 is asked for, and
    by then the one before that, whose slot it takes, has been copied out.
    """

    images: Float[Tensor, "slots b c h w"]
    masks: UInt8[Tensor, "slots b h w"]


class Filled(NamedTuple):
    """Which slot a worker has filled."""

    slot: int
    names: list[str]
    skipped: tuple[str, ...]


def make_shelf(slots: int, count: int, channels: int, size: tuple[int, int], shared: bool) -> Shelf:
    """Empty slots for `count` images each, where worker processes see them if `shared`.

    Raises TrainingError where there is no room for shared memory.
    """
    shelf = Shelf(torch.empty(slots, count, channels, *size), torch.empty(slots, count, *size, dtype=torch.uint8))
    if shared:
        share(*shelf)
    return shelf


def share(*memories: Tensor) -> None:
    """Move tensors to where worker processes see them. Raises TrainingError where there is no room for that."""
    try:
        for memory in memories:
            memory.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        needed = sum(memory.nbytes for memory in memories) / 2**20
        raise TrainingError(
            f"no room for {needed:.0f} MiB of shared memory ({' '.join(str(error).split())[:200]}); "
            "lower --data.workers or --train.batch_size, or give the container more (docker run --shm-size)"
        ) from None
