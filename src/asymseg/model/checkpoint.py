"""A model on disk: a folder with `model.safetensors`, `config.json` and a model card. Nothing in it can run."""

import json
import math
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from asymseg.atomic import atomic_folder, surviving_folder
from asymseg.classes import Classes
from asymseg.errors import AsymsegError, CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.folded import FoldedANNNet
from asymseg.model.folding import fold
from asymseg.model.seeing import Seeing

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
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

    @property
    def scales(self) -> tuple[float, ...]:
        return self.seeing.scales

    @property
    def flip(self) -> bool:
        return self.seeing.flip


def save_model(folder: Path, network: ANNNet | FoldedANNNet, info: ModelInfo) -> None:
    """Write a model folder, whole or not at all; an older one of that name is replaced.

    A backbone that was passed in has no name to save; who loads the folder passes it in again.
    """
    with atomic_folder(folder) as temporary:
        write_model(temporary, network, info)


def write_model(folder: Path, network: ANNNet | FoldedANNNet, info: ModelInfo) -> None:
    """The files of a model, into a folder that exists."""
    # Tensors that share memory or layout tricks (channels_last) become plain ones: the file is the same for both.
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config = describe_model(network, info)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_model_card(network, info), encoding="utf-8")


def describe_model(network: ANNNet | FoldedANNNet, info: ModelInfo) -> dict[str, Any]:
    """What stands in a model folder's config.json, and in an exported file."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "asymseg": version("asymseg"),
        "network": network.settings,
        **info.classes.to_dict(),
        "preprocessing": {"mean": info.mean, "std": info.std, "channel_order": info.channel_order},
        "prediction": asdict(info.seeing),
        "holdout": info.holdout,
        "source": info.source,
        "license": info.license,
        "metrics": info.metrics,
    }


def load_model(folder: Path, backbone: nn.Module | None = None) -> tuple[ANNNet | FoldedANNNet, ModelInfo]:
    """The network, in evaluation mode on the CPU, and what travels with it.

    `backbone` is needed where the network was built around a module of your own. Raises CheckpointError that names
    the file and the fault.
    """
    found = surviving_folder(folder)
    if found is None or not (found / CONFIG).is_file():
        raise CheckpointError(
            f"{folder}: not a model folder (no {CONFIG} in it); asymseg train writes them to runs/NAME/best"
        )
    config = _read_config(found / CONFIG)
    settings = dict(config["network"])
    if settings.get("backbone") is None:
        if backbone is None:
            raise CheckpointError(
                f"{found}: its backbone is a module of its author's; load it with load_model(folder, backbone)"
            )
        settings["backbone"] = backbone
    preprocessing, prediction = config["preprocessing"], config.get("prediction", {})
    try:
        settings |= {name: tuple(settings[name]) for name in ("pool_sizes", "stages")}
        folded = settings.pop("folded", False)
        network: ANNNet | FoldedANNNet = ANNNet(pretrained=False, **settings)  # so a folder cannot ask for a download
        if folded:
            network = fold(network)  # has the parts of the one that was saved; the weights are read below
        info = ModelInfo(
            classes=Classes.from_dict(config, str(found / CONFIG)),
            mean=_numbers(preprocessing["mean"], "mean"),
            std=_numbers(preprocessing["std"], "std", above=0.0),
            channel_order=preprocessing.get("channel_order", "RGB"),
            seeing=_seeing(prediction),
            holdout=_numbers([config.get("holdout", 0.1)], "holdout", above=0.0)[0],
            source=config.get("source", ""),
            license=config.get("license", ""),
            metrics=config.get("metrics", {}),
        )
        if len(info.mean) != len(info.std) or info.channel_order not in ("RGB", "BGR"):
            raise CheckpointError("mean and std differ in length, or channel_order is neither RGB nor BGR")
    except (AsymsegError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{found / CONFIG}: does not describe a model this version can build ({error})") from None
    if len(info.classes) != network.num_classes:
        raise CheckpointError(
            f"{found / CONFIG}: lists {len(info.classes)} classes for a network of {network.num_classes}"
        )
    load_weights(network, found / WEIGHTS)
    return network.eval(), info


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a safetensors file, every tensor or none. Raises CheckpointError that lists what differs."""
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the model folder is not complete") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy or train the model again") from None
    expected = network.state_dict()
    faults = [f"lacks {name}" for name in expected.keys() - weights.keys()]
    faults += [f"has an unknown {name}" for name in weights.keys() - expected.keys()]
    faults += [
        f"{name} is {tuple(weights[name].shape)} and not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        raise CheckpointError(
            f"{path}: does not fit the network of {CONFIG} "
            f"({len(faults)} faults, first: {'; '.join(sorted(faults)[:3])}); copy or train the model again"
        )
    network.load_state_dict(weights)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f'{path}: not the description of an asymseg model ("format" is not {FORMAT!r})')
    if config.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {config.get('version')!r}, this program reads {FORMAT_VERSION}; upgrade asymseg"
        )
    if not isinstance(config.get("network"), dict) or not isinstance(config.get("preprocessing"), dict):
        raise CheckpointError(f'{path}: lacks "network" or "preprocessing"')
    expected = {"prediction": dict, "metrics": dict, "source": str, "license": str}
    wrong = [name for name, kind in expected.items() if not isinstance(config.get(name, kind()), kind)]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong)}: not of the kind that asymseg writes")
    return config


def _seeing(prediction: dict[str, Any]) -> Seeing:
    """How the model sees an image; folders of earlier versions hold scales and flip alone."""
    known: dict[str, Any] = {name: prediction[name] for name in ("mode", "weighting", "average") if name in prediction}
    known |= {name: tuple(prediction[name]) for name in ("window", "stride") if prediction.get(name) is not None}
    scales = _numbers(prediction.get("scales", [1.0]), "scales", above=0.0)
    return Seeing(**known, scales=scales, flip=bool(prediction.get("flip", False)))


def _numbers(values: Any, name: str, above: float = -math.inf) -> tuple[float, ...]:
    if not isinstance(values, list) or not values or not all(type(v) in (int, float) and v > above for v in values):
        limit = "" if above == -math.inf else f" above {above:g}"
        raise CheckpointError(f"{name} must be a list of numbers{limit}, not {values!r}")
    return tuple(float(value) for value in values)


def _model_card(network: ANNNet | FoldedANNNet, info: ModelInfo) -> str:
    settings = network.settings
    lines = [
        "# Semantic segmentation with asymmetric non-local attention",
        "",
        f"- network: ANNNet, backbone {settings['backbone'] or 'of its own'}, fusion {settings['fusion']}, context "
        f"{settings['context']}, output stride {settings['output_stride']}, {parameter_count(network):,} parameters",
        f"- classes ({len(info.classes)}): {', '.join(info.classes.names)}",
        f"- licence: {info.license or 'not stated'}",
        f"- source: {info.source or 'not stated'}",
    ]
    lines += [f"- {name}: {value}" for name, value in info.metrics.items() if isinstance(value, int | float | str)]
    lines += ["", "Use it:", "", "    asymseg predict THIS_FOLDER IMAGE -o OUT", ""]
    return "\n".join(lines)
