"""Pairs to batches. What a batch holds depends on the seed and its number alone, not on workers, restarts or time."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asymseg.classes import Classes
from asymseg.config import DataConfig
from asymseg.data.dataset import Pair
from asymseg.data.dataset import read_pair as read_pair
from asymseg.data.files import read_image
from asymseg.data.transforms import augment
from asymseg.errors import ConfigError, DataError, TrainingError

_ORDER, _AUGMENT = 0, 1

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Sample = tuple[Tensor, Tensor, str]


@dataclass(frozen=True)
class Batch:
    """Augmented, normalised images with their masks."""

    images: Float[Tensor, "b c h w"]
    masks: Int64[Tensor, "b h w"]
    names: list[str]

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device; the copy overlaps with computing where the memory is pinned."""
        return Batch(self.images.to(device, non_blocking=True), self.masks.to(device, non_blocking=True), self.names)

    def pin_memory(self) -> "Batch":
        """The batch in memory that copies to a GPU without a stop; `DataLoader` looks for this name."""
        return Batch(self.images.pin_memory(), self.masks.pin_memory(), self.names)


def training_loader(
    pairs: tuple[Pair, ...],
    classes: Classes,
    settings: DataConfig,
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    batch_size: int,
    first_batch: int,
    num_batches: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Batches `first_batch` to `first_batch + num_batches - 1` of an endless, reshuffled walk through the pairs.

    `batch_size` counts the images of all `world` processes together; this process gets the part of its `rank`.
    It reads in `settings.workers` processes of their own, or in as many as it may use cores, if these are fewer.
    """
    if batch_size % world != 0:
        raise ConfigError(f"train.batch_size {batch_size} does not divide by {world} processes; choose a multiple")
    if not pairs:
        raise DataError("no training images; put them into images/train and their masks into masks/train")
    share = batch_size // world
    starts = (number * batch_size + rank * share for number in range(first_batch, first_batch + num_batches))
    loader: DataLoader[_Sample | DataError] = DataLoader(
        _Samples(pairs, classes, settings, channels, mean, std, seed),
        batch_sampler=_Numbers([range(start, start + share) for start in starts]),
        num_workers=min(settings.workers, _cores()),  # DataLoader warns of more, and they would only wait
        collate_fn=_collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # without it the loader would draw from the generator that dropout uses
    )
    return _batches(loader)


class TimedBatches:
    """Batches, and what share of the time was spent waiting for them."""

    def __init__(self, batches: Iterator[Batch], batch_size: int) -> None:
        self.batches, self.batch_size = batches, batch_size
        self.restart()

    def restart(self) -> None:
        """Forget what was measured so far."""
        self.began, self.waited, self.taken = time.monotonic(), 0.0, 0

    def __next__(self) -> Batch:
        asked = time.monotonic()
        batch = next(self.batches)
        self.waited += time.monotonic() - asked
        self.taken += 1
        return batch

    def speed(self) -> tuple[float, float]:
        """Images per second over all processes, and the share of the time spent waiting, since the last restart."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        return self.taken * self.batch_size / elapsed, self.waited / elapsed


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """In which order the pairs are seen in an epoch."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def measure_normalisation(
    pairs: tuple[Pair, ...], channels: int, most: int = 200
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel on the 0..1 scale, over at most `most` images spread over all."""
    chosen = [pairs[number] for number in np.unique(np.linspace(0, len(pairs) - 1, most).round().astype(int))]
    count, total, squares = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for image in prefetched(chosen, lambda pair: read_image(pair.image, channels), workers=2):
        pixels = image.flatten(1).double() / (255 if image.dtype == torch.uint8 else 1)  # c h w -> c n
        count += pixels.shape[1]
        total += pixels.sum(dim=1)
        squares += pixels.square().sum(dim=1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std[std < 1e-6] = 1.0  # a channel that never varies becomes 0, not noise
    return tuple(mean.tolist()), tuple(std.tolist())


def prefetched(
    items: Iterable[_Item], function: Callable[[_Item], _Result], workers: int, ahead: int = 2
) -> Iterator[_Result]:
    """`function` of each item, in order, computed by threads at most `workers * ahead` results early."""
    if workers < 1:
        yield from map(function, items)
        return
    waiting: deque[Future[_Result]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="asymseg-read")
    try:
        for item in islice(remaining, workers * ahead):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(remaining, 1):
                waiting.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """How many cores this process may use; not every system can tell that from how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Numbers:
    """The sample numbers of each batch; `DataLoader` wants their count beside them."""

    def __init__(self, batches: list[range]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self.batches)


class _Samples(Dataset[_Sample | DataError]):
    """Sample number -> augmented image, mask and name."""

    def __init__(
        self,
        pairs: tuple[Pair, ...],
        classes: Classes,
        settings: DataConfig,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ) -> None:
        self.pairs, self.classes, self.settings, self.channels = pairs, classes, settings, channels
        self.mean, self.std, self.seed = mean, std, seed
        self.epoch = -1
        self.order = np.empty(0, dtype=np.int64)

    def __getitem__(self, number: int) -> _Sample | DataError:
        epoch, place = divmod(number, len(self.pairs))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, order(len(self.pairs), self.seed, epoch)
        pair = self.pairs[int(self.order[place])]
        rng = np.random.default_rng((self.seed, _AUGMENT, number))
        try:
            image, mask = read_pair(pair, self.classes, self.channels)
        except DataError as error:
            return error  # as a value: raised in a worker it would arrive wrapped in a page of traceback
        image, mask = augment(image, mask, self.settings, self.mean, self.std, rng)
        return image, mask, pair.name


def _collate(samples: list[_Sample | DataError]) -> Batch | DataError:
    read: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        read.append(sample)
    images, masks, names = zip(*read, strict=True)
    return Batch(torch.stack(images), torch.stack(masks).long(), list(names))


def _batches(loader: DataLoader[_Sample | DataError]) -> Iterator[Batch]:
    try:
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not text.startswith("DataLoader worker (pid"):
            raise
        raise TrainingError(
            f"a process that reads images died ({text}); it may have run out of memory or shared memory: "
            "lower --data.workers"
        ) from None
