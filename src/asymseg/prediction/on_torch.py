"""An exported file where a network is asked for: measured, compared and run over rasters by all that takes tensors."""

import hashlib

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from asymseg.errors import ConfigError
from asymseg.prediction.predict import Predictor
from asymseg.prediction.runtime import OnnxPredictor


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
        x = images.contiguous().numpy()
        return torch.from_numpy(self.runtime.logits(self._as_bytes(x) if self.runtime.signature.from_bytes else x))

    def _as_bytes(self, x: Float[np.ndarray, "b c h w"]) -> UInt8[np.ndarray, "b c h w"]:
        """The RGB bytes that were normalised. Raises DataError where these were none."""
        info = self.runtime.info
        mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (info.mean, info.std))
        numbers = 255 * (x * std + mean)
        nearest = np.rint(numbers)
        if np.abs(numbers - nearest).max() > 0.01:
            raise self.runtime.no_bytes()
        given: np.ndarray = nearest.astype(np.uint8)
        return given[:, ::-1] if info.channel_order == "BGR" else given


def on_torch(predictor: Predictor | OnnxPredictor) -> Predictor:
    """The same predictor with tensors; its file is still run by onnxruntime.

    Raises ConfigError for a file that gives class maps.
    """
    if isinstance(predictor, Predictor):
        return predictor
    if predictor.signature.output == "class_map":
        raise ConfigError(f"{predictor.path}: gives class maps and no scores; export it with --output logits")
    wrapped = Predictor(FileNetwork(predictor), predictor.info, "cpu", fold=False)
    wrapped.parameters = predictor.parameters
    return wrapped
