"""What a run will need, found by a few of its own steps: memory, time, waiting for images; and settings that fit."""

import math
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import psutil
import torch
from rich.console import Console

from asymseg.config import Config, make_config
from asymseg.data.dataset import DataSet
from asymseg.data.loader import TimedBatches, available_cores
from asymseg.data.measure import measure_stages
from asymseg.data.reading import pair_size
from asymseg.errors import ConfigError, TrainingError
from asymseg.model.memory import reused_memory
from asymseg.prediction.shortage import ran_out
from asymseg.training import plan
from asymseg.training.step import Work, optimizer_step, prepare, remaining_batches
from asymseg.training.watch import Watch

_USABLE = 0.9
"""Share of the memory that a run may take."""


@dataclass(frozen=True)
class Measured:
    """What steps of one batch size took; seconds are those of computing, without the wait for images."""

    batch_size: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Line:
    """A straight line over the batch size."""

    offset: float
    slope: float

    def __call__(self, size: int) -> float:
        return self.offset + self.slope * size


def line_through(points: list[tuple[int, float]]) -> Line:
    """The line through the first and the last point that falls nowhere; from the origin where there is one point."""
    (first, low), (last, high) = points[0], points[-1]
    slope = high / last if first == last else max(0.0, (high - low) / (last - first))
    return Line(high - slope * last, slope)


@dataclass(frozen=True)
class Preflight:
    """What a run will need with the settings it was given, and settings that fit this machine."""

    device: str
    measured: tuple[Measured, ...]
    seconds_per_step: float
    peak_bytes: int
    room_bytes: int
    extrapolated: bool
    """Whether seconds and bytes are on the line through what was measured with fewer images."""
    loader_share: float
    """Of the time, that which a step waits for images with the workers there are."""
    batch_size: int
    accumulation: int
    crop_size: tuple[int, int]
    workers: int

    def lines(self) -> list[str]:
        """All of it in words, the last line as flags of `asymseg train`."""
        how = "extrapolated from" if self.extrapolated else "measured with"
        sizes = " and ".join(str(part.batch_size) for part in self.measured)
        return [
            f"device       {self.device}, {self.room_bytes / 2**30:.1f} GiB of memory to use",
            f"peak memory  {self.peak_bytes / 2**30:.2f} GiB ({how} {sizes} images a batch)",
            f"a step       {self.seconds_per_step:.2f} s, of which {self.loader_share:.0%} wait for images",
            f"proposed     --train.batch_size {self.batch_size} --train.accumulation {self.accumulation} "
            f"--data.crop_size {self.crop_size[0]} {self.crop_size[1]} --data.workers {self.workers}",
        ]


def preflight(
    data: str | Path | DataSet | None, config: Config, console: Console | None = None, seconds: float = 30.0
) -> Preflight:
    """Measure some steps of the run that `config` describes, in about `seconds`; nothing is kept.

    Batches grow from two images to the configured size as far as the time allows, and the rest is extrapolated: time
    and memory are straight lines over the batch size. Raises TrainingError where not even the smallest step fits.
    """
    began = time.monotonic()
    console = console or Console(stderr=True, soft_wrap=True)
    dataset = data if isinstance(data, DataSet) else plan.open_data(data, config)
    config = make_config(config.model_dump(), {"data": {"check": False, "on_bad_file": "skip"}})
    accelerator = plan.make_accelerator(config.train)
    if accelerator.num_processes > 1:
        raise ConfigError("--preflight measures one process; start it without torchrun or accelerate launch")
    device, wanted = accelerator.device, config.train.batch_size
    measured: list[Measured] = []
    with reused_memory(device), tempfile.TemporaryDirectory() as nowhere, console.status("measuring steps"):
        work = prepare(dataset, config, Path(nowhere), accelerator, None, Watch())
        room, idle = _room(device), _held(device)
        size = min(2, wanted)
        while True:
            found = _measure(work, size, seconds / 6)
            if found is None:
                break
            measured.append(found)
            left = seconds * 0.6 - (time.monotonic() - began)
            larger = min(wanted, 2 * size)
            if size == wanted or 2 * larger * found.seconds / size > left:
                break
            size = larger
        if not measured:
            raise TrainingError(
                f"not even {size} image(s) of {config.data.crop_size[0]}x{config.data.crop_size[1]} fit into "
                f"{room / 2**30:.1f} GiB; lower --data.crop_size, or set --train.checkpoint_backbone"
            )
        stages = measure_stages(
            work.readers.pairs, dataset.classes, config.data, config.model.in_channels,
            work.info.mean, work.info.std, samples=8,
        )  # fmt: skip
    return propose(config, str(device), measured, idle, room, sum(map(median, stages.values())), _image_size(dataset))


