"""Pairs to batches. What a batch holds depends on the seed and its number alone, not on workers, restarts or time."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asymseg.classes import Classes
from asymseg.config import DataConfig
from asymseg.data.cache import check_room, read_cached
from asymseg.data.dataset import Pair
from asymseg.data.dataset import read_pair as read_pair
from asymseg.data.prefetching import prefetched
from asymseg.data.readers import Readers, begin_worker, make_readers
from asymseg.data.reading import read_pair_image
from asymseg.data.shelf import Filled, Recycled, Shelf, make_shelf
from asymseg.data.transforms import augment
from asymseg.errors import AsymsegError, ConfigError, DataError

_ORDER, _AUGMENT = 0, 1
_AHEAD = 2
"""Batches that each worker prepares before they are asked for."""
_NORMALISED_BY = 200
"""Images."""


@dataclass(frozen=True)
class Batch:
    """Augmented, normalised images with their masks."""

    images: Float[Tensor, "b c h w"]
    masks: Int64[Tensor, "b h w"]
    names: list[str]
    skipped: tuple[str, ...] = ()
    """What was wrong with the files that others stand in for; see `DataConfig.on_bad_file`."""

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device; the copy overlaps with computing where the memory is pinned."""
        overlapping = self.images.is_pinned()  # other memory may be used again before such a copy is done
        images, masks = (part.to(device, non_blocking=overlapping) for part in (self.images, self.masks))
        return Batch(images, masks, self.names, self.skipped)


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
    readers: Readers | None = None,
) -> Iterator[Batch]:
    """Batches `first_batch` to `first_batch + num_batches - 1` of an endless, reshuffled walk through the pairs.

    `batch_size` counts the images of all `world` processes together; this process gets the part of its `rank`.
    It reads in `settings.workers` processes of their own, or in as many as it may use cores, if these are fewer. Who
    wants to know what they were at when one dies passes `readers` in.
    """
    if batch_size % world != 0:
        raise ConfigError(f"train.batch_size {batch_size} does not divide by {world} processes; choose a multiple")
    if not pairs:
        raise DataError("no training images; put them into images/train and their masks into masks/train")
    share, workers = batch_size // world, available_workers(settings)
    if settings.cache is not None:
        check_room(settings.cache, pairs, classes, channels)
    readers = make_readers(pairs, workers) if readers is None else readers
    samples = _Samples(readers, classes, settings, channels, mean, std, seed)
    shelf = make_shelf(workers * _AHEAD + 1, share, channels, settings.crop_size, shared=workers > 0)
    loader: DataLoader[Filled | AsymsegError] = DataLoader(
        _Batches(samples, shelf, batch_size, rank * share),
        batch_size=None,
        sampler=range(first_batch, first_batch + num_batches),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        collate_fn=_unchanged,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),  # without it the loader would draw from the generator that dropout uses
    )
    return _taken(loader, shelf, readers, pin_memory)


def available_workers(settings: DataConfig) -> int:
    """How many processes will read: no more than the cores this one may use, for they would only wait."""
    return min(settings.workers, available_cores())


