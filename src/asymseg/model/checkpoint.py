"""A model on disk: a folder with `model.safetensors`, `config.json` and a model card. Nothing in it can run."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from asymseg.atomic import atomic_folder, surviving_folder
from asymseg.errors import AsymsegError, CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.folded import FoldedANNNet
from asymseg.model.folding import fold
from asymseg.model.info import ModelInfo, read_description

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


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
    config = info.describe(network.settings)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_model_card(network, info), encoding="utf-8")


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
    info = ModelInfo.from_description(config, str(found / CONFIG))
    try:
        settings |= {name: tuple(settings[name]) for name in ("pool_sizes", "stages")}
        for name in ("align_corners", "refine", "folded"):  # what is wrong with the others, the network says itself
            if type(settings.get(name, False)) is not bool:
                raise TypeError(f"{name} = {str(settings[name])[:60]!r} is neither true nor false")
        folded = settings.pop("folded", False)
        network: ANNNet | FoldedANNNet = ANNNet(pretrained=False, **settings)  # so a folder cannot ask for a download
        if folded:
            network = fold(network)  # has the parts of the one that was saved; the weights are read below
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
        raise CheckpointError(f"{path}: no such file; the model folder is not complete, copy it again") from None
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
    """How many numbers a network has as parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in network.parameters())


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}); copy or export the model again") from None
    return read_description(text, str(path))


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
