"""How fast images become batches: each stage alone, and the whole loader beside nothing but decoding and resizing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asymseg.classes import Classes
from asymseg.config import DataConfig
from asymseg.data.cache import read_cached
from asymseg.data.dataset import DataSet, Pair
from asymseg.data.loader import available_workers, training_loader
from asymseg.data.pairing import LabelReader, PixelReader
from asymseg.data.readers import begin_worker
from asymseg.data.reading import read_pair_image, read_pair_mask
from asymseg.data.transforms import place, random_size, random_window, recolour, resize_image, resize_mask
from asymseg.errors import AsymsegError, DataError

WAITING = 0.2
"""Share of the time spent waiting for images above which `waiting_advice` speaks."""

_DECODING = ("decode image", "decode mask")
_BATCH = 8


@dataclass(frozen=True)
class LoaderFigures:
    """What `measure_loader` found; every list in the order of measuring."""

    workers: int
    """Processes that read; 0 where it is the measuring one."""
    crop_size: tuple[int, int]
    batch_size: int
    stages: dict[str, list[float]]
    """Seconds that one process takes for each image, by stage, in the order of the pipeline."""
    loader: list[float]
    """Images per second of the training loader, one number per round."""
    rival: list[float]
    """The same of decoding and resizing alone, measured in turn with it by as many processes."""

    @property
    def ratio(self) -> float:
        """How fast the loader is as a share of the rival; the median over the rounds."""
        return median(own / other for own, other in zip(self.loader, self.rival, strict=True))


def measure_loader(
    dataset: DataSet,
    settings: DataConfig,
    *,
    channels: int = 3,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    batch_size: int = _BATCH,
    rounds: int = 5,
    batches: int = 16,
    samples: int = 64,
) -> LoaderFigures:
    """Each stage over `samples` images, and the loader in turn with its rival, `batches` at a time.

    The rival reads the same files with Pillow and resizes image and mask to the crop's size, in as many processes,
    and hands nothing over. A first round of both counts nowhere: it warms up, and fills the cache where there is one.
    """
    pairs = dataset.splits.get("train") or ()
    if not pairs:
        raise DataError("no training images to measure with; put them into images/train")
    stages = measure_stages(pairs, dataset.classes, settings, channels, mean, std, samples)
    workers = available_workers(settings)
    speeds: dict[str, list[float]] = {"loader": [], "rival": []}
    count = batches + max(1, workers)
    for _ in range(rounds + 1):
        loader = training_loader(
            pairs,
            dataset.classes,
            settings,
            channels,
            mean,
            std,
            batch_size=batch_size,
            first_batch=0,
            num_batches=count,
            seed=0,
        )
        speeds["loader"].append(_speed(loader, max(1, workers), batch_size))
        rival = _rival_loader(pairs, settings.crop_size, batch_size, range(count), workers)
        speeds["rival"].append(_speed(rival, max(1, workers), batch_size))
    return LoaderFigures(workers, settings.crop_size, batch_size, stages, speeds["loader"][1:], speeds["rival"][1:])


def measure_stages(
    pairs: tuple[Pair, ...],
    classes: Classes,
    settings: DataConfig,
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    samples: int = 64,
) -> dict[str, list[float]]:
    """Seconds of each stage for each of `samples` images, one after another in a process like the loader's."""
    loader: DataLoader[dict[str, float] | AsymsegError] = DataLoader(
        _Staged(pairs, classes, settings, channels, mean, std),
        batch_size=None,
        sampler=range(samples + 1),
        num_workers=1,
        collate_fn=_unchanged,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
    )
    seconds: dict[str, list[float]] = {}
    for result in islice(loader, 1, None):  # the first one warms up
        if isinstance(result, AsymsegError):
            raise result
        for name, value in result.items():
            seconds.setdefault(name, []).append(value)
    return seconds


