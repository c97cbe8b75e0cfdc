"""Predictor: one image in, class ids and probabilities of its own size out."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.classes import Classes
from asymseg.data.files import image_tensor, read_image, write_mask
from asymseg.data.transforms import normalise
from asymseg.errors import DataError
from asymseg.model.checkpoint import ModelInfo, parameter_count
from asymseg.model.seeing import Average, Mode, Weighting
from asymseg.model.source import open_model
from asymseg.prediction.execution import Coarse, Device, Precision, prepare
from asymseg.prediction.execution import choose_device as choose_device
from asymseg.prediction.overlay import draw_overlay
from asymseg.prediction.upsampling import View, bands, upsampled

ImageSource = str | Path | Image.Image | np.ndarray | Tensor


class Result:
    """What a model says about one image."""

    mask: UInt8[np.ndarray, "h w"]
    """Class ids."""
    classes: Classes
    image: Tensor
    """The image as it was seen, C H W."""

    def __init__(
        self,
        mask: UInt8[np.ndarray, "h w"],
        classes: Classes,
        image: Tensor,
        probabilities: Callable[[], Float[np.ndarray, "n h w"]],
    ) -> None:
        self.mask, self.classes, self.image = mask, classes, image
        self._probabilities = probabilities

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n h w"]:
        """Of each class, adding up to 1 at each pixel; made when first asked for, since they are large."""
        return self._probabilities()

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The image with the classes' colours over it."""
        return draw_overlay(self.image, self.mask, self.classes, opacity)

    def save(self, path: str | Path) -> None:
        """Write the mask as a palette PNG of class ids, whole or not at all."""
        write_mask(Path(path), torch.from_numpy(self.mask), self.classes)