def propose(
    config: Config,
    device: str,
    measured: list[Measured],
    idle_bytes: int,
    room: int,
    loading: float,
    image_size: tuple[int, int],
    cores: int | None = None,
) -> Preflight:
    """What follows from steps that were measured, `loading` seconds that one process needs for an image, and cores.

    `idle_bytes` were held before the first step: the other end of the line where one batch size alone was measured.

    The images of an optimizer step stay as many as they were: where they do not fit at once, they come in parts whose
    gradients are averaged. A crop is made smaller where the largest scaled image is, or where two images do not fit.
    """
    settings, data = config.train, config.data
    seconds = line_through([(part.batch_size, part.seconds) for part in measured])
    idle = [(0, float(idle_bytes))] if len(measured) == 1 else []
    memory = line_through(idle + [(part.batch_size, float(part.peak_bytes)) for part in measured])
    images = settings.batch_size * settings.accumulation
    fitting = [size for size in range(1, images + 1) if images % size == 0 and memory(size) <= _USABLE * room]
    best = max(fitting, default=1)
    batch = best if settings.accumulation > 1 or best < settings.batch_size else settings.batch_size
    stride = config.model.output_stride
    crop = _crop(data.crop_size, image_size, data.scale[1], stride)
    if not fitting:
        shrink = math.sqrt(max(0.05, (_USABLE * room - memory(0)) / max(1.0, memory(1) - memory(0))))
        height, width = (max(stride, math.floor(side * shrink / stride) * stride) for side in crop)
        crop = height, width
    compute = seconds(settings.batch_size)
    cores = cores or available_cores()
    spare = cores - 1 if device == "cpu" else cores
    workers = max(1, min(math.ceil(1.2 * loading * settings.batch_size / compute), spare))
    reading = loading * settings.batch_size / max(1, min(data.workers, cores))
    waiting = max(0.0, reading - compute) if data.workers else reading
    return Preflight(
        device=device,
        measured=tuple(measured),
        seconds_per_step=(compute + waiting) * settings.accumulation,
        peak_bytes=round(memory(settings.batch_size)),
        room_bytes=room,
        extrapolated=measured[-1].batch_size < settings.batch_size,
        loader_share=waiting / (compute + waiting),
        batch_size=batch,
        accumulation=images // batch,
        crop_size=crop,
        workers=workers,
    )


def _measure(work: Work, size: int, most: float) -> Measured | None:
    """Steps of `size` images, the first of which warms up; None where they do not fit."""
    device = work.run.accelerator.device
    train = {"batch_size": size, "accumulation": 1}
    part = replace(work, config=make_config(work.config.model_dump(), {"train": train}))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batches = TimedBatches(remaining_batches(part), size)
    taken: list[float] = []
    began = time.monotonic()
    try:
        for step in islice(range(part.config.train.steps), 6):
            batches.restart()
            optimizer_step(part, batches, step)
            taken.append(time.monotonic() - batches.began - batches.waited)
            if time.monotonic() - began > most:
                break
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return None
    finally:
        part.run.optimizer.zero_grad()
    return Measured(size, median(taken[1:] or taken), _peak(device))


def _crop(crop: tuple[int, int], image: tuple[int, int], scale: float, stride: int) -> tuple[int, int]:
    """The crop, but no larger than a scaled image is, in whole strides of the network."""
    largest = (math.ceil(image[0] * scale), math.ceil(image[1] * scale))
    height, width = (
        side if side <= most else math.ceil(most / stride) * stride for side, most in zip(crop, largest, strict=True)
    )
    return height, width


def _image_size(dataset: DataSet) -> tuple[int, int]:
    """Height and width of a typical training image."""
    sizes = [pair_size(pair) for pair in dataset.splits["train"][:16]]
    return round(median(height for height, _ in sizes)), round(median(width for _, width in sizes))


def _room(device: torch.device) -> int:
    """Bytes that this process has or could have."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
    return int(psutil.virtual_memory().available) + int(psutil.Process().memory_info().rss)


def _held(device: torch.device) -> int:
    """What is held now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def _peak(device: torch.device) -> int:
    """The most that steps have held: what CUDA counted; on a CPU what is held now, for nothing was given back."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else _held(device)
