"""A predictor from whatever names a model."""

from pathlib import Path
from typing import TYPE_CHECKING

from asymseg.errors import ConfigError
from asymseg.prediction.device import Device, Precision
from asymseg.prediction.runtime import OnnxPredictor

if TYPE_CHECKING:
    import asymseg.prediction.predict


def load(
    source: str | Path,
    device: Device = "auto",
    *,
    precision: Precision = "auto",
    compile: bool = False,
    fold: bool = True,
) -> "asymseg.prediction.predict.Predictor | OnnxPredictor":
    """A predictor from whatever names a model: see `asymseg.model.source.open_model`.

    That is a model folder; a run's folder, whose best model is taken; a checkpoint file of the authors',
    mmsegmentation's or PaddleSeg's; a name that `asymseg models` lists; or OWNER/NAME on the hub. What is not here yet
    is downloaded once and kept. The other arguments are those of `Predictor`.

    A file of `asymseg export` that ends in .onnx is run by onnxruntime, and torch is not loaded: see `OnnxPredictor`.

    Raises:
        CheckpointError: There is no such model, or it cannot be loaded.
        ConfigError: Arguments that have no effect on it, or a device that is not there.
    """
    if Path(source).suffix == ".onnx":
        if precision not in ("auto", "fp32") or compile or not fold:
            raise ConfigError(f"{source}: precision, compile and fold are those of the export; leave them out")
        return OnnxPredictor(source, device)
    import torch

    from asymseg.model.source import open_model
    from asymseg.prediction.predict import Predictor

    network, info = open_model(source)
    network = network.to(memory_format=torch.channels_last)
    return Predictor(network, info, device, precision=precision, compile=compile, fold=fold)
