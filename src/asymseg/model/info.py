"""What must travel with weights so that they mean the same elsewhere, and its form in config.json. Needs no torch."""

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from asymseg.classes import Classes
from asymseg.errors import AsymsegError, CheckpointError
from asymseg.model.seeing import Seeing

FORMAT = "asymseg-model"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelInfo:
    """What must travel with weights so that they mean the same elsewhere.

    `mean` and `std` are per channel, on the 0..1 scale, in the order of `channel_order`. `seeing` says how the model
    was measured, and so how it predicts.
    """

    classes: Classes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: Literal["RGB", "BGR"] = "RGB"
    seeing: Seeing = field(default_factory=Seeing)
    holdout: float = 0.1
    """Share of the training images that was kept for validation, where the data has no val split of its own."""
    source: str = ""
    license: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    def describe(self, network: dict[str, Any]) -> dict[str, Any]:
        """What stands in a model folder's config.json, and in an exported file; `network` is how it is built."""
        made_up: dict[str, Any] = {"palette": self.classes.palette, "palette_declared": False}
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "asymseg": version("asymseg"),
            "network": network,
            **self.classes.to_dict(),
            **({} if self.classes.declared_palette else made_up),
            "preprocessing": {"mean": self.mean, "std": self.std, "channel_order": self.channel_order},
            "prediction": asdict(self.seeing),
            "holdout": self.holdout,
            "source": self.source,
            "license": self.license,
            "metrics": self.metrics,
        }

    @classmethod
    def from_description(cls, content: dict[str, Any], where: str) -> "ModelInfo":
        """Check and read what `read_description` gives; `where` names its place in messages. Raises CheckpointError."""
        preprocessing, prediction = content["preprocessing"], content.get("prediction", {})
        if content.get("palette_declared") is False:  # made up anew, they say nothing about RGB masks here either
            content = {name: value for name, value in content.items() if name != "palette"}
        try:
            info = cls(
                classes=Classes.from_dict(content, where),
                mean=_numbers(preprocessing["mean"], "mean"),
                std=_numbers(preprocessing["std"], "std", above=0.0),
                channel_order=preprocessing.get("channel_order", "RGB"),
                seeing=_seeing(prediction),
                holdout=_numbers([content.get("holdout", 0.1)], "holdout", above=0.0)[0],
                source=content.get("source", ""),
                license=content.get("license", ""),
                metrics=content.get("metrics", {}),
            )
            if len(info.mean) != len(info.std) or info.channel_order not in ("RGB", "BGR"):
                raise CheckpointError("mean and std differ in length, or channel_order is neither RGB nor BGR")
        except (AsymsegError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: does not describe a model this version can use ({error})") from None
        return info


def read_description(text: str, where: str) -> dict[str, Any]:
    """The JSON that `ModelInfo.describe` gave, its parts of the kinds they must be. Raises CheckpointError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not readable as JSON ({error}); copy or export the model again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f'{where}: not the description of an asymseg model ("format" is not {FORMAT!r})')
    if content.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{where}: format version {content.get('version')!r}, this program reads {FORMAT_VERSION}; upgrade asymseg"
        )
    if not isinstance(content.get("network"), dict) or not isinstance(content.get("preprocessing"), dict):
        raise CheckpointError(f'{where}: lacks "network" or "preprocessing"')
    expected = {"prediction": dict, "metrics": dict, "source": str, "license": str}
    wrong = [name for name, kind in expected.items() if not isinstance(content.get(name, kind()), kind)]
    if wrong:
        raise CheckpointError(f"{where}: {', '.join(wrong)}: not of the kind that asymseg writes")
    return content


def _seeing(prediction: dict[str, Any]) -> Seeing:
    """How the model sees an image; folders of earlier versions hold scales and flip alone."""
    known: dict[str, Any] = {name: prediction[name] for name in ("mode", "weighting", "average") if name in prediction}
    known |= {name: tuple(prediction[name]) for name in ("window", "stride") if prediction.get(name) is not None}
    scales = _numbers(prediction.get("scales", [1.0]), "scales", above=0.0)
    return Seeing(**known, scales=scales, flip=bool(prediction.get("flip", False)))


def _numbers(values: Any, name: str, above: float = -math.inf) -> tuple[float, ...]:
    if not isinstance(values, list) or not values or not all(_is_number(v) and v > above for v in values):
        limit = "" if above == -math.inf else f" above {above:g}"
        raise CheckpointError(f"{name} must be a list of numbers{limit}, not {values!r}")
    return tuple(float(value) for value in values)


def _is_number(value: Any) -> bool:
    """JSON can hold whole numbers that are larger than any float, and what is none."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