def available_cores() -> int:
    """How many cores this process may use; all of the machine's where the system cannot tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def measure_normalisation(pairs: tuple[Pair, ...], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel on the 0..1 scale, over images spread over all, at most 200."""
    chosen = [pairs[number] for number in np.unique(np.linspace(0, len(pairs) - 1, _NORMALISED_BY).round().astype(int))]
    count, total, squares = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for image in prefetched(chosen, lambda pair: read_pair_image(pair, channels), workers=2):
        pixels = image.flatten(1).double() / (255 if image.dtype == torch.uint8 else 1)  # c h w -> c n
        count += pixels.shape[1]
        total += pixels.sum(dim=1)
        squares += pixels.square().sum(dim=1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std[std < 1e-6] = 1.0  # a channel that never varies becomes 0, not noise
    return tuple(mean.tolist()), tuple(std.tolist())


class _Batches(Dataset[Filled | AsymsegError]):
    """Batch number -> its slot on the shelf, filled; for this process's share of each batch."""

    def __init__(self, samples: "_Samples", shelf: Shelf, batch_size: int, offset: int) -> None:
        self.samples, self.shelf = samples, shelf
        self.batch_size, self.offset = batch_size, offset

    def __getitem__(self, number: int) -> Filled | AsymsegError:
        slot = number % self.shelf.images.shape[0]
        start = number * self.batch_size + self.offset
        names: list[str] = []
        skipped: list[str] = []
        for place, out in enumerate(zip(self.shelf.images[slot], self.shelf.masks[slot], strict=True)):
            try:
                names.append(self.samples.write(start + place, out, skipped))
            except AsymsegError as error:
                return error  # as a value: raised in a worker it would arrive wrapped in a page of traceback
        return Filled(slot, names, tuple(skipped))


class _Samples:
    """Sample number -> augmented image and mask, and the pair's name."""

    def __init__(
        self,
        readers: Readers,
        classes: Classes,
        settings: DataConfig,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ) -> None:
        self.readers, self.pairs = readers, readers.pairs
        self.classes, self.settings, self.channels = classes, settings, channels
        self.mean, self.std, self.seed = mean, std, seed
        self.epoch = -1
        self.order = np.empty(0, dtype=np.int64)

    def write(self, number: int, out: tuple[Float[Tensor, "c h w"], UInt8[Tensor, "h w"]], skipped: list[str]) -> str:
        """Put the sample into `out`; gives its name, and adds to `skipped` what was wrong with those before it."""
        epoch, place = divmod(number, len(self.pairs))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, order(len(self.pairs), self.seed, epoch)
        rng = np.random.default_rng((self.seed, _AUGMENT, number))
        for step in range(len(self.pairs)):
            index = int(self.order[(place + step) % len(self.pairs)])
            pair = self.pairs[index]
            self.readers.take(index)
            try:
                image, mask = self._read(pair)
                augment(image, mask, self.settings, self.mean, self.std, rng, out)
                return pair.name
            except DataError as error:
                if self.settings.on_bad_file == "raise" or _has_vanished(pair):
                    raise
                skipped.append(str(error))
            except Exception as error:
                error.add_note(f"while it read {pair.image} and {pair.mask}")
                raise
        raise DataError(f"none of the {len(self.pairs)} training images can be read; {skipped[-1]}")

    def _read(self, pair: Pair) -> tuple[Tensor, Tensor]:
        if self.settings.cache is None:
            return read_pair(pair, self.classes, self.channels)
        return read_cached(self.settings.cache, pair, self.classes, self.channels)


def _has_vanished(pair: Pair) -> bool:
    """Whether the folders of a pair's files are gone, as a disk's are that is no longer mounted."""
    files = [file for file, reader in ((pair.image, pair.pixels), (pair.mask, pair.labels)) if reader is None]
    return any(not file.parent.is_dir() for file in files)


def _unchanged(filled: Any) -> Any:
    return filled


def _taken(
    loader: Iterable[Filled | AsymsegError], shelf: Shelf, readers: Readers, pin_memory: bool
) -> Iterator[Batch]:
    """The batches, copied from their slots; where memory is pinned by a thread, one batch early."""
    device = torch.cuda.current_device() if pin_memory else None
    images = Recycled(tuple(shelf.images.shape[1:]), np.float32)
    masks = Recycled(tuple(shelf.masks.shape[1:]), np.int64)

    def take(filled: Filled | AsymsegError) -> Batch:
        if isinstance(filled, AsymsegError):
            raise filled
        seen, labels = shelf.images[filled.slot], shelf.masks[filled.slot]
        if device is None:
            return Batch(images.tensor().copy_(seen), masks.tensor().copy_(labels), filled.names, filled.skipped)
        torch.cuda.set_device(device)  # each thread has its own, at first the first
        return Batch(seen.pin_memory(), labels.long().pin_memory(), filled.names, filled.skipped)

    try:
        yield from prefetched(loader, take, workers=1 if pin_memory else 0, ahead=1)
    except RuntimeError as error:
        death = readers.death(error)
        if death is None:
            raise
        raise death from None
