"""The machine that is measured: its name, its settings for the time of a benchmark, and its own highest rates."""

import os
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from torch import Tensor

from asymseg import __version__
from asymseg.benchmarking.measure import Call, seconds_of
from asymseg.benchmarking.settings import BenchmarkSettings, Precision
from asymseg.errors import ConfigError
from asymseg.model.memory import reused_memory
from asymseg.prediction.execution import choose_device

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def prepared(settings: BenchmarkSettings) -> Iterator[torch.device]:
    """The device of a benchmark, with its number of threads and its seed; threads are put back at the end."""
    device = choose_device(settings.device)
    if "tf32" in settings.precision and device.type != "cuda":
        raise ConfigError("--precision tf32 is an arithmetic of NVIDIA GPUs; leave it out or choose --device cuda")
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    torch.manual_seed(0)
    try:
        yield device
    finally:
        torch.set_num_threads(threads)


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Let float32 on a GPU be full float32, or TF32 where that is asked for. torch's own default mixes the two."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Half precision where it is asked for. To be entered in every call: it keeps weights that it has converted."""
    return torch.autocast(device.type, HALF[precision]) if precision in HALF else nullcontext()


def evaluating(function: Callable[..., Tensor], *inputs: Tensor, precision: Precision) -> Call:
    """A call of `function` as in prediction: without gradients, at this precision."""

    def call() -> tuple[Tensor]:
        with torch.inference_mode(), autocast(precision, inputs[0].device):
            return (function(*inputs),)

    return call


def in_reused_memory(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` with its memory kept from call to call, as the predictor runs a network."""

    def keeping(*inputs: Tensor) -> Tensor:
        with reused_memory(inputs[0].device):
            return function(*inputs)

    return keeping


def highest_rates(device: torch.device, precision: Precision, quick: bool) -> tuple[float, float]:
    """Bytes a second of a large copy, read and written, and multiply-adds a second of a large matrix product."""
    dtype = HALF.get(precision, torch.float32)
    length, side = (2**12, 32) if quick else (2**26, 8192 if device.type == "cuda" else 2048)
    source = torch.ones(length, dtype=dtype, device=device)
    target = torch.empty_like(source)
    matrix = torch.randn(side, side, device=device).to(dtype)
    product = torch.empty_like(matrix)

    def fastest(call: Call) -> float:
        seconds_of(call, device)
        return statistics.median(seconds_of(call, device) for _ in range(5))

    copied = 2 * source.nbytes / fastest(lambda: (target.copy_(source),))
    return copied, side**3 / fastest(lambda: (torch.mm(matrix, matrix, out=product),))


def facts(device: torch.device, command: str) -> dict[str, str]:
    """What a reader must know to judge the numbers, or to make them again."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "device": device_name(device),
        "threads": str(torch.get_num_threads()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "versions": f"asymseg {__version__}, torch {torch.__version__}, timm {version('timm')}",
        "python": f"{platform.python_version()} on {platform.system()}",
    }


def device_name(device: torch.device) -> str:
    """What the device calls itself, with the number of a CPU's cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = listing.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores" if device.type == "cpu" else f"{name}, {device.type}"
