"""Where and how a network runs: device, precision, folding, compilation."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.data.transforms import normalise
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet, pad_for
from asymseg.model.folded import FoldedANNNet
from asymseg.model.folding import fold
from asymseg.model.info import ModelInfo
from asymseg.model.memory import reused_memory
from asymseg.prediction.device import Device, Precision

_WHOLE = (ANNNet.forward, FoldedANNNet.forward)

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: Device) -> torch.device:
    """`auto` is a CUDA or Apple GPU where there is one, else the CPU. Raises ConfigError for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device = {device!r} is none; give auto, cpu, cuda, cuda:1 or mps") from None
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device = {device!r} cannot be used here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from None
    return chosen


def prepare(network: nn.Module, device: torch.device, *, folding: bool) -> nn.Module:
    """The network as it is run on a device: folded where it can be, its channels side by side in memory."""
    if folding and type(network) is ANNNet:  # a subclass may compute something else
        network = fold(network).to(memory_format=torch.channels_last)
    return network.to(device).eval()


def normalised(image: Shaped[Tensor, "c h w"], info: ModelInfo, device: torch.device) -> Float[Tensor, "1 c h w"]:
    """An image from `read_image` as a network takes it."""
    if device.type == "cuda":
        image = image.pin_memory().to(device, non_blocking=True)
    if info.channel_order == "BGR":
        image = image.flip(0)
    return normalise(image.to(device), info.mean, info.std)[None]


def scaled(pixels: Float[Tensor, "b c h w"], seen: tuple[int, int]) -> Float[Tensor, "b c _ _"]:
    """The pixels at the size at which a network sees them; themselves where it is their own."""
    same = (pixels.shape[2], pixels.shape[3]) == seen
    return pixels if same else F.interpolate(pixels, seen, mode="bilinear", antialias=True)


class Coarse:
    """A network up to its coarse logits, which `upsampling` brings to the size of the image.

    `auto` is fp32: half precision changes which class wins at some pixels, and that is for the user to allow. fp16 has
    no numbers above 65504: ConfigError where the logits were made of such. A compiled network is compiled anew for each
    size of image; `compile_seconds` says how long each took.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision, *, compiling: bool) -> None:
        if precision not in get_args(Precision):
            raise ConfigError(f"precision = {precision!r} is not one of {', '.join(get_args(Precision))}")
        self.network, self.device, self.precision, self.compiling = network, device, precision, compiling
        self.compile_seconds: dict[tuple[int, ...], float] = {}
        self._compiled: Callable[[Tensor], Tensor] | None = None  # not `_plain`: what holds itself is freed late
        if compiling:
            self._compiled = torch.compile(self._plain, dynamic=False, options={"freezing": device.type == "cpu"})

    def __call__(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n i j"], tuple[int, int]]:
        """Coarse logits in float32, and the height and width in pixels that they stand for."""
        with self.running():
            padded = pad_for(getattr(self.network, "backbone", self.network), images)
            padded = padded.contiguous(memory_format=torch.channels_last)
            first = self.compiling and tuple(padded.shape) not in self.compile_seconds
            began = time.monotonic()
            logits = (self._compiled or self._plain)(padded).float()
            if first:
                self.compile_seconds[tuple(padded.shape)] = time.monotonic() - began
        if self.precision == "fp16" and not logits.isfinite().all():  # they would make a mask all the same
            raise ConfigError("numbers within the network are too large for fp16; use the precision bf16 or fp32")
        return logits, (padded.shape[2], padded.shape[3])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Memory and precision as the network has them here, for whoever runs its parts."""
        with reused_memory(self.device), _autocast(self.device, self.precision):
            yield

    def _plain(self, images: Tensor) -> Tensor:
        network = self.network
        # A subclass whose forward does more is asked as a whole.
        if isinstance(network, ANNNet | FoldedANNNet) and type(network).forward in _WHOLE:
            return network.head(*network.backbone(images))
        logits: Tensor = network(images)
        return logits


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    return torch.autocast(device.type, _HALF.get(precision), enabled=precision in _HALF)
