"""An exported file where a network is asked for: measured, compared and run over rasters by all that takes tensors."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from asymseg.errors import ConfigError
from asymseg.model.info import ModelInfo
from asymseg.prediction.onnx.runtime import OnnxPredictor, no_bytes
from asymseg.prediction.predict import Predictor


class FileNetwork(nn.Module):
    """What an exported file says of normalised images, as a network."""

    digest: Tensor

    def __init__(self, runtime: OnnxPredictor) -> None:
        super().__init__()
        self.runtime, self.settings = runtime, runtime.settings
        self.align_corners = bool(runtime.settings.get("align_corners", False))
        content = hashlib.sha256(runtime.path.read_bytes()).digest()
        self.register_buffer("digest", torch.tensor(list(content), dtype=torch.uint8))  # its weights are not to be had

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n h w"]:
        runtime, x = self.runtime, images.contiguous().numpy()
        x = as_bytes(x, runtime.info, runtime.path) if runtime.signature.from_bytes else x
        return torch.from_numpy(runtime.logits(x))


def as_bytes(x: Float[np.ndarray, "b c h w"], info: ModelInfo, where: str | Path) -> UInt8[np.ndarray, "b c h w"]:
    """The RGB bytes that were normalised, or those nearest to what another scale made of them.

    Raises DataError, which names `where`, if these were none.
    """
    mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (info.mean, info.std))
    numbers = 255 * (x * std + mean)
    nearest = np.rint(numbers)
    if info.seeing.scales == (1.0,) and np.abs(numbers - nearest).max() > 0.01:
        raise no_bytes(where)
    given: np.ndarray = nearest.clip(0, 255).astype(np.uint8)
    return given[:, ::-1] if info.channel_order == "BGR" else given


def file_network(runtime: OnnxPredictor) -> FileNetwork:
    """The file as a network. Raises ConfigError for one that gives class maps."""
    if runtime.signature.output == "class_map":
        raise ConfigError(f"{runtime.path}: gives class maps and no scores; export it with --output logits")
    return FileNetwork(runtime)


def on_torch(predictor: Predictor | OnnxPredictor) -> Predictor:
    """The same predictor with tensors; its file is still run by onnxruntime.

    Raises ConfigError for a file that gives class maps.
    """
    if isinstance(predictor, Predictor):
        return predictor
    wrapped = Predictor(file_network(predictor), predictor.info, "cpu", fold=False)
    wrapped.parameters = predictor.parameters
    return wrapped
