"""What is told of the models that are served."""

import math
from typing import Any

from asymseg.serving.answering import list_classes
from asymseg.serving.models import Models


def describe(models: Models, name: str) -> dict[str, Any]:
    """A `ModelDescription`."""
    loaded = models.workers[name].model
    predictor, info = loaded.predictor, loaded.predictor.info
    return {
        "name": name,
        "version": loaded.version,
        "classes": list_classes(info.classes),
        "parameters": predictor.parameters,
        "preprocessing": {
            "channels": len(info.mean),
            "mean": info.mean,
            "std": info.std,
            "channel_order": info.channel_order,
        },
        "seeing": str(info.seeing),
        "license": info.license,
        "source": info.source,
        "metrics": _finite(info.metrics),
        "attention": predictor.attends,
        "device": str(predictor.device),
        "fault": models.faults.get(name),
    }


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no word for: the score of a class that never occurred."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def readiness(models: Models) -> dict[str, Any]:
    """A `Ready`; it may be read without a key, so it holds no more than it must."""
    return {
        "ready": True,
        "models": {
            name: {"version": worker.model.version, "reload_failed": name in models.faults}
            for name, worker in models.workers.items()
        },
    }
