"""Semantic segmentation with asymmetric non-local attention: train, measure, run and ship.

Every name here is loaded when it is first used, so `import asymseg` itself is fast and does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asymseg.classes import Classes
    from asymseg.config import Config
    from asymseg.data.audit.audit import audit
    from asymseg.errors import AsymsegError, CheckpointError, ConfigError, DataError, ExportError, TrainingError
    from asymseg.evaluation.compare import compare
    from asymseg.evaluation.evaluate import evaluate
    from asymseg.exporting.export import export
    from asymseg.model.annnet import ANNNet
    from asymseg.model.folding import fold
    from asymseg.model.foreign.exporting import export_mmseg
    from asymseg.model.hub import from_pretrained, push_to_hub
    from asymseg.prediction.loading import load
    from asymseg.prediction.predict import Predictor
    from asymseg.prediction.raster.predict import predict_raster
    from asymseg.prediction.video import predict_video
    from asymseg.training.train import train

    __version__: str

__all__ = [
    "ANNNet",
    "AsymsegError",
    "CheckpointError",
    "Classes",
    "Config",
    "ConfigError",
    "DataError",
    "ExportError",
    "Predictor",
    "TrainingError",
    "__version__",
    "audit",
    "compare",
    "evaluate",
    "export",
    "export_mmseg",
    "fold",
    "from_pretrained",
    "load",
    "predict_raster",
    "predict_video",
    "push_to_hub",
    "train",
]

_HOMES = {
    "ANNNet": "asymseg.model.annnet",
    "AsymsegError": "asymseg.errors",
    "CheckpointError": "asymseg.errors",
    "Classes": "asymseg.classes",
    "Config": "asymseg.config",
    "ConfigError": "asymseg.errors",
    "DataError": "asymseg.errors",
    "ExportError": "asymseg.errors",
    "Predictor": "asymseg.prediction.predict",
    "TrainingError": "asymseg.errors",
    "audit": "asymseg.data.audit.audit",
    "compare": "asymseg.evaluation.compare",
    "evaluate": "asymseg.evaluation.evaluate",
    "fold": "asymseg.model.folding",
    "export": "asymseg.exporting.export",
    "export_mmseg": "asymseg.model.foreign.exporting",
    "from_pretrained": "asymseg.model.hub",
    "load": "asymseg.prediction.loading",
    "predict_raster": "asymseg.prediction.raster.predict",
    "predict_video": "asymseg.prediction.video",
    "push_to_hub": "asymseg.model.hub",
    "train": "asymseg.training.train",
}


def __getattr__(name: str) -> Any:
    """The public name, loaded from its module and kept."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'asymseg' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("asymseg")
    except PackageNotFoundError:  # run from a source folder that was never installed
        return "unknown"
