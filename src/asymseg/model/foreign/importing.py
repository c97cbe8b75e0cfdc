"""A network from somebody else's checkpoint, told apart by its keys."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asymseg.classes import Classes
from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.foreign import authors, mmseg, paddle
from asymseg.model.foreign.known_classes import numbered_classes
from asymseg.model.foreign.reading import DROPPED, read_checkpoint
from asymseg.model.foreign.translation import Translation, check_keys, fill
from asymseg.model.info import ModelInfo


@dataclass(frozen=True)
class Imported:
    """A checkpoint as a network here."""

    network: ANNNet
    """In evaluation mode."""
    info: ModelInfo
    dialect: str
    dropped: dict[str, str]
    """Keys that were left out on purpose -> why."""


def import_checkpoint(
    path: Path, classes: Classes | None = None, align_corners: bool | None = None
) -> tuple[ANNNet, ModelInfo]:
    """The network of a checkpoint, in evaluation mode on the CPU, and what travels with it.

    Args:
        path: A checkpoint of the authors' code, of mmsegmentation (ANN, FCN, PSPNet and non-local networks over
            ResNets, 0.x and 1.x) or of PaddleSeg. Its name says nothing; its keys do.
        classes: Names and colours, where the checkpoint has none; what it has goes first.
        align_corners: How logits are upsampled, where the checkpoint does not say it: mmsegmentation's networks for
            crops of 769 pixels have it true. Without effect on the others.

    Raises:
        CheckpointError: The file cannot be read, is of no known dialect, or has keys missing, unknown, of another
            shape or in two versions.
    """
    imported = read_foreign(path, classes, align_corners)
    return imported.network, imported.info


def read_foreign(path: Path, classes: Classes | None = None, align_corners: bool | None = None) -> Imported:
    """`import_checkpoint` with an account of what was left out."""
    tensors, meta = read_checkpoint(path)
    dropped = {key: DROPPED[key] for key in meta if key in DROPPED}
    # mmcv keeps its moving average in the network itself, and swaps the two before it saves.
    dropped |= {key: DROPPED["ema_state_dict"] for key in tensors if key.startswith("ema_") and "." not in key}
    tensors = {key: tensor for key, tensor in tensors.items() if key not in dropped}
    try:
        translation = _translate(tensors, meta, path.name, align_corners)
        with torch.device("meta"):  # so that shapes are compared before memory is taken
            blueprint = ANNNet(**translation.settings)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    check_keys(blueprint, translation, tensors, str(path))
    network = ANNNet(**translation.settings)
    repeated = fill(network, translation, tensors, str(path))
    dropped |= {key: "repeats another, to which it is equal" for key in repeated}
    info = translation.info
    if classes is not None and info.classes == numbered_classes(len(info.classes)):
        if len(classes) != network.num_classes:
            raise CheckpointError(f"{path}: its classifier has {network.num_classes} classes, not {len(classes)}")
        info = replace(info, classes=classes)
    return Imported(network.eval(), info, translation.dialect, dropped)


def _translate(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any], source: str, align_corners: bool | None
) -> Translation:
    """The dialect whose keys these are. Raises CheckpointError that says what they are instead."""
    keys = set(tensors)
    if mmseg.is_mmseg(keys):
        return mmseg.translate(tensors, meta, source, align_corners)
    if paddle.is_paddle(keys):
        return paddle.translate(tensors, meta, source)
    if authors.is_authors(keys):
        return authors.translate(tensors, meta, source)
    if any(key.startswith("backbone.features.") for key in keys):
        raise CheckpointError(
            "weights of asymseg's own without the settings that go with them; load the model folder, or build the "
            "ANNNet and use its load_state_dict"
        )
    if any(key.startswith(("layer1.0.", "bb_0_0.")) for key in keys):
        raise CheckpointError(
            "a backbone without a network for segmentation; train one with it: asymseg train --model.pretrained FILE"
        )
    raise CheckpointError(
        "weights of no network that asymseg knows (the authors', mmsegmentation's ANN, FCN, PSPNet and non-local "
        f"networks, PaddleSeg's ANN); its keys begin with {', '.join(key[:60] for key in list(tensors)[:3])}"
    )
