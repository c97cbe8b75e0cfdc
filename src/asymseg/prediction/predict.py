"""Predictor: one image in, class ids and probabilities of its own size out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from asymseg.classes import Classes
from asymseg.data.files import image_tensor, read_image, write_mask
from asymseg.data.transforms import normalise
from asymseg.errors import ConfigError, DataError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import ModelInfo
from asymseg.model.source import open_model
from asymseg.prediction.overlay import draw_overlay

ImageSource = str | Path | Image.Image | np.ndarray | Tensor
Device = Literal["auto", "cpu", "cuda", "mps"] | str


@dataclass(frozen=True)
class Result:
    """What a model says about one image."""

    mask: UInt8[np.ndarray, "h w"]
    """Class ids."""
    probabilities: Float[np.ndarray, "n h w"]
    """Of each class, adding up to 1 at each pixel."""
    classes: Classes
    image: Tensor
    """The image as it was seen, C H W."""

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The image with the classes' colours over it."""
        return draw_overlay(self.image, self.mask, self.classes, opacity)

    def save(self, path: str | Path) -> None:
        """Write the mask as a palette PNG of class ids, whole or not at all."""
        write_mask(Path(path), torch.from_numpy(self.mask), self.classes)


class Predictor:
    """A network with all it needs to take real images.

    `network` takes normalised B C H W and gives logits; calling the predictor does everything around that.
    """

    def __init__(self, network: ANNNet, info: ModelInfo, device: Device = "auto") -> None:
        self.device = choose_device(device)
        self.network = network.to(self.device).eval()
        self.info = info

    def __call__(self, source: ImageSource) -> Result:
        """Predict a path, a PIL image, an array H W 3 of bytes, or a tensor C H W of bytes or floats 0..1."""
        image = to_tensor(source, len(self.info.mean))
        probabilities = self.probabilities(image)
        mask = probabilities.argmax(dim=0).to(torch.uint8)
        return Result(mask.cpu().numpy(), probabilities.cpu().numpy(), self.info.classes, image)

    @torch.inference_mode()
    def class_map(self, image: Tensor) -> UInt8[Tensor, "h w"]:
        """Class ids of an image C H W from `read_image`: what `probabilities(image).argmax(0)` gives, for less."""
        if len(self.info.scales) == 1 and not self.info.flip:
            return self._logits(image, self.info.scales[0], flip=False).argmax(dim=0).to(torch.uint8)
        return self.probabilities(image).argmax(dim=0).to(torch.uint8)

    @torch.inference_mode()
    def probabilities(self, image: Tensor) -> Float[Tensor, "n h w"]:
        """Class probabilities at the image's own size, averaged over the model's scales and flips."""
        views = [
            (scale, flip) for scale in self.info.scales for flip in ((False, True) if self.info.flip else (False,))
        ]
        total = self._logits(image, *views[0]).softmax(dim=0)
        for scale, flip in views[1:]:
            total += self._logits(image, scale, flip).softmax(dim=0)
        return total / len(views)

    def _logits(self, image: Tensor, scale: float, flip: bool) -> Float[Tensor, "n h w"]:
        """Logits at the image's own size, from the image seen at `scale` and perhaps mirrored."""
        size = image.shape[-2:]
        if self.info.channel_order == "BGR":
            image = image.flip(0)
        x = normalise(image, self.info.mean, self.info.std)[None].to(self.device)  # 1 c h w
        seen = [max(1, round(side * scale)) for side in size]
        if seen != list(size):
            x = F.interpolate(x, seen, mode="bilinear", antialias=True)
        if flip:
            x = x.flip(3)
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        if flip:
            logits = logits.flip(3)
        if seen != list(size):
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=self.network.align_corners)
        return logits[0].float()


def load(source: str | Path, device: Device = "auto") -> Predictor:
    """A predictor from whatever names a model: see `asymseg.model.source.open_model`.

    That is a model folder; a run's folder, whose best model is taken; a checkpoint file of the authors',
    mmsegmentation's or PaddleSeg's; a name that `asymseg models` lists; or OWNER/NAME on the hub. What is not here yet
    is downloaded once and kept. Raises CheckpointError.
    """
    network, info = open_model(source)
    return Predictor(network.to(memory_format=torch.channels_last), info, device)


def choose_device(device: Device) -> torch.device:
    """`auto` is a CUDA or Apple GPU where there is one, else the CPU. Raises ConfigError for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device = {device!r} cannot be used here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from None
    return chosen


def to_tensor(source: ImageSource, channels: int) -> Tensor:
    """Any image a user may hold, as C H W bytes or floats 0..1. Raises DataError."""
    if isinstance(source, str | Path):
        return read_image(Path(source), channels)
    if isinstance(source, Image.Image):
        return image_tensor(source, channels)
    if isinstance(source, Tensor):
        if source.dim() != 3:
            raise DataError(f"expected a tensor C H W, got the shape {tuple(source.shape)}")
        source = source.float() if source.is_floating_point() else source  # NumPy has no bfloat16
        source = source.detach().cpu().permute(1, 2, 0).numpy()  # c h w -> h w c
    if source.ndim not in (2, 3):
        raise DataError(f"expected an array H W or H W C, got the shape {source.shape}")
    return image_tensor(source, channels)
