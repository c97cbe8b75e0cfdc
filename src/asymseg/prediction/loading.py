"""A predictor from whatever names a model."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asymseg.atomic import surviving_folder
from asymseg.errors import ConfigError
from asymseg.model.download import file_sha256
from asymseg.model.seeing import Seeing
from asymseg.prediction.device import Device, Precision
from asymseg.prediction.onnx.runtime import OnnxPredictor

if TYPE_CHECKING:
    import asymseg.prediction.predict


@dataclass(frozen=True)
class Model:
    """A predictor in words: what `load` and `seeing` are told, so that another process can have the same."""

    source: str
    seeing: Seeing
    device: Device = "auto"
    precision: Precision = "auto"
    compile: bool = False
    fold: bool = True


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


def model_files(source: str | Path) -> tuple[Path, ...]:
    """The files that `load` reads, enough to load the same model elsewhere; fetched if not here yet.

    Raises CheckpointError.
    """
    path = Path(source)
    if path.suffix != ".onnx":
        from asymseg.model.checkpoint import CONFIG, WEIGHTS
        from asymseg.model.source import find_model

        path = find_model(source)
        folder = surviving_folder(path)
        if folder is not None:
            return folder / CONFIG, folder / WEIGHTS
    return (path,)


def made_with(model: Model) -> dict[str, Any]:
    """All of a predictor that its results depend on, in plain values: hashes of the model's files, and settings.

    Raises CheckpointError.
    """
    files = {path.name: file_sha256(path) for path in model_files(model.source)}
    arithmetic = {name: getattr(model, name) for name in ("device", "precision", "compile", "fold")}
    plain: dict[str, Any] = json.loads(json.dumps({**files, **asdict(model.seeing), **arithmetic}))
    return plain