def waiting_advice(
    share: float,
    pairs: tuple[Pair, ...],
    classes: Classes,
    settings: DataConfig,
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> str | None:
    """One line on which stage is slow and what helps, where `share` of the time went on waiting; None where little."""
    if share <= WAITING:
        return None
    stages = measure_stages(pairs, classes, settings, channels, mean, std, samples=8)
    typical = {name: 1e3 * median(seconds) for name, seconds in stages.items()}
    slowest = max(typical, key=lambda name: typical[name])
    workers = available_workers(settings)
    # Fewer read than were asked for, or as many as there are cores: more would only wait.
    can_grow = available_workers(settings.model_copy(update={"workers": settings.workers + 1})) > workers
    cures = [f"raise data.workers (now {settings.workers})"] if can_grow else []
    if slowest in _DECODING:
        cures.append("set data.cache to a folder that keeps decoded images")
    if not cures:
        cures.append(f"{workers} processes read already, as many as there are cores: a machine with more cores helps")
    return (
        f"{share:.0%} of the time goes on waiting for images; the slowest stage is {slowest!r} with "
        f"{typical[slowest]:.1f} of {sum(typical.values()):.1f} ms per image; {', or '.join(cures)}"
    )


class _Staged(Dataset[dict[str, float] | AsymsegError]):
    """Number -> the seconds of each stage of the loader and of `augment` for one pair."""

    def __init__(
        self,
        pairs: tuple[Pair, ...],
        classes: Classes,
        settings: DataConfig,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.pairs, self.classes, self.settings, self.channels = pairs, classes, settings, channels
        self.mean, self.std = mean, std
        self.slot = torch.empty(channels, *settings.crop_size), torch.empty(settings.crop_size, dtype=torch.uint8)
        self.batch = torch.empty(channels, *settings.crop_size), torch.empty(settings.crop_size, dtype=torch.int64)
        self.seconds: dict[str, float] = {}

    def __getitem__(self, number: int) -> dict[str, float] | AsymsegError:
        self.seconds = {}
        pair, rng = self.pairs[number % len(self.pairs)], np.random.default_rng(number)
        try:
            image, mask = self._read(pair)
        except AsymsegError as error:
            return error
        self._augment(image, mask, rng)
        with self._stage("take batch"):
            for kept, filled in zip(self.batch, self.slot, strict=True):
                kept.copy_(filled)
        return self.seconds

    def _read(self, pair: Pair) -> tuple[Tensor, Tensor]:
        folder = self.settings.cache
        if folder is not None:
            read_cached(folder, pair, self.classes, self.channels)  # so that it is there
            with self._stage("read cache"):
                return read_cached(folder, pair, self.classes, self.channels)
        with self._stage("decode image"):
            image = read_pair_image(pair, self.channels)
        with self._stage("decode mask"):
            return image, read_pair_mask(pair, self.classes)

    def _augment(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> None:
        """What `augment` does."""
        crop, settings = self.settings.crop_size, self.settings
        with self._stage("choose crop"):
            size = random_size((mask.shape[0], mask.shape[1]), settings, rng)
            target = min(size[0], crop[0]), min(size[1], crop[1])
            window = random_window(mask, size, target, settings.max_class_share, rng)
        with self._stage("resize image"):
            image = resize_image(window.of(image), target)
        with self._stage("resize mask"):
            mask = resize_mask(window.of(mask), target)
        with self._stage("flip"):
            if rng.random() < settings.flip:
                image, mask = image.flip(-1), mask.flip(-1)
        with self._stage("colours"):
            image = recolour(image, settings, rng)
        with self._stage("normalise and pad"):
            place(image, mask, self.mean, self.std, self.slot)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def _unchanged(result: Any) -> Any:
    return result


def _speed(batches: Iterator[object], skipped: int, batch_size: int) -> float:
    """Images per second, from when each process has given its first batch."""
    for _ in islice(batches, skipped):
        pass
    began = time.perf_counter()
    count = sum(1 for _ in batches)
    return count * batch_size / (time.perf_counter() - began)


def _rival_loader(
    pairs: tuple[Pair, ...], size: tuple[int, int], batch_size: int, numbers: range, workers: int
) -> Iterator[object]:
    loader: DataLoader[int] = DataLoader(
        _Plain(pairs, size, batch_size),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
    )
    return iter(loader)


class _Plain(Dataset[int]):
    """Batch number -> its images and masks decoded, resized and forgotten."""

    def __init__(self, pairs: tuple[Pair, ...], size: tuple[int, int], batch_size: int) -> None:
        self.pairs, self.size, self.batch_size = pairs, size, batch_size

    def __getitem__(self, number: int) -> int:
        height, width = self.size
        for sample in range(number * self.batch_size, (number + 1) * self.batch_size):
            pair = self.pairs[sample % len(self.pairs)]
            with _picture(pair.image, pair.pixels) as image:
                np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
            with _picture(pair.mask, pair.labels) as mask:
                np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
        return number


def _picture(path: Path, reader: PixelReader | LabelReader | None) -> Image.Image:
    """What Pillow makes of the file, or of what is read from it."""
    if reader is None:
        return Image.open(path)
    content = reader(path)
    return content if isinstance(content, Image.Image) else Image.fromarray(content)