class Predictor:
    """A network with all it needs to take real images.

    `network` takes normalised B C H W and gives logits; calling the predictor does everything around that.

    Args:
        network: A trained network; with `fold` its evaluation form is made and used.
        info: What travels with the weights.
        device: auto is a GPU where there is one.
        precision: auto is fp32; bf16 and fp16 are faster on GPUs that have them, and change some pixels.
        compile: Compile the network, anew for each size of image; for many images of one size on a GPU.
        fold: Whether to use the network's evaluation form, which has the same logits.
    """

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        device: Device = "auto",
        *,
        precision: Precision = "auto",
        compile: bool = False,
        fold: bool = True,
    ) -> None:
        self.device = choose_device(device)
        self.parameters = parameter_count(network)
        self.network = prepare(network, self.device, folding=fold)
        self.info = info
        self.coarse = Coarse(self.network, self.device, precision, compiling=compile)

    def seeing(
        self,
        *,
        mode: Mode | None = None,
        window: tuple[int, int] | None = None,
        stride: tuple[int, int] | None = None,
        weighting: Weighting | None = None,
        scales: tuple[float, ...] | None = None,
        flip: bool | None = None,
        average: Average | None = None,
    ) -> "Predictor":
        """The same predictor, to see images otherwise: the words are those of `Seeing`, None keeps the model's own.

        Raises ConfigError.
        """
        other = copy.copy(self)
        seeing = self.info.seeing.changed(mode, window, stride, weighting, scales, flip, average)
        other.info = replace(self.info, seeing=seeing)
        return other

    def __call__(self, source: ImageSource) -> Result:
        """Predict a path, a PIL image, an array H W 3 of bytes, or a tensor C H W of bytes or floats 0..1."""
        image = to_tensor(source, len(self.info.mean))
        views = self._views(image)
        mask = self._class_map(views, image)
        return Result(mask.cpu().numpy(), self.info.classes, image, partial(self._as_array, views, image))

    def _as_array(self, views: list[View], image: Tensor) -> Float[np.ndarray, "n h w"]:
        return self._probabilities(views, image).cpu().numpy()

    def class_map(self, image: Tensor) -> UInt8[Tensor, "h w"]:
        """Class ids of an image C H W from `read_image`: what `probabilities(image).argmax(0)` gives, for less."""
        return self._class_map(self._views(image), image)

    def class_map_and_confidence(self, image: Tensor) -> tuple[UInt8[Tensor, "h w"], Float[Tensor, "h w"]]:
        """What `class_map` gives, and the probability of each pixel's class; the other classes' are never kept."""
        confidence = torch.empty(image.shape[1], image.shape[2], device=self.device)
        return self._class_map(self._views(image), image, confidence), confidence

    def probabilities(self, image: Tensor) -> Float[Tensor, "n h w"]:
        """Class probabilities at the image's own size, averaged over the model's scales and flips."""
        return self._probabilities(self._views(image), image)

    @torch.inference_mode()
    def _views(self, image: Tensor) -> list[View]:
        """Coarse logits of the image, once for each scale, mirrored and not."""
        if self.device.type == "cuda":
            image = image.pin_memory().to(self.device, non_blocking=True)
        if self.info.channel_order == "BGR":
            image = image.flip(0)
        pixels = normalise(image.to(self.device), self.info.mean, self.info.std)[None]  # 1 c h w
        size = image.shape[-2:]
        views = []
        for scale in self.info.scales:
            seen = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
            x = pixels if seen == size else F.interpolate(pixels, seen, mode="bilinear", antialias=True)
            for mirrored in (False, True) if self.info.flip else (False,):
                logits, covers = self.coarse(x.flip(3) if mirrored else x)
                views.append(View(logits, covers, seen, mirrored))
        return views

    @torch.inference_mode()
    def _class_map(
        self, views: list[View], image: Tensor, confidence: Float[Tensor, "h w"] | None = None
    ) -> UInt8[Tensor, "h w"]:
        """Class ids; `confidence`, if given, receives the probability of each."""
        size = (image.shape[1], image.shape[2])
        mask = torch.empty(size, dtype=torch.uint8, device=self.device)
        for rows in bands(views[0], size):
            scores = self._logits(views[0], size, rows) if len(views) == 1 else self._shares(views, size, rows)
            mask[rows] = scores.argmax(dim=0)
            if confidence is not None:
                best = scores.amax(dim=0)
                # of logits, the softmax of the largest
                confidence[rows] = best if len(views) > 1 else (scores - best).exp_().sum(dim=0).reciprocal_()
        return mask

    @torch.inference_mode()
    def _probabilities(self, views: list[View], image: Tensor) -> Float[Tensor, "n h w"]:
        size = (image.shape[1], image.shape[2])
        shares = torch.empty(views[0].logits.shape[1], *size, device=self.device)
        for rows in bands(views[0], size):
            shares[:, rows] = self._shares(views, size, rows)
        return shares

    def _shares(self, views: list[View], size: tuple[int, int], rows: slice) -> Float[Tensor, "n r w"]:
        """Probabilities of some rows, averaged over the views."""
        total = self._logits(views[0], size, rows).softmax(dim=0)
        for view in views[1:]:
            total += self._logits(view, size, rows).softmax(dim=0)
        return total.div_(len(views))

    def _logits(self, view: View, size: tuple[int, int], rows: slice) -> Float[Tensor, "n r w"]:
        return upsampled(view, size, rows, bool(getattr(self.network, "align_corners", False)))


def load(
    source: str | Path,
    device: Device = "auto",
    *,
    precision: Precision = "auto",
    compile: bool = False,
    fold: bool = True,
) -> Predictor:
    """A predictor from whatever names a model: see `asymseg.model.source.open_model`.

    That is a model folder; a run's folder, whose best model is taken; a checkpoint file of the authors',
    mmsegmentation's or PaddleSeg's; a name that `asymseg models` lists; or OWNER/NAME on the hub. What is not here yet
    is downloaded once and kept. The other arguments are those of `Predictor`. Raises CheckpointError.
    """
    network, info = open_model(source)
    network = network.to(memory_format=torch.channels_last)
    return Predictor(network, info, device, precision=precision, compile=compile, fold=fold)


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
